"""What the gate signs: approvals, and its word on what an alias names now.

Both are in-toto statements in DSSE envelopes, signed with ed25519. An approval is a SLSA verification summary
(https://slsa.dev/verification_summary/v1) with our own fields under `tunegate`; it is long-lived and its counter rises
with every move of the alias. Freshness is short-lived, as the timestamp of TUF: it says that the approval was still the
newest when it was given, so that nobody is kept on an old one in silence. `registry.approval.verification` reads both.
"""

import base64
import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import __version__
from registry.approval.dsse import key_id, pre_authentication
from registry.approval.keyring import GATE
from registry.approval.verification import APPROVAL_TYPE, FRESHNESS_TYPE, PAYLOAD_TYPE, STATEMENT_TYPE
from registry.names import digest_of
from registry.records import (
    Base,
    Envelope,
    FileEntry,
    GateReport,
    PublicKey,
    RatingRow,
    Signature,
    TrainingRecord,
)

# How long the registry's word on an alias holds.
FRESH_FOR = timedelta(hours=24)


class Signer:
    """An ed25519 private key with its public half. `sign_bytes` is the bare signature, for formats other than DSSE."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = PublicKey(id=key_id(raw), algorithm="ed25519", public=base64.b64encode(raw).decode())

    @classmethod
    def generate(cls) -> "Signer":
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, pem: bytes) -> "Signer":
        """Raises ValueError for what is no unencrypted ed25519 private key."""
        try:
            private = serialization.load_pem_private_key(pem, password=None)
        except TypeError:
            raise ValueError("the signing key is encrypted") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise ValueError("the signing key is not an ed25519 key")
        return cls(private)

    def to_pem(self) -> bytes:
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def public_pem(self) -> bytes:
        return self._private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign_bytes(self, message: bytes) -> bytes:
        """The 64 bytes of the signature over these very bytes."""
        return self._private.sign(message)

    def sign(self, payload: bytes, kind: str = PAYLOAD_TYPE) -> Envelope:
        """A DSSE envelope around the payload."""
        return Envelope(
            payload=base64.b64encode(payload).decode(), payloadType=kind, signatures=[self.signature(payload, kind)]
        )

    def signature(self, payload: bytes, kind: str = PAYLOAD_TYPE) -> Signature:
        """One more signature for an envelope that holds this payload."""
        signed = self.sign_bytes(pre_authentication(kind, payload))
        return Signature(keyid=self.public.id, sig=base64.b64encode(signed).decode())


class Approval(NamedTuple):
    """What an approval says: this manifest, of these files for this base, passed this policy and took this alias.

    campaign_root: digest of the outputs that were rated; ratings: `ratings_digest` of what people said of them.
    signed_by: the roles whose signatures it takes.
    """

    adapter: str
    number: int
    digest: str
    base: Base
    files: list[FileEntry]
    alias: str
    counter: int
    approved_at: str
    issued: str
    expires: str
    approved_by: str
    report: GateReport
    evidence: str
    campaign: str
    campaign_root: str
    ratings: str
    training: TrainingRecord | None
    signed_by: tuple[str, ...] = (GATE,)


class Freshness(NamedTuple):
    """What an alias names now."""

    adapter: str
    number: int
    digest: str
    alias: str
    counter: int


def ratings_digest(ratings: Sequence[RatingRow]) -> str:
    """Identity of what people said, under pseudonyms: the same for the ratings in the version's evidence bundle."""
    return _ratings_digest(tuple(ratings))


@lru_cache(maxsize=64)
def _ratings_digest(ratings: tuple[RatingRow, ...]) -> str:
    ordered = sorted(ratings, key=lambda row: (row.person, row.item, row.kind))
    rows = [msgspec.to_builtins(row) for row in ordered]
    return digest_of(rows)


def statement(approval: Approval) -> bytes:
    """The approval's bytes, as they are signed."""
    inputs = [
        {"uri": "tunegate:evidence", "digest": _digest_set(approval.evidence)},
        {"uri": f"tunegate:campaign/{approval.campaign}", "digest": _digest_set(approval.campaign_root)},
        {"uri": f"tunegate:campaign/{approval.campaign}/ratings", "digest": _digest_set(approval.ratings)},
    ]
    if approval.training is not None:
        digest = digest_of(msgspec.to_builtins(approval.training))
        inputs.append({"uri": "tunegate:training", "digest": _digest_set(digest)})
    predicate = {
        "verifier": {"id": "https://tunegate.dev/gate", "version": {"tunegate": __version__}},
        "timeVerified": approval.approved_at,
        "resourceUri": f"tunegate:{approval.adapter}/{approval.number}",
        "policy": {"uri": f"tunegate:policy/{approval.report.policy}", "digest": _digest_set(approval.report.policy)},
        "inputAttestations": inputs,
        "verificationResult": "PASSED",
        "verifiedLevels": ["TUNEGATE_GATE_GO"],
        "tunegate": {
            "adapter": approval.adapter,
            "number": approval.number,
            "alias": approval.alias,
            "counter": approval.counter,
            "issued": approval.issued,
            "expires": approval.expires,
            "approvedBy": approval.approved_by,
            "signedBy": list(approval.signed_by),
            "base": {key: value for key, value in msgspec.to_builtins(approval.base).items() if value is not None},
            "report": msgspec.to_builtins(approval.report),
        },
    }
    subject = [{"name": file.path, "digest": {"sha256": file.sha256}} for file in approval.files]
    return _in_toto(approval.adapter, approval.number, approval.digest, subject, APPROVAL_TYPE, predicate)


def freshness_statement(named: Freshness, now: datetime) -> bytes:
    """The bytes of the registry's word on an alias, good for FRESH_FOR."""
    predicate = {
        "adapter": named.adapter,
        "number": named.number,
        "alias": named.alias,
        "counter": named.counter,
        "issued": now.isoformat(),
        "expires": (now + FRESH_FOR).isoformat(),
    }
    return _in_toto(named.adapter, named.number, named.digest, [], FRESHNESS_TYPE, predicate)


def _in_toto(
    adapter: str, number: int, digest: str, files: list[dict[str, Any]], kind: str, predicate: dict[str, Any]
) -> bytes:
    document = {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"{adapter}/{number}", "digest": _digest_set(digest)}, *files],
        "predicateType": kind,
        "predicate": predicate,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _digest_set(digest: str) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}
