"""Signed approvals: what was signed verifies offline, and nothing else does."""

import base64
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from factories import BASE, entry_of, make_adapter, make_evidence, make_ratings, make_subject
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.attestation import (
    ATTESTATION_FILE,
    PAYLOAD_TYPE,
    Approval,
    Signer,
    Verified,
    open_envelope,
    statement,
    verify_directory,
)
from registry.gate.decision import decide
from registry.names import sha256_hex
from registry.records import Envelope, KeySet, PublicKey, Signature, manifest_digest

SIGNER, STRANGER = Signer.generate(), Signer.generate()
KEYS = KeySet(keys=[SIGNER.public])
FILES = {**make_adapter(), "README.md": b"# support-bot\n"}
ENTRIES = [entry_of(path, data) for path, data in FILES.items()]


def make_approval(**changes: Any) -> Approval:
    values: dict[str, Any] = {
        "adapter": "team/support-bot",
        "number": 7,
        "digest": manifest_digest(ENTRIES, BASE),
        "base": BASE,
        "files": ENTRIES,
        "alias": "approved",
        "counter": 3,
        "approved_at": "2026-01-01T00:00:00Z",
        "approved_by": "ada",
        "report": decide(make_subject(), make_evidence(), make_ratings()),
        "evidence": "sha256:" + "7" * 64,
        "campaign": "c" * 32,
        **changes,
    }
    return Approval(**values)


def pulled(directory: Path, envelope: Envelope | None = None, **approval: Any) -> Path:
    """A directory as `tunegate pull` leaves it."""
    directory.mkdir(exist_ok=True)
    for path, data in FILES.items():
        (directory / path).write_bytes(data)
    envelope = envelope or SIGNER.sign(statement(make_approval(**approval)))
    (directory / ATTESTATION_FILE).write_bytes(msgspec.json.encode(envelope))
    return directory


def signed(document: Any) -> Envelope:
    return SIGNER.sign(json.dumps(document).encode())


def changed(**changes: Any) -> Envelope:
    return msgspec.structs.replace(SIGNER.sign(statement(make_approval())), **changes)


def refused(directory: Path, keys: KeySet = KEYS) -> list[str]:
    found = verify_directory(directory, keys)
    assert found.problems
    return found.problems


# -- what holds ---------------------------------------------------------------------------------------------------


def test_what_was_pulled_verifies_and_says_what_it_is(tmp_path: Path) -> None:
    found = verify_directory(pulled(tmp_path / "bot"), KEYS)
    assert found == Verified([], "team/support-bot/7", "approved", "2026-01-01T00:00:00Z")


def test_any_one_of_several_trusted_keys_is_enough(tmp_path: Path) -> None:
    """So that keys can be rotated: old approvals stay valid while the old key is in the set."""
    directory = pulled(tmp_path / "bot")
    assert verify_directory(directory, KeySet(keys=[STRANGER.public, SIGNER.public])).problems == []


def test_one_good_signature_of_a_trusted_key_is_enough_beside_a_broken_one(tmp_path: Path) -> None:
    payload = statement(make_approval())
    good, other = SIGNER.sign(payload), STRANGER.sign(b"{}")
    both = msgspec.structs.replace(good, signatures=[*other.signatures, *good.signatures])
    keys = KeySet(keys=[STRANGER.public, SIGNER.public])
    assert verify_directory(pulled(tmp_path / "bot", both), keys).problems == []
    assert "does not match" in refused(tmp_path / "bot", KeySet(keys=[STRANGER.public]))[0]


def test_a_key_survives_its_file() -> None:
    again = Signer.from_pem(SIGNER.to_pem())
    assert again.public == SIGNER.public
    assert open_envelope(again.sign(statement(make_approval())), KEYS)


def test_a_key_id_is_the_sha256_of_the_raw_key() -> None:
    assert SIGNER.public.id == sha256_hex(base64.b64decode(SIGNER.public.public))


def test_the_signature_is_over_type_and_payload_as_dsse_says() -> None:
    """Checked with the key alone, by the protocol's own formula."""
    payload = b"{}"
    envelope = SIGNER.sign(payload)
    raw = base64.b64decode(SIGNER.public.public)
    message = b"DSSEv1 28 application/vnd.in-toto+json 2 {}"
    ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(envelope.signatures[0].sig), message)
    assert base64.b64decode(envelope.payload) == payload and envelope.payloadType == PAYLOAD_TYPE


def test_the_statement_names_manifest_files_policy_and_evidence() -> None:
    approval = make_approval()
    document = json.loads(statement(approval))
    assert document["subject"][0] == {
        "name": "team/support-bot/7",
        "digest": {"sha256": approval.digest.removeprefix("sha256:")},
    }
    assert {one["name"] for one in document["subject"][1:]} == set(FILES)
    predicate = document["predicate"]
    assert predicate["verificationResult"] == "PASSED" and predicate["tunegate"]["report"]["verdict"] == "go"
    assert predicate["policy"]["digest"]["sha256"] == approval.report.policy.removeprefix("sha256:")
    assert predicate["inputAttestations"][0]["digest"]["sha256"] == "7" * 64


def test_a_key_of_another_kind_is_not_a_signing_key() -> None:
    pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(ValueError, match="ed25519"):
        Signer.from_pem(pem)


# -- the directory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(FILES))
def test_one_changed_byte_of_any_file_is_found(tmp_path: Path, path: str) -> None:
    file = pulled(tmp_path / "bot") / path
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    assert refused(tmp_path / "bot") == [f"{path} was changed: its sha256 is not the approved one"]


@pytest.mark.parametrize("path", sorted(FILES))
def test_a_missing_file_is_found(tmp_path: Path, path: str) -> None:
    (pulled(tmp_path / "bot") / path).unlink()
    assert refused(tmp_path / "bot") == [f"{path} is missing"]


@pytest.mark.parametrize("path", ["adapter_model.bin", ".hidden", "attestation.json.bak", "team"])
def test_an_extra_file_is_found(tmp_path: Path, path: str) -> None:
    """An engine may prefer it to the approved one."""
    (pulled(tmp_path / "bot") / path).write_bytes(b"")
    assert refused(tmp_path / "bot") == [f"{path} does not belong to the approved version"]


def test_an_extra_folder_is_found(tmp_path: Path) -> None:
    (pulled(tmp_path / "bot") / "sub").mkdir()
    assert refused(tmp_path / "bot") == ["sub does not belong to the approved version"]


@pytest.mark.parametrize("target", ["elsewhere", "nowhere"])
def test_a_link_in_place_of_a_file_is_refused_even_to_the_right_bytes(tmp_path: Path, target: str) -> None:
    directory = pulled(tmp_path / "bot")
    (tmp_path / "elsewhere").write_bytes(FILES["README.md"])
    (directory / "README.md").unlink()
    (directory / "README.md").symlink_to(tmp_path / target)
    assert refused(directory) == ["README.md is not a regular file"]


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot")
    (directory / "README.md").unlink()
    (directory / "extra").write_bytes(b"")
    (directory / "adapter_config.json").write_bytes(b"{}")
    assert len(refused(directory)) == 3


def test_a_directory_that_is_not_there_is_an_error_and_not_a_verdict(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        verify_directory(tmp_path / "none", KEYS)


# -- the envelope -------------------------------------------------------------------------------------------------


def test_another_key_is_not_trusted(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot", STRANGER.sign(statement(make_approval())))
    assert "none of the trusted keys" in refused(directory)[0]
    assert "none of the trusted keys" in refused(directory, KeySet(keys=[]))[0]


def test_a_stranger_who_claims_the_trusted_key_id_is_found(tmp_path: Path) -> None:
    forged = STRANGER.sign(statement(make_approval()))
    claimed = [Signature(keyid=SIGNER.public.id, sig=forged.signatures[0].sig)]
    directory = pulled(tmp_path / "bot", msgspec.structs.replace(forged, signatures=claimed))
    assert refused(directory) == ["the signature does not match: the approval was changed"]


@pytest.mark.parametrize(
    "change",
    [{"number": 8}, {"adapter": "team/other"}, {"alias": "canary"}, {"approved_by": "eve"}, {"counter": 4}],
)
def test_a_payload_altered_after_signing_is_found(tmp_path: Path, change: dict[str, Any]) -> None:
    other = base64.b64encode(statement(make_approval(**change))).decode()
    assert "signature does not match" in refused(pulled(tmp_path / "bot", changed(payload=other)))[0]


def test_a_payload_of_another_type_is_refused_though_signed(tmp_path: Path) -> None:
    assert "payload type" in refused(pulled(tmp_path / "bot", changed(payloadType="text/plain")))[0]


@pytest.mark.parametrize(
    "signatures", [[], [Signature(keyid="x", sig="")], [Signature(keyid=SIGNER.public.id, sig="")]]
)
def test_an_envelope_without_a_signature_is_refused(tmp_path: Path, signatures: list[Signature]) -> None:
    assert refused(pulled(tmp_path / "bot", changed(signatures=signatures)))


@pytest.mark.parametrize("text", ["!", "YQ", "YQ=", "ä", "YQ==\n"])
def test_what_is_no_base64_is_refused(tmp_path: Path, text: str) -> None:
    assert refused(pulled(tmp_path / "bot", changed(payload=text)))
    assert refused(pulled(tmp_path / "bot", changed(signatures=[Signature(keyid=SIGNER.public.id, sig=text)])))


@pytest.mark.parametrize(
    "key",
    [
        PublicKey(id=SIGNER.public.id, algorithm="ed25519", public="!"),
        PublicKey(id=SIGNER.public.id, algorithm="ed25519", public=""),
        PublicKey(id=SIGNER.public.id, algorithm="ed25519", public=STRANGER.public.public),
        PublicKey(id=SIGNER.public.id, algorithm="rsa", public=SIGNER.public.public),
        PublicKey(id=STRANGER.public.id, algorithm="ed25519", public=SIGNER.public.public),
    ],
)
def test_a_key_that_is_none_verifies_nothing(tmp_path: Path, key: PublicKey) -> None:
    assert refused(pulled(tmp_path / "bot"), KeySet(keys=[key]))


def test_a_missing_attestation_is_invalid(tmp_path: Path) -> None:
    (pulled(tmp_path / "bot") / ATTESTATION_FILE).unlink()
    assert "missing" in refused(tmp_path / "bot")[0]


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", b"null", b"[]", b'{"payload": "\xff"}', b'{"x": ' + b"[" * 100_000, b"\0" * 100, b'{"payload": 1}'],
)
def test_an_attestation_that_is_no_envelope_is_invalid_and_never_a_crash(tmp_path: Path, data: bytes) -> None:
    (pulled(tmp_path / "bot") / ATTESTATION_FILE).write_bytes(data)
    assert refused(tmp_path / "bot")


def test_an_attestation_that_is_a_folder_is_invalid(tmp_path: Path) -> None:
    (pulled(tmp_path / "bot") / ATTESTATION_FILE).unlink()
    (tmp_path / "bot" / ATTESTATION_FILE).mkdir()
    assert refused(tmp_path / "bot")


# -- signed, but not an approval of these files -------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"digest": "sha256:" + "0" * 64},
        {"base": msgspec.structs.replace(BASE, digest="sha256:" + "9" * 64)},
        {"base": msgspec.structs.replace(BASE, id="another")},
    ],
)
def test_files_and_base_must_add_up_to_the_signed_manifest(tmp_path: Path, change: dict[str, Any]) -> None:
    found = refused(pulled(tmp_path / "bot", **change))
    assert found == ["the files and base do not add up to the signed manifest digest"]


@pytest.mark.parametrize("evidence", [{"accuracy": None}, {"outputs": None}, {"manifest": "sha256:" + "0" * 64}])
def test_a_statement_about_a_gate_that_did_not_pass_is_refused(tmp_path: Path, evidence: dict[str, Any]) -> None:
    report = decide(make_subject(), make_evidence(**evidence), make_ratings())
    assert refused(pulled(tmp_path / "bot", report=report)) == ["the statement does not say that the gate passed"]


def test_a_statement_whose_result_is_not_passed_is_refused(tmp_path: Path) -> None:
    document = json.loads(statement(make_approval()))
    document["predicate"]["verificationResult"] = "FAILED"
    assert refused(pulled(tmp_path / "bot", signed(document))) == ["the statement does not say that the gate passed"]


@pytest.mark.parametrize(
    "document", [[], None, 1, "x", {}, {"_type": "other"}, {"_type": "https://in-toto.io/Statement/v1"}]
)
def test_another_document_of_the_same_key_is_no_approval(tmp_path: Path, document: Any) -> None:
    assert refused(pulled(tmp_path / "bot", signed(document)))


@pytest.mark.parametrize("key", ["subject", "predicate"])
@pytest.mark.parametrize("value", [None, [], {}, [{}], "x", 1])
def test_an_approval_with_a_part_of_another_form_is_no_approval(tmp_path: Path, key: str, value: Any) -> None:
    document = {**json.loads(statement(make_approval())), key: value}
    assert refused(pulled(tmp_path / "bot", signed(document)))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pulled(tmp_path_factory.mktemp("fuzz") / "bot")


GOOD = msgspec.json.encode(SIGNER.sign(statement(make_approval())))


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 2), st.binary(max_size=2))
def test_an_envelope_with_changed_bytes_is_invalid_or_says_the_same(
    directory: Path, where: int, removed: int, added: bytes
) -> None:
    (directory / ATTESTATION_FILE).write_bytes(GOOD[:where] + added + GOOD[where + removed :])
    found = verify_directory(directory, KEYS)
    assert found.problems or found.ref == "team/support-bot/7"
