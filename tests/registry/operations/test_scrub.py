"""A scrub finds what rotted or is gone, says so once to the journal, and deletes only what nothing can name."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import make_adapter, sha
from registry_under_test import CI, NAME, REVIEWERS, Bench, bench_in, make_rating, submission

from registry import settings
from registry.cli import main
from registry.commands import blobs, review, versions
from registry.errors import BlobDamaged, InvalidRequest, StorageDamaged
from registry.events import BlobQuarantined
from registry.opening import open_registry
from registry.operations.scrub import Scrubbed, scrub
from registry.quarantine import report_quarantined
from registry.settings import Home, Limits
from registry.storage.blobs import LocalBlobs

pytestmark = pytest.mark.slow

WEIGHTS = "adapter_model.safetensors"
DAY = 24 * 3600.0


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    """Two sealed versions."""
    with bench_in(home.root) as made:
        made.create_adapter()
        for fill in (1, 2):
            made.complete(made.submit(fill).number)
        yield made


def scrubbed(bench: Bench, **options: Any) -> Scrubbed:
    return scrub(bench.home, Limits(), **{"bytes_per_second": 1e12, **options})


def weights(fill: int) -> str:
    return sha(make_adapter(fill=fill)[WEIGHTS])


def spoil(bench: Bench, digest: str) -> None:
    path = bench.registry.blobs.path(digest)
    data = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 4]))


def tomorrow() -> float:
    return time.time() + DAY + 60


def told(bench: Bench) -> list[str]:
    entries = [line.entry for line in bench.registry.journal.read()]
    return [event.sha256 for entry in entries for event in entry.events if isinstance(event, BlobQuarantined)]


def test_what_is_whole_is_clean_and_nothing_is_changed(bench: Bench) -> None:
    before = sorted(path for path in bench.home.blobs.rglob("*"))
    found = scrubbed(bench)
    assert found.clean and (found.damaged, found.missing, found.stale_parts, found.left_over) == ([], [], 0, 0)
    stored = list(bench.registry.blobs.stored())
    assert (found.checked, found.size_bytes) == (len(stored), sum(one.size for one in stored))
    assert sorted(bench.home.blobs.rglob("*")) == before


def test_a_rotten_blob_beside_a_running_service_is_quarantined_and_the_service_refuses_it(bench: Bench) -> None:
    spoil(bench, weights(1))
    found = scrubbed(bench)
    assert (found.damaged, found.missing, found.clean) == ([weights(1)], [], False)
    with pytest.raises(BlobDamaged):
        bench.registry.blobs.open(weights(1))
    assert scrubbed(bench).damaged == [weights(1)], "still damaged at the next scrub"
    bench.registry.blobs.put(make_adapter(fill=1)[WEIGHTS])
    assert scrubbed(bench).clean


def test_what_a_scrub_found_is_journalled_once_by_the_service(bench: Bench) -> None:
    spoil(bench, weights(1))
    scrubbed(bench)
    assert told(bench) == []
    bench.reopen()
    assert told(bench) == [weights(1)]
    report_quarantined(bench.registry)
    scrubbed(bench)
    bench.reopen()
    assert told(bench) == [weights(1)]
    entry = next(
        line.entry for line in bench.registry.journal.read() if isinstance(line.entry.events[0], BlobQuarantined)
    )
    assert (entry.actor.person, entry.actor.token) == ("tunegate", None)
    assert bench.rebuilt() is not None


def test_a_missing_blob_is_named(bench: Bench) -> None:
    bench.registry.blobs.path(weights(2)).unlink()
    found = scrubbed(bench)
    assert (found.damaged, found.missing, found.clean) == ([], [weights(2)], False)


def test_files_that_were_announced_and_never_sent_are_not_missing(bench: Bench) -> None:
    bench.run(CI, versions.submit, adapter=NAME, request=submission(3))
    assert scrubbed(bench).clean


def test_parts_that_nobody_continues_are_deleted_after_a_day(bench: Bench) -> None:
    upload = bench.registry.blobs.upload("5" * 64, total=100, offset=0)
    upload.write(b"x" * 10)
    upload.pause()
    assert scrubbed(bench).stale_parts == 0
    assert scrubbed(bench, clock=tomorrow).stale_parts == 1
    assert bench.registry.blobs.stored_part("5" * 64) == 0


def test_starting_deletes_old_parts_and_staging_files(bench: Bench) -> None:
    upload = bench.registry.blobs.upload("5" * 64, total=100, offset=0)
    upload.write(b"x" * 10)
    upload.pause()
    (part,) = (bench.home.blobs / "parts").iterdir()
    staged = bench.home.staging / f"{'6' * 64}.1.parquet"
    staged.write_bytes(b"left by a process that died")
    bench.reopen()
    assert part.exists() and not staged.exists()
    os.utime(part, (time.time() - 2 * DAY,) * 2)
    bench.reopen()
    assert not part.exists()


def test_left_over_blobs_are_counted_beside_a_service_and_deleted_only_without_one(bench: Bench) -> None:
    left = bench.registry.blobs.put(b"nobody names this")
    assert scrubbed(bench).left_over == 0, "it may still be named"
    found = scrubbed(bench, clock=tomorrow)
    assert (found.left_over, found.left_over_bytes, found.collected, found.clean) == (1, 17, 0, True)
    with pytest.raises(StorageDamaged, match="in use by another"):
        scrubbed(bench, clock=tomorrow, collect=True)
    assert bench.registry.blobs.has(left)
    stored = {one.sha256 for one in bench.registry.blobs.stored()}
    bench.registry.close()
    assert scrubbed(bench, clock=tomorrow, collect=True).collected == 1
    bench.registry = open_registry(bench.home).registry
    assert {one.sha256 for one in bench.registry.blobs.stored()} == stored - {left}
    assert scrubbed(bench).clean


def test_nothing_can_be_announced_while_it_collects(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever announces a blob that is stored counts on it from then on, so collecting holds the journal alone."""
    data = make_adapter(fill=3)[WEIGHTS]
    bench.registry.blobs.put(data)
    bench.registry.close()
    tries: list[str] = []
    discard = LocalBlobs.discard

    def submit_meanwhile(blobs: LocalBlobs, sha256: str) -> None:
        with pytest.raises(StorageDamaged, match="in use by another"):
            open_registry(bench.home)
        tries.append(sha256)
        discard(blobs, sha256)

    monkeypatch.setattr(LocalBlobs, "discard", submit_meanwhile)
    assert scrubbed(bench, clock=tomorrow, collect=True).collected == 1 and tries == [sha(data)]
    bench.registry = open_registry(bench.home).registry
    answer = bench.run(CI, versions.submit, adapter=NAME, request=submission(3)).value
    assert sha(data) in answer.missing, "the next to announce it is told to send it"


def test_what_was_announced_before_is_not_collected_however_old(bench: Bench) -> None:
    for data in make_adapter(fill=3).values():
        bench.registry.blobs.put(data)
    bench.run(CI, versions.submit, adapter=NAME, request=submission(3))
    bench.registry.close()
    found = scrubbed(bench, clock=tomorrow, collect=True)
    assert (found.left_over, found.collected) == (0, 0)
    bench.registry = open_registry(bench.home).registry
    assert bench.complete(3).number == 3


def test_blobs_of_versions_that_were_never_completed_are_counted_and_kept(bench: Bench) -> None:
    files = make_adapter(fill=3)
    for data in files.values():
        bench.registry.blobs.put(data)
    bench.run(CI, versions.submit, adapter=NAME, request=submission(3))
    sent = bench.registry.blobs.put(b"sent for nothing")
    bench.run(CI._replace(scope="support-bot"), blobs.sent, sha256=sent)
    bench.evaluate()
    comment = bench.registry.blobs.put(b"what a reviewer thought")
    item = bench.run(REVIEWERS[0], review.next_assignment).value
    bench.run(REVIEWERS[0], review.rate, assignment_id=item.id, rating=make_rating(), comment_sha256=comment)
    assert (scrubbed(bench).idle, scrubbed(bench, clock=tomorrow).idle) == (0, 2), "the config is of other versions too"
    found = scrubbed(bench, clock=tomorrow)
    assert found.idle_bytes == len(files[WEIGHTS]) + len(b"sent for nothing") and found.clean
    assert found.left_over == 0, "a comment is needed, though not missed"
    bench.complete(3)
    assert scrubbed(bench, clock=tomorrow).idle == 1


def test_a_scrub_reads_no_faster_than_it_may(bench: Bench) -> None:
    slept: list[float] = []
    found = scrubbed(bench, bytes_per_second=1000, sleep=slept.append)
    # Nothing really sleeps here, so each time all that is owed until then is asked for.
    assert slept and max(slept) == pytest.approx(found.size_bytes / 1000, rel=0.2)


def test_a_home_without_a_journal_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="TUNEGATE_HOME"):
        scrub(Home(tmp_path), Limits(), bytes_per_second=1)


def test_the_command_exits_by_what_it_found(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEGATE_HOME", str(bench.home.root))
    with pytest.raises(SystemExit) as clean:
        main(["scrub"])
    assert clean.value.code == 0 and "blobs are whole" in capsys.readouterr().out
    spoil(bench, weights(1))
    with pytest.raises(SystemExit) as damaged:
        main(["scrub", "--json"])
    assert damaged.value.code == 1 and weights(1) in capsys.readouterr().out
    with pytest.raises(SystemExit) as busy:
        main(["scrub", "--collect"])
    assert busy.value.code == 3
    monkeypatch.setenv("TUNEGATE_PART_HOURS", "soon")
    with pytest.raises(InvalidRequest, match="TUNEGATE_PART_HOURS is 'soon'"):
        settings.limits()
