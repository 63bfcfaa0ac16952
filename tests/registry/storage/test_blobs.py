"""A blob is there whole and verified, or not at all; what is there never changes."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from factories import sha
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import (
    Conflict,
    DigestMismatch,
    InvalidRequest,
    NotFound,
    RangeRefused,
    StorageDamaged,
    TooLarge,
    TunegateError,
)
from registry.storage.blobs import LocalBlobs

DATA = bytes(range(256)) * 40


@pytest.fixture
def blobs(tmp_path: Path) -> LocalBlobs:
    return LocalBlobs(tmp_path / "blobs", largest_bytes=100_000)


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


def test_rotten_blob_is_not_handed_out(blobs: LocalBlobs) -> None:
    digest = blobs.put(DATA)
    path = blobs.path(digest)
    path.chmod(0o600)
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(StorageDamaged, match="rotted"):
        blobs.read(digest)


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
    blobs._part(sha(DATA)).symlink_to(victim)
    with pytest.raises(OSError):
        blobs.upload(sha(DATA), total=len(DATA), offset=0)
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
