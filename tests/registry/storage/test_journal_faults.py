"""A journal whose disk fails: what was refused is not there, and what cannot be known stops everything."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from factories import as_lines, make_entries

from registry.errors import StorageDamaged, StorageFull
from registry.storage.journal import FileJournal, verify_chain


class Failing:
    """Stands before one function of `os`: the first calls fail, the later ones reach it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, name: str, code: int, times: int) -> None:
        self._real, self._code, self._left = getattr(os, name), code, times
        monkeypatch.setattr(os, name, self)

    def __call__(self, *given: Any) -> Any:
        if self._left:
            self._left -= 1
            raise OSError(self._code, os.strerror(self._code))
        return self._real(*given)


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_full_disk_takes_nothing_and_a_later_append_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    journal, entries = FileJournal(tmp_path / "journal.log"), make_entries(3)
    journal.append(as_lines(entries[:1]))
    Failing(monkeypatch, call, errno.ENOSPC, 1)
    with pytest.raises(StorageFull, match="no space left"):
        journal.append(as_lines(entries[1:]))
    assert verify_chain(tmp_path / "journal.log").seq == journal.head.seq == 1
    journal.append(as_lines(entries[1:]))
    assert verify_chain(tmp_path / "journal.log").seq == journal.head.seq == 3
    journal.close()


@pytest.mark.parametrize(("call", "times"), [("ftruncate", 1), ("fdatasync", 2)])
def test_a_full_disk_that_takes_nothing_back_stops_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, times: int
) -> None:
    journal, entries = FileJournal(tmp_path / "journal.log"), make_entries(3)
    if call == "ftruncate":
        Failing(monkeypatch, "fdatasync", errno.ENOSPC, 1)
    Failing(monkeypatch, call, errno.ENOSPC, times)
    with pytest.raises(StorageDamaged, match="restart the service"):
        journal.append(as_lines(entries))
    with pytest.raises(StorageDamaged, match="an earlier write"):
        journal.append(as_lines(entries))
    assert journal.head.seq == 0
    journal.close()


def test_after_a_failed_sync_nothing_more_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = FileJournal(tmp_path / "journal.log")
    Failing(monkeypatch, "fdatasync", errno.EIO, 1)
    with pytest.raises(StorageDamaged, match="could not be written"):
        journal.append(as_lines(make_entries(1)))
    size = (tmp_path / "journal.log").stat().st_size
    with pytest.raises(StorageDamaged, match="an earlier write"):
        journal.append(as_lines(make_entries(1)))
    assert (tmp_path / "journal.log").stat().st_size == size
    journal.close()


def test_a_journal_that_is_open_is_not_opened_again(tmp_path: Path) -> None:
    journal = FileJournal(tmp_path / "journal.log")
    with pytest.raises(StorageDamaged, match="in use by another tunegate process"):
        FileJournal(tmp_path / "journal.log")
    journal.close()
    FileJournal(tmp_path / "journal.log").close()


def test_a_foreign_line_among_good_ones_is_no_tail_that_could_be_given_up(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    journal = FileJournal(path)
    journal.append(as_lines(make_entries(2)))
    journal.close()
    first, second = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(first + b"not ours\n" + second)
    with pytest.raises(StorageDamaged, match="but later ones do"):
        FileJournal(path, accept_loss=True)
    assert path.read_bytes() == first + b"not ours\n" + second


def test_a_line_that_changes_under_the_service_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.log"
    journal = FileJournal(path)
    journal.append(as_lines(make_entries(2)))
    data = bytearray(path.read_bytes())
    data[80] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(StorageDamaged, match="does not hash to its own name"):
        list(journal.read())
    assert [line.entry.seq for line in journal.read(after=1)] == [2]
    journal.close()
