"""tunegate training …: runs that a registry's workers do; and the same for `train --submit` and `worker`."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.markup import escape
from rich.table import Table

from registry import settings
from registry.cli.console import GO, NO_GO, UNDECIDED, connected, console, leave, load, show
from registry.cli.dry_run import problem_line
from registry.cli.lines import Follower, follow
from registry.client import Client
from registry.comparison import POINTS, Row, Run, compared, number, require_comparable
from registry.errors import InvalidRequest
from registry.records import CreateTraining, StepProgress, TrainingEvent, TrainingInfo, TrainingStatus
from registry.transfer import Training, push

_CODES = {TrainingStatus.SUCCEEDED: GO, TrainingStatus.FAILED: NO_GO, TrainingStatus.CANCELLED: NO_GO}


def submit(client: Client, recipe_file: Path, adapter: str, waivers: Sequence[Any] = ()) -> TrainingInfo:
    """Send a recipe with the data that it names; the same again is the same run.

    Raises InvalidRequest where the recipe or a file cannot be read, before anything is sent.
    """
    recipe, text = load("trainer.recipe", None).read_recipe(recipe_file, waivers)
    folder = recipe_file.parent
    named = {"dataset": recipe.data}
    if recipe.replay:
        named["replay"] = recipe.replay.prompts
    if recipe.dpo:
        named["preferences"] = recipe.dpo.pairs
    files = {field: folder / file for field, file in named.items()}
    if missing := [str(file) for file in files.values() if not file.is_file()]:
        raise InvalidRequest(f"{', '.join(missing)} cannot be read; the recipe names files relative to itself")
    sent = {field: "sha256:" + client.upload(file).sha256 for field, file in files.items()}
    return client.submit_training(CreateTraining(adapter=adapter, recipe=text, **sent))


def submit_command(recipe_file: Path, adapter: str, *, followed: bool, waivers: Sequence[Any] = ()) -> None:
    """`tunegate train RECIPE.toml --submit ADAPTER`."""
    with connected() as client:
        tell_of_policy(client, adapter)
        run = submit(client, recipe_file, adapter, waivers)
        console().print(f"training {run.id} of {escape(adapter)} is {run.status}")
        if followed:
            run = follow_run(client, run)
    show(run, _described(run) if followed else f"watch it with `tunegate training follow {run.id}`")
    if followed:
        leave(_CODES.get(run.status, UNDECIDED))


def tell_of_policy(client: Client, adapter: str) -> None:
    """What lint has against the policy that will judge the run's adapter; before the hours that training takes."""
    for problem in load("trainer.lint", None).lint_policy(client.policy(adapter).document):
        console().print(problem_line(problem, {}))


def follow_run(client: Client, run: TrainingInfo) -> TrainingInfo:
    """Show what happens to a run until it is over, and return how it ended."""
    with follow(console(), f"training {run.id[:12]}") as follower:
        _Shown(follower).all(client.follow_training(run.id))
    return client.training(run.id)


class _Shown:
    """Events as stages and steps."""

    def __init__(self, follower: Follower) -> None:
        self._follower, self._stage = follower, ""

    def all(self, events: Any) -> None:
        for event in events:
            self.one(event)

    def one(self, event: TrainingEvent) -> None:
        if event.data is not None and event.data.checkpoint:
            return  # no stage of its own: the bar goes on
        if event.data is None or event.message != self._stage:
            self._stage = event.message
            self._follower.stage(escape(event.message))
        if event.data is not None:
            self._follower.step(event.data.step, event.data.steps, _numbers(event.data))


def work(
    client: Client, *, once: bool, bases: Sequence[Path], ray: str | None, gpus: float, memory: float | None
) -> int:
    """Do training runs as their worker; how many."""
    if ray is None and importlib.util.find_spec("trl") is None:
        raise InvalidRequest("trl is not installed; training here needs the extra train: pip install 'tunegate[train]'")
    worker, launchers = load("trainer.worker", None), load("trainer.launchers", None)
    home = settings.home()

    def publish(result: Any) -> str:
        training = Training(result.record, result.dataset, result.ledger)
        return push(client, result.directory, result.adapter, training=training)[0].ref

    try:
        local = launchers.LocalLauncher(int(memory * 1024**3) if memory else None)
        launcher = launchers.RayLauncher(ray, gpus=gpus) if ray else local
    except launchers.CannotLaunch as error:
        raise InvalidRequest(str(error)) from None
    place = worker.Workplace(home.runs, [home.bases, *bases], launcher, publish)
    with follow(console(), "training") as reporter:
        done: int = worker.work(
            client, place, worker.Reporter(lambda text: reporter.stage(escape(text)), reporter.step), once=once
        )
    return done


@click.group()
def training() -> None:
    """Training runs that the registry queues and its workers do."""


@training.command(name="list")
@click.option("--adapter", help="Only runs of this adapter.")
@click.option("--status", type=click.Choice([one.value for one in TrainingStatus]), help="Only runs in this status.")
def list_runs(adapter: str | None, status: str | None) -> None:
    """Runs, newest first."""
    with connected() as client:
        found = list(client.trainings(status=status, adapter=adapter))
    table = Table("id", "adapter", "status", "steps", "loss", "submitted", "version")
    for one in found:
        at = one.progress
        steps, loss = (f"{at.step}/{at.steps}", number(at.loss)) if at else ("", "")
        table.add_row(one.id, one.adapter, one.status, steps, loss, one.created_at[:16], one.version or "")
    show(found, table)


@training.command(name="show")
@click.argument("run")
@click.option("--log", is_flag=True, help="What the trainer printed last, too.")
def show_run(run: str, log: bool) -> None:
    """One run: status, progress, why it failed."""
    with connected() as client:
        found = client.training(run)
        text = _described(found) + (f"\n\n{escape(client.training_log(run))}" if log else "")
    show(found, text)


@training.command(name="follow")
@click.argument("run")
def follow_command(run: str) -> None:
    """Watch a run until it is over. Exit code 0: succeeded, 1: failed or cancelled."""
    with connected() as client:
        found = follow_run(client, client.training(run))
    show(found, _described(found))
    leave(_CODES.get(found.status, UNDECIDED))


@training.command(name="checkpoints")
@click.argument("run")
def checkpoints(run: str) -> None:
    """The steps that a run was saved after, the last first; it is resumed from the last."""
    with connected() as client:
        found = list(client.training_checkpoints(run))
    table = Table("step", "saved", "loss", "validation loss")
    for one in found:
        losses = (number(one.metrics.get(name)) for name in ("loss", "validation_loss"))
        table.add_row(str(one.step), one.created_at[:19], *losses)
    show(found, table)


@training.command(name="cancel")
@click.argument("run")
def cancel(run: str) -> None:
    """End a run at once; `resume` would continue it from its last checkpoint."""
    with connected() as client:
        found = client.cancel_training(run)
    show(found, f"{found.id} is {found.status}")


@training.command(name="pause")
@click.argument("run")
def pause(run: str) -> None:
    """Stop a run after the step it is in."""
    with connected() as client:
        found = client.pause_training(run)
    show(found, f"{found.id} is {found.status}")


@training.command(name="resume")
@click.argument("run")
def resume(run: str) -> None:
    """Queue a run again that was paused, cancelled or had failed."""
    with connected() as client:
        found = client.resume_training(run)
    show(found, f"{found.id} is {found.status}")


@training.command(name="compare")
@click.argument("runs", nargs=-1, required=True, metavar="ID ID …")
def compare(runs: tuple[str, ...]) -> None:
    """Two to five runs side by side: where their recipes differ, and how their losses went."""
    require_comparable(runs)
    with connected() as client:
        found = [
            Run(client.training(run), client.training_metrics(run, POINTS), list(client.training_checkpoints(run)))
            for run in runs
        ]
    value = [{"training": one.info, "metrics": one.points, "checkpoints": one.saved} for one in found]
    said = compared(found)
    table = Table("", *(one.info.id[:12] for one in found), caption=said.caution and escape(said.caution))
    more = [Row(f"and {said.more_settings} more keys", [])] if said.more_settings else []
    for row in (*said.facts, *said.settings, *more, *said.went):
        table.add_row(escape(row.name), *(escape(one) for one in row.values), style="bold" if row.differs else None)
    show(value, table)


def _described(run: TrainingInfo) -> str:
    lines = [f"[bold]{run.id}[/] {run.status}: {escape(run.adapter)}, submitted by {escape(run.submitter)}"]
    if run.progress:
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in _numbers(run.progress).items())
        lines.append(f"step {run.progress.step} of {run.progress.steps}: {numbers}")
    if run.error:
        lines.append(f"[red]{run.error.kind} {run.error.code}[/]: {escape(run.error.message)}")
    if run.version:
        lines.append(f"version {run.version}")
    if run.status is TrainingStatus.QUEUED:
        lines.append("waiting for `tunegate worker --kind training`")
    return "\n".join(lines)


def _numbers(step: StepProgress) -> dict[str, float]:
    found = {
        "loss": step.loss,
        "lr": step.learning_rate,
        "tokens/s": step.tokens_per_second,
        "GiB": step.memory_bytes / 1024**3 if step.memory_bytes else None,
    }
    return {name: value for name, value in found.items() if value is not None}


COMMANDS = (training,)
