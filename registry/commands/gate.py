"""Applying the gate to a stored version: gather what the rules need, and turn the verdict into a state."""

from collections.abc import Hashable, Mapping, Sequence
from functools import lru_cache

from registry.commands.context import Context
from registry.errors import NotFound
from registry.events import AnyEvent, CampaignItem, CampaignOpened, GateDecided
from registry.gate.decision import Subject, decide
from registry.gate.summary import suite_refs
from registry.records import Evidence, GateReport, RatingRow, State, Status, Verdict
from registry.review import campaign as plan
from registry.storage.views import StoredVersion, View

# One spare output in ten (at least one), shown only to who skipped another.
SPARE_SHARE = 10


def assess(
    view: View, stored: StoredVersion, *, policy: str | None = None, and_also: Sequence[RatingRow] = ()
) -> GateReport:
    """The gate report of a version under the policy it is pinned to, or its adapter's where it is not sealed.

    policy: digest of another policy to judge by; what it asks for and was not measured is missing there.
    and_also: ratings that are about to be recorded.
    """
    policy = policy or stored.policy or _adapter_policy(view, stored.adapter)
    campaign = view.campaign_of(stored.adapter, stored.number)
    ratings = view.ratings(campaign.id) if campaign else []
    return _report(_Judged.of(subject_of(view, stored, policy), stored, (*ratings, *and_also)))


class _Judged:
    """What a report follows from, equal to another where all of it is; documents are compared by their digests."""

    def __init__(
        self, key: Hashable, subject: Subject, evidence: Evidence | None, ratings: Sequence[RatingRow]
    ) -> None:
        self.key, self.subject, self.evidence, self.ratings = key, subject, evidence, ratings

    @classmethod
    def of(cls, subject: Subject, stored: StoredVersion, ratings: tuple[RatingRow, ...]) -> "_Judged":
        facts = [
            tuple(fact.items()) if isinstance(fact, dict) else tuple(fact) if isinstance(fact, list) else fact
            for name, fact in subject._asdict().items()
            if name != "policy"
        ]
        return cls((*facts, stored.evidence_digest, ratings), subject, stored.evidence, ratings)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Judged) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=128)
def _report(judged: _Judged) -> GateReport:
    """Decided once: the same version is judged again with every promotion, rollback and look at its gate."""
    return decide(judged.subject, judged.evidence, judged.ratings)


def subject_of(view: View, stored: StoredVersion, policy_digest: str) -> Subject:
    policy = view.policy(policy_digest)
    registered = view.suites()
    suites = {ref: registered[ref] for ref in suite_refs(policy)}
    job = view.job_of(stored.adapter, stored.number)
    return Subject(
        ref=stored.ref,
        digest=stored.digest,
        policy_digest=policy_digest,
        policy=policy,
        sealed=stored.sealed_at is not None,
        has_training_record=stored.training is not None,
        suite_sizes={ref: suite.n_items for ref, suite in suites.items()},
        cut_off_limits={ref: suite.max_cut_off for ref, suite in suites.items()},
        chances={ref: suite.chance for ref, suite in suites.items() if suite.chance},
        warnings=[finding.message for finding in stored.findings],
        failure=job.reason if job and job.state == "failed" else None,
        revoked=stored.state is State.REVOKED,
    )


def decided(
    context: Context, stored: StoredVersion, report: GateReport, outputs: Mapping[str, tuple[str, str]]
) -> list[AnyEvent]:
    """The events that follow from a report: the new state, and a campaign if only people's ratings are missing.

    outputs: prompt and output by item, what a campaign is drawn from.
    """
    state = state_of(report)
    events: list[AnyEvent] = [GateDecided(adapter=stored.adapter, number=stored.number, state=state, report=report)]
    if state is State.IN_REVIEW and context.view.campaign_of(stored.adapter, stored.number) is None:
        events.append(open_campaign(context, stored, outputs))
    return events


def state_of(report: GateReport) -> State:
    if report.verdict is Verdict.NO_GO:
        return State.REJECTED
    if report.verdict is Verdict.GO:
        return State.APPROVABLE
    pending = {check.kind for check in report.checks if check.status is Status.PENDING}
    return State.IN_REVIEW if report.verdict is Verdict.PENDING and pending == {"review"} else State.INCONCLUSIVE


def open_campaign(context: Context, stored: StoredVersion, outputs: Mapping[str, tuple[str, str]]) -> CampaignOpened:
    """Draw the outputs and bind them by hash, before anyone has seen one."""
    assert stored.policy is not None and stored.evidence_digest is not None
    rule = context.view.policy(stored.policy).review
    wanted = rule.outputs + -(-rule.outputs // SPARE_SHARE)
    drawn = plan.draw(outputs, wanted, context.services.draw_secret, stored.digest, rule.suite)
    items = [
        CampaignItem(item=item, hash=plan.item_hash(stored.digest, stored.evidence_digest, item, *outputs[item]))
        for item in drawn
    ]
    return CampaignOpened(
        id=plan.campaign_id(stored.adapter, stored.digest, stored.policy),
        adapter=stored.adapter,
        number=stored.number,
        policy=stored.policy,
        suite=rule.suite,
        reviewers=rule.reviewers,
        items=items,
        root=plan.root([item.hash for item in items]),
    )


def _adapter_policy(view: View, adapter: str) -> str:
    if (stored := view.adapter(adapter)) is None:
        raise NotFound(f"adapter {adapter!r} does not exist")
    return stored.policy
