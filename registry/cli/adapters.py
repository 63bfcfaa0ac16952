"""tunegate adapter, policy, push, status, gate, bundle, compare: the way of a version, seen from a terminal."""

import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import click
import msgspec
from rich.markup import escape
from rich.table import Table

from registry import settings
from registry.bases import describe_base
from registry.bundles import BUNDLE_FILE, Loaded, load_bundle, save_bundle
from registry.cli.console import (
    EXIT_CODES,
    NO_GO,
    UNDECIDED,
    UNKNOWN,
    concrete,
    connected,
    console,
    explain,
    leave,
    load,
    options,
    read_text,
    show,
)
from registry.cli.report import gate_junit, gate_markdown, gate_table
from registry.client import Client, Refused
from registry.errors import InvalidRequest
from registry.gate.policy import read_policy
from registry.gate.recompute import recompute
from registry.names import parse_reference
from registry.records import Base, Check, CreateAdapter, GateReport, State, TrainingRecord
from registry.transfer import Training, push

_POLL_SECONDS = 2.0
_WAITING = (State.UPLOADING, State.SUBMITTED, State.EVALUATING)
DIRECTORY = click.Path(path_type=Path)


@click.group()
def adapter() -> None:
    """Create and look at adapters."""


@adapter.command(name="create")
@click.argument("name")
@click.option("--base", "base_name", required=True, help="A directory, a prepared base's name, or a hub id.")
@click.option("--base-id", help="What to call the base; default: the hub id or the directory's name.")
@click.option("--policy", "policy_file", type=DIRECTORY, help="TOML; default: the default policy.")
def create(name: str, base_name: str, base_id: str | None, policy_file: Path | None) -> None:
    """Create an adapter for a base model, under a policy."""
    found = load("trainer.base", None).locate_base(base_name, settings.home().bases)
    described = describe_base(found)
    is_path = Path(base_name).expanduser().is_dir()
    base = Base(id=base_id or (found.resolve().name if is_path else base_name), digest=described.digest)
    policy = read_policy(read_text(policy_file)) if policy_file else None
    with connected() as client:
        made = client.create_adapter(CreateAdapter(name=name, base=base, policy=policy, base_tensors=described.tensors))
    show(made, f"{made.name} created for base {escape(base.id)} ({base.digest[:19]}…), policy {made.policy[:19]}…")


@adapter.command(name="list")
def list_adapters() -> None:
    """Every adapter this token may see."""
    with connected() as client:
        found = list(client.adapters())
    table = _table("adapter", "versions", "aliases", "base")
    for one in found:
        aliases = ", ".join(f"{alias} → {number}" for alias, number in one.aliases.items())
        table.add_row(one.name, str(one.versions), aliases, escape(one.base.id))
    show(found, table)


@adapter.command(name="show")
@click.argument("name")
@click.option("--state", "states", multiple=True, help="Only versions in this state; may be given more than once.")
@click.option("--where", help="Only versions whose gate report observed this: 'accuracy >= 0.85 and perplexity < 6'.")
def show_adapter(name: str, states: tuple[str, ...], where: str | None) -> None:
    """One adapter with its versions, newest first."""
    with connected() as client:
        info, versions = client.adapter(name), list(client.versions(name, list(states), where))
    table = _table("version", "state", "by", "at", "manifest")
    for one in versions:
        table.add_row(one.ref, one.state, escape(one.submitter), one.created_at[:16], one.digest[:19] + "…")
    show({"adapter": msgspec.to_builtins(info), "versions": msgspec.to_builtins(versions)}, table)


@click.group()
def policy() -> None:
    """Show or set what a version must show."""


@policy.command(name="show")
@click.argument("name")
def show_policy(name: str) -> None:
    """The adapter's present policy, its suites pinned to digests."""
    with connected() as client:
        show(client.policy(name))


@policy.command(name="set")
@click.argument("name")
@click.argument("file", type=DIRECTORY)
def set_policy(name: str, file: Path) -> None:
    """A new policy revision from a TOML file, for versions completed from now on."""
    wanted = read_policy(read_text(file))
    with connected() as client:
        info = client.set_policy(name, wanted, if_match=client.policy(name).digest)
    show(info, f"policy revision {info.revision} of {name}: {info.digest}")


@click.command(name="push")
@click.argument("directory", type=DIRECTORY)
@click.option("--adapter", "name", required=True)
@click.option(
    "--run", "run_dir", type=DIRECTORY, help="The training run whose record goes with it; default: found beside it."
)
@click.option("--notes")
@click.option("--wait", is_flag=True, help="Wait for the evaluation and exit by its verdict.")
@click.option("--timeout", default=3600.0, show_default=True, help="Seconds that --wait waits.")
def push_command(
    directory: Path, name: str, run_dir: Path | None, notes: str | None, wait: bool, timeout: float
) -> None:
    """Submit an adapter directory as a new version. Only what the registry lacks travels.

    Files of a version that was revoked are refused, with exit code 1: waiting would change nothing.
    """
    with connected() as client:
        try:
            created, left = push(client, directory, name, training=find_training(directory, run_dir), notes=notes)
        except Refused as error:
            if error.code != "revoked":
                raise
            explain(error)
            leave(NO_GO)
        if left:
            console().print(f"left behind: {escape(', '.join(left))}", style="dim")
        if not wait:
            show(created, f"{created.ref} is {created.state} ({created.digest[:19]}…)")
            return
        report = _await_verdict(client, created.ref, timeout)
    show(report, gate_table(report))
    leave(EXIT_CODES[report.verdict])


def find_training(directory: Path, run_dir: Path | None) -> Training | None:
    """The training record that `tunegate train` left beside the adapter, if any."""
    folder = run_dir or directory.resolve().parent
    record = folder / "training.json"
    if not record.exists():
        if run_dir:
            raise InvalidRequest(f"{record} does not exist; give a directory that `tunegate train` wrote")
        return None
    try:
        parsed = msgspec.json.decode(record.read_bytes(), type=TrainingRecord)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"{record} is not a training record: {error}") from None
    return Training(parsed, folder / "dataset.jsonl", folder / "ledger.parquet")


@click.command()
@click.argument("ref")
def status(ref: str) -> None:
    """State and verdict of a version; exits by the verdict."""
    with connected() as client:
        version = concrete(client, ref)
        report = client.gate(version.ref)
    show(version, f"{version.ref} is {version.state}; the gate says {report.verdict}")
    leave(EXIT_CODES[report.verdict])


@click.command()
@click.argument("ref")
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write JUnit XML here.")
@click.option("--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write Markdown here.")
@click.option(
    "--recompute",
    "anew",
    is_flag=True,
    help="Derive it from the evidence bundle alone; instead of REF, a bundle's directory, such as ./support-bot/2.",
)
def gate(ref: str, junit: Path | None, markdown: Path | None, anew: bool) -> None:
    """The gate report of a version; exits 0 go, 1 no_go, 2 undecided.

    With --recompute 3 if the bundle does not hold together, or comes to another report than the registry's own.
    """
    if anew:
        found = _bundle(ref)
        report, differences = recompute(*found.loaded)
    else:
        with connected() as client:
            report = client.gate(concrete(client, ref).ref)
    if junit:
        junit.write_text(gate_junit(report))
    if markdown:
        markdown.write_text(gate_markdown(report))
    show(report, gate_table(report))
    if anew:
        _say_whether_equal(found, differences)
    leave(UNKNOWN if anew and differences else EXIT_CODES[report.verdict])


class _Found(NamedTuple):
    """A bundle, and in words where it is from."""

    loaded: Loaded
    source: str


def _bundle(ref: str) -> _Found:
    """The bundle in a directory, or else of the version that a reference names.

    What states a version is asked of the registry, whatever directories there are.
    """
    if not _states_version(ref) and (Path(ref) / BUNDLE_FILE).exists():
        return _Found(load_bundle(Path(ref)), f"the bundle in {ref}")
    try:
        parse_reference(ref)
    except InvalidRequest as error:
        raise InvalidRequest(
            f"{ref} is no directory with a {BUNDLE_FILE}, which `tunegate bundle REF --to DIR` writes, and no version: "
            f"{error}"
        ) from None
    with connected() as client, tempfile.TemporaryDirectory() as folder:
        save_bundle(client, concrete(client, ref).ref, Path(folder) / "bundle")
        return _Found(load_bundle(Path(folder) / "bundle"), f"the registry at {options().url}")


def _states_version(ref: str) -> bool:
    """Whether it gives a number, an alias or a digest: `support-bot/2` does, `support-bot` and `./x/2` do not."""
    try:
        return parse_reference(ref).number is not None or "@" in ref
    except InvalidRequest:
        return False


def _say_whether_equal(found: _Found, differences: list[str]) -> None:
    bundle = found.loaded.bundle
    numbers = f"{len(found.loaded.rows)} per-item rows and {len(bundle.ratings)} ratings"
    source = f"recomputed from {numbers}, from {escape(found.source)}"
    if not differences:
        console().print(f"{source}: equal to the registry's own report", style="green")
        return
    console().print(f"{source}: not what the registry's own report says ({bundle.software} gave it)", style="bold red")
    for line in differences:
        console().print(f"  • {escape(line)}")


@click.command(name="bundle")
@click.argument("ref")
@click.option("--to", "target", required=True, type=DIRECTORY)
def bundle_command(ref: str, target: Path) -> None:
    """Fetch what a version's verdict was decided from: bundle.json and rows.parquet, for `gate DIR --recompute`."""
    with connected() as client:
        saved = save_bundle(client, concrete(client, ref).ref, target)
    measured = f"evidence {saved.evidence_digest}" if saved.evidence else "no evidence yet"
    show(saved, f"the bundle of {saved.ref} is in {escape(str(target))}: {measured}, {len(saved.ratings)} ratings")


@click.command()
@click.argument("refs", nargs=2)
def compare(refs: tuple[str, str]) -> None:
    """Two versions' gate reports side by side."""
    with connected() as client:
        reports = [client.gate(concrete(client, ref).ref) for ref in refs]
    table = _table("check", *(f"{report.ref}: {report.verdict}" for report in reports))
    checks = [{check.name: check for check in report.checks} for report in reports]
    for name in dict.fromkeys([*checks[0], *checks[1]]):
        table.add_row(name, *(_outcome(one.get(name)) for one in checks))
    show(reports, table)


def _outcome(check: Check | None) -> str:
    return f"{check.status}: {escape(check.reason)}" if check else "not asked for by its policy"


def _await_verdict(client: Client, ref: str, timeout: float) -> GateReport:
    """Wait until the evaluation is over; a review that goes on counts as undecided."""
    deadline, last = time.monotonic() + timeout, ""
    while True:
        version = client.version(ref)
        if version.state != last:
            console().print(f"{ref} is {version.state}", style="dim")
            last = version.state
        if version.state not in _WAITING:
            return client.gate(ref)
        if time.monotonic() > deadline:
            console().print(f"still {version.state} after {timeout:g} s; is a worker running?", style="yellow")
            leave(UNDECIDED)
        time.sleep(_POLL_SECONDS)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


COMMANDS = (adapter, policy, push_command, status, gate, bundle_command, compare)
