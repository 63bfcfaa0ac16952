"""A blob is there whole and verified, or not at all; what is there never changes."""

import contextlib
import errno
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from factories import sha
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import (
    BlobDamaged,
    Conflict,
    DigestMismatch,
    InvalidRequest,
    NotFound,
    RangeRefused,
    StorageDamaged,
    StorageFull,
    TooLarge,
    TunegateError,
    Unavailable,
)
from registry.settings import Limits
from registry.storage import uploads
from registry.storage.blobs import CHUNK_BYTES, LocalBlobs
from registry.storage.uploads import Upload

DATA = bytes(range(256)) * 40


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs", limits=Limits(blob_bytes=100_000, free_bytes=0))


def files(blobs: LocalBlobs) -> Iterator[Path]:
    """Every file the store keeps, published or not."""
    return (path for path in blobs._root.parent.rglob("*") if path.is_file())


def test_stored_blob_is_read_back(blobs: LocalBlobs) -> None:
    digest = blobs.put(DATA)
    assert digest == sha(DATA)
    assert blobs.has(digest) and blobs.size(digest) == len(DATA) and blobs.read(digest) == DATA
    assert list(files(blobs)) == [blobs.path(digest)]


def test_empty_blob_is_a_blob(blobs: LocalBlobs) -> None:
    assert blobs.read(blobs.put(b"")) == b""


def test_blob_that_is_not_stored_is_not_found(blobs: LocalBlobs) -> None:
    for question in (blobs.size, blobs.open, blobs.read):
        with pytest.raises(NotFound, match="is not stored"):
            question("0" * 64)
    assert not blobs.has("0" * 64)


def test_stored_blob_cannot_be_written_by_accident(blobs: LocalBlobs) -> None:
    assert blobs.path(blobs.put(DATA)).stat().st_mode & 0o222 == 0


def test_range_is_read_without_the_rest(blobs: LocalBlobs) -> None:
    with blobs.open(blobs.put(DATA)) as file:
        file.seek(1000)
        assert file.read(10) == DATA[1000:1010]


# -- what is refused leaves nothing -------------------------------------------------------------------------------


def test_bytes_with_another_hash_are_not_kept(blobs: LocalBlobs) -> None:
    upload = blobs.upload(sha(b"wanted"), total=5, offset=0)
    upload.write(b"other")
    with pytest.raises(DigestMismatch, match=sha(b"other")):
        upload.finish()
    assert list(files(blobs)) == []
    assert blobs.stored_part(sha(b"wanted")) == 0


@pytest.mark.parametrize("total", [len(DATA) + 1, len(DATA) * 2])
def test_fewer_bytes_than_announced_are_not_kept(blobs: LocalBlobs, total: int) -> None:
    upload = blobs.upload(sha(DATA), total=total, offset=0)
    upload.write(DATA)
    with pytest.raises(DigestMismatch, match="were announced"):
        upload.finish()
    assert list(files(blobs)) == []


@pytest.mark.parametrize("total", [len(DATA) - 1, 0])
def test_more_bytes_than_announced_are_not_kept(blobs: LocalBlobs, total: int) -> None:
    upload = blobs.upload(sha(DATA), total=total, offset=0)
    with pytest.raises(TooLarge):
        upload.write(DATA)
    assert list(files(blobs)) == []


def test_size_over_the_limit_is_refused_when_announced_and_when_it_arrives(blobs: LocalBlobs) -> None:
    with pytest.raises(TooLarge):
        blobs.upload(sha(DATA), total=100_001, offset=0)
    upload = blobs.upload(sha(DATA), total=None, offset=0)
    upload.write(bytes(100_000))
    with pytest.raises(TooLarge):
        upload.write(b"1")
    assert list(files(blobs)) == []


def test_abort_keeps_nothing(blobs: LocalBlobs) -> None:
    upload = blobs.upload(sha(DATA), total=len(DATA), offset=0)
    upload.write(DATA[:100])
    upload.abort()
    assert list(files(blobs)) == []


def test_bytes_over_what_this_blob_may_have_are_not_kept(blobs: LocalBlobs) -> None:
    with pytest.raises(TooLarge):
        blobs.upload(sha(DATA), total=len(DATA), offset=0, most=len(DATA) - 1)
    upload = blobs.upload(sha(DATA), total=None, offset=0, most=len(DATA) - 1)
    with pytest.raises(TooLarge):
        upload.write(DATA)
    assert list(files(blobs)) == []


def test_upload_that_would_leave_too_little_space_is_refused_when_announced_and_when_it_arrives(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = os.statvfs(blobs._root)
    free = disk.f_bavail * disk.f_frsize
    blobs.limits = blobs.limits._replace(free_bytes=free * 2)
    with pytest.raises(StorageFull, match="free some space"):
        blobs.upload(sha(DATA), total=len(DATA), offset=0)
    blobs.limits = blobs.limits._replace(free_bytes=0)
    upload = blobs.upload(sha(DATA), total=len(DATA), offset=0)
    upload.write(DATA[:10])
    blobs.limits = blobs.limits._replace(free_bytes=free * 2)
    with pytest.raises(StorageFull):
        upload.write(DATA[10:])
    assert list(files(blobs)) == []


@pytest.mark.parametrize(("code", "error"), [(errno.ENOSPC, StorageFull), (errno.EIO, StorageDamaged)])
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_failing_disk_is_an_error_of_ours_and_keeps_nothing(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch, call: str, code: int, error: type[TunegateError]
) -> None:
    def fails(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    upload = blobs.upload(sha(DATA), total=len(DATA), offset=0)
    monkeypatch.setattr(os, call, fails)
    with pytest.raises(error):
        upload.write(DATA)
        upload.finish()
    monkeypatch.undo()
    assert list(files(blobs)) == [] and not blobs.has(sha(DATA))


def test_too_many_open_files_are_no_damage(blobs: LocalBlobs) -> None:
    """Damage would end the service."""
    upload = blobs.upload(sha(DATA), total=len(DATA), offset=0)
    upload.write(DATA)
    upload.finish()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(Unavailable, match="too many files are open") as raised:
            blobs.read(sha(DATA))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not isinstance(raised.value, StorageDamaged) and blobs.read(sha(DATA)) == DATA


def test_blob_whose_name_did_not_become_durable_is_not_there(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the next one who sends it would be told that it is stored."""
    upload = blobs.upload(sha(DATA), total=len(DATA), offset=0)
    upload.write(DATA)

    def fails(_: Path) -> None:
        raise OSError(errno.EIO, "I/O error")

    monkeypatch.setattr("registry.storage.uploads.sync_directory", fails)
    with pytest.raises(StorageDamaged):
        upload.finish()
    assert not blobs.has(sha(DATA)) and list(files(blobs)) == []


# -- damage -------------------------------------------------------------------------------------------------------


def spoil(blobs: LocalBlobs, digest: str, data: bytes = DATA) -> None:
    path = blobs.path(digest)
    path.chmod(0o600)
    path.write_bytes(data[:-1] + b"?")


def read_all(blobs: LocalBlobs, digest: str) -> bytes:
    return b"".join(blobs.read_through(digest, blobs.open(digest)))


@pytest.mark.parametrize("question", [LocalBlobs.read, LocalBlobs.check, read_all], ids=lambda one: one.__name__)
def test_rotten_blob_goes_into_quarantine_and_is_not_handed_out(
    blobs: LocalBlobs, question: Callable[..., Any]
) -> None:
    digest = blobs.put(DATA)
    spoil(blobs, digest)
    with pytest.raises(BlobDamaged, match="rotted"):
        question(blobs, digest)
    assert not blobs.has(digest) and blobs.quarantined() == [digest]
    for later in (blobs.open, blobs.size, blobs.read, blobs.check):
        with pytest.raises(BlobDamaged, match="send its bytes again"):
            later(digest)


def test_rotten_blob_is_whole_again_once_its_bytes_are_sent(blobs: LocalBlobs) -> None:
    digest = blobs.put(DATA)
    spoil(blobs, digest)
    with pytest.raises(BlobDamaged):
        blobs.check(digest)
    assert blobs.put(DATA) == digest and blobs.read(digest) == DATA
    assert blobs.quarantined() == []
    assert blobs.discard_healed() == 1 and list(files(blobs)) == [blobs.path(digest)]


@pytest.mark.parametrize("reported", [False, True])
def test_what_is_discarded_is_gone_with_damaged_and_partial_copies_but_no_upload_that_goes_on(
    blobs: LocalBlobs, reported: bool
) -> None:
    digest, other = blobs.put(DATA), blobs.put(b"other")
    spoil(blobs, digest)
    blobs.quarantine(digest)
    if reported:
        blobs.mark_reported(digest)
    assert blobs.put(DATA) == digest
    blobs.upload(digest, total=len(DATA), offset=0, owner="gone").pause()
    part = blobs.upload(digest, total=len(DATA), offset=0, owner="broken")
    part.write(DATA[:1])
    part.pause()
    going = blobs.upload(digest, total=len(DATA), offset=0, owner="going on")
    blobs.discard(digest)
    assert not blobs.has(digest) and blobs.quarantined() == [] == blobs.unreported()
    assert blobs.stored_part(digest, "broken") == 0
    going.write(DATA)
    going.finish()
    assert sorted(files(blobs)) == sorted([blobs.path(digest), blobs.path(other)])
    blobs.discard(digest)
    blobs.discard(digest)
    assert list(files(blobs)) == [blobs.path(other)]


def test_each_quarantined_blob_is_to_be_reported_once(blobs: LocalBlobs) -> None:
    digest = blobs.put(DATA)
    spoil(blobs, digest)
    with pytest.raises(BlobDamaged):
        blobs.check(digest)
    assert LocalBlobs(blobs._root.parent).unreported() == [digest]
    blobs.mark_reported(digest)
    assert blobs.unreported() == [] and blobs.quarantined() == [digest]
    with pytest.raises(BlobDamaged):
        blobs.open(digest)


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 3 * CHUNK_BYTES])
def test_blob_is_read_through_whole(tmp_path: Path, size: int) -> None:
    blobs, data = LocalBlobs(tmp_path), os.urandom(size)
    assert read_all(blobs, blobs.put(data)) == data


@pytest.mark.parametrize("end", [0, 1, CHUNK_BYTES, 2 * CHUNK_BYTES, 3 * CHUNK_BYTES - 1])
def test_last_chunk_of_a_blob_that_lost_its_end_is_held_back(tmp_path: Path, end: int) -> None:
    blobs, data = LocalBlobs(tmp_path), os.urandom(3 * CHUNK_BYTES)
    digest = blobs.put(data)
    blobs.path(digest).chmod(0o600)
    os.truncate(blobs.path(digest), end)
    given = []
    with pytest.raises(BlobDamaged):
        for chunk in blobs.read_through(digest, blobs.open(digest)):
            given.append(chunk)  # noqa: PERF402 - what was given before the error counts
    assert len(b"".join(given)) <= max(0, end - 1) // CHUNK_BYTES * CHUNK_BYTES


def test_what_follows_from_a_blob_is_worked_out_once_for_as_long_as_its_file_is_the_same(blobs: LocalBlobs) -> None:
    digest, other = blobs.put(DATA), blobs.put(b"other bytes")
    looks: list[str] = []

    def length(sha256: str) -> int:
        with blobs.open(sha256) as file:

            def work() -> int:
                looks.append(sha256)
                return len(file.read())

            return blobs.fact(sha256, file, "length", work)

    assert [length(digest), length(digest), length(other)] == [len(DATA), len(DATA), 11]
    assert looks == [digest, other]
    with blobs.open(digest) as file:
        assert blobs.fact(digest, file, "first byte", lambda: file.read(1)) == DATA[:1], "another fact of the same file"
    blobs.quarantine(digest)
    blobs.put(DATA)
    assert length(digest) == len(DATA) and looks == [digest, other, digest], "other bytes may have stood there"


def test_blob_is_checked_once_for_as_long_as_its_file_is_the_same(blobs: LocalBlobs) -> None:
    digest = blobs.put(DATA)
    assert not blobs.is_checked(digest)
    assert blobs.check(digest) == len(DATA) and blobs.is_checked(digest)
    spoil(blobs, digest)
    assert not blobs.is_checked(digest)


def test_link_in_place_of_a_blob_is_not_followed(blobs: LocalBlobs, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(DATA)
    blobs.path(sha(DATA)).parent.mkdir(exist_ok=True)
    blobs.path(sha(DATA)).symlink_to(secret)
    assert not blobs.has(sha(DATA))
    with pytest.raises(TunegateError):
        blobs.open(sha(DATA))


def test_stored_blobs_are_listed_with_size_and_age(blobs: LocalBlobs) -> None:
    digests = sorted(blobs.put(data) for data in (DATA, b"", b"x"))
    assert [one.sha256 for one in blobs.stored()] == digests
    assert sorted(one.size for one in blobs.stored()) == [0, 1, len(DATA)]


def test_large_blob_is_not_read_at_once(blobs: LocalBlobs) -> None:
    with pytest.raises(TooLarge):
        blobs.read(blobs.put(DATA), most_bytes=len(DATA) - 1)


# -- paths --------------------------------------------------------------------------------------------------------

EVIL = ["../" * 8 + "etc/passwd", "A" * 64, "0" * 63, "0" * 65, "", "0" * 64 + "\n", "0" * 62 + "/.", "\u0660" * 64]


@pytest.mark.parametrize("name", EVIL)
def test_path_is_made_from_nothing_but_a_digest(blobs: LocalBlobs, name: str) -> None:
    for question in (blobs.path, blobs.has, blobs.size, blobs.open, blobs.read, blobs.stored_part):
        with pytest.raises(InvalidRequest):
            question(name)
    with pytest.raises(InvalidRequest):
        blobs.upload(name, total=1, offset=0)
    assert list(files(blobs)) == []


def test_link_in_place_of_a_part_is_not_followed(blobs: LocalBlobs, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    blobs._part(sha(DATA), None).symlink_to(victim)
    with pytest.raises(StorageDamaged):
        blobs.upload(sha(DATA), total=len(DATA), offset=0)
    blobs.drop_stale_parts(time.time() + 1e6)
    assert victim.read_bytes() == b"precious"


# -- in several attempts ------------------------------------------------------------------------------------------


def test_partial_upload_is_not_visible(blobs: LocalBlobs) -> None:
    digest = sha(DATA)
    upload = blobs.upload(digest, total=len(DATA), offset=0)
    upload.write(DATA)
    assert not blobs.has(digest)
    with pytest.raises(NotFound):
        blobs.open(digest)
    upload.finish()
    assert blobs.has(digest)


def test_paused_upload_goes_on_where_it_stopped_also_in_a_new_process(blobs: LocalBlobs) -> None:
    digest = sha(DATA)
    upload = blobs.upload(digest, total=len(DATA), offset=0)
    upload.write(DATA[:5000])
    upload.pause()
    again = LocalBlobs(blobs._root.parent)
    assert again.stored_part(digest) == 5000 and not again.has(digest)
    upload = again.upload(digest, total=len(DATA), offset=5000)
    upload.write(DATA[5000:])
    upload.finish()
    assert again.read(digest) == DATA
    assert list(files(again)) == [again.path(digest)]


@pytest.mark.parametrize("offset", [1, 4999, 5001, len(DATA) - 1])
def test_wrong_offset_is_told_the_right_one_and_costs_nothing(blobs: LocalBlobs, offset: int) -> None:
    digest = sha(DATA)
    upload = blobs.upload(digest, total=len(DATA), offset=0)
    upload.write(DATA[:5000])
    upload.pause()
    with pytest.raises(RangeRefused) as refused:
        blobs.upload(digest, total=len(DATA), offset=offset)
    assert refused.value.offset == 5000 == blobs.stored_part(digest)


def test_continued_upload_with_a_bad_beginning_keeps_nothing(blobs: LocalBlobs) -> None:
    """The kept part is hashed again: it may be from somebody who sent other bytes."""
    digest = sha(DATA)
    upload = blobs.upload(digest, total=len(DATA), offset=0)
    upload.write(bytes(5000))
    upload.pause()
    upload = blobs.upload(digest, total=len(DATA), offset=5000)
    upload.write(DATA[5000:])
    with pytest.raises(DigestMismatch):
        upload.finish()
    assert list(files(blobs)) == []


def test_a_kept_part_is_hashed_again_only_if_its_file_changed(
    blobs: LocalBlobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    again: list[int] = []
    whole = uploads._chunks
    monkeypatch.setattr(uploads, "_chunks", lambda fd, size: (again.append(size), whole(fd, size))[1])
    digest = sha(DATA)
    for start in range(0, 5000, 1000):
        upload = blobs.upload(digest, total=len(DATA), offset=start)
        upload.write(DATA[start : start + 1000])
        upload.pause()
    assert again == [0]
    [part] = files(blobs)
    os.utime(part, ns=(0, 0))
    upload = blobs.upload(digest, total=len(DATA), offset=5000)
    assert again == [0, 5000]
    upload.write(DATA[5000:])
    upload.finish()
    assert blobs.read(digest) == DATA


def test_starting_over_replaces_the_kept_part(blobs: LocalBlobs) -> None:
    digest = sha(DATA)
    upload = blobs.upload(digest, total=len(DATA), offset=0)
    upload.write(bytes(5000))
    upload.pause()
    assert blobs.put(DATA) == digest and blobs.read(digest) == DATA


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_any_division_into_pieces_gives_the_same_blob(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, cuts: list[int]
) -> None:
    blobs, offset = LocalBlobs(tmp_path_factory.mktemp("blobs")), 0
    for cut in [*sorted(cut for cut in cuts if cut < len(data)), len(data)]:
        upload = blobs.upload(sha(data), total=len(data), offset=offset)
        upload.write(data[offset:cut])
        upload.pause()
        offset = cut
    blobs.upload(sha(data), total=len(data), offset=offset).finish()
    assert blobs.read(sha(data)) == data


# -- parts that nobody continues ------------------------------------------------------------------------------------

HOUR = 3600.0


def part_of(blobs: LocalBlobs, data: bytes = DATA, owner: str | None = None) -> Upload:
    upload = blobs.upload(sha(data), total=len(data), offset=0, owner=owner)
    upload.write(data[:100])
    return upload


def test_part_is_kept_for_a_day_and_then_deleted(blobs: LocalBlobs) -> None:
    part_of(blobs).pause()
    part_of(blobs, owner="team").pause()
    assert blobs.drop_stale_parts(time.time() + 23 * HOUR) == 0 and blobs.stored_part(sha(DATA)) == 100
    assert blobs.drop_stale_parts(time.time() + 25 * HOUR) == 2 and list(files(blobs)) == []


def test_part_that_is_being_written_is_never_stale(blobs: LocalBlobs) -> None:
    upload = part_of(blobs)
    assert blobs.drop_stale_parts(time.time() + 48 * HOUR) == 0
    upload.write(DATA[100:])
    upload.finish()
    assert blobs.read(sha(DATA)) == DATA


def test_parts_of_one_blob_by_different_owners_are_apart(blobs: LocalBlobs) -> None:
    part_of(blobs, owner="team").pause()
    assert blobs.stored_part(sha(DATA)) == 0 and blobs.stored_part(sha(DATA), "team") == 100
    with pytest.raises(RangeRefused):
        blobs.upload(sha(DATA), total=len(DATA), offset=100, owner="other")


def test_pausing_waits_for_the_write_that_goes_on(blobs: LocalBlobs) -> None:
    """The file must not be closed, and its number given to another file, under a thread that writes to it."""
    upload = blobs.upload(sha(DATA), total=len(DATA), offset=0)
    with ThreadPoolExecutor(2) as pool:
        writing = pool.submit(upload.write, *[DATA[i : i + 10] for i in range(0, len(DATA), 10)])
        pool.submit(upload.pause).result()
        with contextlib.suppress(Conflict):  # the pause came first
            writing.result()
    assert blobs.stored_part(sha(DATA)) in (0, len(DATA))


# -- several writers ----------------------------------------------------------------------------------------------


def test_second_writer_of_a_blob_is_sent_away(blobs: LocalBlobs) -> None:
    first = blobs.upload(sha(DATA), total=len(DATA), offset=0)
    first.write(DATA[:10])
    with pytest.raises(Conflict, match="by someone else"):
        blobs.upload(sha(DATA), total=len(DATA), offset=0)
    with pytest.raises(Conflict):
        blobs.upload(sha(DATA), total=len(DATA), offset=10)
    first.write(DATA[10:])
    first.finish()
    assert blobs.read(sha(DATA)) == DATA


def test_writers_that_race_never_spoil_what_is_published(blobs: LocalBlobs) -> None:
    """One may open the part just before another publishes it: what it holds then is the published file itself."""
    data, rounds = os.urandom(2000), 400
    digest, spoiled, finished = sha(data), [], []
    start = threading.Barrier(4)

    def upload_again_and_again(honest: bool) -> None:
        start.wait()
        for _ in range(rounds):
            try:
                upload = blobs.upload(digest, total=len(data), offset=0)
                upload.write(data[:700])
                if honest:
                    upload.write(data[700:])
                    upload.finish()
                    finished.append(1)
                else:
                    upload.abort()
            except Conflict:
                pass
            except TunegateError as error:
                spoiled.append(str(error))
            if blobs.has(digest) and blobs.path(digest).read_bytes() != data:
                spoiled.append("the published blob has other bytes")

    writers = [threading.Thread(target=upload_again_and_again, args=(number % 2 == 0,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(timeout=60)
    assert not spoiled and finished
    assert blobs.read(digest) == data


def test_the_same_small_bytes_may_be_stored_by_many_at_once(tmp_path: Path) -> None:
    blobs = LocalBlobs(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: blobs.put(b"the same comment"), range(64)))
    assert len(found) == 1 and blobs.read(found.pop()) == b"the same comment"
