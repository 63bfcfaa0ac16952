"""What the trainer costs and gains, on the demo's base and data: tables of ratios. Asserts nothing about time.

    python -m benchmarks.trainer [--only stock service resume] [--steps 12] [--rounds 5]

stock: our trainer beside a TRL script as its users write it: same base in 4 bits, same LoRA, batches and steps; tokens
a second and a CPU second, and the losses, which show that both learnt the same. service: a run that was submitted to a
registry and done by its worker, each between two runs of the bare trainer, without registry, worker, events and
heartbeats. resume: the same run twice, and once more killed at three random steps with its worker: the digests of the
weights. Tokens are the rows' own (padding and shared prefixes not counted).
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.trainer_runs import Lab, laboratory
from benchmarks.trainer_scripts import SCRIPTS, Result
from registry import settings
from trainer import base as bases

_PARTS = ("stock", "service", "resume")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=_PARTS, default=_PARTS)
    parser.add_argument("--steps", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    home = settings.home()
    base = bases.prepare_demo_base(home.bases, print)
    with tempfile.TemporaryDirectory(prefix="tunegate-bench-") as folder:
        if "stock" in asked.only:
            _beside_stock(base, Path(folder), asked.steps, asked.rounds)
        if "service" in asked.only or "resume" in asked.only:
            with laboratory(Path(folder), base, asked.steps) as lab:
                if "service" in asked.only:
                    _beside_bare(lab, base, asked.rounds)
                if "resume" in asked.only:
                    _resumed(lab, asked.steps)


def _beside_stock(base: Path, folder: Path, steps: int, rounds: int) -> None:
    found: dict[str, list[Result]] = {name: [] for name in SCRIPTS}
    for _ in range(rounds):
        for name in SCRIPTS:  # one after the other, so that a slow minute of the machine hits both
            found[name].append(_script(name, base, folder, steps))
    table = Table(title=f"QLoRA training, {steps} steps, medians of {rounds} rounds", box=None)
    for column in ("", "tokens/s", "ratio", "tokens/CPU s", "ratio", "mean loss"):
        table.add_column(column, justify="left" if not column else "right")
    floor = found["stock TRL"]
    for name, results in found.items():
        numbers = [f"{_median(results, 'loss'):.3f}"]
        for key in ("tokens_per_cpu_second", "tokens_per_second"):
            numbers[:0] = f"{_median(results, key):.0f}", f"{_median(results, key) / _median(floor, key):.2f}"
        table.add_row(name, *numbers)
    Console().print(table)


def _beside_bare(lab: Lab, base: Path, rounds: int) -> None:
    bare = [lab.bare(base)]
    through, ratios, waits = [], [], []
    for number in range(rounds):
        run, first_event = lab.train(f"service-{number}")
        through.append(lab.tokens_per_second(run))
        waits.append(first_event)
        bare.append(lab.bare(base))
        ratios.append(through[-1] / statistics.fmean(bare[-2:]))
    table = Table(title=f"the service around the trainer, A/B/A, {rounds} rounds", box=None)
    for column in ("", "tokens/s, median", "ratio, median", "least", "most"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("the trainer alone", f"{statistics.median(bare):.0f}", "1.000")
    middle, least, most = statistics.median(ratios), min(ratios), max(ratios)
    table.add_row(
        "through the registry", f"{statistics.median(through):.0f}", f"{middle:.3f}", f"{least:.3f}", f"{most:.3f}"
    )
    Console().print(table)
    middle, most = 1000 * statistics.median(waits), 1000 * max(waits)
    Console().print(f"submit to what a waiting worker tells first: {middle:.0f} ms, most {most:.0f} ms")
    Console().print(f"submitted again: {'the same run' if lab.again('service-0') else 'ANOTHER RUN'}")


def _resumed(lab: Lab, steps: int) -> None:
    whole, again = (lab.weights(lab.train(f"whole-{number}")[0]) for number in range(2))
    kills = sorted(random.sample(range(2, steps - 2), 3))  # behind the first checkpoint, before the end
    killed = lab.weights(lab.killed("killed", kills))
    table = Table(title="the same run: digests of its weights", box=None)
    for column in ("", "sha256", ""):
        table.add_column(column)
    table.add_row("uninterrupted", whole[:16], "")
    table.add_row("uninterrupted, again", again[:16], "the same" if again == whole else "DIFFERENT")
    said = f"kill -9 at steps {', '.join(map(str, kills))} of {steps}"
    table.add_row(said, killed[:16], "the same" if killed == whole else "DIFFERENT")
    Console().print(table)


def _script(name: str, base: Path, folder: Path, steps: int) -> Result:
    """A script in a process of its own, which ends with its result as JSON."""
    command = [sys.executable, "-m", "benchmarks.trainer_scripts", name, str(base), str(folder), str(steps)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return Result(**json.loads(done.stdout.splitlines()[-1]))


def _median(results: list[Result], key: str) -> float:
    return float(statistics.median(getattr(one, key) for one in results))


if __name__ == "__main__":
    main()
