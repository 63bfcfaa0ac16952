"""What a run would do, without doing it: rows, tokens, steps, memory, time, money, and which tokens are learnt.

Everything but the model's weights is read as in the run itself. The answers of replay rows, which the base gives only
in the run, are counted as long as they may become.
"""

from collections import Counter
from pathlib import Path
from typing import Any

from msgspec import Struct, structs

from trainer.dataset import Split
from trainer.estimate import Estimate, seconds_for
from trainer.libraries import quiet
from trainer.lint import lint, lint_estimate
from trainer.machine import flops_per_second, memory_bytes
from trainer.plan import look_at_pairs
from trainer.preflight.check import Report
from trainer.preflight.codes import Problem, blocking
from trainer.rendering import Rendered, render_data, render_pairs, render_replay
from trainer.run import Plan, assess

_SHOWN_ROWS = 5


class Piece(Struct, frozen=True):
    """A part of a row's text, special tokens included. learnt: whether the loss is taken on it."""

    text: str
    learnt: bool


class Preview(Struct, frozen=True):
    line: int
    tokens: int
    learnt_tokens: int
    pieces: list[Piece]


class DryRun(Struct, frozen=True):
    """uses: rows by what becomes of them. estimate: None where the base's config does not say how large it is.

    seconds: of training on this machine, which reached flops_per_second just now. cost: in the currency of the price.
    problems: of the recipe, of the run's size and of its pairs, of these the first of each code; preflight has those of
    the data. begins: no error is left unwaived.
    """

    directory: str
    uses: dict[str, int]
    estimate: Estimate | None
    memory_bytes: int
    flops_per_second: float
    seconds: float | None
    cost: float | None
    previews: list[Preview]
    problems: list[Problem]
    waived: dict[str, str]
    begins: bool


def dry_run(plan: Plan, price_per_hour: float | None = None) -> DryRun:
    """Raises InvalidRequest for rows that the base's chat template cannot render."""
    with quiet():
        from trainer.model import load_tokenizer

        tokenizer = load_tokenizer(plan.base)
        limit = plan.recipe.replay.max_new_tokens if plan.recipe.replay else 0
        replay = [_longer(one, limit) for one in render_replay(plan, tokenizer, ["…"] * len(plan.prompts))]
        rendered = [*render_data(plan, tokenizer), *replay, *render_pairs(plan, tokenizer)]
        found, memory, speed = assess(plan, rendered), memory_bytes(), flops_per_second()
        shown = [one for one in rendered if one.use == Split.TRAIN and one.source == "data"][:_SHOWN_ROWS]
        previews = [_preview(one, tokenizer) for one in shown]
    uses = Counter(one.source if one.source == "replay" else _use(one) for one in rendered)
    uses["duplicate"] = len(plan.data.duplicates) + len(plan.pairs.duplicates)
    seconds = seconds_for(found.flops, speed) if found else None
    problems = [*lint(plan.recipe), *(lint_estimate(plan.recipe, found, memory) if found else [])]
    pairs = look_at_pairs(plan)
    problems += _first_of_each(pairs) if pairs else []
    return DryRun(
        directory=str(plan.directory),
        uses={name: count for name, count in uses.items() if count},
        estimate=found,
        memory_bytes=memory,
        flops_per_second=speed,
        seconds=seconds,
        cost=None if price_per_hour is None or seconds is None else price_per_hour * seconds / 3600,
        previews=previews,
        problems=problems,
        waived=plan.recipe.waivers,
        begins=not blocking(problems, plan.recipe.waivers),
    )


def _use(one: Rendered) -> str:
    return one.source if one.source == "dpo" and one.use == Split.TRAIN else one.use


def _first_of_each(report: Report) -> list[Problem]:
    """The first finding of each code, with how many there are: every line is `tunegate preflight`'s to list."""
    counts, file = report.counts(), Path(report.data).name
    first = {one.rule: one for one in reversed(report.problems)}
    return [structs.replace(first[code], message=_told(first[code], file, count)) for code, count in counts.items()]


def _told(one: Problem, file: str, count: int) -> str:
    place = f"{file} line {one.line}" if one.line else file
    return f"{place}: {one.message}" + (f" ({count - 1:,} more of this code)" if count > 1 else "")


def _longer(one: Rendered, tokens: int) -> Rendered:
    """A replay row with room for the answer that the base has yet to give."""
    return one._replace(example=one.example._replace(ids=one.example.ids + [0] * tokens))


def _preview(one: Rendered, tokenizer: Any) -> Preview:
    ids, learnt = one.example.ids, [label >= 0 for label in one.example.labels]
    starts = [place for place in range(len(ids)) if place == 0 or learnt[place] != learnt[place - 1]]
    pieces = [
        Piece(tokenizer.decode(ids[start:end]), learnt[start])
        for start, end in zip(starts, [*starts[1:], len(ids)], strict=True)
    ]
    return Preview(one.row.line, len(ids), sum(learnt), pieces)
