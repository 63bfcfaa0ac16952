"""The same files are the same version, told by one training record."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import msgspec
import pytest
from registry_under_test import CI, NAME, Bench, bench_in, submission

from registry.commands import versions
from registry.errors import Conflict, InspectionFailed
from registry.records import State, SubmitVersion
from registry.registry import Answer
from registry.settings import Home


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter()
        yield made


def push(bench: Bench, request: SubmitVersion) -> Answer:
    return bench.run(CI, versions.submit, adapter=NAME, request=request)


def with_training(**changes: Any) -> SubmitVersion:
    made = submission(1)
    assert made.training is not None
    return msgspec.structs.replace(made, training=msgspec.structs.replace(made.training, **changes))


WITHOUT = msgspec.structs.replace(submission(1), training=None)


def test_a_training_record_that_comes_later_is_refused_with_the_remedy(bench: Bench) -> None:
    assert push(bench, WITHOUT).status == 201
    head = bench.registry.journal.head
    with pytest.raises(Conflict, match=r"support-bot/1 already, submitted with no training record.*README\.md"):
        push(bench, submission(1))
    assert bench.registry.journal.head == head


@pytest.mark.parametrize(
    "changes",
    [{"dataset": "sha256:" + "8" * 64}, {"ledger": "sha256:" + "8" * 64}, {"recipe": 'name = "y"'}, {"seed": 2}],
    ids=lambda changes: next(iter(changes)),
)
def test_the_record_of_another_run_is_refused(bench: Bench, changes: dict[str, Any]) -> None:
    push(bench, submission(1))
    with pytest.raises(Conflict, match="submitted with another training record"):
        push(bench, with_training(**changes))


@pytest.mark.parametrize(
    "changes",
    [{"seconds": 77.0}, {"metrics": {"train_loss": 0.2}}, {"seconds": 2.0, "metrics": {}}],
)
def test_the_same_run_told_with_other_times_and_metrics_is_the_same_version(
    bench: Bench, changes: dict[str, Any]
) -> None:
    first = push(bench, submission(1))
    head = bench.registry.journal.head
    again = push(bench, with_training(**changes))
    assert (first.status, again.status, again.value.ref) == (201, 200, first.value.ref)
    assert bench.registry.journal.head == head
    stored = bench.registry.view().version(NAME, 1)
    assert stored is not None and stored.training == submission(1).training, "what was told first stays"


def test_files_without_their_record_are_still_the_version_that_has_one(bench: Bench) -> None:
    push(bench, submission(1))
    again = push(bench, WITHOUT)
    assert (again.status, again.value.ref) == (200, f"{NAME}/1")


def test_a_blob_that_was_lost_since_the_inspection_made_ahead_is_not_sealed(bench: Bench) -> None:
    answer = bench.submit(1)
    ahead = bench.registry.ask(CI, partial(versions.inspect_ahead, adapter=NAME, number=answer.number))
    assert ahead is not None and ahead.findings == []
    lost, head = submission(1).files[0].sha256, bench.registry.journal.head
    bench.registry.blobs.quarantine(lost)
    with pytest.raises(InspectionFailed, match=f"still misses 1 blobs: {lost}"):
        bench.run(CI, versions.complete, adapter=NAME, number=answer.number, inspected=ahead)
    assert bench.registry.journal.head == head
    bench.submit(1)  # sends it again
    done = bench.run(CI, versions.complete, adapter=NAME, number=answer.number, inspected=ahead)
    assert done.value.state is State.SUBMITTED
