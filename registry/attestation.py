"""Signed approvals: DSSE envelopes over in-toto statements, ed25519.

Signing needs the gate's private key, verifying the public one. Verification is offline and depends on `cryptography`
alone. Formats: DSSE v1, in-toto Statement v1, and a predicate after SLSA's Verification Summary
(https://slsa.dev/verification_summary/v1) with our own fields beside it.
"""

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from registry.names import sha256_hex
from registry.records import (
    Base,
    Envelope,
    FileEntry,
    GateReport,
    KeySet,
    PublicKey,
    Signature,
    Verdict,
    manifest_digest,
)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/verification_summary/v1"
ATTESTATION_FILE = "attestation.json"


class Approval(NamedTuple):
    """What an approval says: this manifest, of these files for this base, passed this policy and took this alias."""

    adapter: str
    number: int
    digest: str
    base: Base
    files: list[FileEntry]
    alias: str
    counter: int
    approved_at: str
    approved_by: str
    report: GateReport
    evidence: str
    campaign: str


class Signer:
    """The gate's private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = PublicKey(id=sha256_hex(raw), algorithm="ed25519", public=base64.b64encode(raw).decode())

    @classmethod
    def generate(cls) -> "Signer":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> "Signer":
        private = serialization.load_pem_private_key(pem, password=None)
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("the signing key is not an ed25519 key")
        return cls(private)

    def to_pem(self) -> bytes:
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, payload: bytes) -> Envelope:
        signature = self._private.sign(_pre_authentication(PAYLOAD_TYPE, payload))
        return Envelope(
            payload=base64.b64encode(payload).decode(),
            payloadType=PAYLOAD_TYPE,
            signatures=[Signature(keyid=self.public.id, sig=base64.b64encode(signature).decode())],
        )


def statement(approval: Approval) -> bytes:
    """The statement's bytes, as they are signed."""
    report = msgspec.to_builtins(approval.report)
    predicate = {
        "verifier": {"id": "https://tunegate.dev/gate"},
        "timeVerified": approval.approved_at,
        "resourceUri": f"tunegate:{approval.adapter}/{approval.number}",
        "policy": {"digest": _digest_set(approval.report.policy)},
        "inputAttestations": [
            {"uri": "tunegate:evidence", "digest": _digest_set(approval.evidence)},
            {"uri": f"tunegate:campaign/{approval.campaign}"},
        ],
        "verificationResult": "PASSED",
        "tunegate": {
            "adapter": approval.adapter,
            "number": approval.number,
            "alias": approval.alias,
            "counter": approval.counter,
            "approvedBy": approval.approved_by,
            "base": {key: value for key, value in msgspec.to_builtins(approval.base).items() if value is not None},
            "report": report,
        },
    }
    manifest = {"name": f"{approval.adapter}/{approval.number}", "digest": _digest_set(approval.digest)}
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [manifest, *({"name": file.path, "digest": {"sha256": file.sha256}} for file in approval.files)],
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


class Verified(NamedTuple):
    """Outcome of a check on a pulled directory; `problems` is empty if and only if everything holds."""

    problems: list[str]
    ref: str | None
    alias: str | None
    approved_at: str | None


def verify_directory(directory: Path, keys: KeySet) -> Verified:
    """Check a pulled directory against its own attestation: signature, manifest, each file's bytes, nothing extra.

    Reads only; never raises for bad content, which is reported as a problem instead.
    Raises OSError where the directory itself cannot be read.
    """
    files = sorted(path for path in directory.iterdir() if path.name != ATTESTATION_FILE)
    try:
        envelope = msgspec.json.decode((directory / ATTESTATION_FILE).read_bytes(), type=Envelope)
    except OSError:
        return _invalid(f"{ATTESTATION_FILE} is missing or unreadable; pull the version with `tunegate pull`")
    except (ValueError, RecursionError) as error:  # not JSON, not UTF-8, nested without end
        return _invalid(f"{ATTESTATION_FILE} is not an envelope: {error}")
    try:
        document = open_envelope(envelope, keys)
        claim = document["predicate"]["tunegate"]
        subjects = {one["name"]: one["digest"]["sha256"] for one in document["subject"]}
        base = msgspec.convert(claim["base"], Base)
        manifest_name = f"{claim['adapter']}/{claim['number']}"
        expected = {name: sha256 for name, sha256 in subjects.items() if name != manifest_name}
        passed = document["predicate"]["verificationResult"] == "PASSED" and claim["report"]["verdict"] == Verdict.GO
        problems = list(_compare(files, expected))
        if not problems:
            entries = [
                FileEntry(path=path.name, size=path.stat().st_size, sha256=expected[path.name]) for path in files
            ]
            if manifest_digest(entries, base) != f"sha256:{subjects[manifest_name]}":
                problems.append("the files and base do not add up to the signed manifest digest")
        if not passed:
            problems.append("the statement does not say that the gate passed")
        return Verified(problems, manifest_name, claim["alias"], document["predicate"]["timeVerified"])
    except ValueError as error:
        return _invalid(str(error))
    except (KeyError, TypeError, msgspec.ValidationError):
        return _invalid("the signed statement is not a tunegate approval")


def open_envelope(envelope: Envelope, keys: KeySet) -> dict[str, Any]:
    """The statement inside, if a key of the set signed it; ValueError says why not."""
    try:
        payload = base64.b64decode(envelope.payload, validate=True)
        signatures = {one.keyid: base64.b64decode(one.sig, validate=True) for one in envelope.signatures}
        known = {key.id: base64.b64decode(key.public, validate=True) for key in keys.keys if key.algorithm == "ed25519"}
    except binascii.Error:
        raise ValueError("the envelope or the key file is not valid base64") from None
    if envelope.payloadType != PAYLOAD_TYPE:
        raise ValueError(f"payload type {envelope.payloadType!r} is not {PAYLOAD_TYPE}")
    if not signatures.keys() & known.keys():
        raise ValueError("signed by none of the trusted keys; get the registry's keys with `tunegate keys`")
    message = _pre_authentication(envelope.payloadType, payload)
    if not any(_signed_by(known[keyid], signatures[keyid], message) for keyid in signatures.keys() & known.keys()):
        raise ValueError("the signature does not match: the approval was changed")
    document = json.loads(payload)
    if not isinstance(document, dict) or document.get("_type") != STATEMENT_TYPE:
        raise ValueError("the signed payload is not an in-toto statement")
    if document.get("predicateType") != PREDICATE_TYPE:
        raise ValueError(f"the statement is not of type {PREDICATE_TYPE}")
    return document


def _signed_by(public: bytes, signature: bytes, message: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _compare(files: list[Path], expected: Mapping[str, str]) -> Iterator[str]:
    for name in expected.keys() - {path.name for path in files}:
        yield f"{name} is missing"
    for path in files:
        if path.name not in expected:
            yield f"{path.name} does not belong to the approved version"
        elif path.is_symlink() or not path.is_file():
            yield f"{path.name} is not a regular file"
        elif sha256_hex(path.read_bytes()) != expected[path.name]:
            yield f"{path.name} was changed: its sha256 is not the approved one"


def _invalid(problem: str) -> Verified:
    return Verified([problem], None, None, None)


def _digest_set(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _pre_authentication(payload_type: str, payload: bytes) -> bytes:
    """DSSE v1: what is signed is the type and the payload with their lengths, never the payload alone."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
