"""From measurements to evidence: the numbers, and the Parquet rows they can be recomputed from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import msgspec

from evaluator.accuracy import is_right
from evaluator.forgetting import summarise as summarise_forgetting
from evaluator.perplexity import summarise as summarise_perplexity
from evaluator.results import Answered, Measured
from evaluator.suites import Loaded
from registry.records import (
    AccuracyEvidence,
    Canary,
    ContaminationEvidence,
    EngineInfo,
    Evidence,
    ForgettingEvidence,
    ItemRow,
    Job,
    OutputsEvidence,
    PerplexityEvidence,
)


class Measurements(NamedTuple):
    """What was measured, by suite. `contaminated` names the items found in the training data, None if unknown."""

    suites: Mapping[str, Loaded]
    answers: Mapping[tuple[str, str], Mapping[str, Answered]]  # by (suite, subject)
    scores: Mapping[tuple[str, str], Mapping[str, Measured]]
    contaminated: Mapping[str, set[str]] | None


def item_rows(measured: Measurements) -> list[ItemRow]:
    """One row for each item and subject, in a fixed order."""
    rows = []
    for (suite, subject), answers in sorted(measured.answers.items()):
        asks = {one.item: one for one in measured.suites[suite].asks}
        flagged = measured.contaminated.get(suite) if measured.contaminated else None
        for item, answer in sorted(answers.items()):
            ask = asks[item]
            rows.append(
                ItemRow(
                    suite=suite,
                    item=item,
                    subject=subject,
                    prompt=ask.text,
                    output=answer.text,
                    correct=is_right(answer.text, ask.answers, ask.text) if ask.answers else None,
                    nll_nats=None,
                    n_tokens=answer.tokens,
                    finish=answer.finish,
                    contaminated=item in flagged if flagged is not None else None,
                )
            )
    for (suite, subject), scores in sorted(measured.scores.items()):
        flagged = measured.contaminated.get(suite) if measured.contaminated else None
        rows += [
            ItemRow(
                suite=suite,
                item=item,
                subject=subject,
                prompt=None,
                output=None,
                correct=None,
                nll_nats=one.nll_nats,
                n_tokens=one.n_tokens,
                finish=None,
                contaminated=item in flagged if flagged is not None else None,
            )
            for item, one in sorted(scores.items())
        ]
    return rows


def build_evidence(
    job: Job,
    measured: Measurements,
    rows: Sequence[ItemRow],
    rows_sha256: str,
    engine: EngineInfo,
    canaries: list[Canary],
    seconds: float,
) -> Evidence:
    """The evidence of a job under its policy. A section that was not measured stays out, and is not a pass."""
    policy = job.document
    contamination = None
    if measured.contaminated is not None:
        contamination = [
            ContaminationEvidence(suite=suite, n=len(loaded.asks) + len(loaded.reads), contaminated=len(items))
            for suite, items in measured.contaminated.items()
            if (loaded := measured.suites[suite])
        ]
    return Evidence(
        manifest=job.digest,
        policy=job.policy,
        engine=engine,
        canaries=canaries,
        rows=rows_sha256,
        seconds=round(seconds, 1),
        perplexity=_perplexity(measured, policy.perplexity.suite),
        accuracy=_accuracy(rows, policy.accuracy.suite),
        forgetting=_forgetting(rows, policy.forgetting.suite),
        outputs=_outputs(measured, policy.review.suite),
        contamination=contamination if measured.answers else None,
    )


def write_rows(path: Path, rows: Sequence[ItemRow]) -> None:
    """The rows as Parquet, in the registry's columns."""
    names = ItemRow.__struct_fields__
    with duckdb.connect() as db:
        db.execute(
            "CREATE TABLE rows (suite TEXT, item TEXT, subject TEXT, prompt TEXT, output TEXT, correct BOOLEAN, "
            "nll_nats DOUBLE, n_tokens BIGINT, finish TEXT, contaminated BOOLEAN)"
        )
        for start in range(0, len(rows), 500):
            batch = [msgspec.structs.astuple(row) for row in rows[start : start + 500]]
            marks = ", ".join([f"({', '.join('?' * len(names))})"] * len(batch))
            db.execute(f"INSERT INTO rows VALUES {marks}", [value for row in batch for value in row])
        quoted = str(path).replace("'", "''")
        db.execute(f"COPY rows TO '{quoted}' (FORMAT parquet)")


def _perplexity(measured: Measurements, suite: str) -> PerplexityEvidence | None:
    candidate, base = (measured.scores.get((suite, subject)) for subject in ("candidate", "base"))
    return summarise_perplexity(suite, candidate, base) if candidate and base else None


def _outputs(measured: Measurements, suite: str) -> OutputsEvidence | None:
    answers = measured.answers.get((suite, "candidate"))
    return OutputsEvidence(suite=suite, n=len(answers)) if answers else None


def _forgetting(rows: Sequence[ItemRow], suite: str) -> ForgettingEvidence | None:
    candidate, base = (_verdicts(rows, suite, subject) for subject in ("candidate", "base"))
    return summarise_forgetting(suite, candidate, base) if candidate and base else None


def _accuracy(rows: Sequence[ItemRow], suite: str) -> AccuracyEvidence | None:
    mine = [row for row in rows if row.suite == suite and row.subject == "candidate"]
    if not mine:
        return None
    clean = [row for row in mine if not row.contaminated]
    return AccuracyEvidence(
        suite=suite,
        n=len(mine),
        correct=sum(bool(row.correct) for row in mine),
        clean_n=len(clean),
        clean_correct=sum(bool(row.correct) for row in clean),
        cut_off=sum(row.finish == "length" for row in mine),
    )


def _verdicts(rows: Sequence[ItemRow], suite: str, subject: str) -> dict[str, bool]:
    return {row.item: bool(row.correct) for row in rows if row.suite == suite and row.subject == subject}
