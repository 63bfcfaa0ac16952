"""tunegate pull, verify: fetching what is approved, and proving offline that this is it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import msgspec
from rich.markup import escape

from registry import settings
from registry.approval.keyring import GATE, RELEASE_MANAGER, Key, checksum, read_keys, read_public_pem
from registry.approval.seen import read_seen, remember
from registry.approval.verification import Verified, Wanted, verify_directory
from registry.cli.console import GO, NO_GO, connected, console, errors, leave, options, show
from registry.errors import InvalidRequest
from registry.names import Reference, check_adapter_name, check_alias, check_digest, parse_reference, sha256_hex
from registry.records import KeySet, Resolved
from registry.transfer import pull

FILE = click.Path(path_type=Path)


def load_keys(keys_file: Path, root_file: Path | None) -> list[Key]:
    """The keys of a key file, under a root key if one is given."""
    try:
        root = read_public_pem(_read(root_file)) if root_file else None
    except ValueError as error:
        raise InvalidRequest(f"{root_file} is no public key: {error}") from None
    return parse_keys(_read(keys_file), str(keys_file), root)


def parse_keys(data: bytes, source: str, root: bytes | None = None) -> list[Key]:
    try:
        return read_keys(data, root)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(
            f"{source} is no key file that can be used: {error}; `tunegate keys --to FILE` writes one"
        ) from None


def key_file(found: KeySet) -> bytes:
    """A key file with these keys. The checksum is of what is written: an older client drops what it does not know."""
    return msgspec.json.encode(KeySet(keys=found.keys, checksum=checksum(msgspec.to_builtins(found.keys))))


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}") from None


@click.command(name="pull")
@click.argument("ref")
@click.option("--to", "target", required=True, type=FILE)
@click.option("--keys", "keys_file", type=FILE, help="Trusted keys; default: those the registry itself names now.")
@click.option("--root-key", "root_file", type=FILE, help="The public root key that signed the key file.")
@click.option("--state", "state_file", type=FILE, help="Where what was seen is kept; default: in TUNEGATE_HOME.")
def pull_command(
    ref: str, target: Path, keys_file: Path | None, root_file: Path | None, state_file: Path | None
) -> None:
    """Fetch a version with its signed approval, checked. `name@approved` follows the gate.

    Refuses an approval older than one that was seen here before: whoever serves it went back, or is made to.
    """
    if root_file and not keys_file:
        raise InvalidRequest("--root-key says who signed a key file; give that with --keys")
    state = state_file or settings.home().cache / "seen" / f"{sha256_hex(options().url.encode())[:16]}.json"
    trusted = load_keys(keys_file, root_file) if keys_file else None
    with connected() as client:

        def check(directory: Path, resolved: Resolved) -> None:
            asked = parse_reference(ref)
            if resolved.attestation is None and trusted is None:
                # A version that is not approved has none; what an alias names always has one.
                if asked.alias is None:
                    return
                errors.print(f"[bold red]refused[/]: {escape(ref)} came without its approval, and nothing was kept")
                leave(NO_GO)
            keys = trusted if trusted is not None else parse_keys(key_file(client.keys()), options().url)
            _check_pulled(directory, keys, asked, state)

        resolved = pull(client, ref, target, lambda line: console().print(f"  {line}", style="dim"), check)
    signed = "with its approval" if resolved.attestation else "without an approval: it is not approved"
    show(resolved, f"{resolved.ref} ({resolved.digest[:19]}…) is in {escape(str(target))}, {signed}")


def _check_pulled(directory: Path, keys: list[Key], asked: Reference, state: Path) -> None:
    """Exit with 1 unless the directory is the approved version that was asked for; remember what was seen."""
    wanted = Wanted(adapter=asked.adapter, number=asked.number, alias=asked.alias, fresh=asked.alias is not None)
    found = verify_directory(directory, keys, datetime.now(UTC), wanted, _seen(state))
    if found.problems:
        errors.print("[bold red]refused[/], and nothing was kept:")
        for problem in [*found.problems, *_hint(found, state)]:
            errors.print(f"  • {escape(problem)}")
        leave(NO_GO)
    _remember(state, asked.adapter, found)


@click.command()
@click.argument("directory", type=FILE)
@click.option("--keys", "keys_file", required=True, type=FILE, help="Trusted keys, from `tunegate keys --to FILE`.")
@click.option("--root-key", "root_file", type=FILE, help="The public root key that signed the key file.")
@click.option("--adapter", help="It must be this adapter.")
@click.option("--alias", help="It must have been approved as this alias.")
@click.option("--base", help="It must be for the base with this digest (`tunegate base digest DIR`).")
@click.option("--max-age", type=click.FloatRange(min=0), help="Days since the registry last said so, at most.")
@click.option("--min-counter", type=click.IntRange(min=0), default=0, help="The least number of the alias's moves.")
@click.option("--require", "roles", multiple=True, type=click.Choice([GATE, RELEASE_MANAGER]), help="Who must sign.")
@click.option("--state", "state_file", type=FILE, help="A file that keeps the highest counter seen of each alias.")
def verify(
    directory: Path,
    keys_file: Path,
    root_file: Path | None,
    adapter: str | None,
    alias: str | None,
    base: str | None,
    max_age: float | None,
    min_counter: int,
    roles: tuple[str, ...],
    state_file: Path | None,
) -> None:
    """Check a pulled directory offline against its signed approval; exits 0 valid, 1 invalid."""
    keys = load_keys(keys_file, root_file)
    wanted = Wanted(
        adapter=check_adapter_name(adapter) if adapter is not None else None,
        alias=parse_alias(alias) if alias is not None else None,
        base=check_digest(base) if base is not None else None,
        max_age=timedelta(days=max_age) if max_age is not None else None,
        min_counter=min_counter,
        roles=roles,
    )
    seen = _seen(state_file) if state_file else {}
    try:
        found = verify_directory(directory, keys, datetime.now(UTC), wanted, seen)
    except OSError as error:
        raise InvalidRequest(f"{directory} cannot be read: {error.strerror}") from None
    if state_file and not found.problems:
        _remember(state_file, (found.ref or "").rpartition("/")[0], found)
    text = f"[bold green]valid[/]: {found.ref}, approved as {found.alias} at {found.approved_at}"
    if found.problems:
        problems = [*found.problems, *_hint(found, state_file)]
        text = "\n".join(["[bold red]invalid[/]", *(f"  • {escape(problem)}" for problem in problems)])
    show({"valid": not found.problems, **found._asdict()}, text)
    leave(NO_GO if found.problems else GO)


def parse_alias(alias: str) -> str:
    """`latest` always means latest approved."""
    return check_alias("approved" if alias == "latest" else alias)


def _seen(state: Path) -> dict[str, int]:
    try:
        return read_seen(state)
    except ValueError as error:
        raise InvalidRequest(str(error)) from None
    except OSError as error:
        raise InvalidRequest(f"{state} cannot be read: {error.strerror}; give another with --state") from None


def _hint(found: Verified, state: Path | None) -> list[str]:
    """Where to say that a registry went back on purpose, for who was told so."""
    if state is None or not any(problem.startswith("rollback: ") for problem in found.problems):
        return []
    return [f"if the registry's administrators say that it went back to a backup, remove the alias from {state}"]


def _remember(state: Path, adapter: str, found: Verified) -> None:
    assert found.alias is not None and found.counter is not None
    try:
        remember(state, {f"{adapter}@{found.alias}": found.counter})
    except OSError as error:
        raise InvalidRequest(
            f"{state} cannot be written: {error.strerror}; give a file that can with --state, or set TUNEGATE_HOME"
        ) from None


COMMANDS = (pull_command, verify)
