"""Promotion, rollback and revocation: the only ways an alias moves or a version stops being served."""

import msgspec

from registry.commands.adapters import find_adapter
from registry.commands.conditions import matches
from registry.commands.context import Context, Outcome
from registry.commands.gate import assess
from registry.commands.moves import check_signed, is_due, moved, standing_proposal
from registry.commands.reviewed import Reviewed, reviewed
from registry.commands.versions import describe, find_version
from registry.errors import Conflict, Forbidden, GateNotSatisfied, NotFound, PreconditionFailed
from registry.events import AliasMoved, AnyEvent, ApprovalProposed, JobFailed, VersionRevoked
from registry.names import check_alias
from registry.records import (
    AliasInfo,
    Countersign,
    GateReport,
    Promote,
    Proposal,
    Revoke,
    Rollback,
    Signature,
    State,
    Verdict,
)
from registry.storage.views import StoredAlias, StoredProposal, StoredVersion

# Who moves an alias when the policy says that the gate alone decides.
AUTOMATIC = "tunegate"
_PROMOTED = "promoted: the gate is satisfied"


def promote(context: Context, adapter: str, number: int, request: Promote, if_match: str | None) -> Outcome:
    """Point an alias at a version whose evidence satisfies its policy and the adapter's present one.

    Raises GateNotSatisfied with the whole report; Forbidden for whoever submitted the version.
    """
    stored = find_version(context, adapter, number)
    alias = check_alias(request.alias)
    current = context.view.alias(adapter, alias)
    _check_match(current, if_match)
    found = reviewed(context.view, stored)
    report = _satisfied(context, stored, found)
    _check_submitter(context, stored)
    if stored.state not in (State.APPROVABLE, State.APPROVED):
        raise Conflict(f"{stored.ref} is {stored.state}; go back to an earlier version with `tunegate rollback`")
    if current and current.number == number and not is_due(context, stored, alias):
        return Outcome(alias_info(current))
    if waiting := standing_proposal(context, stored, alias):
        return Outcome(_unsigned(waiting), status=202)
    reason = request.reason or _PROMOTED
    return _answered(context, moved(context, stored, alias, report, found, by=context.principal.person, reason=reason))


def countersign(context: Context, adapter: str, number: int, request: Countersign) -> Outcome:
    """Add a release manager's signature to a proposed approval: with it the alias moves.

    The gate is asked again, and what is signed is checked as any consumer will check it.
    """
    stored = find_version(context, adapter, number)
    alias = check_alias(request.alias)
    waiting = standing_proposal(context, stored, alias)
    if waiting is None:
        raise Conflict(
            f"no approval of {stored.ref} as {alias} waits for a signature; propose one with `tunegate promote`"
        )
    _check_submitter(context, stored)
    if stored.state is State.REVOKED:
        raise Conflict(f"{stored.ref} was revoked; nothing can approve it any more")
    was_named = context.view.has_named(adapter, alias, number)
    found = reviewed(context.view, stored)
    _ = (
        _require_go(stored, assess(context.view, stored, found=found))
        if was_named
        else _satisfied(context, stored, found)
    )
    key = context.view.signing_key(request.keyid)
    if key is None or key.person != context.principal.person:
        raise Forbidden(
            f"key {request.keyid[:12]}… is not registered for {context.principal.person!r}; an admin adds it with "
            "`tunegate keys add FILE --person NAME`"
        )
    signatures = [*waiting.attestation.signatures, Signature(keyid=request.keyid, sig=request.sig)]
    envelope = msgspec.structs.replace(waiting.attestation, signatures=signatures)
    check_signed(context, envelope)
    event = AliasMoved(
        adapter=adapter,
        alias=alias,
        counter=waiting.counter,
        previous=waiting.previous,
        number=number,
        digest=waiting.digest,
        by=waiting.proposed_by,
        reason=f"{waiting.reason}; countersigned by {context.principal.person}",
        attestation=envelope,
    )
    return _answered(context, event)


def proposal(context: Context, adapter: str, alias: str) -> Proposal:
    """The move of an alias that waits for a second signature."""
    find_adapter(context, adapter)
    waiting = context.view.proposal(adapter, check_alias(alias))
    if waiting is None:
        raise NotFound(f"no move of {adapter}@{alias} waits for a signature")
    return Proposal(
        adapter=waiting.adapter,
        alias=waiting.alias,
        ref=f"{waiting.adapter}/{waiting.number}",
        digest=waiting.digest,
        counter=waiting.counter,
        by=waiting.proposed_by,
        at=waiting.made_at,
        reason=waiting.reason,
        attestation=waiting.attestation,
    )


def rollback(context: Context, adapter: str, alias: str, request: Rollback, if_match: str | None) -> Outcome:
    """Point an alias back at a version it named before, for a reason; the counter rises all the same.

    The policy that the version was approved under decides, not the adapter's present one: a way back must not be
    closed by a suite that has changed since.
    """
    check_alias(alias)
    find_adapter(context, adapter)
    current = context.view.alias(adapter, alias)
    if current is None:
        raise NotFound(f"{adapter}@{alias} names no version, so there is nothing to roll back")
    _check_match(current, if_match)
    target = find_version(context, adapter, request.to)
    if target.state is State.REVOKED:
        raise Conflict(f"{target.ref} was revoked; roll back to another version")
    if not context.view.has_named(adapter, alias, request.to):
        raise Conflict(f"{adapter}@{alias} never named version {request.to}; promote it instead")
    if current.number == request.to:
        return Outcome(alias_info(current))
    _check_submitter(context, target)
    found = reviewed(context.view, target)
    report = _require_go(target, assess(context.view, target, found=found))
    if waiting := standing_proposal(context, target, alias):
        return Outcome(_unsigned(waiting), status=202)
    by, reason = context.principal.person, request.reason
    return _answered(context, moved(context, target, alias, report, found, by=by, reason=reason))


def revoke(context: Context, adapter: str, number: int, request: Revoke) -> Outcome:
    """Stop a version from being pulled, at once and for good. The alias stays until it is rolled back."""
    stored = find_version(context, adapter, number)
    revoked = stored._replace(state=State.REVOKED)
    if stored.state is State.REVOKED:
        return Outcome(describe(context, revoked))
    events: list[AnyEvent] = [VersionRevoked(adapter=adapter, number=number, reason=request.reason)]
    job = context.view.job_of(adapter, number)
    if job and job.state in ("queued", "claimed"):
        # Otherwise its evidence would decide the gate, and with it the state, of a version that is gone.
        events.append(JobFailed(id=job.id, fence=job.fence, reason=f"{stored.ref} was revoked", final=True))
    return Outcome(describe(context, revoked), events)


def alias_info(alias: StoredAlias) -> AliasInfo:
    return AliasInfo(
        adapter=alias.adapter,
        alias=alias.alias,
        ref=f"{alias.adapter}/{alias.number}",
        number=alias.number,
        digest=alias.digest,
        counter=alias.counter,
        moved_at=alias.moved_at,
    )


def etag(alias: StoredAlias | AliasInfo) -> str:
    """Changes with every move, also with a move back."""
    return f"{alias.counter}-{alias.digest.removeprefix('sha256:')[:16]}"


def automatic_move(context: Context, stored: StoredVersion, found: Reviewed) -> AliasMoved | ApprovalProposed | None:
    """The promotion that the adapter's present policy asks for once the gate says go; None where it asks for none.

    found: what people said, with what is about to be recorded. An older version never takes the place of a newer one
    by itself.
    """
    present = context.view.adapter(stored.adapter)
    current = context.view.alias(stored.adapter, "approved")
    if present is None or not context.view.policy(present.policy).promotion.automatic:
        return None
    if current and current.number > stored.number:
        return None
    try:
        report = _satisfied(context, stored, found)
    except GateNotSatisfied:
        return None
    reason = "promoted by policy: the gate is satisfied"
    return moved(context, stored, "approved", report, found, by=AUTOMATIC, reason=reason)


def _satisfied(context: Context, stored: StoredVersion, found: Reviewed) -> GateReport:
    """The report under the pinned policy, if the gate says go there and under the adapter's present policy."""
    report = _require_go(stored, assess(context.view, stored, found=found))
    present = find_adapter(context, stored.adapter).policy
    if stored.policy and present != stored.policy:
        under = " under the adapter's present policy"
        _require_go(stored, assess(context.view, stored, policy=present, found=found), under)
    return report


def _require_go(stored: StoredVersion, report: GateReport, under: str = "") -> GateReport:
    if report.verdict is not Verdict.GO:
        reasons = "; ".join(f"{check.name}: {check.reason}" for check in report.checks if check.status != "pass")
        raise GateNotSatisfied(f"{stored.ref} is {report.verdict}{under}: {reasons}", msgspec.to_builtins(report))
    return report


def _check_submitter(context: Context, stored: StoredVersion) -> None:
    if context.principal.person in {stored.submitter, *context.view.trained_by(stored)}:
        raise Forbidden(f"{context.principal.person!r} submitted {stored.ref} and cannot promote it; ask someone else")


def _answered(context: Context, event: AliasMoved | ApprovalProposed) -> Outcome:
    now = StoredAlias(event.adapter, event.alias, event.number, event.digest, event.counter, context.now)
    if isinstance(event, ApprovalProposed):
        return Outcome(msgspec.structs.replace(alias_info(now), unsigned=True), [event], 202)
    return Outcome(alias_info(now), [event])


def _unsigned(waiting: StoredProposal) -> AliasInfo:
    at = StoredAlias(waiting.adapter, waiting.alias, waiting.number, waiting.digest, waiting.counter, waiting.made_at)
    return msgspec.structs.replace(alias_info(at), unsigned=True)


def _check_match(current: StoredAlias | None, if_match: str | None) -> None:
    found = etag(current) if current else ""
    if not matches(if_match, found):
        raise PreconditionFailed(
            f"the alias is now at {found or 'no version'}, not at {if_match}; read it and decide again", found
        )
