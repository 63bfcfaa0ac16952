"""Before a run: what the data holds, what would be left out, what should be looked at. Nothing is changed."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from trainer.dataset import Split, contradictions, prepare, read_rows

FEW_ROWS = 500


class Preflight(NamedTuple):
    """`warnings` do not stop a run; a file that cannot be read never gets this far."""

    rows: int
    splits: dict[str, int]
    duplicates: list[tuple[int, int]]
    contradictions: list[tuple[int, int]]
    longest_characters: int
    warnings: list[str]

    def as_json(self) -> dict[str, Any]:
        return {**self._asdict(), "splits": dict(self.splits)}


def preflight(path: Path, seed: int) -> Preflight:
    """Look at a data set as a run with this seed would use it. Raises InvalidRequest for faulty lines."""
    rows = read_rows(path)
    data = prepare(rows, seed)
    counts = Counter(data.splits)
    conflicting = contradictions(data.rows)
    warnings = []
    if len(data.rows) < FEW_ROWS:
        warnings.append(f"{len(data.rows)} distinct rows; below {FEW_ROWS} a run mostly learns their wording")
    if data.duplicates:
        warnings.append(f"{len(data.duplicates)} exact duplicates will be left out")
    if conflicting:
        first, second = conflicting[0]
        warnings.append(f"{len(conflicting)} prompts have two answers, the first on lines {first} and {second}")
    warnings += [f"no {split} rows: give more groups" for split in Split if not counts[split]]
    return Preflight(
        rows=len(rows),
        splits={split.value: counts[split] for split in Split},
        duplicates=data.duplicates,
        contradictions=conflicting,
        longest_characters=max(sum(len(one.content) for one in row.prompt) + len(row.completion) for row in rows),
        warnings=warnings,
    )
