"""From measurements to evidence: the Parquet rows, and the numbers that the registry's own rule makes of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import duckdb
import msgspec

from evaluator.results import Answered, Judged, Measured
from evaluator.suites import Loaded, judge
from registry.client import summarise
from registry.records import CONVENTION, Canary, EngineInfo, Evidence, ItemRow, Job, Policy

_COLUMNS = """
    suite TEXT, item TEXT, subject TEXT, prompt TEXT, output TEXT, correct BOOLEAN, nll_nats DOUBLE, n_tokens BIGINT,
    finish TEXT, contaminated BOOLEAN, tags TEXT[], n_bytes BIGINT, gold_nll_nats DOUBLE, gold_tokens BIGINT,
    kl_nats DOUBLE, kl_tokens BIGINT
"""

Where = tuple[str, str]  # suite and subject


class Found(NamedTuple):
    """What was measured, item by item; a subject is the base or a candidate's digest.

    gold: the right answers as replies. echoes: the texts sampled from the base.
    """

    answers: dict[Where, dict[str, Answered]]
    judged: dict[Where, dict[str, Judged]]
    scores: dict[Where, dict[str, Measured]]
    gold: dict[Where, dict[str, Measured]]
    echoes: dict[Where, dict[str, Measured]]


def nothing_found() -> Found:
    return Found({}, {}, {}, {}, {})


def compared_suites(policy: Policy) -> set[str]:
    """The suites on which the base is measured too; to pilot prompts it answers what people rate as a control."""
    extra = {rule.suite for rule in policy.extra if rule.margin is not None}
    shown = {policy.review.suite} if policy.review.controls else set()
    return {policy.perplexity.suite, policy.forgetting.suite, *extra, *shown}


def item_rows(
    job: Job, suites: Mapping[str, Loaded], contaminated: Mapping[str, set[str]] | None, found: Found
) -> list[ItemRow]:
    """One row for each item and subject of a job, in a fixed order."""
    compared, rows = compared_suites(job.document), []
    for ref, loaded in sorted(suites.items()):
        flagged = contaminated.get(ref) if contaminated is not None else None
        for subject in ("base", "candidate"):
            if subject == "candidate" or ref in compared:
                rows += [
                    msgspec.structs.replace(row, contaminated=row.item in flagged if flagged is not None else None)
                    for row in [*_asked(loaded, subject, job.digest, found), *_read(loaded, subject, job.digest, found)]
                ]
    return rows


def build_evidence(
    job: Job,
    rows: Sequence[ItemRow],
    mask: str | None,
    *,
    rows_sha256: str,
    engine: EngineInfo,
    canaries: list[Canary],
    seconds: float,
) -> Evidence:
    """The evidence of a job under its policy. A section that was not measured stays out, and is not a pass.

    mask: digest of which tokens of the perplexity suite were scored.
    """
    return Evidence(
        manifest=job.digest,
        policy=job.policy,
        engine=engine,
        canaries=canaries,
        rows=rows_sha256,
        seconds=round(seconds, 1),
        **summarise(job.document, rows, CONVENTION, mask)._asdict(),
    )


def write_rows(path: Path, rows: Sequence[ItemRow]) -> None:
    """The rows as Parquet, in the registry's columns."""
    names = ItemRow.__struct_fields__
    with duckdb.connect() as db:
        db.execute(f"CREATE TABLE rows ({_COLUMNS})")
        for start in range(0, len(rows), 500):
            batch = [msgspec.structs.astuple(row) for row in rows[start : start + 500]]
            marks = ", ".join([f"({', '.join('?' * len(names))})"] * len(batch))
            db.execute(f"INSERT INTO rows VALUES {marks}", [value for row in batch for value in row])
        quoted = str(path).replace("'", "''")
        db.execute(f"COPY rows TO '{quoted}' (FORMAT parquet)")


def _asked(loaded: Loaded, subject: str, candidate: str, found: Found) -> list[ItemRow]:
    """Rows of what was answered: the answer and whether it is right, and what was scored beside it."""
    ref, rows, digest = loaded.suite.ref, [], candidate if subject == "candidate" else "base"
    answers, judged = found.answers.get((ref, digest), {}), found.judged.get((ref, digest), {})
    gold, echoes = found.gold.get((ref, digest), {}), found.echoes.get((ref, digest), {})
    # The base may have been asked more for another candidate; a pair is scored on both sides or on none.
    gold = {item: one for item, one in gold.items() if item in found.gold.get((ref, candidate), {})}
    base_echoes = found.echoes.get((ref, "base"), {})
    for ask in sorted(loaded.asks, key=lambda one: one.item):
        answer, verdict = answers.get(ask.item), judged.get(ask.item)
        if answer is not None:
            output, tokens, finish, right = answer.text, answer.tokens, answer.finish, judge(ask.source, answer.text)
        elif verdict is not None:
            output, tokens, finish, right = verdict.text, None, None, verdict.right
        else:
            continue
        right_one, echo, base_echo = gold.get(ask.item), echoes.get(ask.item), base_echoes.get(ask.item)
        diverged = echo.nll_nats - base_echo.nll_nats if subject == "candidate" and echo and base_echo else None
        rows.append(
            ItemRow(
                suite=ref,
                item=ask.item,
                subject=subject,
                prompt=ask.text,
                output=output,
                correct=right,
                nll_nats=None,
                n_tokens=tokens,
                finish=finish,
                contaminated=None,
                tags=ask.source.tags,
                gold_nll_nats=right_one.nll_nats if right_one else None,
                gold_tokens=right_one.n_tokens if right_one else None,
                kl_nats=diverged,
                kl_tokens=echo.n_tokens if diverged is not None and echo else None,
            )
        )
    return rows


def _read(loaded: Loaded, subject: str, candidate: str, found: Found) -> list[ItemRow]:
    """Rows of conversations that were scored."""
    scores = found.scores.get((loaded.suite.ref, candidate if subject == "candidate" else "base"), {})
    return [
        ItemRow(
            suite=loaded.suite.ref,
            item=read.item,
            subject=subject,
            prompt=None,
            output=None,
            correct=None,
            nll_nats=scores[read.item].nll_nats,
            n_tokens=scores[read.item].n_tokens,
            finish=None,
            contaminated=None,
            tags=read.source.tags,
            n_bytes=read.n_bytes,
        )
        for read in sorted(loaded.reads, key=lambda one: one.item)
        if read.item in scores
    ]
