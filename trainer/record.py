"""What a run leaves behind: its data as they were used, the ledger of every row, the training record."""

import importlib.metadata
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from registry.client import describe_file
from registry.records import Finding, TrainingRecord
from trainer.dataset import Row, Split
from trainer.examples import IGNORED, Example, PairExample
from trainer.ledger import LedgerRow
from trainer.plan import Plan
from trainer.preflight.codes import Problem
from trainer.preflight.reading import PROVENANCE
from trainer.rendering import Rendered

_LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate", "datasets")


def write_dataset(path: Path, rendered: Sequence[Rendered]) -> None:
    """The rows that were used, as one line each: what a contamination check compares suites with.

    Of a pair the preferred answer stands there; its rejected one is bound by the ledger's hash.
    """
    with path.open("w") as file:
        for one in rendered:
            messages = [{"role": message.role, "content": message.content} for message in one.row.prompt]
            messages.append({"role": "assistant", "content": one.row.completion})
            line = {"id": one.row.id, "source": one.source, "use": one.use, "messages": messages}
            file.write(json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n")


def ledger(plan: Plan, rendered: Sequence[Rendered]) -> list[LedgerRow]:
    """A line for every row of the input, duplicates included."""
    by_line = {row.line: row for row in plan.rows}
    duplicates = [("data", by_line[line], first) for line, first in plan.data.duplicates]
    duplicates += [("dpo", pair.row, first) for pair, first in plan.pairs.duplicates]
    return [
        *(_used(one) for one in rendered),
        *(_duplicate(source, row, first) for source, row, first in duplicates),
    ]


def _used(one: Rendered) -> LedgerRow:
    tokens, learnt = _tokens(one.example)
    return LedgerRow(
        source=one.source,
        id=one.row.id,
        line=one.row.line,
        group=one.row.group,
        disposition="trained" if one.use == Split.TRAIN else one.use,
        reason=one.reason,
        content_sha256=one.row.digest,
        rendered_sha256=one.sha256,
        tokens=tokens,
        trained_tokens=learnt if one.use == Split.TRAIN else 0,
        **_provenance(one.row),
    )


def _tokens(example: Example | PairExample) -> tuple[int, int]:
    """All tokens of a row, and those that its loss is taken over; of a pair both answers'."""
    if isinstance(example, PairExample):
        answers = len(example.chosen) + len(example.rejected)
        return len(example.prompt) + answers, answers
    return len(example.ids), sum(label != IGNORED for label in example.labels)


def _duplicate(source: str, row: Row, first: int) -> LedgerRow:
    reason = f"the same as line {first}"
    return LedgerRow(source, row.id, row.line, row.group, "duplicate", reason, row.digest, "", 0, 0, **_provenance(row))


def _provenance(row: Row) -> dict[str, str]:
    told = row.provenance
    rest = {key: told.get(key, "") for key in PROVENANCE if key != "source"}
    return {"origin": told.get("source", ""), **rest}


def record(
    plan: Plan,
    rendered: Sequence[Rendered],
    metrics: Mapping[str, float],
    problems: Sequence[Problem],
    findings: dict[str, int],
) -> TrainingRecord:
    """rows: by what became of them; of replay and pairs those that trained under their own names."""
    counts = Counter(one.use if one.source == "data" or one.use != Split.TRAIN else one.source for one in rendered)
    counts["duplicate"] = len(plan.data.duplicates) + len(plan.pairs.duplicates)
    return TrainingRecord(
        base=plan.base_digest,
        dataset="sha256:" + describe_file(plan.directory / "dataset.jsonl").sha256,
        ledger="sha256:" + describe_file(plan.directory / "ledger.parquet").sha256,
        recipe=plan.text,
        seed=plan.recipe.seed,
        versions={name: importlib.metadata.version(name) for name in _LIBRARIES},
        rows=dict(counts),
        metrics={name: value for name, value in metrics.items() if name != "train_seconds"},
        seconds=round(metrics["train_seconds"], 1),
        waived=plan.recipe.waivers,
        lint=[Finding(code=one.rule, severity=one.severity, message=one.message) for one in problems],
        preflight=findings,
    )
