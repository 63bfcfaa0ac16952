"""What every command shares: the connection, output for people and machines, and exit codes that never flatter."""

import contextlib
import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, NoReturn

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from registry import settings
from registry.client import Client
from registry.errors import InvalidRequest, TunegateError
from registry.names import parse_reference
from registry.records import Verdict, VersionInfo

GO, NO_GO, UNDECIDED, UNKNOWN = 0, 1, 2, 3
EXIT_CODES = {
    Verdict.GO: GO,
    Verdict.NO_GO: NO_GO,
    Verdict.INCONCLUSIVE: UNDECIDED,
    Verdict.PENDING: UNDECIDED,
}

# People's text: on stdout as a rule, on stderr when stdout is kept for machines.
people = Console(highlight=False, soft_wrap=True)
errors = Console(stderr=True, highlight=False, soft_wrap=True)


class Options(NamedTuple):
    url: str
    token: str | None
    json: bool


def options() -> Options:
    found: Options = click.get_current_context().find_object(Options) or Options(settings.url(), None, False)
    return found


def console() -> Console:
    return errors if options().json else people


@contextlib.contextmanager
def connected() -> Iterator[Client]:
    """A client for the configured registry; without a token it says how to get one."""
    chosen = options()
    if not chosen.token:
        raise InvalidRequest(
            "no token: set TUNEGATE_TOKEN or give --token; an admin makes one with `tunegate token create`, and the "
            f"first start left the admin's own in {settings.home().admin_token}"
        )
    with Client(chosen.url, chosen.token) as client:
        yield client


def show(value: Any, text: Any = None) -> None:
    """The value as JSON with --json, otherwise the text for people (or the JSON, where there is no better text)."""
    if options().json or text is None:
        click.echo(json.dumps(msgspec.to_builtins(value), indent=2, ensure_ascii=False))
    if not options().json and text is not None:
        people.print(text)


def concrete(client: Client, reference: str) -> VersionInfo:
    """The version that a reference names, by number even where the reference is an alias or digest."""
    parsed = parse_reference(reference)
    if parsed.number is not None:
        return client.version(f"{parsed.adapter}/{parsed.number}")
    return client.version(client.resolve(reference).ref)


def load(name: str, extra: str | None) -> ModuleType:
    """Import a module of the heavier half; says which extra is missing where it is."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if extra is None or (error.name or "").split(".")[0] in ("registry", "trainer", "evaluator"):
            raise
        raise InvalidRequest(
            f"{error.name} is not installed; this needs the extra {extra}: pip install 'tunegate[{extra.split()[0]}]' "
            "(`make install` in a checkout)"
        ) from None


def read_text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"{file} cannot be read: {error}") from None


def leave(code: int) -> NoReturn:
    sys.exit(code)


def explain(error: TunegateError) -> None:
    """One clear message on stderr, with every problem on a line of its own."""
    problems = getattr(error, "problems", None) or []
    errors.print(f"[bold red]error:[/] {escape(str(error))}", highlight=False)
    if len(problems) > 1:
        for problem in problems:
            errors.print(f"  • {escape(problem)}")
