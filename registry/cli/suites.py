"""tunegate suite: evaluation data checked, registered, listed."""

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from registry.cli.console import GO, NO_GO, connected, leave, load, read_text, show
from registry.gate.policy import read_policy
from registry.gate.power import accuracy_power, forgetting_items
from registry.records import Policy, SuiteKind
from registry.suites import read_suite
from registry.transfer import push_suite, suite_files

DIRECTORY = click.Path(path_type=Path)


@click.group()
def suite() -> None:
    """Register evaluation data."""


@suite.command(name="push")
@click.argument("directories", nargs=-1, required=True, type=DIRECTORY)
def push_suites(directories: tuple[Path, ...]) -> None:
    """Register the suites in these directories; the same content again changes nothing."""
    with connected() as client:
        found = [push_suite(client, directory) for directory in directories]
    show(found, "\n".join(f"{one.name}  {one.n_items} {one.kind}  {one.digest}" for one in found))


@suite.command(name="check")
@click.argument("directories", nargs=-1, required=True, type=DIRECTORY)
@click.option("--against", multiple=True, type=DIRECTORY, help="Training data that must not be in the suite (JSONL).")
@click.option("--policy", "policy_file", type=DIRECTORY, help="Whose limits the sizes are for; default: the default.")
def check_suites(directories: tuple[Path, ...], against: tuple[Path, ...], policy_file: Path | None) -> None:
    """Look for doubles, answers that decide nothing and leaks, and say what the sizes can show; exits 1 on problems."""
    policy = read_policy(read_text(policy_file)) if policy_file else Policy()
    rows = [row for data in against for row in load("trainer.dataset", None).read_rows(data)]
    prompts = [one.content for row in rows for one in row.prompt if one.role == "user"]
    checked = [_checked(directory, prompts, policy) for directory in directories]
    problems = sum(one.severity == "problem" for suite in checked for one in suite["findings"])
    show([{**one, "findings": [dict(item._asdict()) for item in one["findings"]]} for one in checked], _told(checked))
    leave(NO_GO if problems else GO)


def _checked(directory: Path, prompts: list[str], policy: Policy) -> dict[str, Any]:
    content = read_suite(suite_files(directory))
    n, kind = len(content.items), content.head.kind
    shows = _power(n, policy) if kind is SuiteKind.QUESTIONS else []
    findings = load("evaluator.authoring", None).check_items(content, prompts)
    return {"name": content.head.name, "kind": kind, "items": n, "findings": findings, "shows": shows}


def _power(n: int, policy: Policy) -> list[str]:
    """What n questions can show under a policy, in words."""
    accuracy, forgetting = policy.accuracy, policy.forgetting
    found = accuracy_power(n, accuracy.min, accuracy.confidence)
    few, many = (forgetting_items(forgetting.margin, forgetting.confidence, flips) for flips in (0.1, 0.25))
    return [
        f"accuracy: {found.least_right} of {n} must be right for {accuracy.min:.0%}; a model that is right "
        f"{found.reaches:.1%} of the time gets there four times out of five"
        if found
        else f"accuracy: {n} items cannot show {accuracy.min:.0%}, not even all right",
        f"forgetting: a margin of {forgetting.margin:.0%} needs {few} items where one answer in ten changes, {many} "
        f"where one in four does; there are {n}",
    ]


def _told(checked: list[dict[str, Any]]) -> str:
    lines = []
    for one in checked:
        lines.append(f"[bold]{one['name']}[/]  {one['items']} {one['kind']}")
        lines += [f"  {text}" for text in one["shows"]]
        lines += [f"  {item.severity}: {item.item}: {escape(item.message)}" for item in one["findings"]]
    return "\n".join(lines)


@suite.command(name="list")
def list_suites() -> None:
    """Every registered suite."""
    with connected() as client:
        found = client.suites()
    show(found, "\n".join(f"{one.name}  {one.n_items} {one.kind}  {one.digest}" for one in found))


COMMANDS = (suite,)
