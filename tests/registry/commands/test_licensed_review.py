"""The registry counts, in the ledger that it stores, the rows that a licensed person reviewed; the gate asks that."""

import json
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from factories import make_adapter, make_training
from registry_under_test import ADMIN, CI, NAME, POLICY, Bench, bench_in, submission
from site_under_test import DATASET

from registry.commands import adapters, versions
from registry.commands.bundle import bundle_of
from registry.commands.gate import assess
from registry.errors import BlobDamaged, GateNotSatisfied, Unavailable
from registry.events import GENESIS, chain_hash
from registry.gate.policy import policy_digest
from registry.gate.recompute import recompute
from registry.names import canonical
from registry.records import (
    Bundle,
    Check,
    GateReport,
    LedgerReviews,
    ProvenanceRule,
    State,
    Status,
    SubmitVersion,
    Verdict,
)
from registry.settings import Home
from trainer.ledger import LedgerRow, write_ledger

DEMANDED = msgspec.structs.replace(POLICY, provenance=ProvenanceRule(licensed_review=True))
RIGHT = ("ada", "nurse 7", "2026-03-01", "2036-12-31")


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter(policy=DEMANDED)
        yield made


def ledger_of(*reviews: tuple[str, str, str, str]) -> bytes:
    rows = [
        LedgerRow("data", f"r{n}", n, "g", "trained", "", "c" * 64, "d" * 64, 9, 3, "", "", "", *review)
        for n, review in enumerate(reviews, start=1)
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_ledger(Path(folder) / "l.parquet", rows)
        return (Path(folder) / "l.parquet").read_bytes()


def pushed(bench: Bench, ledger: bytes | None, fill: int = 1) -> int:
    """A sealed version with this ledger, or without a training record."""
    training = make_training(dataset=DATASET, ledger=ledger) if ledger is not None else None
    request: SubmitVersion = msgspec.structs.replace(submission(fill), training=training)
    for data in (*make_adapter(fill=fill).values(), DATASET, *([ledger] if ledger is not None else [])):
        bench.registry.blobs.put(data)
    number: int = bench.run(CI, versions.submit, adapter=NAME, request=request).value.number
    return bench.complete(number).number


def judged(bench: Bench, number: int, policy: str | None = None) -> Check:
    view = bench.registry.view()
    stored = view.version(NAME, number)
    assert stored is not None
    report = assess(view, stored, policy=policy)
    return next(one for one in report.checks if one.kind == "licensed_review")


def counted(bench: Bench, number: int) -> LedgerReviews | None:
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None
    return stored.reviews


@pytest.mark.slow
def test_the_whole_way_with_every_row_reviewed(bench: Bench) -> None:
    number = pushed(bench, ledger_of(RIGHT, RIGHT))
    assert counted(bench, number) == LedgerReviews(trained=2, licensed=2)
    bench.evaluate()
    bench.review()
    assert bench.promote(number).number == number
    assert bench.tables() == bench.rebuilt(), "what was counted is in the journal"


def test_one_row_whose_credential_had_run_out_keeps_the_version_back(bench: Bench) -> None:
    number = pushed(bench, ledger_of(RIGHT, ("ada", "nurse 7", "2026-03-01", "2026-02-28")))
    assert judged(bench, number).observed == {"trained": 2, "licensed": 1}
    bench.evaluate()
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None and stored.state is State.REJECTED
    with pytest.raises(GateNotSatisfied, match="licensed_review"):
        bench.promote(number)


def test_a_review_that_is_still_to_come_does_not_count(bench: Bench) -> None:
    later = f"{datetime.now(UTC) + timedelta(days=2):%Y-%m-%d}"
    number = pushed(bench, ledger_of(RIGHT, ("ada", "nurse 7", later, "2099-12-31")))
    assert counted(bench, number) == LedgerReviews(trained=2, licensed=1, without=("line 2",))


def test_what_is_no_ledger_is_sealed_and_never_passes(bench: Bench) -> None:
    """Without the demand it never mattered, so it is no reason to refuse the files."""
    for fill, ledger in enumerate((b"ledger", b"PAR1" + b"\0" * 40 + b"PAR1", ledger_of()), start=1):
        number = pushed(bench, ledger, fill)
        assert judged(bench, number).status is Status.FAIL
        found = counted(bench, number)
        assert found is not None and found.trained == 0
        assert str(bench.home.root) not in msgspec.json.encode(found).decode(), "paths are nobody's matter"


def test_a_ledger_too_large_to_be_read_is_said_to_be(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("registry.commands.versions._LEDGER_BYTES", 5)
    reason = judged(bench, pushed(bench, b"ledger")).reason
    assert "has 6 bytes, 5 are read at most" in reason and "README.md" in reason


def test_versions_with_the_same_ledger_have_it_counted_once_a_minute(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []

    class Counted(versions.Ledger):
        def __init__(self, path: Path) -> None:
            opened.append(path)
            super().__init__(path)

    monkeypatch.setattr(versions, "Ledger", Counted)
    told = []
    for fill in (1, 2, 3):
        stored = bench.registry.view().version(NAME, pushed(bench, ledger_of(RIGHT), fill))
        assert stored is not None
        told.append(stored.reviews)
    # Twice where a minute ended meanwhile.
    assert len(opened) in (1, 2) and told == 3 * [LedgerReviews(trained=1, licensed=1)]


def test_without_a_training_record_there_is_nothing_to_count(bench: Bench) -> None:
    number = pushed(bench, None)
    assert counted(bench, number) is None and judged(bench, number).status is Status.FAIL


def test_the_claims_of_a_training_record_count_for_nothing(bench: Bench) -> None:
    """rows, recipe and lint are the pusher's words; the ledger's rows decide."""
    ledger = ledger_of(("", "", "", ""))
    claims = msgspec.structs.replace(
        make_training(dataset=DATASET, ledger=ledger),
        recipe='name = "x"\n[provenance]\nlicensed_review = true\n',
        rows={"train": 1, "licensed": 1},
    )
    for data in (*make_adapter(fill=1).values(), DATASET, ledger):
        bench.registry.blobs.put(data)
    request = msgspec.structs.replace(submission(1), training=claims)
    bench.run(CI, versions.submit, adapter=NAME, request=request)
    assert judged(bench, bench.complete(1).number).status is Status.FAIL


def test_a_ledger_that_rotted_is_not_counted_and_the_version_not_sealed(bench: Bench) -> None:
    ledger = ledger_of(RIGHT)
    training = make_training(dataset=DATASET, ledger=ledger)
    for data in (*make_adapter(fill=1).values(), DATASET, ledger):
        bench.registry.blobs.put(data)
    request = msgspec.structs.replace(submission(1), training=training)
    bench.run(CI, versions.submit, adapter=NAME, request=request)
    path = bench.registry.blobs.path(training.ledger.removeprefix("sha256:"))
    path.chmod(0o600)
    path.write_bytes(ledger[:-9] + b"x" + ledger[-8:])
    with pytest.raises(BlobDamaged):
        bench.complete(1)


def test_a_ledger_that_could_not_be_read_this_time_seals_nothing_and_the_next_time_it_counts(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for data in (*make_adapter(fill=1).values(), DATASET, ledger := ledger_of(RIGHT)):
        bench.registry.blobs.put(data)
    training = make_training(dataset=DATASET, ledger=ledger)
    request = msgspec.structs.replace(submission(1), training=training)
    number = bench.run(CI, versions.submit, adapter=NAME, request=request).value.number
    head, blobs = bench.registry.journal.head, bench.registry.blobs

    def gone(sha256: str) -> int:
        """Quarantined by somebody else between the look and the reading."""
        blobs.path(sha256).rename(bench.home.root / "aside")
        return 0

    with monkeypatch.context() as broken:
        broken.setattr("registry.ledgers._COUNTING_MEMORY", "1KB")
        with pytest.raises(Unavailable, match=r"Out of Memory"):
            bench.complete(number)
        broken.undo()
        broken.setattr(blobs, "check", gone)
        with pytest.raises(Unavailable, match=r"Cannot access") as raised:
            bench.complete(number)
        assert str(bench.home.root) not in str(raised.value)
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None and stored.state is State.UPLOADING and bench.registry.journal.head == head
    (bench.home.root / "aside").rename(blobs.path(training.ledger.removeprefix("sha256:")))
    bench.complete(number)
    assert counted(bench, number) == LedgerReviews(trained=1, licensed=1)


@pytest.mark.slow
def test_a_policy_that_comes_to_demand_it_judges_what_was_counted_before(home: Home) -> None:
    """Counting does not wait for the demand; promotion asks the present policy too."""
    with bench_in(home.root) as bench:
        bench.create_adapter()
        good, bad = (pushed(bench, ledger_of(*rows), fill) for fill, rows in ((1, [RIGHT]), (2, [("", "", "", "")])))
        for _ in range(2):
            bench.evaluate()
        bench.review()
        bench.run(ADMIN, adapters.set_policy, adapter=NAME, policy=DEMANDED, if_match=None)
        bench.promote(good)
        with pytest.raises(GateNotSatisfied):
            bench.promote(bad)


def report_of(bench: Bench, number: int, policy: str | None = None) -> GateReport:
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None
    return assess(bench.registry.view(), stored, policy=policy)


def rewrite(journal: Path) -> None:
    """As it was written before reviews were counted: the same entries without them, chained anew."""
    lines, prev = [], GENESIS
    for line in journal.read_bytes().splitlines():
        entry = json.loads(line.partition(b" ")[2])
        for event in entry["events"]:
            assert ("reviews" in event) is (event["type"] == "version.submitted")
            event.pop("reviews", None)
        body = canonical(entry | {"prev": prev})
        prev = chain_hash(body)
        lines.append(prev.encode() + b" " + body + b"\n")
    journal.write_bytes(b"".join(lines))


@pytest.mark.slow
def test_a_journal_from_before_reviews_were_counted_is_folded_to_the_very_reports_that_it_had(home: Home) -> None:
    """Of a version that passes and one that does not; only a policy that demands reviews tells the journals apart."""
    with bench_in(home.root) as bench:
        bench.create_adapter()
        numbers = [pushed(bench, ledger_of(RIGHT), fill) for fill in (1, 2)]
        bench.evaluate()
        bench.evaluate(correct=20)
        bench.review()
        told = [msgspec.json.encode(report_of(bench, number)) for number in numbers]
        verdicts = [report_of(bench, number).verdict for number in numbers]
        assert verdicts == [Verdict.GO, Verdict.NO_GO]
        bench.close()
        rewrite(home.journal)
        for file in home.root.glob("catalog.duckdb*"):
            file.unlink()
        bench.registry = Bench(home).registry
        assert [counted(bench, number) for number in numbers] == [None, None]
        assert [msgspec.json.encode(report_of(bench, number)) for number in numbers] == told
        assert bench.promote(1).number == 1 and bench.tables() == bench.rebuilt()
        bench.run(ADMIN, adapters.set_policy, adapter=NAME, policy=DEMANDED, if_match=None)
        present = bench.registry.view().adapter(NAME)
        assert present is not None and judged(bench, 1, present.policy).status is Status.INVALID


def test_the_bundle_alone_comes_to_the_same_check(bench: Bench) -> None:
    number = pushed(bench, ledger_of(RIGHT, ("", "", "", "")))

    def question(context: object) -> Bundle:
        return bundle_of(context, NAME, number)  # type: ignore[arg-type]

    bundle = bench.registry.ask(ADMIN, question)
    again = msgspec.json.decode(msgspec.json.encode(bundle), type=Bundle)
    assert again.policy == policy_digest(again.document) and again.document.provenance.licensed_review
    assert again.reviews == LedgerReviews(trained=2, licensed=1, without=("line 2",))
    assert recompute(again, []).differences == []
