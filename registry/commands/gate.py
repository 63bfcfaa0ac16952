"""Applying the gate to a stored version: gather what the rules need, and turn the verdict into a state."""

from collections.abc import Mapping, Sequence

from registry.commands.context import Context
from registry.errors import NotFound
from registry.events import AnyEvent, CampaignItem, CampaignOpened, GateDecided
from registry.gate.decision import Subject, decide
from registry.gate.summary import suite_refs
from registry.records import GateReport, RatingRow, State, Status, Verdict
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
    return decide(subject_of(view, stored, policy), stored.evidence, [*ratings, *and_also])


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
