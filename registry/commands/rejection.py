"""Rejection: a release manager refuses a version that was not approved yet, whatever its evidence says."""

from registry.commands.context import Context, Outcome
from registry.commands.gate import assess, state_of
from registry.commands.versions import describe, find_version
from registry.errors import Conflict
from registry.events import GateDecided, VersionRejected
from registry.records import Reject, State

# What was measured and waits for people. Before that there is nothing to refuse; after that there is `revoke`.
REFUSABLE = (State.INCONCLUSIVE, State.IN_REVIEW, State.APPROVABLE)


def reject(context: Context, adapter: str, number: int, request: Reject) -> Outcome:
    """Refuse a version for good. Its campaign ends with it, and its gate report says why.

    Raises Conflict where the version is in no state to be refused.
    """
    stored = find_version(context, adapter, number)
    if stored.state not in REFUSABLE:
        raise Conflict(f"{stored.ref} is {stored.state}: {_remedy(stored.state)}")
    rejected = stored._replace(rejected=request.reason)
    report = assess(context.view, rejected)
    decided = GateDecided(adapter=adapter, number=number, state=state_of(report), report=report)
    event = VersionRejected(adapter=adapter, number=number, reason=request.reason)
    return Outcome(describe(context, rejected._replace(state=decided.state)), [event, decided])


def _remedy(state: State) -> str:
    if state in (State.APPROVED, State.SUPERSEDED):
        return "it was approved already; stop it with `tunegate revoke`"
    if state in (State.UPLOADING, State.SUBMITTED, State.EVALUATING):
        return "there is nothing to refuse before it was measured"
    return "it cannot be approved any more"
