"""tunegate preflight: training data looked at before a run, every problem at once; loaded only when asked for."""

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape

from registry.cli.console import GO, NO_GO, connected, leave, load, show
from registry.cli.train import read_waivers
from registry.client import SuiteContent
from registry.errors import InvalidRequest

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("file", metavar="DATA", type=PATH, required=False)
@click.option("--seed", default=0, show_default=True, help="The recipe's seed decides the split.")
@click.option("--max-length", default=1024, show_default=True, help="The recipe's, in tokens.")
@click.option("--base", type=PATH, help="Count tokens with this base's tokenizer instead of estimating them.")
@click.option("--suite", "folders", multiple=True, type=PATH, help="Look for this suite's items in the data.")
@click.option("--registered", is_flag=True, help="Look for the items of every suite of the registry.")
@click.option("--held-out", multiple=True, type=PATH, help="Look for this file's questions in the data.")
@click.option("--data", "beside", type=PATH, help="With pairs: the recipe's data; look for its held-out rows.")
@click.option("--waive", "codes", multiple=True, metavar="CODE", help="Take the data in spite of this error.")
@click.option("--reason", "reasons", multiple=True, help="Why; one for each --waive, in the same order.")
@click.option("--report", "report_file", type=PATH, help="Write every finding as JSON Lines.")
@click.option("--html", "html_file", type=PATH, help="Write a page with plots.")
@click.option("--manifest", type=PATH, help="Freeze the split in this file; where it exists, hold the data to it.")
@click.option("--fix", "fix_file", type=PATH, help="Write a new data set with what can be fixed fixed.")
@click.option("--mask", is_flag=True, help="With --fix: put marks in place of personal data and secrets.")
@click.option("--codes", "list_codes", is_flag=True, help="List every code and stop.")
def preflight(
    file: Path | None,
    seed: int,
    max_length: int,
    base: Path | None,
    folders: tuple[Path, ...],
    registered: bool,
    held_out: tuple[Path, ...],
    beside: Path | None,
    codes: tuple[str, ...],
    reasons: tuple[str, ...],
    report_file: Path | None,
    html_file: Path | None,
    manifest: Path | None,
    fix_file: Path | None,
    mask: bool,
    list_codes: bool,
) -> None:
    """Check training data: every problem by line, duplicates, privacy, leakage, the split a run would use.

    The same for preference pairs: a file of prompt, chosen and rejected. Exit code 1: a run would refuse the data.
    """
    if list_codes:
        _show_codes()
        return
    if file is None:
        raise InvalidRequest("no data given; name a file of training data, or ask for --codes")
    if mask and fix_file is None:
        raise InvalidRequest("--mask changes what --fix writes; give --fix FILE.jsonl with it")
    check, report = load("trainer.preflight.check", "train"), load("trainer.preflight.report", "train")
    suites = [*_read_folders(folders), *(_read_registered() if registered else [])]
    asked = check.Options(seed, max_length, base, suites, held_out, read_waivers(codes, reasons), manifest)
    checked = _looked_at(file, asked, beside)
    written = _write(checked, asked, report_file, html_file, fix_file, mask)
    lines = report.summary(checked.report) + [f"written: {escape(str(path))}" for path in written.values()]
    findings = {"counts": checked.report.counts(), "written": written}
    show(msgspec.structs.asdict(checked.report) | findings, "\n".join(lines))
    leave(NO_GO if checked.report.blocked else GO)


def _looked_at(file: Path, asked: Any, beside: Path | None) -> Any:
    """A `trainer.preflight.check.Checked` of data, or of pairs where the file's lines are such."""
    if not load("trainer.pairs", "train").are_pairs(file):
        if beside is not None:
            raise InvalidRequest(f"--data goes with preference pairs, and {file} holds none; leave it out")
        return load("trainer.preflight.check", "train").check(file, asked)
    if asked.manifest is not None:
        raise InvalidRequest(f"{file} holds preference pairs, which are in no split; leave --manifest out")
    dataset = load("trainer.dataset", "train")
    data = dataset.prepare(dataset.read_rows(beside), asked.seed) if beside is not None else None
    return load("trainer.preflight.pairs", "train").check_pairs(file, asked, data)


def _show_codes() -> None:
    rules = load("trainer.preflight.codes", None).RULES.values()
    shown = [{"code": one.code, "what": one.what, "fix": one.fix, "blocks": one.blocks} for one in rules]
    show(shown, "\n".join(f"{one.code}  {escape(one.what)}; {escape(one.fix)}" for one in rules))


def _read_folders(folders: tuple[Path, ...]) -> list[tuple[str, SuiteContent]]:
    leakage = load("trainer.preflight.leakage", "train")
    return [leakage.read_suite_folder(folder) for folder in folders]


def _read_registered() -> list[tuple[str, SuiteContent]]:
    with connected() as client:
        return [(one.ref, client.suite_content(one)) for one in client.suites()]


def _write(
    checked: Any, asked: Any, report_file: Path | None, html_file: Path | None, fix_file: Path | None, mask: bool
) -> dict[str, str]:
    """Write what was asked for; file by kind."""
    check, report = load("trainer.preflight.check", None), load("trainer.preflight.report", None)
    written = {}
    if report_file:
        report.write_problems(report_file, checked.report.problems)
        written["report"] = str(report_file)
    if html_file:
        html_file.write_text(report.page(checked.report), encoding="utf-8")
        written["html"] = str(html_file)
    if asked.manifest:
        check.freeze(checked, asked.seed, asked.manifest)
        written["manifest"] = str(asked.manifest)
    if fix_file:
        fixed = load("trainer.preflight.fixing", None).fix(checked, fix_file, mask=mask)
        written |= {"fixed": fixed.data, "changes": fixed.log}
    return written
