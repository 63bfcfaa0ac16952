"""tunegate train --dry-run and --schema: what a run would take, for people."""

from typing import Any

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

_LEARNT, _SEEN = "bold green", "dim"


def summary(found: Any, price: float | None) -> Group:
    """A `trainer.dry_run.DryRun` as a terminal shows it. Learnt tokens stand between ⟦ and ⟧, in green."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for name, value in _facts(found, price):
        table.add_row(name, value)
    parts: list[Any] = [table]
    if found.previews:
        parts.append(Text("What is learnt: the parts between ⟦ and ⟧; the model only reads the rest.", style="bold"))
    for one in found.previews:
        parts.append(Text(f"line {one.line}: {one.learnt_tokens} of {one.tokens} tokens", style="dim"))
        parts.append(_masked(one.pieces))
    parts += [problem_line(one, found.waived) for one in found.problems]
    return Group(*parts)


def problem_line(one: Any, waived: dict[str, str]) -> Text:
    """A finding about a recipe: its code, what it is and what to do, or why it was waived."""
    if one.rule in waived:
        return Text(f"{one.rule} waived: {one.message} ({waived[one.rule]})", style="yellow")
    style = "red" if one.severity == "error" else "yellow"
    return Text.assemble((f"{one.rule} {one.severity}", style), f": {one.message}; {one.fix}")


def _facts(found: Any, price: float | None) -> list[tuple[str, str]]:
    facts = [("rows", ", ".join(f"{count:,} {use}" for use, count in found.uses.items()))]
    guess = found.estimate
    if guess is None:
        return [*facts, ("size", "the base's config.json does not say how large it is; nothing is estimated")]
    parts = ", ".join(f"{name} {_gib(size)}" for name, size in guess.memory.items())
    facts += [
        (
            "tokens",
            f"{guess.tokens:,}, of which {guess.trained_tokens:,} are learnt; longest row {guess.longest_row:,}",
        ),
        ("steps", f"{guess.steps:,} ({guess.steps_per_epoch:,} an epoch)"),
        *([("pairs", f"{guess.pairs:,}, {guess.pair_steps:,} steps more")] if guess.pairs else []),
        ("adapter", f"{guess.adapter_parameters:,} parameters"),
        ("memory", f"about {_gib(guess.memory_bytes)} of {_gib(found.memory_bytes)} ({parts})"),
        (
            "time",
            f"about {_duration(found.seconds)} here ({found.flops_per_second / 1e9:,.0f} GFLOP/s just now)",
        ),
    ]
    if found.cost is not None:
        facts.append(("cost", f"about {found.cost:,.2f} at {price:g} an hour"))
    return [*facts, ("directory", escape(found.directory))]


def _masked(pieces: Any) -> Text:
    text = Text()
    for one in pieces:
        shown = "".join(sign if sign == "\n" or sign.isprintable() else "\ufffd" for sign in one.text)
        text.append(f"⟦{shown}⟧" if one.learnt else shown, style=_LEARNT if one.learnt else _SEEN)
    return text


def _gib(count: int) -> str:
    return f"{count / 1024**3:.2f} GiB"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
