"""Signed approvals: what was signed verifies offline, and nothing else does."""

import base64
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from factories import BASE, SEALED, entry_of, make_adapter, make_evidence, make_ratings, make_subject, make_training
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.approval.attestation import Approval, Freshness, Signer, freshness_statement, ratings_digest, statement
from registry.approval.keyring import GATE, KEYS_TYPE, RELEASE_MANAGER, checksum, read_keys, read_public_pem
from registry.approval.verification import (
    ANYTHING,
    ATTESTATION_FILE,
    FRESHNESS_FILE,
    PAYLOAD_TYPE,
    Verified,
    Wanted,
    _manifest,
    open_statement,
    verify_directory,
)
from registry.gate.decision import decide
from registry.names import digest_of, sha256_hex
from registry.records import Base, Envelope, FileEntry, KeySet, PublicKey, Signature, manifest_digest

SIGNER, STRANGER, MANAGER = Signer.generate(), Signer.generate(), Signer.generate()
MANAGER_KEY = msgspec.structs.replace(MANAGER.public, roles=(RELEASE_MANAGER,), person="rita")
KEYS = KeySet(keys=[SIGNER.public])
BOTH_KEYS = KeySet(keys=[SIGNER.public, MANAGER_KEY])
NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
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
        "issued": "2026-01-01T00:00:00Z",
        "expires": "2027-01-01T00:00:00+00:00",
        "approved_by": "ada",
        "report": decide(make_subject(), make_evidence(), make_ratings(), SEALED),
        "evidence": "sha256:" + "7" * 64,
        "campaign": "c" * 32,
        "campaign_root": "sha256:" + "6" * 64,
        "ratings": "sha256:" + "5" * 64,
        "training": make_training(),
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


def key_file(keys: KeySet) -> bytes:
    """As `tunegate keys --to FILE` writes it."""
    return msgspec.json.encode(KeySet(keys=keys.keys, checksum=checksum(msgspec.to_builtins(keys.keys))))


def verified(
    directory: Path,
    keys: KeySet = KEYS,
    wanted: Wanted = ANYTHING,
    *,
    now: datetime = NOW,
    seen: dict[str, int] | None = None,
) -> Verified:
    """As `tunegate verify`: what no key can be read from verifies nothing."""
    try:
        known = read_keys(key_file(keys))
    except ValueError as error:
        return Verified([str(error)])
    return verify_directory(directory, known, now, wanted, seen or {})


def refused(directory: Path, keys: KeySet = KEYS, wanted: Wanted = ANYTHING, **given: Any) -> list[str]:
    found = verified(directory, keys, wanted, **given)
    assert found.problems
    return found.problems


def fresh(directory: Path, signer: Signer = SIGNER, issued: datetime = NOW, **changes: Any) -> Path:
    """The registry's word on the alias, beside what was pulled."""
    approval = make_approval()
    values = {name: getattr(approval, name) for name in Freshness._fields}
    envelope = signer.sign(freshness_statement(Freshness(**{**values, **changes}), issued))
    (directory / FRESHNESS_FILE).write_bytes(msgspec.json.encode(envelope))
    return directory


def countersigned(*signers: Signer, **approval: Any) -> Envelope:
    payload = statement(make_approval(**approval))
    return msgspec.structs.replace(SIGNER.sign(payload), signatures=[signer.signature(payload) for signer in signers])


def with_key(signer: Signer = SIGNER, **changes: Any) -> KeySet:
    return KeySet(keys=[msgspec.structs.replace(signer.public, **changes)])


# -- what holds ---------------------------------------------------------------------------------------------------


def test_what_was_pulled_verifies_and_says_what_it_is(tmp_path: Path) -> None:
    assert verified(pulled(tmp_path / "bot")) == Verified(
        [],
        "team/support-bot/7",
        "approved",
        3,
        "2026-01-01T00:00:00Z",
        "2027-01-01T00:00:00+00:00",
        "2026-01-01T00:00:00+00:00",
        [SIGNER.public.id],
    )


def test_any_one_of_several_trusted_keys_is_enough(tmp_path: Path) -> None:
    """So that keys can be rotated: old approvals stay valid while the old key is in the set."""
    directory = pulled(tmp_path / "bot")
    assert verified(directory, KeySet(keys=[STRANGER.public, SIGNER.public])).problems == []


def test_one_good_signature_of_a_trusted_key_is_enough_beside_a_broken_one(tmp_path: Path) -> None:
    payload = statement(make_approval())
    good, other = SIGNER.sign(payload), STRANGER.sign(b"{}")
    both = msgspec.structs.replace(good, signatures=[*other.signatures, *good.signatures])
    keys = KeySet(keys=[STRANGER.public, SIGNER.public])
    assert verified(pulled(tmp_path / "bot", both), keys).problems == []
    assert "does not match" in refused(tmp_path / "bot", KeySet(keys=[STRANGER.public]))[0]


def test_a_key_survives_its_file() -> None:
    again = Signer.from_pem(SIGNER.to_pem())
    assert again.public == SIGNER.public
    envelope = msgspec.json.encode(again.sign(statement(make_approval())))
    assert open_statement(envelope, read_keys(key_file(KEYS))).signed == {SIGNER.public.id}


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
    inputs = {one["uri"]: one["digest"]["sha256"] for one in predicate["inputAttestations"]}
    assert inputs == {
        "tunegate:evidence": "7" * 64,
        f"tunegate:campaign/{'c' * 32}": "6" * 64,
        f"tunegate:campaign/{'c' * 32}/ratings": "5" * 64,
        "tunegate:training": digest_of(msgspec.to_builtins(make_training())).removeprefix("sha256:"),
    }
    assert set(predicate["verifier"]) == {"id", "version"} and predicate["timeVerified"] == "2026-01-01T00:00:00Z"


def test_ratings_have_one_digest_in_any_order_and_another_if_one_differs() -> None:
    ratings = make_ratings()
    assert ratings_digest(ratings) == ratings_digest(ratings[::-1])
    other = msgspec.structs.replace(ratings[0], hallucination=not ratings[0].hallucination)
    assert ratings_digest([other, *ratings[1:]]) != ratings_digest(ratings)


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
        verified(tmp_path / "none")


# -- the envelope -------------------------------------------------------------------------------------------------


def test_another_key_is_not_trusted(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot", STRANGER.sign(statement(make_approval())))
    assert "none of the trusted keys" in refused(directory)[0]
    assert "none of the trusted keys" in refused(directory, KeySet(keys=[]))[0]


def test_a_stranger_who_claims_the_trusted_key_id_is_found(tmp_path: Path) -> None:
    forged = STRANGER.sign(statement(make_approval()))
    claimed = [Signature(keyid=SIGNER.public.id, sig=forged.signatures[0].sig)]
    directory = pulled(tmp_path / "bot", msgspec.structs.replace(forged, signatures=claimed))
    assert refused(directory) == ["the signature does not match: the statement was changed"]


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
    report = decide(make_subject(), make_evidence(**evidence), make_ratings(), SEALED)
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


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(0, 2), st.binary(max_size=2))
def test_an_envelope_with_changed_bytes_is_invalid_or_says_the_same(
    directory: Path, where: int, removed: int, added: bytes
) -> None:
    (directory / ATTESTATION_FILE).write_bytes(GOOD[:where] + added + GOOD[where + removed :])
    found = verified(directory)
    assert found.problems or found.ref == "team/support-bot/7"


@settings(max_examples=600, deadline=None)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_an_envelope_with_any_one_byte_changed_is_invalid(directory: Path, where: int, flipped: int) -> None:
    (directory / ATTESTATION_FILE).write_bytes(GOOD[:where] + bytes([GOOD[where] ^ flipped]) + GOOD[where + 1 :])
    assert verified(directory).problems


def test_every_bit_of_what_stands_around_the_payload_counts(directory: Path) -> None:
    """The last letter of base64 has spare bits, which most readers ignore."""
    begin = GOOD.index(b'","payloadType"')
    for where in (*range(begin - 2, len(GOOD)), *range(len(b'{"payload":"') + 2)):
        for bit in range(8):
            (directory / ATTESTATION_FILE).write_bytes(
                GOOD[:where] + bytes([GOOD[where] ^ 1 << bit]) + GOOD[where + 1 :]
            )
            assert verified(directory).problems, (where, bit)


KEY_FILE = key_file(BOTH_KEYS)


@settings(max_examples=600, deadline=None)
@given(st.integers(0, len(KEY_FILE) - 1), st.integers(1, 255))
def test_a_key_file_with_any_one_byte_changed_verifies_nothing(where: int, flipped: int) -> None:
    data = KEY_FILE[:where] + bytes([KEY_FILE[where] ^ flipped]) + KEY_FILE[where + 1 :]
    with pytest.raises(ValueError):
        read_keys(data)


def test_every_bit_of_a_key_file_counts() -> None:
    for where in range(len(KEY_FILE)):
        for bit in range(8):
            with pytest.raises(ValueError):
                read_keys(KEY_FILE[:where] + bytes([KEY_FILE[where] ^ 1 << bit]) + KEY_FILE[where + 1 :])


# -- time ---------------------------------------------------------------------------------------------------------


def test_an_expired_approval_is_refused_from_the_very_moment_on(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot")
    end = datetime(2027, 1, 1, tzinfo=UTC)
    assert verified(directory, now=end - timedelta(microseconds=1)).problems == []
    for now in (end, end + timedelta(days=1)):
        assert "expired at 2027-01-01 00:00 UTC" in refused(directory, now=now)[0]


def test_an_approval_from_the_future_is_refused_but_for_a_little_skew(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot")
    issued = datetime(2026, 1, 1, tzinfo=UTC)
    assert verified(directory, now=issued - timedelta(minutes=5)).problems == []
    assert "yet to come" in refused(directory, now=issued - timedelta(minutes=15))[0]


def test_an_old_approval_without_expiry_or_date_of_issue_still_verifies(tmp_path: Path) -> None:
    """As registries signed them before there was either."""
    document = json.loads(statement(make_approval()))
    for field in ("expires", "issued", "signedBy"):
        del document["predicate"]["tunegate"][field]
    document["predicate"]["inputAttestations"] = document["predicate"]["inputAttestations"][:1]
    found = verified(pulled(tmp_path / "bot", signed(document)))
    assert (found.problems, found.expires, found.as_of) == ([], None, "2026-01-01T00:00:00+00:00")


@pytest.mark.parametrize("field", ["expires", "issued"])
@pytest.mark.parametrize("value", ["never", "2026-01-01", "", 7, []])
def test_an_approval_whose_dates_cannot_be_read_is_none(tmp_path: Path, field: str, value: Any) -> None:
    document = json.loads(statement(make_approval()))
    document["predicate"]["tunegate"][field] = value
    assert refused(pulled(tmp_path / "bot", signed(document))) == ["the signed statement is not a tunegate approval"]


def test_max_age_counts_from_the_last_word_of_the_registry(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot")
    month = Wanted(max_age=timedelta(days=30))
    assert "last said so at 2026-01-01 00:00 UTC, more than 30 days ago" in refused(directory, wanted=month)[0]
    fresh(directory, issued=NOW - timedelta(days=29))
    assert verified(directory, wanted=month).problems == []
    fresh(directory, issued=NOW - timedelta(days=31))
    assert "2026-05-01" in refused(directory, wanted=month)[0]


# -- the registry's word on an alias ------------------------------------------------------------------------------


def test_a_word_on_the_alias_must_be_about_this_approval_and_by_the_gate(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot")
    assert verified(fresh(directory), wanted=Wanted(fresh=True)).as_of == NOW.isoformat()
    for change in (
        {"adapter": "team/other"},
        {"number": 8},
        {"alias": "canary"},
        {"counter": 4},
        {"digest": "sha256:" + "0" * 64},
    ):
        assert "freshness.json is about" in refused(fresh(directory, **change))[0]
    assert "none of the trusted keys" in refused(fresh(directory, STRANGER))[0]
    assert "has no role gate" in refused(fresh(directory, MANAGER), BOTH_KEYS)[0]


def test_an_approval_is_no_word_on_an_alias_and_the_other_way_round(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot")
    approval = (directory / ATTESTATION_FILE).read_bytes()
    (directory / FRESHNESS_FILE).write_bytes(approval)
    assert "is not of type https://tunegate.dev/alias/v1" in refused(directory)[0]
    word = (fresh(directory) / FRESHNESS_FILE).read_bytes()
    (directory / ATTESTATION_FILE).write_bytes(word)
    assert "is not of type https://slsa.dev/verification_summary/v1" in refused(directory)[0]


def test_where_a_fresh_word_is_wanted_none_and_an_expired_one_are_refused(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot")
    wanted = Wanted(fresh=True)
    assert "freshness.json is missing" in refused(directory, wanted=wanted)[0]
    assert verified(fresh(directory, issued=NOW - timedelta(hours=23)), wanted=wanted).problems == []
    assert (
        "word on team/support-bot@approved expired"
        in refused(fresh(directory, issued=NOW - timedelta(hours=24)), wanted=wanted)[0]
    )
    assert verified(directory).problems == [], "offline, the approval itself still holds"


@pytest.mark.parametrize("data", [b"", b"{}", b"null", b"\xff", b"[" * 100_000])
def test_a_word_that_is_none_is_refused_though_none_was_asked_for(tmp_path: Path, data: bytes) -> None:
    directory = pulled(tmp_path / "bot")
    (directory / FRESHNESS_FILE).write_bytes(data)
    assert "freshness.json" in refused(directory)[0]


# -- keys ---------------------------------------------------------------------------------------------------------


def test_a_retired_key_verifies_what_it_signed_in_its_time_and_nothing_else(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot")
    for bounds in (
        {"valid_from": "2025-12-31T00:00:00Z", "valid_until": "2026-01-02T00:00:00Z"},
        {"valid_from": "2026-01-01T00:00:00Z", "valid_until": "2026-01-01T00:00:00Z"},
    ):
        assert verified(directory, with_key(**bounds)).problems == []
    assert "was not yet valid" in refused(directory, with_key(valid_from="2026-01-01T00:00:01Z"))[0]
    assert "was no longer valid" in refused(directory, with_key(valid_until="2025-12-31T23:59:59Z"))[0]


def test_a_revoked_key_verifies_nothing_whenever_it_signed(tmp_path: Path) -> None:
    """Whoever stole it writes any date."""
    revoked = with_key(revoked_at="2026-05-01T00:00:00Z")
    assert "was revoked at 2026-05-01 00:00 UTC" in refused(pulled(tmp_path / "bot"), revoked)[0]


@pytest.mark.parametrize("roles", [(), ("checkpoint",), ("release-manager",), ("gate2",), ("Gate",)])
def test_a_key_of_another_role_approves_nothing(tmp_path: Path, roles: tuple[str, ...]) -> None:
    assert "has no role gate" in refused(pulled(tmp_path / "bot"), with_key(roles=roles))[0]


def test_a_key_file_from_before_there_were_roles_is_one_of_gates(tmp_path: Path) -> None:
    old = {"keys": [{name: getattr(SIGNER.public, name) for name in ("id", "algorithm", "public")}]}
    keys = read_keys(json.dumps(old).encode())
    assert verify_directory(pulled(tmp_path / "bot"), keys, NOW).problems == []


# -- the second signature -----------------------------------------------------------------------------------------

SECOND: dict[str, Any] = {"signed_by": (GATE, RELEASE_MANAGER)}


def test_where_an_approval_asks_for_a_second_signature_both_are_needed(tmp_path: Path) -> None:
    whole = pulled(tmp_path / "bot", countersigned(SIGNER, MANAGER, **SECOND))
    assert verified(whole, BOTH_KEYS).signed_by == sorted([SIGNER.public.id, MANAGER.public.id])
    lacking = "lacks the signature of a release-manager (no other key signed)"
    assert lacking in refused(pulled(tmp_path / "bot", countersigned(SIGNER, **SECOND)), BOTH_KEYS)[0]
    assert (
        "lacks the signature of a gate"
        in refused(pulled(tmp_path / "bot", countersigned(MANAGER, **SECOND)), BOTH_KEYS)[0]
    )
    assert lacking in refused(pulled(tmp_path / "bot", countersigned(SIGNER, MANAGER, **SECOND)), KEYS)[0]


def test_a_second_signature_can_be_asked_for_where_the_approval_does_not(tmp_path: Path) -> None:
    wanted = Wanted(roles=(RELEASE_MANAGER,))
    assert "lacks the signature of a release-manager" in refused(pulled(tmp_path / "bot"), BOTH_KEYS, wanted)[0]
    assert verified(pulled(tmp_path / "bot", countersigned(SIGNER, MANAGER)), BOTH_KEYS, wanted).problems == []


def test_one_key_does_not_sign_for_two_roles(tmp_path: Path) -> None:
    """And a key that may do both leaves the other role to one that may do only that."""
    directory = pulled(tmp_path / "bot", countersigned(SIGNER, **SECOND))
    able = msgspec.structs.replace(SIGNER.public, roles=(GATE, RELEASE_MANAGER))
    assert "release-manager" in refused(directory, KeySet(keys=[able]))[0]
    for gate in (SIGNER, MANAGER):
        both = [
            msgspec.structs.replace(one.public, roles=(GATE,) if one is gate else (GATE, RELEASE_MANAGER))
            for one in (SIGNER, MANAGER)
        ]
        whole = pulled(tmp_path / "bot", countersigned(SIGNER, MANAGER, **SECOND))
        assert verified(whole, KeySet(keys=both)).problems == []


def test_a_second_signature_of_a_revoked_key_is_none(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot", countersigned(SIGNER, MANAGER, **SECOND))
    revoked = msgspec.structs.replace(MANAGER_KEY, revoked_at="2026-05-01T00:00:00Z")
    assert "was revoked" in refused(directory, KeySet(keys=[SIGNER.public, revoked]))[0]


def test_a_key_that_signed_twice_is_refused(tmp_path: Path) -> None:
    assert "signed twice" in refused(pulled(tmp_path / "bot", countersigned(SIGNER, SIGNER)))[0]


# -- what it is wanted for ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (Wanted(adapter="team/other"), "an approval of team/support-bot, not of team/other"),
        (Wanted(number=8), "an approval of version 7, not of 8"),
        (Wanted(alias="canary"), "approved as approved, not as canary"),
        (Wanted(base="sha256:" + "9" * 64), f"approved for the base {BASE.digest}, not for sha256:999"),
        (Wanted(min_counter=4), "rollback: team/support-bot@approved is at move 3 here, and was at 4 before"),
    ],
)
def test_an_approval_of_something_else_is_refused(tmp_path: Path, wanted: Wanted, problem: str) -> None:
    assert problem in refused(pulled(tmp_path / "bot"), wanted=wanted)[0]


def test_an_approval_of_just_what_is_wanted_is_taken(tmp_path: Path) -> None:
    wanted = Wanted(adapter="team/support-bot", number=7, alias="approved", base=BASE.digest, min_counter=3)
    assert verified(pulled(tmp_path / "bot"), wanted=wanted).problems == []


def test_a_lower_counter_than_one_that_was_seen_is_a_rollback(tmp_path: Path) -> None:
    directory = pulled(tmp_path / "bot")
    name = "team/support-bot@approved"
    assert "rollback" in refused(directory, seen={name: 4})[0]
    assert verified(directory, seen={name: 3}).problems == []
    assert verified(directory, seen={"team/support-bot@canary": 9}).problems == []


# -- the small path -----------------------------------------------------------------------------------------------


def test_verification_needs_nothing_but_cryptography(tmp_path: Path) -> None:
    """In a process where nothing else can be imported."""
    directory = pulled(tmp_path / "bot")
    (tmp_path / "keys.json").write_bytes(key_file(KEYS))
    code = f"""
import sys
class Only:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in sys.stdlib_module_names and top not in ("registry", "cryptography", "_cffi_backend", "cffi"):
            raise ImportError(name + " is not to be needed")
sys.meta_path.insert(0, Only())
from datetime import datetime
from pathlib import Path
from registry.approval.keyring import read_keys
from registry.approval.verification import verify_directory
keys = read_keys(Path({str(tmp_path / "keys.json")!r}).read_bytes())
found = verify_directory(Path({str(directory)!r}), keys, datetime.fromisoformat({NOW.isoformat()!r}))
outside = {{name.partition(".")[0] for name in sys.modules}} & {{"duckdb", "litestar", "httpx", "msgspec", "rfc8785"}}
sys.exit("; ".join(found.problems) or ", ".join(outside) or None)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(st.tuples(TEXTS, st.integers(0, 2**53 - 1)), max_size=4, unique_by=lambda one: one[0]), TEXTS)
def test_the_manifest_digest_is_the_registrys_own(files: list[tuple[str, int]], base_id: str) -> None:
    base = Base(id=base_id, digest="sha256:" + "1" * 64)
    entries = [FileEntry(path=path, size=size, sha256=sha256_hex(path.encode())) for path, size in sorted(files)]
    plain = {"id": base.id, "digest": base.digest}
    assert f"sha256:{_manifest(msgspec.to_builtins(entries), plain)}" == manifest_digest(entries, base)


# -- a root over the keys -----------------------------------------------------------------------------------------

ROOT = Signer.generate()
ROOT_RAW = base64.b64decode(ROOT.public.public)


def test_a_key_file_under_a_root_is_read_with_that_root_only() -> None:
    enveloped = msgspec.json.encode(ROOT.sign(KEY_FILE, KEYS_TYPE))
    assert read_keys(enveloped, ROOT_RAW) == read_keys(KEY_FILE)
    with pytest.raises(ValueError, match="give that key with --root-key"):
        read_keys(enveloped)
    with pytest.raises(ValueError, match="no root key signed it"):
        read_keys(KEY_FILE, ROOT_RAW)
    with pytest.raises(ValueError, match="the root key did not sign it"):
        read_keys(enveloped, base64.b64decode(STRANGER.public.public))
    with pytest.raises(ValueError, match="did not sign it as a key file"):
        read_keys(msgspec.json.encode(ROOT.sign(KEY_FILE, PAYLOAD_TYPE)), ROOT_RAW)


SIGNED_KEY_FILE = msgspec.json.encode(ROOT.sign(msgspec.json.encode(KEYS), KEYS_TYPE))


def test_every_bit_of_a_signed_key_file_counts() -> None:
    for where in range(len(SIGNED_KEY_FILE)):
        for bit in range(8):
            data = SIGNED_KEY_FILE[:where] + bytes([SIGNED_KEY_FILE[where] ^ 1 << bit]) + SIGNED_KEY_FILE[where + 1 :]
            with pytest.raises(ValueError):
                read_keys(data, ROOT_RAW)


@pytest.mark.parametrize(
    "change",
    [
        {"id": STRANGER.public.id},
        {"public": "AAAA"},
        {"roles": [7]},
        {"roles": "gate"},
        {"valid_from": "yesterday"},
        {"valid_until": "2026-01-01"},
        {"revoked_at": 7},
        {"unknown": None},
    ],
)
def test_a_key_file_that_does_not_hold_together_is_refused_whole(change: dict[str, Any]) -> None:
    key = {**msgspec.to_builtins(SIGNER.public), **change}
    with pytest.raises(ValueError):
        read_keys(json.dumps({"keys": [msgspec.to_builtins(MANAGER_KEY), key]}).encode())


def test_a_key_that_is_listed_twice_or_of_another_kind_is_not_taken() -> None:
    with pytest.raises(ValueError, match="one key twice"):
        read_keys(msgspec.json.encode(KeySet(keys=[SIGNER.public, SIGNER.public])))
    other = {"id": "x", "algorithm": "ml-dsa-65", "public": "?"}
    document = {"keys": [other, msgspec.to_builtins(SIGNER.public)]}
    assert [key.id for key in read_keys(json.dumps(document).encode())] == [SIGNER.public.id]


def test_json_with_a_key_twice_is_refused() -> None:
    """Two readers could take two different values for it."""
    with pytest.raises(ValueError, match="one key twice"):
        read_keys(b'{"keys": [], "keys": []}')


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_of_json_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no JSON"):
        read_keys(b'{"keys": [' + text.encode() + b"]}")


# -- key files of people ------------------------------------------------------------------------------------------


def test_a_public_key_is_read_from_its_pem() -> None:
    assert read_public_pem(SIGNER.public_pem()) == base64.b64decode(SIGNER.public.public)
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for data in (pem, SIGNER.to_pem(), b"", b"\xff"):
        with pytest.raises(ValueError):
            read_public_pem(data)


def test_an_encrypted_private_key_is_refused_and_not_a_crash() -> None:
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    with pytest.raises(ValueError, match="encrypted"):
        Signer.from_pem(pem)


@pytest.mark.parametrize("part", ["predicate", "subject"])
@pytest.mark.parametrize("value", [None, [], {}, [{}], "x", 1])
def test_a_word_on_an_alias_with_a_part_of_another_form_is_none(tmp_path: Path, part: str, value: Any) -> None:
    directory = fresh(pulled(tmp_path / "bot"))
    word = json.loads(base64.b64decode(json.loads((directory / FRESHNESS_FILE).read_bytes())["payload"]))
    (directory / FRESHNESS_FILE).write_bytes(msgspec.json.encode(signed({**word, part: value})))
    assert "is not what a tunegate registry says of an alias" in refused(directory)[0]


@pytest.mark.parametrize("field", ["number", "counter"])
@pytest.mark.parametrize("value", [True, 1.0, "7", None])
def test_a_number_of_another_kind_makes_no_approval(tmp_path: Path, field: str, value: Any) -> None:
    document = json.loads(statement(make_approval()))
    document["predicate"]["tunegate"][field] = value
    assert refused(pulled(tmp_path / "bot", signed(document))) == ["the signed statement is not a tunegate approval"]


def test_a_version_without_training_record_names_none() -> None:
    inputs = json.loads(statement(make_approval(training=None)))["predicate"]["inputAttestations"]
    assert len(inputs) == 3 and "tunegate:training" not in {one["uri"] for one in inputs}


def test_no_approval_talks_itself_out_of_the_gates_signature(tmp_path: Path) -> None:
    for roles in ((RELEASE_MANAGER,), ()):
        directory = pulled(tmp_path / "bot", countersigned(MANAGER, signed_by=roles))
        assert "lacks the signature of a gate" in refused(directory, BOTH_KEYS)[0]
