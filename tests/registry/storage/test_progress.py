"""What is told of runs is kept once, in order and within bounds, and a damaged file costs no more than its damage."""

import contextlib
import os
import resource
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import StorageFull
from registry.records import ProgressNote, StepProgress
from registry.storage import progress
from registry.storage.progress import BEGINNING, Place, ProgressFiles

RUN = "0" * 32


def step(number: int, message: str = "training") -> ProgressNote:
    return ProgressNote(number=number, message=message, step=StepProgress(step=number, steps=10**6, loss=1.5))


def word(number: int) -> ProgressNote:
    return ProgressNote(number=number, message=f"word {number}")


def places(files: ProgressFiles, after: Place = BEGINNING) -> list[Place]:
    return [Place(line.claim, line.number) for line in files.lines(RUN, after)]


batches = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 30), st.integers(0, 10)), max_size=20)


@given(batches)
def test_however_batches_overlap_each_line_is_kept_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[int, int, int]]
) -> None:
    files = ProgressFiles(tmp_path_factory.mktemp("told"))
    wanted: list[Place] = []
    for claim, first, count in sent:
        files.append(RUN, claim, "now", [step(number) for number in range(first, first + count)])
        last = wanted[-1] if wanted else BEGINNING
        wanted += [place for n in range(first, first + count) if (place := Place(claim, n)) > last]
    assert places(files) == wanted
    for place in wanted[::7]:
        assert places(files, place) == [one for one in wanted if one > place]
    assert (files.latest(RUN) is not None) == bool(wanted)


def test_a_file_stays_within_its_bound_and_keeps_words_the_first_and_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_MOST_BYTES", 40_000)
    files = ProgressFiles(tmp_path)
    files.append(RUN, 1, "now", [word(1)])
    for number in range(2, 3002):
        files.append(RUN, 1, "now", [step(number)])
        assert (tmp_path / f"{RUN}.jsonl").stat().st_size <= 40_000
    found = places(files)
    assert found[0] == Place(1, 1) and found[-1] == Place(1, 3001)
    assert found == sorted(found) and len(found) > 100
    latest = files.latest(RUN)
    assert latest is not None and latest.step == 3001


def test_words_alone_are_bounded_too_and_the_newest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_MOST_BYTES", 20_000)
    files = ProgressFiles(tmp_path)
    for number in range(1, 2001):
        files.append(RUN, 1, "now", [word(number)])
    assert (tmp_path / f"{RUN}.jsonl").stat().st_size <= 20_000
    assert places(files)[-1] == Place(1, 2000) and len(places(files)) > 50


def test_a_log_keeps_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_MOST_LOG_BYTES", 1000)
    files, said = ProgressFiles(tmp_path), ""
    for number in range(200):
        text = f"line {number} é\n"
        files.append_log(RUN, 1, text, len(said.encode()))
        files.append_log(RUN, 1, text, len(said.encode()))  # the answer was lost, and it is sent again
        said += text
    kept = files.log(RUN)
    assert len(kept.encode()) <= 1000 and said.endswith(kept[5:]) and len(kept) > 400
    files.append_log(RUN, 2, "another attempt\n", 0)
    assert files.log(RUN).endswith("é\nanother attempt\n")


def test_files_are_read_again_after_a_restart_and_torn_or_foreign_lines_are_left_out(tmp_path: Path) -> None:
    ProgressFiles(tmp_path).append(RUN, 3, "now", [step(1), step(2)])
    with (tmp_path / f"{RUN}.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\n{"claim": "x"}\n{"claim":3,"num')
    files = ProgressFiles(tmp_path)
    assert places(files) == [Place(3, 1), Place(3, 2)]
    files.append(RUN, 3, "now", [step(2), step(3)])
    assert places(files) == [Place(3, 1), Place(3, 2), Place(3, 3)]


def test_a_full_disk_is_told_and_nothing_is_counted_as_kept(tmp_path: Path) -> None:
    os.symlink("/dev/full", tmp_path / f"{RUN}.jsonl")
    files = ProgressFiles(tmp_path)
    with pytest.raises(StorageFull, match="free some space"):
        files.append(RUN, 1, "now", [step(1)])
    (tmp_path / f"{RUN}.jsonl").unlink()
    files.append(RUN, 1, "now", [step(1)])
    assert places(files) == [Place(1, 1)]


@contextlib.contextmanager
def room_for(size: int) -> Iterator[None]:
    """No file grows beyond so many bytes: what goes beyond is written in part, as on a full disk."""
    limits, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)


def test_what_a_full_disk_took_only_in_part_is_taken_back_and_spoils_no_later_line(tmp_path: Path) -> None:
    files = ProgressFiles(tmp_path)
    files.append(RUN, 1, "now", [step(1)])
    files.append_log(RUN, 1, "one\n", 0)
    size = (tmp_path / f"{RUN}.jsonl").stat().st_size
    with room_for(size + 20), pytest.raises(StorageFull, match="free some space"):
        files.append(RUN, 1, "now", [step(2), step(3)])
    with room_for(6), pytest.raises(StorageFull, match="free some space"):
        files.append_log(RUN, 1, "two\n", 4)
    assert (tmp_path / f"{RUN}.jsonl").stat().st_size == size and files.log(RUN) == "one\n"
    files.append(RUN, 1, "now", [step(2), step(3)])
    files.append_log(RUN, 1, "two\n", 4)
    assert places(files) == [Place(1, 1), Place(1, 2), Place(1, 3)] and files.log(RUN) == "one\ntwo\n"


def test_a_file_that_cannot_be_shortened_is_told_and_what_came_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "_MOST_BYTES", 100)
    monkeypatch.setattr(progress, "_MOST_LOG_BYTES", 10)
    for name in ("jsonl", "log"):
        (tmp_path / f"{RUN}.{name}.new").mkdir()
    files = ProgressFiles(tmp_path)
    with pytest.raises(StorageFull, match="free some space"):
        files.append(RUN, 1, "now", [step(1)])
    with pytest.raises(StorageFull, match="free some space"):
        files.append_log(RUN, 1, "more than ten bytes", 0)
    files.append(RUN, 1, "now", [step(1)])
    assert places(files) == [Place(1, 1)] and files.log(RUN) == "more than ten bytes"


def test_without_a_folder_nothing_is_kept_and_nothing_fails() -> None:
    files = ProgressFiles(None)
    files.append(RUN, 1, "now", [step(1)])
    files.append_log(RUN, 1, "x", 0)
    assert (files.lines(RUN), files.latest(RUN), files.log(RUN)) == ([], None, "")


def test_who_reads_while_it_grows_sees_whole_lines_only(tmp_path: Path) -> None:
    files, stop = ProgressFiles(tmp_path), threading.Event()
    files.append(RUN, 1, "now", [step(1)])

    def write() -> None:
        for number in range(2, 400):
            files.append(RUN, 1, "now", [step(number, "m" * 3000)])
        stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = [places(files)]
    while not stop.is_set():
        seen.append(places(files))
    writer.join()
    assert all(one == [Place(1, n) for n in range(1, len(one) + 1)] for one in seen)
    assert msgspec.json.encode(files.latest(RUN))
