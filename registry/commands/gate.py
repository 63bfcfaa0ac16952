"""Applying the gate to a stored version: gather what the rules need, and turn the verdict into a state."""

from collections.abc import Hashable
from functools import lru_cache

from registry.commands.reviewed import Reviewed, reviewed
from registry.errors import NotFound
from registry.events import AnyEvent, GateDecided
from registry.gate.decision import Subject, decide
from registry.gate.summary import suite_refs
from registry.records import Evidence, GateReport, State, Status, Verdict
from registry.storage.views import StoredVersion, View


def assess(
    view: View, stored: StoredVersion, *, policy: str | None = None, found: Reviewed | None = None
) -> GateReport:
    """The gate report of a version under the policy it is pinned to, or its adapter's where it is not sealed.

    policy: digest of another policy to judge by; what it asks for and was not measured is missing there.
    found: what people said, where that is not yet recorded.
    """
    policy = policy or stored.policy or _adapter_policy(view, stored.adapter)
    found = found or reviewed(view, stored)
    return _report(_Judged.of(subject_of(view, stored, policy), stored, found))


class _Judged:
    """What a report follows from, equal to another where all of it is; documents are compared by their digests."""

    def __init__(self, key: Hashable, subject: Subject, evidence: Evidence | None, found: Reviewed) -> None:
        self.key, self.subject, self.evidence, self.found = key, subject, evidence, found

    @classmethod
    def of(cls, subject: Subject, stored: StoredVersion, found: Reviewed) -> "_Judged":
        facts = [
            tuple(fact.items()) if isinstance(fact, dict) else tuple(fact) if isinstance(fact, list) else fact
            for name, fact in subject._asdict().items()
            if name != "policy"
        ]
        return cls((*facts, stored.evidence_digest, found.key), subject, stored.evidence, found)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Judged) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)


@lru_cache(maxsize=128)
def _report(judged: _Judged) -> GateReport:
    """Decided once: the same version is judged again with every promotion, rollback and look at its gate."""
    return decide(judged.subject, judged.evidence, judged.found.rows, judged.found.facts)


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
        rejected=stored.rejected,
        waived=stored.training.waived if stored.training else {},
        reviews=stored.reviews,
    )


def decided(stored: StoredVersion, report: GateReport) -> list[AnyEvent]:
    """The event that follows from a report: it moves the version to its new state."""
    return [GateDecided(adapter=stored.adapter, number=stored.number, state=state_of(report), report=report)]


def state_of(report: GateReport) -> State:
    if report.verdict is Verdict.NO_GO:
        return State.REJECTED
    if report.verdict is Verdict.GO:
        return State.APPROVABLE
    pending = {check.kind for check in report.checks if check.status is Status.PENDING}
    return State.IN_REVIEW if report.verdict is Verdict.PENDING and pending == {"review"} else State.INCONCLUSIVE


def _adapter_policy(view: View, adapter: str) -> str:
    if (stored := view.adapter(adapter)) is None:
        raise NotFound(f"adapter {adapter!r} does not exist")
    return stored.policy
