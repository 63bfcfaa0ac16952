"""The journal loses nothing that it accepted, shows nothing that it did not, and refuses what does not hash."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from factories import as_lines, make_entries
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import StorageDamaged
from registry.events import GENESIS, Entry, chain_hash, encode_entry
from registry.storage.journal import FileJournal, Head, Journal, MemoryJournal, verify_chain

TESTS = Path(__file__).parents[2]


@pytest.fixture(params=["memory", "file"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    made: Journal = MemoryJournal() if request.param == "memory" else FileJournal(tmp_path / "journal.log")
    yield made
    made.close()


# -- the contract, for every journal ------------------------------------------------------------------------------


def test_empty_journal_is_at_genesis(journal: Journal) -> None:
    assert journal.head == Head(0, GENESIS)
    assert list(journal.read()) == []


def test_entries_are_read_in_the_order_they_were_appended(journal: Journal) -> None:
    entries = make_entries(5)
    for entry in entries:
        assert journal.append(as_lines([entry])).seq == entry.seq
    assert [line.entry for line in journal.read()] == entries


def test_every_line_hashes_and_names_the_one_before(journal: Journal) -> None:
    journal.append(as_lines(make_entries(4)))
    before = GENESIS
    for line in journal.read():
        assert line.entry.prev == before
        assert line.hash == chain_hash(line.body)
        before = line.hash
    assert journal.head == Head(4, before)


def test_group_is_appended_whole(journal: Journal) -> None:
    entries = make_entries(7)
    journal.append(as_lines(entries[:2]))
    head = journal.append(as_lines(entries[2:]))
    assert head == journal.head and head.seq == 7
    assert [line.entry for line in journal.read()] == entries


def test_appending_nothing_changes_nothing(journal: Journal) -> None:
    head = journal.append(as_lines(make_entries(1)))
    assert journal.append([]) == head
    assert len(list(journal.read())) == 1


@pytest.mark.parametrize("after", range(5))
def test_reading_after_a_number_starts_with_the_next(journal: Journal, after: int) -> None:
    journal.append(as_lines(make_entries(3)))
    assert [line.entry.seq for line in journal.read(after=after)] == list(range(1, 4))[after:]


STALE: list[Callable[[list[Entry]], list[Entry]]] = [
    lambda made: [made[1]],  # again
    lambda made: [made[3]],  # one left out
    lambda made: [made[2], made[4]],  # a gap within the group
    lambda made: [make_entries(3)[0]],  # from the beginning
    lambda made: make_entries(3, events=[])[2:],  # the right number after another history
]


@pytest.mark.parametrize("choose", STALE)
def test_append_at_a_stale_sequence_number_changes_nothing(
    journal: Journal, choose: Callable[[list[Entry]], list[Entry]]
) -> None:
    entries = make_entries(5)
    head = journal.append(as_lines(entries[:2]))
    with pytest.raises(StorageDamaged, match="does not follow entry"):
        journal.append(as_lines(choose(entries)))
    assert journal.head == head
    assert [line.entry for line in journal.read()] == entries[:2]
    assert journal.append(as_lines(entries[2:])).seq == 5


def test_reader_does_not_see_what_is_appended_after_it_began(journal: Journal) -> None:
    entries = make_entries(4)
    journal.append(as_lines(entries[:2]))
    reader = journal.read()
    first = next(reader)
    journal.append(as_lines(entries[2:]))
    seen = [first.entry, *(line.entry for line in reader)]
    assert seen == entries[: len(seen)] and len(seen) >= 2


# -- the file -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def opened(path: Path) -> Iterator[FileJournal]:
    journal = FileJournal(path)
    try:
        yield journal
    finally:
        journal.close()


def written(path: Path, n: int = 3, groups: int | None = None) -> bytes:
    """A journal of n entries, closed; the last `groups` of them appended at once."""
    entries = make_entries(n)
    with opened(path) as journal:
        alone = n - (groups or 0)
        for entry in entries[:alone]:
            journal.append(as_lines([entry]))
        journal.append(as_lines(entries[alone:]))
    return path.read_bytes()


def test_file_gives_back_after_reopening_what_was_appended(tmp_path: Path) -> None:
    path, entries = tmp_path / "deep" / "down" / "journal.log", make_entries(6)
    with opened(path) as journal:
        journal.append(as_lines(entries[:4]))
    with opened(path) as journal:
        assert [line.entry for line in journal.read()] == entries[:4]
        head = journal.append(as_lines(entries[4:]))
    assert verify_chain(path) == head
    assert path.stat().st_mode & 0o077 == 0


def test_reading_begins_in_the_right_place_of_a_long_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.storage.journal._STRIDE", 4)
    path, entries = tmp_path / "journal.log", make_entries(21)

    def check(journal: FileJournal, last: int) -> None:
        for after in range(last + 6):
            assert [line.entry.seq for line in journal.read(after)] == list(range(after + 1, last + 1))

    with opened(path) as journal:
        check(journal, 0)
        journal.append(as_lines(entries[:1]))
        journal.append(as_lines(entries[1:11]))
        check(journal, 11)
    with opened(path) as journal:
        check(journal, 11)
        journal.append(as_lines(entries[11:16]))
        begun = journal.read(9)
        first = next(begun)
        journal.append(as_lines(entries[16:]))
        assert [first.entry.seq, *(line.entry.seq for line in begun)] == list(range(10, 17))
        check(journal, 21)
    with path.open("ab") as file:
        file.write(b"torn")
    with opened(path) as journal:
        check(journal, 21)


def test_torn_tail_is_set_aside_at_every_cut_point_of_the_last_record(tmp_path: Path) -> None:
    data = written(tmp_path / "journal.log")
    third = make_entries(3)[2]
    begin = data[:-1].rindex(b"\n") + 1
    for cut in range(begin + 1, len(data)):
        path = tmp_path / f"{cut}.log"
        path.write_bytes(data[:cut])
        assert verify_chain(path).seq == 2
        with opened(path) as journal:
            assert journal.head.seq == 2
            assert len(list(journal.read())) == 2
            journal.append(as_lines([third]))
        assert path.read_bytes() == data
        aside = path.with_name(f"{path.name}.torn-at-{begin}")
        assert aside.read_bytes() == data[begin:cut]


def test_torn_group_leaves_whole_entries_only(tmp_path: Path) -> None:
    data = written(tmp_path / "journal.log", n=4, groups=3)
    ends = [position + 1 for position, byte in enumerate(data) if byte == ord("\n")]
    for cut in range(ends[0], len(data) + 1, 7):
        path = tmp_path / f"{cut}.log"
        path.write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        with opened(path) as journal:
            assert [line.entry.seq for line in journal.read()] == list(range(1, whole + 1))


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(data=st.data())
def test_changed_byte_before_the_last_record_is_refused_and_located(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("flip") / "journal.log"
    good = written(path, n=4)
    records = good.splitlines(keepends=True)
    number = data.draw(st.integers(0, 2), label="record")
    offset = sum(map(len, records[:number])) + data.draw(st.integers(0, len(records[number]) - 1), label="byte")
    bad = bytearray(good)
    bad[offset] ^= data.draw(st.integers(1, 255), label="bits")
    path.write_bytes(bad)
    for check in (FileJournal, verify_chain):
        with pytest.raises(StorageDamaged, match=rf"entry (after number )?{number}\b"):
            check(path)
    assert path.read_bytes() == bad, "a damaged journal is evidence; it must not be touched"
    path.write_bytes(good)
    with opened(path) as journal:
        assert journal.head.seq == 4


@pytest.mark.parametrize("order", [(0, 2, 3), (1, 0, 2, 3), (0, 1, 1, 2), (1, 2, 3), (0, 1, 3)])
def test_missing_repeated_and_exchanged_records_are_refused(tmp_path: Path, order: tuple[int, ...]) -> None:
    path = tmp_path / "journal.log"
    records = written(path, n=4).splitlines(keepends=True)
    path.write_bytes(b"".join(records[index] for index in order))
    for check in (FileJournal, verify_chain):
        with pytest.raises(StorageDamaged, match=r"does not (verify|continue)"):
            check(path)


def test_last_record_changed_in_place_does_not_verify(tmp_path: Path) -> None:
    """A torn record has no line end: this one was whole once, so somebody changed it."""
    path = tmp_path / "journal.log"
    data = bytearray(written(path))
    data[-20] ^= 1
    path.write_bytes(data)
    with pytest.raises(StorageDamaged, match="after number 2"):
        verify_chain(path)


@pytest.mark.parametrize("back", [2, 20, 60, 100])
def test_whole_last_line_that_does_not_verify_is_refused_until_its_loss_is_accepted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, back: int
) -> None:
    path = tmp_path / "journal.log"
    good = written(path)
    begin = good[:-1].rindex(b"\n") + 1
    bad = bytearray(good)
    bad[-back] ^= 1
    path.write_bytes(bad)
    for _ in range(2):
        with pytest.raises(StorageDamaged, match=r"after number 2 does not verify.*`tunegate rebuild --accept-loss`"):
            FileJournal(path)
        assert path.read_bytes() == bad
    assert [one.name for one in tmp_path.iterdir()] == [path.name] and not caplog.records
    journal = FileJournal(path, accept_loss=True)
    try:
        assert journal.head.seq == 2 and journal.append(as_lines([make_entries(3)[2]])).seq == 3
    finally:
        journal.close()
    aside = path.with_name(f"{path.name}.torn-at-{begin}")
    assert (path.read_bytes(), aside.read_bytes()) == (good, bytes(bad[begin:]))
    assert [str(aside) in record.getMessage() for record in caplog.records] == [True]


def test_tail_behind_a_whole_line_that_does_not_verify_is_no_excuse(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    good = written(path)
    bad = good[:-20] + b"#" + good[-19:] + b"torn"
    path.write_bytes(bad)
    with pytest.raises(StorageDamaged, match="after number 2 does not verify"):
        FileJournal(path)
    assert path.read_bytes() == bad


def test_entry_of_a_newer_release_is_not_a_loss_to_accept(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    good = written(path, n=1)
    body = encode_entry(make_entries(2)[1]).replace(b'"token.revoked"', b'"token.reborn"')
    path.write_bytes(good + chain_hash(body).encode() + b" " + body + b"\n")
    before = path.read_bytes()
    with pytest.raises(StorageDamaged, match="a newer tunegate wrote it"):
        FileJournal(path, accept_loss=True)
    assert path.read_bytes() == before


def test_refused_journal_is_released_for_the_next_try(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    good = written(path)
    path.write_bytes(b"x" + good[1:])
    with pytest.raises(StorageDamaged, match="does not verify"):
        FileJournal(path)
    path.write_bytes(good)
    with opened(path) as journal:
        assert journal.head.seq == 3


def child(script: str, path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


OPEN_IT = """
import sys
from pathlib import Path
from registry.errors import StorageDamaged
from registry.storage.journal import FileJournal
try:
    FileJournal(Path(sys.argv[1]))
except StorageDamaged as error:
    print("refused:", error)
else:
    print("opened")
"""


def test_second_process_cannot_open_it_until_the_first_is_done(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    with opened(path) as journal:
        journal.append(as_lines(make_entries(1)))
        said, _ = child(OPEN_IT, path).communicate(timeout=30)
        assert said.startswith("refused:") and "in use by another tunegate process" in said
        assert journal.append(as_lines(make_entries(2)[1:])).seq == 2
    said, _ = child(OPEN_IT, path).communicate(timeout=30)
    assert said.strip() == "opened"


APPEND_FOR_EVER = """
import sys
from pathlib import Path
from factories import as_lines, make_entries
from registry.storage.journal import FileJournal
journal = FileJournal(Path(sys.argv[1]))
last = None
for size in [1, 5, 2, 9] * 5000:
    entries = make_entries(size, after=last)
    journal.append(as_lines(entries))
    last = entries[-1]
    print(last.seq, journal.head.hash, flush=True)
"""


def test_entries_survive_a_kill_after_append_returned(tmp_path: Path) -> None:
    path, acknowledged = tmp_path / "journal.log", ""
    writer = child(APPEND_FOR_EVER, path)
    assert writer.stdout is not None
    for _ in range(60):
        acknowledged = writer.stdout.readline()
    os.kill(writer.pid, signal.SIGKILL)
    for line in writer.stdout:
        acknowledged = line if line.endswith("\n") else acknowledged
    writer.stdout.close()
    assert writer.wait(timeout=30) == -signal.SIGKILL
    seq, found = acknowledged.split()
    with opened(path) as journal:
        hashes = {line.entry.seq: line.hash for line in journal.read()}
        assert hashes[int(seq)] == found
        assert sorted(hashes) == list(range(1, journal.head.seq + 1))


@contextlib.contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow further."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_failed_write_stores_nothing_visible_and_stops_all_further_ones(tmp_path: Path) -> None:
    path, entries = tmp_path / "journal.log", make_entries(4)
    with opened(path) as journal:
        head = journal.append(as_lines(entries[:2]))
        with no_file_beyond(path.stat().st_size + 100), pytest.raises(StorageDamaged, match="could not be written"):
            journal.append(as_lines(entries[2:]))
        assert journal.head == head and len(list(journal.read())) == 2
        with pytest.raises(StorageDamaged, match="restart"):
            journal.append(as_lines(entries[2:]))
    with opened(path) as journal:
        assert journal.append(as_lines(entries[2:])).seq == 4


def test_an_entry_of_a_newer_release_is_refused_and_never_taken_for_a_torn_tail(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    journal = FileJournal(path)
    journal.append(as_lines(make_entries(1)))
    head = journal.head
    journal.close()
    journal.close()
    body = encode_entry(make_entries(2)[1]).replace(b'"token.revoked"', b'"token.reborn"')
    assert b"token.reborn" in body and head.seq == 1
    with path.open("ab") as file:
        file.write(chain_hash(body).encode() + b" " + body + b"\n")
    before = path.read_bytes()
    with pytest.raises(StorageDamaged, match="a newer tunegate wrote it"):
        FileJournal(path)
    assert path.read_bytes() == before
