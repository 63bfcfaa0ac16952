"""tunegate train: an adapter from a recipe, here or by the registry's workers; or only what that would take."""

from pathlib import Path
from typing import Any

import click
from rich.text import Text

from registry import settings
from registry.cli import trainings
from registry.cli.adapters import find_training
from registry.cli.console import GO, NO_GO, connected, console, leave, load, options, show
from registry.cli.dry_run import problem_line, summary
from registry.cli.lines import follow
from registry.errors import InvalidRequest
from registry.transfer import push

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("recipe_file", metavar="RECIPE.toml", type=PATH, required=False)
@click.option("--push", "adapter", help="Push the result to this adapter.")
@click.option("--submit", "submit_to", metavar="ADAPTER", help="Let the registry's workers train it for this adapter.")
@click.option("--follow", "followed", is_flag=True, help="With --submit: watch the run until it is over.")
@click.option("--waive", "codes", multiple=True, metavar="CODE", help="Train in spite of this error.")
@click.option("--reason", "reasons", multiple=True, help="Why; one for each --waive, in the same order.")
@click.option("--dry-run", "only_look", is_flag=True, help="Train nothing: rows, steps, memory, time, what is learnt.")
@click.option("--price-per-hour", "price", type=click.FloatRange(min=0), help="With --dry-run: what an hour costs.")
@click.option("--schema", "show_schema", is_flag=True, help="Print the JSON Schema of a recipe and stop.")
def train(
    recipe_file: Path | None,
    adapter: str | None,
    submit_to: str | None,
    followed: bool,
    codes: tuple[str, ...],
    reasons: tuple[str, ...],
    only_look: bool,
    price: float | None,
    show_schema: bool,
) -> None:
    """Train an adapter as a recipe says. Again after an interruption: it continues."""
    if show_schema:
        show(load("trainer.recipe", None).schema())
        return
    if recipe_file is None:
        raise InvalidRequest("no recipe given; name a TOML file, or ask for --schema")
    if price is not None and not only_look:
        raise InvalidRequest("--price-per-hour is for the estimate; add --dry-run")
    waivers = read_waivers(codes, reasons)
    if submit_to is not None:
        if adapter is not None or only_look:
            raise InvalidRequest(
                "--submit leaves the run to the registry, which pushes it; leave --push out, and --dry-run"
            )
        trainings.submit_command(recipe_file, submit_to, followed=followed, waivers=waivers)
        return
    if followed:
        raise InvalidRequest("--follow is for runs that are submitted; add --submit ADAPTER")
    if adapter is not None and not only_look:
        with connected() as client:
            trainings.tell_of_policy(client, adapter)
    plan = _plan(recipe_file, waivers)
    if only_look:
        _look(plan, price)
    _train(plan, adapter)


def read_waivers(codes: tuple[str, ...], reasons: tuple[str, ...]) -> list[Any]:
    """One waiver for each --waive and --reason. Raises InvalidRequest where they do not pair up."""
    if len(codes) != len(reasons):
        raise InvalidRequest(f"{len(codes)} --waive and {len(reasons)} --reason; give a reason for each code, in order")
    waiver = load("trainer.preflight.codes", None).Waiver
    return [waiver(code, reason) for code, reason in zip(codes, reasons, strict=True)]


def _plan(recipe_file: Path, waivers: list[Any]) -> Any:
    recipes, runs = load("trainer.recipe", None), load("trainer.run", "train")
    recipe, text = recipes.read_recipe(recipe_file, waivers)
    home = settings.home()
    found = load("trainer.base", "train").locate_base(recipe.base, home.bases)
    return runs.plan_run(recipe, text, recipe_file.parent, found, home.runs)


def _look(plan: Any, price: float | None) -> None:
    found = load("trainer.dry_run", "train").dry_run(plan, price)
    show(found, summary(found, price))
    leave(GO if found.begins else NO_GO)


def _train(plan: Any, adapter: str | None) -> None:
    runs = load("trainer.run", "train")
    for problem in load("trainer.lint", None).lint(plan.recipe):
        console().print(problem_line(problem, plan.recipe.waivers))
    with follow(console(), plan.recipe.name) as reporter:
        record = runs.run(plan, runs.Reporter(reporter.stage, reporter.step))
    target = plan.directory / "adapter"
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in record.metrics.items())
    console().print(f"trained in {record.seconds:.0f} s ({numbers}): {target}")
    for finding in record.lint:
        if finding.code == "W190":
            console().print(Text(f"{finding.code}: {finding.message}", style="yellow"))
    pushed = None
    if adapter:
        with connected() as client:
            created, left = push(client, target, adapter, training=find_training(target, plan.directory))
        pushed = created.ref
        console().print(f"pushed as {pushed}; left behind: {', '.join(left) or 'nothing'}")
    if options().json:
        show({"training": record, "directory": str(target), "pushed": pushed})
