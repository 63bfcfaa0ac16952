"""What is erased and what stays: the same bytes as another's words, those named at this moment, and older entries."""

import threading
from collections.abc import Iterator
from functools import partial

import pytest
from registry_under_test import ADMIN, REVIEWERS, Bench, bench_in, make_rating

from registry.access import Principal
from registry.commands import erasure, review
from registry.commands.context import Context, Outcome
from registry.errors import NotFound, StorageDamaged, TunegateError
from registry.events import AssignmentSkipped, WordsErased
from registry.records import Assignment, Erased, EraseWords, Role
from registry.settings import Home

TEXT = b"the same words"
ANNA, BOB = REVIEWERS[0], REVIEWERS[1]


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    """One version in review."""
    with bench_in(home.root) as made:
        made.create_adapter()
        made.complete(made.submit().number)
        made.evaluate()
        yield made


def item_of(bench: Bench, who: Principal) -> Assignment:
    found = bench.run(who, review.next_assignment).value
    assert isinstance(found, Assignment)
    return found


def say(bench: Bench, who: Principal, words: bytes = TEXT) -> str:
    sha256 = bench.registry.blobs.put(words)
    given = {"rating": make_rating(), "comment_sha256": sha256}
    bench.run(who, review.rate, assignment_id=item_of(bench, who).id, **given)
    return sha256


def erase(bench: Bench, person: str, who: Principal = ADMIN) -> Erased:
    found = bench.run(who, erasure.erase_words, request=EraseWords(person=person, reason="asked to")).value
    assert isinstance(found, Erased)
    return found


def test_bytes_go_with_the_entry_unless_somebody_else_wrote_the_same(bench: Bench) -> None:
    sha256 = say(bench, ANNA)
    assert say(bench, BOB) == sha256
    assert erase(bench, ANNA.person) == Erased(texts=1, blobs=[]) and bench.registry.blobs.has(sha256)
    assert erase(bench, BOB.person) == Erased(texts=1, blobs=[sha256]) and not bench.registry.blobs.has(sha256)


def test_words_that_are_named_right_behind_the_erasure_of_the_same_bytes_stay(bench: Bench) -> None:
    """Both are decided in one transaction: what the erasure saw as needed by nobody is needed when it is committed."""
    sha256, item = say(bench, ANNA), item_of(bench, BOB)
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: Context) -> Outcome:
        begun.set()
        assert go_on.wait(30)
        return Outcome(None)

    registry = bench.registry
    registry.submit(ADMIN, slow)
    assert begun.wait(30)
    request = EraseWords(person=ANNA.person, reason="asked to")
    erased = registry.submit(ADMIN, partial(erasure.erase_words, request=request))
    rating = partial(review.rate, assignment_id=item.id, rating=make_rating(), comment_sha256=sha256)
    said = registry.submit(BOB, rating)
    go_on.set()
    assert erased.result(30).value == Erased(texts=1, blobs=[sha256]) and said.result(30).status == 200
    assert registry.blobs.has(sha256)
    words = {one.person: one.erased for one in registry.view().words_like(None, sha256)}
    assert words == {ANNA.person: True, BOB.person: False}


def test_where_the_bytes_cannot_be_deleted_that_is_the_answer_and_asking_again_deletes_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256 = say(bench, ANNA)

    def refuse(_: str) -> None:
        raise StorageDamaged("the blob could not be deleted: Read-only file system")

    with monkeypatch.context() as patched:
        patched.setattr(bench.registry.blobs, "discard", refuse)
        with pytest.raises(TunegateError, match="could not be deleted"):
            erase(bench, ANNA.person)
    assert bench.registry.damage is None and bench.registry.blobs.has(sha256)
    assert erase(bench, ANNA.person) == Erased(texts=0, blobs=[sha256]) and not bench.registry.blobs.has(sha256)


def test_reasons_that_older_entries_say_in_full_are_counted_and_stay(bench: Bench) -> None:
    item = item_of(bench, ANNA)

    def older(_: Context) -> Outcome:
        return Outcome(None, [AssignmentSkipped(id=item.id, reason="I know who asked")])

    bench.run(ANNA, older)
    before = bench.registry.journal.head
    assert erase(bench, ANNA.person) == Erased(texts=0, blobs=[], in_journal=1)
    assert bench.registry.journal.head == before
    # Whoever may not see the review is told nothing of it, and nobody of somebody who wrote nothing.
    for person, who in ((ANNA.person, Principal("t-other", "otto", Role.ADMIN, "other")), (BOB.person, ADMIN)):
        with pytest.raises(NotFound):
            erase(bench, person, who)
    sha256 = say(bench, ANNA)
    assert erase(bench, ANNA.person) == Erased(texts=1, blobs=[sha256], in_journal=1)
    told = [one for line in bench.registry.journal.read() for one in line.entry.events if isinstance(one, WordsErased)]
    assert len(told) == 1
