"""Is this directory what was approved, and is the approval still to be believed? Answered offline.

Standard library and `cryptography` only: no HTTP, no database, nothing that a product team would have to trust besides.
The statement is an in-toto Statement v1 with a SLSA verification summary, our own fields under `tunegate`.

    keys = read_keys(Path("keys.json").read_bytes())
    verify_directory(Path("bot"), keys, datetime.now(UTC), Wanted(adapter="support-bot", alias="approved")).problems

Fails closed: whatever is missing, unreadable, expired or not signed in every role that is asked for is a problem.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from registry.approval.dsse import read_envelope, read_json, signers
from registry.approval.keyring import GATE, Key, by_role, moment

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
APPROVAL_TYPE = "https://slsa.dev/verification_summary/v1"
FRESHNESS_TYPE = "https://tunegate.dev/alias/v1"
ATTESTATION_FILE = "attestation.json"
FRESHNESS_FILE = "freshness.json"
# How far the registry's clock may be ahead of ours.
CLOCK_SKEW = timedelta(minutes=10)


class Wanted(NamedTuple):
    """What must be so besides: None and () ask for nothing.

    max_age: since the registry last said that the alias names this version. roles: who must have signed, besides the
    gate and whom the approval itself asks for. fresh: the registry's word on the alias is here and has not expired.
    """

    adapter: str | None = None
    number: int | None = None
    alias: str | None = None
    base: str | None = None
    max_age: timedelta | None = None
    min_counter: int = 0
    roles: tuple[str, ...] = ()
    fresh: bool = False


ANYTHING = Wanted()


class Claim(NamedTuple):
    """What a signed approval says. files: sha256 by name. approved_at: as it was written."""

    adapter: str
    number: int
    alias: str
    counter: int
    base: dict[str, str]
    manifest: str
    files: dict[str, str]
    approved_at: str
    issued: datetime
    expires: datetime | None
    roles: tuple[str, ...]
    passed: bool

    @property
    def ref(self) -> str:
        return f"{self.adapter}/{self.number}"


class Verified(NamedTuple):
    """Outcome of a check on a pulled directory; `problems` is empty if and only if everything holds.

    as_of: when the registry last said that the alias names this version. signed_by: the ids of the keys.
    """

    problems: list[str]
    ref: str | None = None
    alias: str | None = None
    counter: int | None = None
    approved_at: str | None = None
    expires: str | None = None
    as_of: str | None = None
    signed_by: list[str] = []


class Opened(NamedTuple):
    """A statement with the ids of the known keys that signed it; what these may sign is not checked yet."""

    document: dict[str, Any]
    signed: set[str]


def verify_directory(
    directory: Path,
    keys: Sequence[Key],
    now: datetime,
    wanted: Wanted = ANYTHING,
    seen: Mapping[str, int] = MappingProxyType({}),
) -> Verified:
    """Check a pulled directory: signatures, times, what it is wanted for, manifest, each file's bytes, nothing extra.

    seen: the highest counter known of each `adapter@alias`; a lower one is a rollback. Reads only; never raises for
    bad content, which is reported as a problem. Raises OSError where the directory itself cannot be read.
    """
    files = sorted(path for path in directory.iterdir() if path.name not in (ATTESTATION_FILE, FRESHNESS_FILE))
    try:
        opened = open_statement(_read(directory / ATTESTATION_FILE), keys, APPROVAL_TYPE)
        claim = read_claim(opened.document)
        as_of = _freshness(directory / FRESHNESS_FILE, keys, claim, now, required=wanted.fresh)
    except ValueError as error:
        return Verified([str(error)])
    problems = [
        *lacking(keys, opened.signed, (GATE, *claim.roles, *wanted.roles), claim.issued),
        *_times(claim, as_of or claim.issued, now, wanted.max_age),
        *_purpose(claim, wanted, seen.get(f"{claim.adapter}@{claim.alias}", 0)),
        *_content(files, claim),
    ]
    return Verified(
        problems,
        claim.ref,
        claim.alias,
        claim.counter,
        claim.approved_at,
        claim.expires.isoformat() if claim.expires else None,
        (as_of or claim.issued).isoformat(),
        sorted(opened.signed),
    )


def open_statement(data: bytes, keys: Sequence[Key], predicate_type: str = APPROVAL_TYPE) -> Opened:
    """The statement in an envelope that at least one of the keys signed; ValueError says why there is none."""
    try:
        sealed = read_envelope(data)
    except ValueError as error:
        raise ValueError(f"there is no envelope to open: {error}") from None
    if sealed.kind != PAYLOAD_TYPE:
        raise ValueError(f"payload type {sealed.kind!r} is not {PAYLOAD_TYPE}")
    known = {key.id: key.public for key in keys}
    if not sealed.signatures.keys() & known.keys():
        raise ValueError("signed by none of the trusted keys; get the registry's keys with `tunegate keys --to FILE`")
    if not (signed := signers(sealed, known)):
        raise ValueError("the signature does not match: the statement was changed")
    document = read_json(sealed.payload)
    if not isinstance(document, dict) or document.get("_type") != STATEMENT_TYPE:
        raise ValueError("the signed payload is not an in-toto statement")
    if document.get("predicateType") != predicate_type:
        raise ValueError(f"the statement is not of type {predicate_type}")
    return Opened(document, signed)


def read_claim(document: Mapping[str, Any]) -> Claim:
    """What an approval's statement says. Raises ValueError if it is not one of tunegate's."""
    try:
        predicate = document["predicate"]
        ours = predicate["tunegate"]
        subjects = {_text(one["name"]): _text(one["digest"]["sha256"]) for one in document["subject"]}
        approved_at = _text(predicate["timeVerified"])
        adapter, number = _text(ours["adapter"]), _number(ours["number"])
        expires = ours.get("expires")
        return Claim(
            adapter=adapter,
            number=number,
            alias=_text(ours["alias"]),
            counter=_number(ours["counter"]),
            base={_text(key): _text(value) for key, value in ours["base"].items()},
            manifest=subjects[f"{adapter}/{number}"],
            files={name: sha256 for name, sha256 in subjects.items() if name != f"{adapter}/{number}"},
            approved_at=approved_at,
            # Approvals were not dated apart, and did not expire, before either was thought of.
            issued=moment(_text(ours.get("issued", approved_at))),
            expires=moment(_text(expires)) if expires is not None else None,
            roles=tuple(_text(role) for role in ours.get("signedBy", [GATE])),
            passed=predicate["verificationResult"] == "PASSED" and ours["report"]["verdict"] == "go",
        )
    except (KeyError, TypeError, AttributeError, ValueError):
        raise ValueError("the signed statement is not a tunegate approval") from None


def lacking(keys: Sequence[Key], signed: set[str], roles: Sequence[str], at: datetime) -> Iterator[str]:
    """The roles that none of the keys that signed fills. Each needs a key of its own: none speaks for two."""
    left = set(signed)
    for role in dict.fromkeys(roles):
        able, objections = by_role(keys, left, role, at)
        if not able:
            why = "; ".join(objections) or "no other key signed"
            yield f"it lacks the signature of a {role} ({why}); get new keys or a new approval, and be wary of this one"
        else:
            rights = {key.id: len(key.roles) for key in keys}
            left.discard(min(able, key=lambda id_: (rights[id_], id_)))


# -- the parts of the check ---------------------------------------------------------------------------------------


def _times(claim: Claim, as_of: datetime, now: datetime, max_age: timedelta | None) -> Iterator[str]:
    if max(claim.issued, as_of) > now + CLOCK_SKEW:
        yield f"it is dated {max(claim.issued, as_of):%Y-%m-%d %H:%M} UTC, which is yet to come; check this clock"
    if claim.expires is not None and now >= claim.expires:
        yield (
            f"the approval expired at {claim.expires:%Y-%m-%d %H:%M} UTC; have {claim.ref} promoted again, then pull it"
        )
    if max_age is not None and now - as_of > max_age:
        yield (
            f"the registry last said so at {as_of:%Y-%m-%d %H:%M} UTC, more than {max_age.total_seconds() / 86400:g} "
            "days ago; pull it again"
        )


def _purpose(claim: Claim, wanted: Wanted, seen: int) -> Iterator[str]:
    if wanted.adapter is not None and claim.adapter != wanted.adapter:
        yield f"it is an approval of {claim.adapter}, not of {wanted.adapter}"
    if wanted.number is not None and claim.number != wanted.number:
        yield f"it is an approval of version {claim.number}, not of {wanted.number}"
    if wanted.alias is not None and claim.alias != wanted.alias:
        yield f"it was approved as {claim.alias}, not as {wanted.alias}"
    if wanted.base is not None and claim.base.get("digest") != wanted.base:
        yield f"it was approved for the base {claim.base.get('digest')}, not for {wanted.base}"
    if claim.counter < max(wanted.min_counter, seen):
        yield (
            f"rollback: {claim.adapter}@{claim.alias} is at move {claim.counter} here, and was at "
            f"{max(wanted.min_counter, seen)} before; pull it again, and be wary if it stays so"
        )
    if not claim.passed:
        yield "the statement does not say that the gate passed"


def _content(files: Sequence[Path], claim: Claim) -> list[str]:
    problems = list(_compare(files, claim.files))
    if not problems:
        entries = [{"path": one.name, "size": one.stat().st_size, "sha256": claim.files[one.name]} for one in files]
        if _manifest(entries, claim.base) != claim.manifest:
            problems.append("the files and base do not add up to the signed manifest digest")
    return problems


def _compare(files: Sequence[Path], expected: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(expected.keys() - {path.name for path in files}):
        yield f"{name} is missing"
    for path in files:
        if path.name not in expected:
            yield f"{path.name} does not belong to the approved version"
        elif path.is_symlink() or not path.is_file():
            yield f"{path.name} is not a regular file"
        elif _sha256(path) != expected[path.name]:
            yield f"{path.name} was changed: its sha256 is not the approved one"


def _freshness(path: Path, keys: Sequence[Key], claim: Claim, now: datetime, *, required: bool) -> datetime | None:
    """When the registry said that the alias names this very version; None where that is neither here nor required."""
    if not path.exists() and not required:
        return None
    try:
        opened = open_statement(_read(path), keys, FRESHNESS_TYPE)
        ours = opened.document["predicate"]
        said = tuple(ours[name] for name in ("adapter", "number", "alias", "counter"))
        digest = opened.document["subject"][0]["digest"]["sha256"]
        issued, expires = moment(_text(ours["issued"])), moment(_text(ours["expires"]))
    except (KeyError, IndexError, TypeError):
        raise ValueError(f"{path.name} is not what a tunegate registry says of an alias") from None
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from None
    if (*said, digest) != (claim.adapter, claim.number, claim.alias, claim.counter, claim.manifest):
        raise ValueError(f"{path.name} is about {said[0]}/{said[1]} as {said[2]}, move {said[3]}; pull again")
    if problems := list(lacking(keys, opened.signed, (GATE,), issued)):
        raise ValueError(f"{path.name}: {problems[0]}")
    if required and now >= expires:
        raise ValueError(f"the registry's word on {claim.adapter}@{claim.alias} expired at {expires}; pull again")
    return issued


# -- reading ------------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise ValueError(f"{path.name} is missing or unreadable; pull the version with `tunegate pull`") from None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(entries: Sequence[Mapping[str, Any]], base: Mapping[str, str]) -> str:
    """As `registry.records.manifest_digest`, in hex: for such values sorted keys without spaces are RFC 8785."""
    document = json.dumps({"files": entries, "base": base}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(document.encode()).hexdigest()


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("text is expected")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("a whole number is expected")
    return value
