"""What was seen only rises, whoever writes beside, and is never guessed."""

import multiprocessing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.approval.seen import read_seen, remember


def test_nothing_was_seen_where_there_is_no_file_yet(tmp_path: Path) -> None:
    assert read_seen(tmp_path / "new" / "seen.json") == {}
    remember(tmp_path / "new" / "seen.json", {"support-bot@approved": 3})
    assert read_seen(tmp_path / "new" / "seen.json") == {"support-bot@approved": 3}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 20)), max_size=12))
def test_the_highest_is_kept_of_each(tmp_path_factory: pytest.TempPathFactory, seen: list[tuple[str, int]]) -> None:
    path = tmp_path_factory.mktemp("seen") / "seen.json"
    for name, counter in seen:
        remember(path, {name: counter})
    assert read_seen(path) == {name: max(c for n, c in seen if n == name) for name, _ in seen}


def test_what_was_seen_already_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    remember(path, {"a@approved": 3})
    before = path.stat()
    remember(path, {"a@approved": 2})
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"null", b'{"a": "3"}', b'{"a": 1.5}', b'{"a": true}', b'{"a": 1', b"\xff"]
)
def test_a_file_of_something_else_is_refused_and_not_begun_anew(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "seen.json"
    path.write_bytes(data)
    for attempt in (lambda: read_seen(path), lambda: remember(path, {"a": 1})):
        with pytest.raises(ValueError, match="restore it, or remove it"):
            attempt()
    assert path.read_bytes() == data


def _count(path: Path, name: str) -> None:
    for counter in range(1, 21):
        remember(path, {name: counter})


def test_two_processes_do_not_forget_each_others(tmp_path: Path) -> None:
    path = tmp_path / "seen.json"
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_count, args=(path, name)) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert read_seen(path) == {"a": 20, "b": 20}
