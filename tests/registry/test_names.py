"""Names and references: what is one, what is not, and what no two may share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import InvalidRequest
from registry.names import (
    RESERVED,
    Reference,
    check_adapter_name,
    check_alias,
    check_digest,
    check_hex,
    digest_of,
    parse_reference,
    project_of,
    sha256_hex,
)

HEX = "0123456789abcdef" * 4
SEGMENT = st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True).filter(lambda text: text not in RESERVED)
NAME = st.one_of(SEGMENT, st.tuples(SEGMENT, SEGMENT).map("/".join))


@pytest.mark.parametrize(
    "name", ["a", "7b", "support-bot", "team/support-bot", "a--b", "x" * 63, f"{'x' * 63}/{'y' * 63}", "7/a"]
)
def test_a_name_of_the_contract_is_accepted(name: str) -> None:
    assert check_adapter_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "", "-a", "a-", "A", "a_b", "a.b", "a b", "a\n", "\na", "a/", "/a", "a//b", "a/b/c", "..", "../a", "a/..",
        "x" * 64, "ä", "а", "a\0", "a@b", "a%2fb", "٣", "a/x\n", "１",
    ],
)  # fmt: skip
def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="adapter name"):
        check_adapter_name(name)


@pytest.mark.parametrize("word", sorted(RESERVED))
def test_reserved_words_are_refused_in_either_segment(word: str) -> None:
    for name in (word, f"team/{word}", f"{word}/bot"):
        with pytest.raises(InvalidRequest, match="reserved"):
            check_adapter_name(name)


@pytest.mark.parametrize("word", ["latest", "approved", "schema", "health", "versions", "con", "nul"])
def test_the_words_of_the_contract_and_of_file_systems_are_reserved(word: str) -> None:
    assert word in RESERVED


@pytest.mark.parametrize("name", ["7", "007", "team/7"])
def test_a_name_that_would_read_as_a_version_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest, match="digits only"):
        check_adapter_name(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("support-bot", Reference("support-bot", alias="approved")),
        ("team/support-bot", Reference("team/support-bot", alias="approved")),
        ("support-bot/7", Reference("support-bot", number=7)),
        ("team/support-bot/12", Reference("team/support-bot", number=12)),
        ("support-bot@approved", Reference("support-bot", alias="approved")),
        ("support-bot@latest", Reference("support-bot", alias="approved")),
        ("team/support-bot@canary", Reference("team/support-bot", alias="canary")),
        (f"support-bot@sha256:{HEX}", Reference("support-bot", digest=f"sha256:{HEX}")),
    ],
)
def test_a_reference_names_one_version(text: str, expected: Reference) -> None:
    assert parse_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "@", "@approved", "support-bot@", "support-bot/", "support-bot/0", "support-bot/-1", "support-bot/1.0",
        "support-bot/+1", "support-bot/٣", "support-bot/1234567890", "a/b/c/1", "support-bot@a@b",
        "support-bot@Approved", "support-bot/7@approved", "support-bot@7", "support-bot@approved/7",
        f"support-bot@sha256:{HEX.upper()}",
        f"support-bot@sha256:{HEX[:-1]}", f"support-bot@sha256:{HEX}\n", "support-bot@latest ", "../x@approved",
        "support-bot@../x", "latest", "7", "1/7",
    ],
)  # fmt: skip
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        parse_reference(text)


@given(NAME, st.integers(1, 999_999_999), st.binary(max_size=8))
def test_every_way_to_write_a_reference_reads_back(name: str, number: int, data: bytes) -> None:
    digest = "sha256:" + sha256_hex(data)
    assert parse_reference(f"{name}/{number}") == Reference(name, number=number)
    assert parse_reference(f"{name}@{digest}") == Reference(name, digest=digest)
    assert parse_reference(name) == parse_reference(f"{name}@latest") == Reference(name, alias="approved")


@given(st.text(max_size=80))
def test_any_text_is_a_reference_to_exactly_one_thing_or_an_invalid_request(text: str) -> None:
    try:
        found = parse_reference(text)
    except InvalidRequest:
        return
    assert sum(part is not None for part in found[1:]) == 1
    assert check_adapter_name(found.adapter) == found.adapter


def test_latest_is_read_and_never_written() -> None:
    with pytest.raises(InvalidRequest):
        check_alias("latest")
    assert check_alias("approved") == "approved" and check_alias("canary-2") == "canary-2"


@pytest.mark.parametrize("alias", ["", "Canary", "2x", "a-", "-a", "a_b", "x" * 64, "sha256:x", "approved\n"])
def test_what_is_no_alias_cannot_be_written(alias: str) -> None:
    with pytest.raises(InvalidRequest, match="alias"):
        check_alias(alias)


@pytest.mark.parametrize("text", ["", HEX[:-1], HEX + "0", HEX.upper(), HEX + "\n", "g" * 64])
def test_a_digest_is_64_lower_case_hex_digits(text: str) -> None:
    assert check_hex(HEX) == HEX and check_digest("sha256:" + HEX) == "sha256:" + HEX
    for check, value in ((check_hex, text), (check_digest, "sha256:" + text), (check_digest, text)):
        with pytest.raises(InvalidRequest):
            check(value)


def test_the_digest_of_a_value_is_sha256_over_canonical_json() -> None:
    """RFC 8785: keys sorted, no spaces, 1.0 written as 1."""
    assert digest_of({"b": 1.0, "a": "ä"}) == "sha256:" + sha256_hex('{"a":"ä","b":1}'.encode())
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_an_adapter_without_a_namespace_is_a_project_of_its_own() -> None:
    assert [project_of(one) for one in ("team/support-bot", "team", "support-bot")] == ["team", "team", "support-bot"]
