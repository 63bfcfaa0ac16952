"""tunegate suite: evaluation data checked, shown, registered, listed."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape

from registry.cli.console import GO, NO_GO, connected, leave, load, read_text, show
from registry.client import describe_file
from registry.errors import InvalidRequest
from registry.gate.policy import read_policy
from registry.gate.power import what_it_shows
from registry.records import Policy, Suite, manifest_digest
from registry.suites import SuiteContent, read_suite
from registry.transfer import push_suite, suite_files, suite_paths

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
@click.option("--base", type=DIRECTORY, help="Base whose tokens are counted: does every item fit into the context?")
def check_suites(
    directories: tuple[Path, ...], against: tuple[Path, ...], policy_file: Path | None, base: Path | None
) -> None:
    """Look for what makes a suite's numbers wrong or weak, and say what its size can show; exits 1 on problems."""
    policy = read_policy(read_text(policy_file)) if policy_file else Policy()
    rows = [row for data in against for row in load("trainer.dataset", None).read_rows(data)]
    prompts = [one.content for row in rows for one in row.prompt if one.role == "user"]
    counted = _token_check(base) if base else None
    checked = [_checked(directory, prompts, policy, counted) for directory in directories]
    problems = sum(one.severity == "problem" for suite in checked for one in suite["findings"])
    show([{**one, "findings": [dict(item._asdict()) for item in one["findings"]]} for one in checked], _told(checked))
    leave(NO_GO if problems else GO)


def _token_check(base: Path) -> Callable[[SuiteContent], list[Any]]:
    load("transformers", "train")
    check: Callable[[SuiteContent], list[Any]] = load("evaluator.authoring", None).token_check(base)
    return check


def _checked(
    directory: Path, prompts: list[str], policy: Policy, counted: Callable[[SuiteContent], list[Any]] | None
) -> dict[str, Any]:
    content = read_suite(suite_files(directory))
    findings = load("evaluator.authoring", None).check_items(content, prompts)
    return {
        "name": content.head.name,
        "kind": content.head.kind,
        "items": len(content.items),
        "findings": [*findings, *(counted(content) if counted else ())],
        "shows": what_it_shows(content.head.name, content.head.kind, len(content.items), policy),
    }


def _told(checked: list[dict[str, Any]]) -> str:
    lines = []
    for one in checked:
        lines.append(f"[bold]{one['name']}[/]  {one['items']} {one['kind']}")
        lines += [f"  {text}" for text in one["shows"]]
        lines += [f"  {item.severity}: {item.item}: {escape(item.message)}" for item in one["findings"]]
    return "\n".join(lines)


@suite.command(name="digest")
@click.argument("directory", type=DIRECTORY)
def suite_digest(directory: Path) -> None:
    """The digest that the registry would give the suite in a directory."""
    read_suite(suite_files(directory))
    digest = _digest(directory)
    show({"digest": digest}, digest)


@suite.command(name="show")
@click.argument("suite_ref", metavar="NAME|DIR")
def show_suite(suite_ref: str) -> None:
    """What a suite measures, with one of its items: a directory's, or a registered one's (name or name@digest)."""
    directory = Path(suite_ref)
    if directory.is_dir():
        content, digest = read_suite(suite_files(directory)), _digest(directory)
    else:
        with connected() as client:
            registered = _registered(client.suites(), suite_ref)
            content, digest = client.suite_content(registered), registered.digest
    head = content.head
    tags = Counter(tag for item in content.items for tag in item.tags)
    described = {
        **{name: getattr(head, name) for name in ("name", "kind", "title", "description", "licence", "source")},
        "digest": digest,
        "items": len(content.items),
        "tags": dict(sorted(tags.items())),
        "system": head.system,
        "max_tokens": head.max_tokens,
        "max_cut_off": head.max_cut_off,
        "example": content.items[0],
        "shows": what_it_shows(head.name, head.kind, len(content.items), Policy()),
    }
    show(described, _described(described))


def _digest(directory: Path) -> str:
    return manifest_digest([describe_file(path) for path in suite_paths(directory)])


def _registered(suites: list[Suite], wanted: str) -> Suite:
    """The suite `name@digest`, or the newest of a name: the last one registered."""
    found = [one for one in suites if wanted in (one.name, one.ref)]
    if not found:
        raise InvalidRequest(
            f"suite {wanted!r} is neither a directory nor registered; `tunegate suite list` names those that are"
        )
    return found[-1]


def _described(one: dict[str, Any]) -> str:
    tags = ", ".join(f"{tag} {n}" for tag, n in one["tags"].items())
    rows = {
        "title": one["title"],
        "licence": f"{one['licence']}, {one['source']}",
        "size": f"{one['items']} {one['kind']}",
        "tags": tags or "none",
        "answers": f"at most {one['max_tokens']} tokens, at most {one['max_cut_off']:.0%} of them cut off there",
        "system": one["system"] or "none",
        "example": msgspec.json.encode(one["example"]).decode(),
        "digest": one["digest"],
    }
    lines = [f"[bold]{escape(one['name'])}[/]", *escape(one["description"].strip()).splitlines(), ""]
    lines += [f"{name:9}{escape(text)}" for name, text in rows.items()]
    return "\n".join(
        [*lines, *(f"{'shows' if not place else '':9}{escape(t)}" for place, t in enumerate(one["shows"]))]
    )


@suite.command(name="list")
def list_suites() -> None:
    """Every registered suite."""
    with connected() as client:
        found = client.suites()
    show(found, "\n".join(f"{one.name}  {one.n_items} {one.kind}  {one.digest}" for one in found))


@suite.command(name="from-lm-eval")
@click.argument("task_file", metavar="TASK.yaml", type=DIRECTORY)
@click.option("--to", required=True, type=DIRECTORY, help="Directory to write; it must not exist.")
@click.option("--name", required=True, help="The suite's name.")
@click.option("--metric", required=True, help="What is counted, 0 or 1 for a document: acc, or exact_match,FILTER.")
def import_from_lm_eval(task_file: Path, to: Path, name: str, metric: str) -> None:
    """Freeze a task of lm-evaluation-harness and its local data into a suite."""
    if to.exists():
        raise InvalidRequest(f"{to} exists; name a new directory, so that no suite is overwritten")
    found = load("evaluator.lm_eval_import", "lm-eval").import_task(task_file, name, metric)
    content = {"suite.toml": found.suite_toml.encode(), "items.jsonl": found.items_jsonl.encode()}
    n_items = len(read_suite(content).items)
    to.mkdir(parents=True)
    for file, data in content.items():
        (to / file).write_bytes(data)
    show({"directory": str(to), "items": n_items}, f"{name}  {n_items} lm-eval  {escape(str(to))}")


COMMANDS = (suite,)
