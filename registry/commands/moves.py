"""The signed move of an alias: what the gate signs, what waits for a second signature, what is due to be given anew."""

from datetime import timedelta

import msgspec

from registry.approval.attestation import Approval, Freshness, freshness_statement, ratings_digest, statement
from registry.approval.dsse import read_envelope, read_json
from registry.approval.keyring import GATE, RELEASE_MANAGER, moment, read_keys
from registry.approval.verification import Claim, lacking, open_statement, read_claim
from registry.commands import keys
from registry.commands.bundle import pseudonymous
from registry.commands.context import Context
from registry.commands.reviewed import Reviewed
from registry.commands.versions import base_of
from registry.errors import Conflict, InvalidRequest, NotFound
from registry.events import AliasMoved, ApprovalProposed
from registry.records import AliasInfo, Envelope, GateReport, State, Verdict
from registry.storage.views import StoredProposal, StoredVersion, View


def moved(
    context: Context,
    stored: StoredVersion,
    alias: str,
    report: GateReport,
    found: Reviewed,
    *,
    by: str,
    reason: str,
) -> AliasMoved | ApprovalProposed:
    """The signed move of an alias to a version whose report says go; a proposal where it takes a second signature.

    found: what people said, with what is about to be recorded.
    """
    view = context.view
    current = view.alias(stored.adapter, alias)
    campaign = view.campaign_of(stored.adapter, stored.number)
    assert stored.evidence_digest is not None and campaign is not None and report.verdict is Verdict.GO
    issued, roles = keys.signing_time(context), _signing_roles(view, stored)
    approval = Approval(
        adapter=stored.adapter,
        number=stored.number,
        digest=stored.digest,
        base=base_of(context.view, stored.adapter),
        files=stored.files,
        alias=alias,
        counter=current.counter + 1 if current else 1,
        approved_at=context.now,
        issued=issued,
        expires=(moment(issued) + timedelta(days=context.services.approval_days)).isoformat(),
        approved_by=by,
        report=report,
        evidence=stored.evidence_digest,
        campaign=campaign.id,
        campaign_root=campaign.root,
        ratings=ratings_digest(pseudonymous(view, stored, found).rows),
        training=stored.training,
        signed_by=roles,
    )
    return (AliasMoved if roles == (GATE,) else ApprovalProposed)(
        adapter=stored.adapter,
        alias=alias,
        counter=approval.counter,
        previous=current.number if current else None,
        number=stored.number,
        digest=stored.digest,
        by=by,
        reason=reason,
        attestation=context.services.signer.sign(statement(approval)),
    )


def freshness(context: Context, named: AliasInfo) -> Envelope:
    """The registry's word, good for a day, that the alias names this version now."""
    version = context.view.version(named.adapter, named.number)
    if version is None or version.state is not State.APPROVED:
        raise NotFound(f"{named.adapter}@{named.alias} names {named.ref}, which is not approved any more")
    said = Freshness(named.adapter, named.number, named.digest, named.alias, named.counter)
    return context.services.signer.sign(freshness_statement(said, moment(keys.signing_time(context))))


def _signing_roles(view: View, stored: StoredVersion) -> tuple[str, ...]:
    """Who signs an approval: the version's own policy and the adapter's present one may each ask for a second."""
    present = view.adapter(stored.adapter)
    digests = {stored.policy, present.policy if present else None} - {None}
    second = any(view.policy(digest).promotion.second_signature for digest in digests if digest)
    return (GATE, RELEASE_MANAGER) if second else (GATE,)


def standing_proposal(context: Context, stored: StoredVersion, alias: str) -> StoredProposal | None:
    """The proposal to move the alias to this version, if it still stands.

    A move of the alias ends every proposal for it. So does a policy that asks for other signatures, and time.
    """
    found = context.view.proposal(stored.adapter, alias)
    if found is None or found.number != stored.number:
        return None
    return None if _is_outdated(context, stored, found.attestation) else found


def is_due(context: Context, stored: StoredVersion, alias: str) -> bool:
    """Whether the approval that an alias stands on should be given anew, to the same version."""
    envelope = context.view.attestation(stored.adapter, stored.number, alias)
    assert envelope is not None
    return _is_outdated(context, stored, envelope)


def _is_outdated(context: Context, stored: StoredVersion, envelope: Envelope) -> bool:
    """Half its time is over, a key that signed it was revoked, or the policies ask for other signatures now."""
    claim = _claim(envelope)
    if set(claim.roles) != set(_signing_roles(context.view, stored)):
        return True
    if _came_before_its_signers(context.view, claim):
        return True
    revoked = {key.id for key in context.view.signing_keys() if key.revoked_at is not None}
    if any(signature.keyid in revoked for signature in envelope.signatures):
        return True
    return claim.expires is not None and context.time - claim.issued > (claim.expires - claim.issued) / 2


def _came_before_its_signers(view: View, claim: Claim) -> bool:
    """Whether all keys that could sign beside the gate were added later: to them it was never shown in time."""
    if RELEASE_MANAGER not in claim.roles:
        return False
    held = [key for key in view.signing_keys() if RELEASE_MANAGER in key.roles and key.revoked_at is None]
    since = [moment(key.valid_from) for key in held]
    return bool(since) and min(since) > claim.issued


def _claim(envelope: Envelope) -> Claim:
    """What an approval from our own journal says."""
    return read_claim(read_json(read_envelope(msgspec.json.encode(envelope)).payload))


def check_signed(context: Context, envelope: Envelope) -> None:
    """Conflict unless the envelope holds every signature that the approval in it asks for."""
    known = read_keys(msgspec.json.encode(keys.key_set(context.view, context.services.signer)))
    try:
        opened = open_statement(msgspec.json.encode(envelope), known)
    except ValueError as error:
        raise InvalidRequest(f"the signature cannot be read: {error}") from None
    claim = read_claim(opened.document)
    if problems := list(lacking(known, opened.signed, claim.roles, claim.issued)):
        raise Conflict(f"the approval of {claim.ref} is still not whole: {'; '.join(problems)}")
