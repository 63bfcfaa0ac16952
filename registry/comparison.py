"""Training runs side by side: what they are, which keys of their recipes differ, how they went. Pure.

A key that a recipe does not give stands empty: the trainer's default, or its preset's.
"""

import json
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from registry.errors import InvalidRequest
from registry.records import StepProgress, TrainingCheckpoint, TrainingInfo

FEWEST, MOST = 2, 5
_SHARES = (0, 20, 40, 60, 80, 100)
# What decides which tokens a loss is taken over, beside base and data.
_OF_THE_LOSS = ("seed", "system", "training.max_length")


class Run(NamedTuple):
    """points: the steps that were told, in order; saved: its checkpoints."""

    info: TrainingInfo
    points: Sequence[StepProgress]
    saved: Sequence[TrainingCheckpoint]


class Row(NamedTuple):
    """One fact of every run, in the order of the runs; empty where there is none."""

    name: str
    values: list[str]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


def require_comparable(ids: Sequence[str]) -> None:
    """InvalidRequest unless these are two to five runs, each named once."""
    if not FEWEST <= len(ids) <= MOST:
        raise InvalidRequest(f"a comparison is of {FEWEST} to {MOST} runs, not of {len(ids)}; name each by its id")
    if repeated := next((one for one in ids if ids.count(one) > 1), None):
        raise InvalidRequest(f"run {repeated[:50]!r} is named more than once; name each run once")


def what_they_are(runs: Sequence[Run]) -> list[Row]:
    """Adapter, status, version, base and data; of data that no run has, nothing."""
    facts: list[tuple[str, Callable[[TrainingInfo], str | None]]] = [
        ("adapter", lambda one: one.adapter),
        ("status", lambda one: one.status.value),
        ("version", lambda one: one.version),
        ("base", lambda one: _short(one.base)),
        ("dataset", lambda one: _short(one.dataset)),
        ("replay prompts", lambda one: _short(one.replay)),
        ("preference pairs", lambda one: _short(one.preferences)),
    ]
    rows = [Row(name, [fact(one.info) or "" for one in runs]) for name, fact in facts]
    return [row for row in rows if any(row.values)]


def what_differs(runs: Sequence[Run]) -> list[Row]:
    """The keys of the recipes that are not the same in all of them, as JSON."""
    recipes = [settings_of(one.info.recipe) for one in runs]
    names = dict.fromkeys(name for one in recipes for name in one)
    rows = [Row(name, [one.get(name, "") for one in recipes]) for name in names]
    return [row for row in rows if row.differs]


def how_they_went(runs: Sequence[Run]) -> list[Row]:
    """Steps, losses in nats a token, speed and memory. A share is one of the steps that a run has told of."""
    last = [one.points[-1] if one.points else None for one in runs]
    return [
        Row("steps", [f"{one.step} of {one.steps}" if one else "" for one in last]),
        *(Row(f"loss at {share} %", [_loss_at(one.points, share) for one in runs]) for share in _SHARES),
        Row("validation loss, best", [_validation(one, lambda at: at.metrics["validation_loss"]) for one in runs]),
        Row("validation loss, last", [_validation(one, lambda at: -at.step) for one in runs]),
        Row("tokens/s", [number(one.tokens_per_second) if one else "" for one in last]),
        Row("memory GiB", [number(one.memory_bytes / 1024**3) if one and one.memory_bytes else "" for one in last]),
    ]


def caution(runs: Sequence[Run]) -> str | None:
    """Why a lower loss of one run says nothing against another's, where that is so."""
    settings = [settings_of(one.info.recipe) for one in runs]
    taken = [
        Row("base", [one.info.base for one in runs]),
        Row("dataset", [one.info.dataset for one in runs]),
        *(Row(name, [one.get(name, "") for one in settings]) for name in _OF_THE_LOSS),
    ]
    if not (names := [row.name for row in taken if row.differs]):
        return None
    return (
        f"These runs differ in {', '.join(names)}: their losses are not taken over the same tokens, and a lower one "
        "shows no better adapter. Evaluate the versions with the same suites."
    )


def settings_of(recipe: str) -> dict[str, str]:
    """Every key of a recipe, dotted, with its value as JSON; of one that is not TOML, its whole text.

    >>> settings_of('name = "x"\\n[lora]\\nrank = 8')
    {'name': '"x"', 'lora.rank': '8'}
    """
    try:
        return dict(_flat(tomllib.loads(recipe), ""))
    except (ValueError, RecursionError):
        return {"recipe": recipe}


def number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _flat(table: Mapping[str, Any], before: str) -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            # Raises ValueError for a number of thousands of digits, which TOML can write in hexadecimal.
            yield before + key, json.dumps(value, ensure_ascii=False, default=str)


def _short(digest: str | None) -> str | None:
    return digest[:19] if digest else None


def _loss_at(points: Sequence[StepProgress], share: int) -> str:
    return number(points[round((len(points) - 1) * share / 100)].loss) if points else ""


def _validation(run: Run, by: Callable[[TrainingCheckpoint], float]) -> str:
    """The validation loss of the checkpoint that is least in this order, and its step; of equals the first."""
    measured = [one for one in run.saved if "validation_loss" in one.metrics]
    if not measured:
        return ""
    found = min(measured, key=lambda one: (by(one), one.step))
    return f"{number(found.metrics['validation_loss'])} at step {found.step}"
