"""A checkpoint is a C2SP signed note that others can read, and nothing that was changed passes for one."""

import base64
import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st

from registry.audit.checkpoint import (
    Checkpoint,
    key_id,
    open_checkpoint,
    open_note,
    origin_of,
    sign_checkpoint,
    sign_note,
)

# Published with Go's golang.org/x/mod/sumdb/note (PeterNeumann) and in the documentation of other implementations.
PUBLISHED = [
    (
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
        "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n",
    ),
    (
        "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
        "This is an example message.\n\n"
        "— example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM="
        "\n",
    ),
]
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
OTHER_PUBLIC = OTHER.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
CHECKPOINT = Checkpoint(origin_of("1f0c"), 42, hashlib.sha256(b"root").digest())
NOTE = sign_checkpoint(CHECKPOINT, PUBLIC, PRIVATE.sign)


def read_as_others_do(note: str, name: str, public: bytes) -> str:
    """The text of a signed note, by the specification alone; raises if it does not verify."""
    text, signatures = note[: note.rindex("\n\n") + 1], note[note.rindex("\n\n") + 2 :]
    for line in signatures.splitlines():
        dash, line_name, encoded = line.split(" ")
        raw = base64.b64decode(encoded)
        expected = hashlib.sha256(line_name.encode() + b"\n" + b"\x01" + public).digest()[:4]
        if dash == "\u2014" and line_name == name and raw[:4] == expected:
            Ed25519PublicKey.from_public_bytes(public).verify(raw[4:], text.encode())
            return text
    raise InvalidSignature


def verifier(text: str) -> tuple[str, str, bytes]:
    name, id_, key = text.split("+", 2)
    return name, id_, base64.b64decode(key)[1:]


@pytest.mark.parametrize(("key", "note"), PUBLISHED)
def test_published_notes_verify(key: str, note: str) -> None:
    name, id_, public = verifier(key)
    assert key_id(name, public).hex() == id_
    assert open_note(note, [(name, public)]) == note[: note.rindex("\n\n") + 1]
    with pytest.raises(ValueError, match="none of the trusted keys"):
        open_note(note, [("example.com/bar", public)])


def test_others_read_what_is_signed_here() -> None:
    text = read_as_others_do(NOTE, CHECKPOINT.origin, PUBLIC)
    origin, size, root = text.splitlines()
    assert (origin, size, base64.b64decode(root)) == ("tunegate.dev/registry/1f0c", "42", CHECKPOINT.root)
    assert text.endswith("\n") and NOTE.startswith(text + "\n\u2014 ") and NOTE.count("\n") == 5


def test_what_was_signed_is_read_again() -> None:
    assert open_checkpoint(NOTE, [OTHER_PUBLIC, PUBLIC]) == CHECKPOINT


def test_signatures_of_witnesses_are_passed_over() -> None:
    witness = sign_note(NOTE[: NOTE.rindex("\n\n") + 1], "witness.example", OTHER_PUBLIC, OTHER.sign)
    both = NOTE + witness[witness.rindex("\n\n") + 2 :]
    assert open_checkpoint(both, [PUBLIC]) == CHECKPOINT
    with pytest.raises(ValueError, match="none of the trusted keys"):
        open_checkpoint(witness, [OTHER_PUBLIC])


def test_one_wrong_signature_of_a_trusted_key_refuses_the_note() -> None:
    forged = base64.b64encode(key_id(CHECKPOINT.origin, OTHER_PUBLIC) + bytes(64)).decode()
    with pytest.raises(ValueError, match="does not match"):
        open_checkpoint(f"{NOTE}\u2014 {CHECKPOINT.origin} {forged}\n", [PUBLIC, OTHER_PUBLIC])


def test_unknown_key_is_refused() -> None:
    with pytest.raises(ValueError, match="none of the trusted keys"):
        open_checkpoint(NOTE, [OTHER_PUBLIC])
    with pytest.raises(ValueError, match="none of the trusted keys"):
        open_checkpoint(NOTE, [])


@given(st.integers(0, len(NOTE.encode()) - 1), st.integers(0, 7))
def test_no_bit_of_a_note_can_be_flipped(place: int, bit: int) -> None:
    data = bytearray(NOTE.encode())
    data[place] ^= 1 << bit
    with pytest.raises(ValueError):
        open_checkpoint(data.decode("utf-8"), [PUBLIC])


@given(st.integers(0, len(NOTE) - 1), st.text(max_size=3))
def test_no_part_of_a_note_can_be_replaced(place: int, text: str) -> None:
    changed = NOTE[:place] + text + NOTE[place + 1 :]
    if changed != NOTE:
        with pytest.raises(ValueError):
            open_checkpoint(changed, [PUBLIC])


@given(st.text())
def test_any_text_is_refused_without_another_error(text: str) -> None:
    with pytest.raises(ValueError):
        open_checkpoint(text, [PUBLIC])


def signed(text: str) -> str:
    return sign_note(text, CHECKPOINT.origin, PUBLIC, PRIVATE.sign)


ROOT = base64.b64encode(CHECKPOINT.root).decode()


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["42"], "takes an origin, a size and a root"),
        (["42", ""], "takes an origin, a size and a root"),
        (["042", ROOT], "not a whole number"),
        (["-1", ROOT], "not a whole number"),
        (["4٢", ROOT], "not a whole number"),
        (["1" * 20, ROOT], "not a whole number"),
        (["42", ROOT[:-4]], "not a base64 hash"),
        (["42", ROOT + "AAAA"], "not a base64 hash"),
        (["42", ROOT.replace("=", "")], "not a base64 hash"),
        (["42", ROOT[:-2] + chr(ord(ROOT[-2]) + 1) + "="], "not a base64 hash"),
        (["42\u2028" + ROOT], "takes an origin, a size and a root"),
    ],
)
def test_signed_text_that_is_no_checkpoint_is_refused(lines: list[str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        open_checkpoint(signed("\n".join([CHECKPOINT.origin, *lines]) + "\n"), [PUBLIC])


def test_extension_lines_are_passed_over() -> None:
    assert open_checkpoint(signed(f"{CHECKPOINT.origin}\n42\n{ROOT}\nmore\n"), [PUBLIC]) == CHECKPOINT


def test_note_with_too_many_signatures_or_too_long_is_refused() -> None:
    line = NOTE[NOTE.rindex("\n\n") + 2 :]
    assert open_checkpoint(NOTE + line * 99, [PUBLIC]) == CHECKPOINT
    with pytest.raises(ValueError, match="too many"):
        open_checkpoint(NOTE + line * 100, [PUBLIC])
    with pytest.raises(ValueError, match="too long"):
        open_checkpoint(signed(f"{CHECKPOINT.origin}\n42\n{ROOT}\n{'x' * 100_000}\n"), [PUBLIC])
