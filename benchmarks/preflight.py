"""Faults found, false alarms and CPU seconds of preflight on a data set with known faults.

python -m benchmarks.preflight [--rows 10000] [--faults 400] [--seed 1]
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from trainer.preflight.check import Options, preflight
from trainer.preflight.leakage import read_suite_folder

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


def main() -> None:
    from faulty_data import judge, make_dataset

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--faults", type=int, default=400)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    data = make_dataset(asked.rows, asked.faults, asked.seed)
    with tempfile.TemporaryDirectory() as folder:
        path = data.write(Path(folder) / "data.jsonl")
        suite = read_suite_folder(data.write_suite(Path(folder) / "suite"))
        before, wall = time.process_time(), time.perf_counter()
        report = preflight(path, Options(suites=[suite]))
        seconds, wall = time.process_time() - before, time.perf_counter() - wall
    outcome = judge(data, [(one.line, one.rule) for one in report.problems])
    table = Table("kind", "found", "of", title=f"{asked.rows:,} rows, {asked.faults} faults, seed {asked.seed}")
    for kind, total in outcome.of.items():
        table.add_row(kind, str(outcome.found[kind]), str(total))
    found, clean = sum(outcome.found.values()), asked.rows - asked.faults
    console = Console()
    console.print(table)
    tokens = sum(report.lengths) / max(1, len(report.lengths))
    console.print(f"found {found} of {asked.faults} ({found / max(1, asked.faults):.1%})")
    console.print(f"false alarms on {len(outcome.false)} of {clean:,} clean rows ({len(outcome.false) / clean:.2%})")
    console.print(f"{seconds:.1f} CPU seconds, {wall:.1f} s, {tokens:.0f} tokens a row (estimated)")
    for one in outcome.missed[:10]:
        console.print(f"missed: {one.kind}, line {one.line}: {data.lines[one.line - 1][-160:]}", markup=False)
    counts = Counter(rule for rules in outcome.false.values() for rule in rules)
    console.print("false alarms by rule: " + (", ".join(f"{rule} {n}" for rule, n in counts.most_common()) or "none"))
    for line, rules in list(outcome.false.items())[:10]:
        console.print(f"false: line {line}: {', '.join(rules)}", markup=False)


if __name__ == "__main__":
    main()
