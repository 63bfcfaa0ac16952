"""Training runs side by side: what they are, which keys of their recipes differ, how they went. Pure.

A key that a recipe does not give stands empty: the trainer's default, or its preset's, which are not known here. Of a
run that goes on with preference pairs only the first stage's losses are compared: those of the second are of pairs.
"""

import json
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from registry.errors import InvalidRequest
from registry.records import StepProgress, TrainingCheckpoint, TrainingInfo

FEWEST, MOST = 2, 5
POINTS = 400  # of a run's curve, wherever it is compared: the same points give the same figures
_MOST_KEYS = 200
_SHARES = (0, 20, 40, 60, 80, 100)
# What decides which tokens a loss is taken over and what counts in it, beside base and data.
_OF_THE_LOSS = ("preset", "seed", "system", "training.max_length", "training.order")


class Run(NamedTuple):
    """points: the steps that were told, in order, POINTS of them at most; saved: its checkpoints."""

    info: TrainingInfo
    points: Sequence[StepProgress]
    saved: Sequence[TrainingCheckpoint]

    @property
    def first_stage(self) -> Sequence[StepProgress]:
        """The points whose loss is one of rows."""
        return self.points if self.info.preferences is None else [one for one in self.points if one.stage == 1]


class Row(NamedTuple):
    """One fact of every run, in the order of the runs; empty where there is none."""

    name: str
    values: list[str]

    @property
    def differs(self) -> bool:
        return len(set(self.values)) > 1


class Comparison(NamedTuple):
    """caution: why a lower loss of one run says nothing against another's, where that is so.

    settings: the first keys of the recipes that are not the same in all of them, as JSON; more_settings: how many more.
    """

    caution: str | None
    facts: list[Row]
    settings: list[Row]
    more_settings: int
    went: list[Row]


def require_comparable(ids: Sequence[str]) -> None:
    """InvalidRequest unless these are two to five runs, each named once."""
    if not FEWEST <= len(ids) <= MOST:
        raise InvalidRequest(f"a comparison is of {FEWEST} to {MOST} runs, not of {len(ids)}; name each by its id")
    if repeated := next((one for one in ids if ids.count(one) > 1), None):
        raise InvalidRequest(f"run {repeated[:50]!r} is named more than once; name each run once")


def compared(runs: Sequence[Run]) -> Comparison:
    """These runs side by side."""
    recipes = [settings_of(one.info.recipe) for one in runs]
    names = dict.fromkeys(name for one in recipes for name in one)
    differing = _differing(Row(name, [one.get(name, "") for one in recipes]) for name in names)
    return Comparison(
        caution=_caution(runs, recipes),
        facts=_what_they_are(runs),
        settings=differing[:_MOST_KEYS],
        more_settings=len(differing[_MOST_KEYS:]),
        went=_how_they_went(runs),
    )


def _what_they_are(runs: Sequence[Run]) -> list[Row]:
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


def _how_they_went(runs: Sequence[Run]) -> list[Row]:
    """Steps, losses in nats a token, speed and memory. A share is one of the first stage's steps that were told of."""
    last = [one.points[-1] if one.points else None for one in runs]
    first = [one.first_stage for one in runs]
    ends = Row("losses up to step", [str(points[-1].step) if points else "" for points in first])
    return [
        Row("steps", [f"{one.step} of {one.steps}" if one else "" for one in last]),
        *([ends] if any(len(one.first_stage) < len(one.points) for one in runs) else []),
        *(Row(f"loss at {share} %", [_loss_at(points, share) for points in first]) for share in _SHARES),
        Row("validation loss, best", [_validation(one, lambda at: at.metrics["validation_loss"]) for one in runs]),
        Row("validation loss, last", [_validation(one, lambda at: -at.step) for one in runs]),
        Row("tokens/s", [number(one.tokens_per_second) if one else "" for one in last]),
        Row("memory GiB", [number(one.memory_bytes / 1024**3) if one and one.memory_bytes else "" for one in last]),
    ]


def _caution(runs: Sequence[Run], recipes: Sequence[Mapping[str, str]]) -> str | None:
    infos = [one.info for one in runs]
    taken = [
        Row("base", [one.base for one in infos]),
        Row("dataset", [one.dataset for one in infos]),
        *(Row(name, [one.get(name, "") for one in recipes]) for name in _OF_THE_LOSS),
        Row("[provenance]", [_section(one, "provenance.") for one in recipes]),
        Row("[replay]", [f"{info.replay}{_section(one, 'replay.')}" for info, one in zip(infos, recipes, strict=True)]),
        Row("[dpo]", ["" if one.preferences is None else "a second stage" for one in infos]),
    ]
    if not (names := [row.name for row in _differing(taken)]):
        return None
    return (
        f"These runs differ in {', '.join(names)}: their losses may not measure the same, and a lower one shows no "
        "better adapter. Evaluate the versions with the same suites."
    )


def _differing(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.differs]


def _section(recipe: Mapping[str, str], prefix: str) -> str:
    return str(sorted(one for one in recipe.items() if one[0].startswith(prefix)))


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
