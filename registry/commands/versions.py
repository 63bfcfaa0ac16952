"""Versions: submitted by their hashes, completed once every byte is here, sealed for good."""

import logging
from datetime import datetime
from typing import NamedTuple

import msgspec

from registry.access import BLOB_READERS, hidden_from, may_know_blob, require_sight
from registry.commands.adapters import find_adapter
from registry.commands.context import Context, Outcome
from registry.commands.gate import assess
from registry.commands.quota import require_room
from registry.commands.trainings import require_run
from registry.errors import Conflict, InspectionFailed, InvalidRequest, NotFound, Revoked
from registry.events import JobQueued, VersionCreated, VersionSubmitted
from registry.inspection.adapter import (
    CONFIG,
    MAX_CONFIG_BYTES,
    MAX_README_BYTES,
    README,
    WEIGHTS,
    AdapterFiles,
    check_layout,
    header_size,
    inspect,
    spans_of,
)
from registry.inspection.weights import check_weights
from registry.ledgers import Ledger
from registry.names import check_hex, parse_reference, sha256_hex
from registry.records import (
    Base,
    FileEntry,
    Finding,
    ItemRow,
    LedgerReviews,
    Resolved,
    Role,
    State,
    Status,
    SubmitVersion,
    TrainingRecord,
    VersionInfo,
    manifest_digest,
)
from registry.records import (
    VersionCreated as VersionAnswer,
)
from registry.storage.blobs import LocalBlobs
from registry.storage.views import StoredVersion, View

_log = logging.getLogger("tunegate")
_LEDGER_BYTES = 256 * 1024**2
# Who may see how a version was trained and measured.
_INSIDERS = frozenset(Role) - {Role.CONSUMER, Role.REVIEWER}


def submit(context: Context, adapter: str, request: SubmitVersion) -> Outcome:
    """Announce a version by its files; the answer says which blobs are still missing.

    The same files again are the same version: nothing can be drawn or evaluated anew by submitting twice.
    """
    stored = find_adapter(context, adapter)
    sizes = {check_hex(file.sha256) and file.path: file.size for file in request.files}
    if len(sizes) != len(request.files):
        raise InvalidRequest("a path is listed twice; list each file once")
    require_room(context, adapter, request.files)
    if refused := [finding.message for finding in check_layout(sizes)]:
        raise InspectionFailed("the files cannot be an adapter: " + "; ".join(refused), refused)
    if request.training and request.training.base != stored.base.digest:
        raise InspectionFailed(
            f"trained on base {request.training.base}, but {adapter!r} is for {stored.base.id} ({stored.base.digest}); "
            "push it to an adapter of its own base"
        )
    if request.training and request.training.run is not None:
        require_run(context, adapter, request.training)
    files = sorted(request.files, key=lambda file: file.path)
    digest = manifest_digest(files, stored.base)
    if existing := context.view.version_by_digest(adapter, digest):
        if existing.state is State.REVOKED:
            raise Revoked(f"these files are {existing.ref}, which was revoked for good; train or mend it first")
        if request.training and not _same_training(existing.training, request.training):
            raise Conflict(
                f"these files are {existing.ref} already, submitted with {'another' if existing.training else 'no'} "
                "training record, and that is sealed with it; a changed README.md makes them a new version"
            )
        return Outcome(_answer(existing, missing_blobs(context, existing.files, existing.training)))
    number = context.view.last_number(adapter) + 1
    event = VersionCreated(
        adapter=adapter, number=number, digest=digest, files=files, training=request.training, notes=request.notes
    )
    missing = missing_blobs(context, files, request.training)
    answer = VersionAnswer(
        ref=f"{adapter}/{number}", number=number, digest=digest, state=State.UPLOADING, missing=missing
    )
    return Outcome(answer, [event], 201)


class Inspected(NamedTuple):
    """What the inspection of a version's files found, all of which were stored. It holds for this manifest alone.

    reviews: of the rows that its ledger says it was trained on; None without a training record.
    """

    ref: str
    digest: str
    findings: list[Finding]
    reviews: LedgerReviews | None


def inspect_ahead(context: Context, adapter: str, number: int) -> Inspected | None:
    """The inspection that `complete` needs, made where reading the files holds no other command up.

    None where `complete` will need none. Raises InspectionFailed, as `complete` would, where blobs are missing.
    """
    stored = find_version(context, adapter, number)
    if stored.state is not State.UPLOADING:
        return None
    return _inspected(context, stored)


def complete(context: Context, adapter: str, number: int, inspected: Inspected | None = None) -> Outcome:
    """Inspect and seal a version, pin the adapter's policy, queue its evaluation. Again: the same answer.

    A version whose evaluation failed, or whose engine failed its own canaries, is measured again: nothing that was
    measured speaks for or against it.
    """
    stored = find_version(context, adapter, number)
    if stored.state is State.INCONCLUSIVE and (last := context.view.job_of(adapter, number)):
        report = assess(context.view, stored)
        distrusted = any(check.kind == "effect" and check.status is Status.INVALID for check in report.checks)
        if last.state == "failed" or distrusted:
            again = JobQueued(id=sha256_hex(f"again {last.id}".encode())[:32], adapter=adapter, number=number)
            return Outcome(_answer(stored._replace(state=State.SUBMITTED), []), [again])
    if stored.state is not State.UPLOADING:
        return Outcome(_answer(stored, []))
    if inspected is None or (inspected.ref, inspected.digest) != (stored.ref, stored.digest):
        inspected = _inspected(context, stored)
    # What was inspected ahead may have been quarantined or collected since.
    _require_blobs(context, stored)
    found = inspected.findings
    if errors := [finding.message for finding in found if finding.severity == "error"]:
        raise InspectionFailed(f"{stored.ref} cannot be served: " + "; ".join(errors[:3]), errors)
    policy = find_adapter(context, adapter).policy
    event = VersionSubmitted(
        adapter=adapter,
        number=number,
        policy=policy,
        findings=found,
        job=sha256_hex(f"evaluation {adapter} {number} {stored.digest}".encode())[:32],
        reviews=inspected.reviews,
    )
    sealed = stored._replace(state=State.SUBMITTED)
    return Outcome(_answer(sealed, []), [event])


def _require_blobs(context: Context, stored: StoredVersion) -> None:
    if missing := missing_blobs(context, stored.files, stored.training):
        raise InspectionFailed(
            f"{stored.ref} still misses {len(missing)} blobs: {', '.join(missing)}; upload them first", missing
        )


def _inspected(context: Context, stored: StoredVersion) -> Inspected:
    findings = _inspect(context, stored)
    refused = any(finding.severity == "error" for finding in findings)
    reviews = _reviews(context, stored.training) if stored.training and not refused else None
    return Inspected(stored.ref, stored.digest, findings, reviews)


def _reviews(context: Context, training: TrainingRecord) -> LedgerReviews:
    """Counted here and now, whatever the policy asks today: another one may ask for it later.

    Within a minute the same for all versions with this ledger: to open a database takes longer than all else of a seal.
    """
    blobs, sha256 = context.services.blobs, training.ledger.removeprefix("sha256:")
    if (size := blobs.size(sha256)) > _LEDGER_BYTES:
        return LedgerReviews(problem=f"its ledger has {size:,} bytes, {_LEDGER_BYTES:,} are read at most")
    minute = context.time.replace(second=0, microsecond=0)
    with blobs.open(sha256) as file:
        return blobs.fact(sha256, file, f"reviews by {minute}", lambda: _count_reviews(blobs, sha256, context.time))


def _count_reviews(blobs: LocalBlobs, sha256: str, by: datetime) -> LedgerReviews:
    """What is no ledger is no fault of the files; it is for a policy that demands reviews to refuse.

    What is said here is said for good, so a ledger that could not be read this time raises Unavailable, and the
    version is not sealed.
    """
    blobs.check(sha256)
    try:
        with Ledger(blobs.path(sha256)) as ledger:
            return ledger.reviews(by)
    except InvalidRequest as error:
        _log.warning("the ledger %s could not be read: %s", sha256, error)
        return LedgerReviews(problem="its ledger cannot be read as one of a training run of at most a million rows")


def _inspect(context: Context, stored: StoredVersion) -> list[Finding]:
    _require_blobs(context, stored)
    if borrowed := _borrowed(context, stored):
        return borrowed
    tensors, base = context.view.base_tensors(stored.adapter), base_of(context.view, stored.adapter)
    return inspect_stored(context.services.blobs, stored.files, tensors, base.id)


def _borrowed(context: Context, stored: StoredVersion) -> list[Finding]:
    """A README.md that is somebody's data: naming its digest would make it readable as a file of an adapter.

    The other files cannot be: no data set passes for a config or for weights.
    """
    found = []
    for file in stored.files:
        if file.path != README:
            continue
        held = context.view.holders(file.sha256)
        purposes = {holder.purpose for holder in held if holder.state is not State.UPLOADING}
        if purposes and not any(context.principal.role in BLOB_READERS[purpose] for purpose in purposes):
            message = f"{file.path} is held as {', '.join(sorted(purposes))} already, which is no file of an adapter"
            found.append(Finding(code="file_is_data", severity="error", message=message))
    return found


def inspect_stored(
    blobs: LocalBlobs,
    files: list[FileEntry],
    base_tensors: dict[str, list[int]] | None,
    base_id: str | None = None,
) -> list[Finding]:
    """Run the static inspection on stored files; the weights are read through where their header is in order."""
    by_path = {file.path: file.sha256 for file in files}
    sizes = {path: blobs.size(sha256) for path, sha256 in by_path.items()}
    wrong = [
        Finding(
            code="size", severity="error", message=f"{file.path} has {sizes[file.path]} bytes, {file.size} announced"
        )
        for file in files
        if sizes[file.path] != file.size
    ]
    if wrong or list(check_layout(sizes)):
        return wrong or list(check_layout(sizes))
    with blobs.open(by_path[WEIGHTS]) as weights:
        try:
            header = weights.read(header_size(weights.read(8), sizes[WEIGHTS]))
        except ValueError as error:
            return [Finding(code="unreadable", severity="error", message=str(error))]
        config = blobs.read(by_path[CONFIG], most_bytes=MAX_CONFIG_BYTES)
        readme = blobs.read(by_path[README], most_bytes=MAX_README_BYTES) if README in by_path else b""
        found = inspect(AdapterFiles(sizes, config, header, base_tensors, base_id, readme))
        if not any(finding.severity == "error" for finding in found):
            spans, start = spans_of(header), 8 + len(header)
            found += blobs.fact(by_path[WEIGHTS], weights, "values", lambda: list(check_weights(weights, spans, start)))
    return found


def find_version(context: Context, adapter: str, number: int) -> StoredVersion:
    """The version if this principal may know of it."""
    require_sight(context.principal, adapter)
    stored = context.view.version(adapter, number)
    if stored is None or hidden_from(context.principal, stored.state):
        raise NotFound(f"{adapter}/{number} does not exist or is not visible to this token")
    return stored


def resolve(context: Context, reference: str) -> Resolved:
    """What a reference means now. Revoked versions resolve for nobody, unapproved ones not for consumers."""
    parsed = parse_reference(reference)
    require_sight(context.principal, parsed.adapter)
    stored = context.view.find(parsed)
    if stored is None or hidden_from(context.principal, stored.state):
        raise NotFound(f"{reference!r} names no version that is visible to this token; see `tunegate adapter show`")
    if stored.state is State.REVOKED:
        raise NotFound(f"{reference!r} was revoked and can no longer be pulled; roll the alias back to another version")
    base = base_of(context.view, stored.adapter)
    attestation = context.view.attestation(stored.adapter, stored.number, parsed.alias)
    return Resolved(
        ref=stored.ref,
        number=stored.number,
        digest=stored.digest,
        state=stored.state,
        base=base,
        files=stored.files,
        attestation=attestation if stored.state is State.APPROVED else None,
    )


def describe(context: Context, stored: StoredVersion, base: Base | None = None) -> VersionInfo:
    """What this principal may know of a version. base: its adapter's, from who has looked that up already."""
    inside = context.principal.role in _INSIDERS
    return VersionInfo(
        ref=stored.ref,
        adapter=stored.adapter,
        number=stored.number,
        digest=stored.digest,
        state=stored.state,
        base=base or base_of(context.view, stored.adapter),
        files=stored.files,
        submitter=stored.submitter,
        created_at=stored.created_at,
        sealed_at=stored.sealed_at,
        policy=stored.policy,
        findings=stored.findings,
        notes=stored.notes,
        training=stored.training if inside else None,
        evidence=stored.evidence if inside else None,
    )


def items(context: Context, adapter: str, number: int, suite: str, after: str, limit: int) -> list[ItemRow]:
    """Per-item results in order of `item/subject`, beyond `after`.

    Prompts and outputs only for who may read held-out data: whoever trains, submits or rates must not learn them here.
    """
    stored = find_version(context, adapter, number)
    found = context.view.items(stored.adapter, stored.number, suite, after, limit)
    if context.principal.role in BLOB_READERS["items"]:
        return found
    return [msgspec.structs.replace(row, prompt=None, output=None) for row in found]


def base_of(view: View, adapter: str) -> Base:
    stored = view.adapter(adapter)
    assert stored is not None
    return stored.base


def _same_training(known: TrainingRecord | None, given: TrainingRecord) -> bool:
    """Whether two records tell of the same run; its times and metrics may differ in a repetition."""
    return known is not None and all(
        getattr(known, key) == getattr(given, key) for key in ("base", "dataset", "ledger", "recipe", "seed")
    )


def missing_blobs(context: Context, files: list[FileEntry], training: TrainingRecord | None) -> list[str]:
    """Announced blobs that are still to be sent, those of the training record included.

    What is stored but not for this principal to know is missing like the rest: an announcement is no possession.
    """
    needed = [file.sha256 for file in files]
    if training:
        needed += [training.dataset.removeprefix("sha256:"), training.ledger.removeprefix("sha256:")]
    has, view, principal = context.services.blobs.has, context.view, context.principal
    return [one for one in dict.fromkeys(needed) if not has(one) or not may_know_blob(view, principal, one)]


def _answer(stored: StoredVersion, missing: list[str]) -> VersionAnswer:
    return VersionAnswer(
        ref=stored.ref, number=stored.number, digest=stored.digest, state=stored.state, missing=missing
    )
