"""Every parser of untrusted bytes, fed mutations of what is right: it answers, or refuses in the errors' own words.

A case that once got through is kept below as an `@example`, so that it is tried every time.
"""

import functools
import json
import struct
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from factories import (
    BASE_TENSORS,
    SUITES,
    as_lines,
    make_config,
    make_entries,
    make_header,
    make_suite,
    make_tensors,
    pinned,
    rows_and_evidence,
)
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from soak import amount

from evaluator.evidence import write_rows
from registry.access import authenticate, new_secret
from registry.api.cursor import read_cursor, read_number, write_cursor
from registry.api.ranges import read_piece, wanted_span
from registry.errors import EvidenceRefused, InvalidRequest, RangeRefused, StorageDamaged, Unauthenticated
from registry.gate.policy import read_policy
from registry.inspection.adapter import AdapterFiles, header_size, inspect
from registry.names import check_adapter_name, check_alias, check_digest, parse_reference
from registry.records import Role
from registry.storage.blobs import LocalBlobs
from registry.storage.catalog import Catalog
from registry.storage.journal import FileJournal, verify_chain
from registry.storage.rows import read_rows
from registry.suites import read_suite

pytestmark = pytest.mark.slow

LONG = settings(
    max_examples=amount(150, 20_000),
    deadline=None,
    derandomize=not amount(0, 1),
    database=None,
    suppress_health_check=list(HealthCheck),
)


@st.composite
def mutated(draw: st.DrawFn, good: bytes) -> bytes:
    """Up to five changes to bytes that are right: overwrite, cut out, repeat, insert, cut off."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, len(data)))
        size = draw(st.integers(0, 16))
        kind = draw(st.sampled_from(["overwrite", "cut out", "repeat", "insert", "cut off"]))
        if kind == "overwrite":
            data[at : at + size] = draw(st.binary(min_size=size, max_size=size))
        elif kind == "cut out":
            del data[at : at + size]
        elif kind == "repeat":
            data[at:at] = data[at : at + size] * draw(st.integers(1, 50))
        elif kind == "insert":
            data[at:at] = draw(st.sampled_from(INSERTED))
        else:
            del data[at:]
    return bytes(data)


# What parsers have stumbled over: nesting, numbers without end, escapes, keywords of other dialects.
INSERTED = [
    b"[" * 2000,
    b'{"a":' * 2000,
    b"9" * 5000,
    b"1e999",
    b"-0",
    b"NaN",
    b"\\ud800",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"null",
    b'"r":8,',
    b"\r\n",
    b"\x1b[2J",
]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


# -- an adapter's files ---------------------------------------------------------------------------------------------

CONFIG = make_config()
HEADER = json.dumps(make_header(make_tensors())[0]).encode()
SIZE = 8 + len(HEADER) + make_header(make_tensors())[1]


def findings(config: bytes, header: bytes) -> list[str]:
    sizes = {"adapter_config.json": len(config), "adapter_model.safetensors": SIZE - len(HEADER) + len(header)}
    found = inspect(AdapterFiles(sizes, config, header, BASE_TENSORS))
    return [one.message for one in found if one.severity == "error"]


@LONG
@given(mutated(CONFIG), mutated(HEADER))
def test_mutated_config_and_header_are_judged_without_a_crash(config: bytes, header: bytes) -> None:
    assert findings(CONFIG, HEADER) == []
    for found in (findings(config, HEADER), findings(CONFIG, header), findings(config, header)):
        assert all(isinstance(message, str) and message for message in found)


@LONG
@given(st.sampled_from([*sorted(json.loads(CONFIG)), "use_dora", "rank_pattern", "modules_to_save"]), json_values)
def test_any_value_of_any_config_key_is_judged_without_a_crash(key: str, value: Any) -> None:
    config = json.dumps({**json.loads(CONFIG), key: value}).encode()
    assert isinstance(findings(config, HEADER), list)


@LONG
@given(st.sampled_from(["dtype", "shape", "data_offsets", "more"]), json_values, st.integers(0, 3))
def test_any_value_in_a_tensors_description_is_judged_without_a_crash(key: str, value: Any, which: int) -> None:
    header = json.loads(HEADER)
    name = sorted(header)[which]
    if header[name].get(key) == value:
        return
    header[name] = {**header[name], key: value}
    assert findings(CONFIG, json.dumps(header).encode())


@LONG
@given(st.binary(max_size=9), st.integers(0, 2**64))
def test_length_of_the_header_is_within_the_file_or_refused(prefix: bytes, size: int) -> None:
    try:
        assert 2 <= header_size(prefix, size) <= size - 8
    except ValueError as refused:
        assert "safetensors" in str(refused)
    assert header_size(struct.pack("<Q", 100), 108) == 100


# -- the journal ----------------------------------------------------------------------------------------------------


@functools.cache
def journal_bytes() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        journal = FileJournal(Path(folder) / "journal.log")
        journal.append(as_lines(make_entries(5)))
        journal.close()
        return (Path(folder) / "journal.log").read_bytes()


@LONG
@given(mutated(journal_bytes()))
def test_a_mutated_journal_opens_with_a_true_beginning_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal.log"
    path.write_bytes(data)
    try:
        journal = FileJournal(path)
    except StorageDamaged:
        assert path.read_bytes() == data, "refused, and left as it is"
        return
    journal.close()
    assert journal_bytes().startswith(path.read_bytes())
    assert verify_chain(path) == journal.head


# -- what stands in URLs and headers --------------------------------------------------------------------------------

PARSERS: dict[str, tuple[Callable[[str], Any], list[str]]] = {
    "cursor": (read_cursor, [write_cursor("support-bot"), write_cursor("7")]),
    "number cursor": (read_number, [write_cursor("7"), write_cursor("1234567890")]),
    "reference": (parse_reference, ["team/support-bot@approved", "support-bot/7", f"support-bot@sha256:{'a' * 64}"]),
    "adapter": (check_adapter_name, ["team/support-bot", "support-bot"]),
    "alias": (check_alias, ["approved", "canary-2"]),
    "digest": (check_digest, [f"sha256:{'0' * 64}"]),
    "policy": (read_policy, ['[accuracy]\nmin = 0.85\nrule = "lower_bound"\n']),
}


@pytest.mark.parametrize("name", PARSERS)
@LONG
@given(data=st.data())
def test_mutated_text_is_read_or_refused_in_words(name: str, data: st.DataObject) -> None:
    parse, good = PARSERS[name]
    text = data.draw(
        st.text(max_size=40) | st.sampled_from(good).flatmap(lambda one: mutated(one.encode())).map(_lenient)
    )
    assert all(parse(one) for one in good)
    try:
        parse(text)
    except InvalidRequest as refused:
        assert str(refused)


def _lenient(data: bytes) -> str:
    return data.decode("utf-8", errors="surrogateescape")


@LONG
@given(
    st.text(max_size=30) | mutated(b"bytes 0-99/1000").map(_lenient),
    st.none() | st.text(max_size=10) | st.integers().map(str),
)
@example("bytes 5-4/10", "1")
@example("bytes 0-9/9", "10")
def test_content_range_is_within_its_total_or_refused(span: str, length: str | None) -> None:
    try:
        piece = read_piece({"Content-Range": span} | ({} if length is None else {"Content-Length": length}))
    except InvalidRequest:
        return
    assert piece.total is not None and piece.size is not None
    assert 0 <= piece.offset < piece.offset + piece.size <= piece.total


@LONG
@given(st.text(max_size=30) | mutated(b"bytes=10-99").map(_lenient), st.integers(0, 200))
@example("bytes=-0", 10)
@example("bytes=0-", 0)
def test_range_is_within_the_blob_or_refused(span: str, size: int) -> None:
    try:
        wanted = wanted_span({"Range": span}, size, '"x"')
    except RangeRefused:
        return
    assert wanted is None or 0 <= wanted.first <= wanted.last < size


class NoTokens:
    """A view that knows no token, so that whatever passes must have been forged."""

    def token(self, id_: str) -> None:
        assert len(id_) == 12


@LONG
@given(st.text(max_size=200) | mutated(new_secret(Role.RELEASE_MANAGER)[1].encode()).map(_lenient))
def test_no_mutation_of_a_token_is_let_in(text: str) -> None:
    with pytest.raises(Unauthenticated):
        authenticate(NoTokens(), text, datetime.now(UTC))  # type: ignore[arg-type]


# -- suites and rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["questions", "conversations", "prompts"])
@LONG
@given(data=st.data())
def test_mutated_suite_files_are_read_or_refused_in_words(kind: str, data: st.DataObject) -> None:
    good = make_suite("desk/suite", kind, 3)
    bad = {name: data.draw(mutated(content)) for name, content in good.items()}
    assert len(read_suite(good).items) == 3
    for content in (bad, good | {"suite.toml": bad["suite.toml"]}, good | {"items.jsonl": bad["items.jsonl"]}):
        try:
            assert read_suite(content).items
        except InvalidRequest as refused:
            assert str(refused)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    folder = tmp_path_factory.mktemp("rows")
    return Catalog(None, folder / "staging", LocalBlobs(folder / "blobs"))


@functools.cache
def parquet_bytes() -> bytes:
    rows, _ = rows_and_evidence({section: pinned(section) for section in SUITES}, "", "")
    with tempfile.TemporaryDirectory() as folder:
        write_rows(Path(folder) / "rows.parquet", rows[::40])
        return (Path(folder) / "rows.parquet").read_bytes()


@st.composite
def damaged_rows(draw: st.DrawFn) -> bytes:
    """Changed in the bytes of the data, or in the footer, which says where and what everything is."""
    good, cut = parquet_bytes(), start_of_footer()
    match draw(st.sampled_from(["anywhere", "data", "footer", "footer of another length"])):
        case "anywhere":
            return draw(mutated(good))
        case "data":
            return draw(mutated(good[:cut])) + good[cut:]
        case "footer":
            return good[:cut] + draw(mutated(good[cut:-8])) + good[-8:]
    footer = draw(mutated(good[cut:-8]))
    return good[:cut] + footer + struct.pack("<I", len(footer)) + b"PAR1"


def start_of_footer() -> int:
    return len(parquet_bytes()) - 8 - int.from_bytes(parquet_bytes()[-8:-4], "little")


def with_bits_of_footer(at: int, bits: int) -> bytes:
    data, place = bytearray(parquet_bytes()), start_of_footer() + at
    data[place] ^= bits
    return bytes(data)


# Two that were found: Thrift that ends in a bare duckdb.Error, and a size below zero, at which DuckDB gives up.
BARE, FATAL = with_bits_of_footer(0, 0x15), with_bits_of_footer(337, 1)


@settings(LONG, max_examples=amount(60, 5000))
@given(bad=damaged_rows())
@example(bad=BARE)
@example(bad=FATAL)
def test_mutated_rows_are_read_or_refused_in_words(tmp_path_factory: pytest.TempPathFactory, bad: bytes) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.parquet"
    path.write_bytes(bad)
    try:
        assert isinstance(read_rows(path), list)
    except EvidenceRefused as refused:
        assert "/" not in str(refused), "no path of ours"


def test_rows_at_which_duckdb_gives_up_are_refused_and_the_catalog_lives_on(catalog: Catalog) -> None:
    with duckdb.connect() as other, pytest.raises(duckdb.InternalException):
        path = catalog._staging / "fatal.parquet"
        path.write_bytes(FATAL)
        other.execute(f"SELECT * FROM read_parquet('{path}')").fetchall()
    with pytest.raises(EvidenceRefused, match="not a Parquet file"):
        catalog.read_rows(catalog._blobs.put(FATAL))
    assert catalog.read_rows(catalog._blobs.put(parquet_bytes()))
