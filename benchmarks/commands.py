"""Commands per second through the registry's door, without HTTP: what the writer costs, by kind of command.

    python -m benchmarks.commands [--threads 32] [--commands 2000] [--existing 0] [--profile]

Each thread sends its next command when the last one is durable, with an Idempotency-Key, as the client does. Journal,
catalog and blobs lie in a temporary home on this machine's disk. --existing: so many versions are there before.
"""

import argparse
import cProfile
import pstats
import resource
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from factories import entry_of, make_adapter, make_training  # noqa: E402
from registry_under_test import CI, MANAGER, NAME, Bench  # noqa: E402
from site_under_test import DATASET, LEDGER  # noqa: E402

from registry.access import Principal  # noqa: E402
from registry.commands import approvals, versions  # noqa: E402
from registry.commands.context import Command  # noqa: E402
from registry.records import Promote, Revoke, Rollback, SubmitVersion  # noqa: E402
from registry.registry import Repeat  # noqa: E402
from registry.settings import Home  # noqa: E402

Act = Callable[[int], tuple[Principal, Command]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=32)
    parser.add_argument("--commands", type=int, default=2000)
    parser.add_argument("--existing", type=int, default=0)
    parser.add_argument("--profile", action="store_true", help="print where the writer's thread spent its time")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Home(Path(folder) / "home"))
        try:
            _measure(bench, asked.threads, asked.commands, asked.existing, asked.profile)
        finally:
            bench.close()


def _measure(bench: Bench, threads: int, commands: int, existing: int, profiled: bool) -> None:
    bench.create_adapter()
    first, second = bench.approvable(1), bench.approvable(2)
    for number in (first, second):
        # Both stay approved, whatever else moves.
        bench.promote(number, f"keep-{number}")
        for place in range(threads):
            bench.promote(number, f"of-{place}")
    for number in range(existing, existing + commands):
        bench.registry.blobs.put(_readme(number))
    _run(bench, threads, existing, lambda n: (CI, partial(versions.submit, adapter=NAME, request=_files(n))))
    offset, table = 2 + existing, Table(title=f"{threads} threads, {commands} commands of a kind", box=None)
    for column in ("", "per second", "ms, median", "ms, 99 %", "CPU ms each"):
        table.add_column(column, justify="left" if not column else "right")
    for name, act in _kinds(bench, offset, existing, threads).items():
        profile = _profiled(bench) if profiled else None
        started, used = time.monotonic(), time.process_time()
        waits = sorted(_run(bench, threads, commands, act))
        seconds, cpu = time.monotonic() - started, time.process_time() - used
        median, slow = waits[len(waits) // 2], waits[len(waits) * 99 // 100]
        table.add_row(
            name, *(f"{one:.1f}" for one in (commands / seconds, median * 1e3, slow * 1e3, cpu / commands * 1e3))
        )
        if profile:
            _tell(bench, name, profile)
    Console().print(table)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    Console().print(f"{offset} versions before, {offset + commands} after; at most {peak:.0f} MiB of memory")


def _kinds(bench: Bench, offset: int, existing: int, threads: int) -> dict[str, Act]:
    """The version numbers that the submissions get are not known beforehand, but that there are so many of them is."""

    def submit(n: int) -> tuple[Principal, Command]:
        return CI, partial(versions.submit, adapter=NAME, request=_files(existing + n))

    def complete(n: int) -> tuple[Principal, Command]:
        named = {"adapter": NAME, "number": offset + 1 + n}
        inspected = bench.registry.glance(CI, partial(versions.inspect_ahead, **named))
        return CI, partial(versions.complete, **named, inspected=inspected)

    def roll_back(n: int) -> tuple[Principal, Command]:
        alias, to = f"of-{n % threads}", 1 + (n // threads) % 2
        command = partial(approvals.rollback, adapter=NAME, alias=alias, request=Rollback(to=to, reason="r"))
        return MANAGER, partial(command, if_match=None)

    def promote(n: int) -> tuple[Principal, Command]:
        alias, number = f"of-{n % threads}", 1 + (n // threads) % 2
        command = partial(approvals.promote, adapter=NAME, number=number, request=Promote(alias=alias))
        return MANAGER, partial(command, if_match=None)

    def revoke(n: int) -> tuple[Principal, Command]:
        return MANAGER, partial(approvals.revoke, adapter=NAME, number=offset + 1 + n, request=Revoke(reason="r"))

    return {
        "submit": submit,
        "complete": complete,
        "move an alias: promote": promote,
        "move an alias: roll back": roll_back,
        "revoke": revoke,
    }


def _files(number: int) -> SubmitVersion:
    """The same weights with another README.md, whose bytes are stored: another version."""
    files = [entry_of(path, data) for path, data in _ADAPTER.items()]
    training = make_training(dataset=DATASET, ledger=LEDGER)
    return SubmitVersion(files=[*files, entry_of("README.md", _readme(number))], training=training)


def _readme(number: int) -> bytes:
    return f"version {number}".encode()


_ADAPTER = make_adapter()


def _run(bench: Bench, threads: int, commands: int, act: Act) -> list[float]:
    """Seconds that each command took, as its caller saw it."""
    numbers, waits, lock = iter(range(commands)), [], threading.Lock()
    failed: list[BaseException] = []

    def work() -> None:
        try:
            while not failed:
                with lock:
                    if (number := next(numbers, None)) is None:
                        return
                principal, command = act(number)
                started = time.monotonic()
                bench.registry.execute(principal, command, Repeat(str(uuid.uuid4()), "0" * 64))
                waits.append(time.monotonic() - started)
        except BaseException as error:
            failed.append(error)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]
    return waits


def _profiled(bench: Bench) -> cProfile.Profile:
    """Watches what the writer's thread does from now on."""
    profile, run = cProfile.Profile(time.thread_time), type(bench.registry)._run
    bench.registry._run = lambda group: profile.runcall(run, bench.registry, group)  # type: ignore[method-assign]
    return profile


def _tell(bench: Bench, name: str, profile: cProfile.Profile) -> None:
    del bench.registry._run
    print(f"\n== {name}")
    pstats.Stats(profile).strip_dirs().sort_stats("tottime").print_stats(25)


if __name__ == "__main__":
    main()
