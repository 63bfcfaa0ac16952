"""tunegate audit: check the journal or one entry of it, and keep what shows later that it was not rewritten."""

from pathlib import Path
from typing import Any

import click
import msgspec
from rich.markup import escape

from registry import settings
from registry.approval.keyring import CHECKPOINT, Key
from registry.audit.checkpoint import Checkpoint, open_checkpoint
from registry.audit.log import Audited, audit
from registry.audit.merkle import consistency_holds, inclusion_holds, leaf_hash
from registry.cli.console import GO, NO_GO, connected, leave, read_text, show
from registry.cli.pulling import load_keys
from registry.client import Client, Refused
from registry.errors import InvalidRequest, StorageDamaged
from registry.names import Reference, parse_reference
from registry.records import JournalEntry
from registry.storage.files import write_durably
from registry.storage.journal import read_chain

File = click.Path(path_type=Path, dir_okay=False)


@click.group(name="audit")
def audit_group() -> None:
    """Check the journal, and keep checkpoints of it."""


@audit_group.command(name="verify")
@click.option("--journal", type=File, help="Default: the one of TUNEGATE_HOME.")
@click.option("--keys", "key_file", type=File, help="The registry's public keys. Default: those of TUNEGATE_HOME.")
@click.option("--root-key", type=File, help="The public root key that signed the key file.")
@click.option("--checkpoint", type=File, help="A signed checkpoint that the journal must still agree with.")
def audit_verify(journal: Path | None, key_file: Path | None, root_key: Path | None, checkpoint: Path | None) -> None:
    """Verify a journal file: its hash chain and every approval in it. Works beside a running service.

    Only with a checkpoint from elsewhere does it show that nobody wrote the whole journal anew.
    """
    home = settings.home()
    path, keys = journal or home.journal, load_keys(key_file or home.public_keys, root_key)
    note = read_text(checkpoint) if checkpoint else None
    try:
        signed = _signed(note, keys) if note is not None else None
        found = audit(read_chain(path), keys, signed)
    except (StorageDamaged, ValueError) as error:
        show({"valid": False, "problems": [str(error)]}, f"[red]broken[/]: {escape(str(error))}")
        leave(NO_GO)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}") from None
    _show(found, signed)
    leave(NO_GO if found.problems else GO)


@audit_group.command(name="checkpoint")
@click.option("--to", "target", required=True, type=File, help="Write it to this file.")
@click.option("--since", type=File, help="An older checkpoint. Default: the one that is in the file already.")
@click.option("--keys", "key_file", required=True, type=File, help="The registry's public keys, kept from before.")
@click.option("--root-key", type=File, help="The public root key that signed the key file.")
def audit_checkpoint(target: Path, since: Path | None, key_file: Path, root_key: Path | None) -> None:
    """Fetch a signed checkpoint; one that contradicts an older one is not written in its place.

    Run it from cron on a machine that those who run the registry cannot write to.
    """
    keys = load_keys(key_file, root_key)
    older = since or (target if target.exists() else None)
    try:
        before = _signed(read_text(older), keys) if older else None
    except ValueError as error:
        raise InvalidRequest(f"{older} is no checkpoint to go on from: {error}") from None
    with connected() as client:
        note = client.checkpoint()
        try:
            now = _signed(note, keys)
        except ValueError as error:
            raise InvalidRequest(f"what {client.url} sent is no checkpoint that can be believed: {error}") from None
        problem = _contradiction(client, before, now) if before else None
    if problem is not None:
        evidence = target.with_name(f"{target.name}.refused")
        write_durably(evidence, note.encode(), mode=0o644)
        show(
            {"valid": False, "problems": [problem], "evidence": str(evidence)},
            f"[red]refused[/]: {escape(problem)}; what the registry signed now is in {escape(str(evidence))}",
        )
        leave(NO_GO)
    write_durably(target, note.encode(), mode=0o644)
    since_size = before.size if before else None
    more = f", which begin with the {since_size} of before" if before else "; nothing older was there to compare with"
    show(
        {"valid": True, "size": now.size, "root": now.root.hex(), "since": since_size},
        f"signed for {now.size} entries{more}",
    )


@audit_group.command(name="proof")
@click.argument("entry")
@click.option("--keys", "key_file", required=True, type=File, help="The registry's public keys, kept from before.")
@click.option("--root-key", type=File, help="The public root key that signed the key file.")
@click.option("--checkpoint", type=File, help="A signed checkpoint, kept from before. Default: one fetched now.")
def audit_proof(entry: str, key_file: Path, root_key: Path | None, checkpoint: Path | None) -> None:
    """Prove that an entry is in the journal that the registry signed; nothing that it says is believed unchecked.

    ENTRY is the number of an entry, or a reference such as support-bot@approved: its newest approval.
    """
    keys = load_keys(key_file, root_key)
    with connected() as client:
        found = _entry(client, entry)
        note = read_text(checkpoint) if checkpoint else client.checkpoint()
        try:
            signed = _signed(note, keys)
        except ValueError as error:
            source = checkpoint or f"what {client.url} sent"
            raise InvalidRequest(f"{source} is no checkpoint that can be believed: {error}") from None
        if found.seq > signed.size:
            raise InvalidRequest(
                f"entry {found.seq} is newer than the checkpoint, which was signed for {signed.size} entries; fetch a "
                "newer one with `tunegate audit checkpoint`"
            )
        try:
            hashes = [bytes.fromhex(one) for one in client.inclusion(found.seq, signed.size).hashes]
        except Refused as error:
            if error.status != 422:
                raise
            hashes = []  # of a journal that is shorter than what was signed, there is no proof
    leaf = leaf_hash(found.body.encode())
    holds = inclusion_holds(leaf, found.seq - 1, signed.size, hashes, signed.root)
    _show_proof(found, signed, holds)
    leave(GO if holds else NO_GO)


def _entry(client: Client, wanted: str) -> JournalEntry:
    """The entry with a number, or the last that moved an alias as a reference says."""
    if wanted.isascii() and wanted.isdigit():
        found = next(client.audit_events(after=int(wanted) - 1), None) if 0 < int(wanted) < 2**53 else None
        if found is None or found.seq != int(wanted):
            raise InvalidRequest(f"the journal has no entry {wanted}; `tunegate audit verify` says how many there are")
        return found
    reference, last = parse_reference(wanted), None
    for entry in client.audit_events():
        if '"alias.moved"' in entry.body and any(_approves(event, reference) for event in _events(entry)):
            last = entry
    if last is None:
        raise InvalidRequest(f"nothing that {wanted} names was ever approved; give the number of an entry instead")
    return last


def _approves(event: dict[str, Any], reference: Reference) -> bool:
    said = {name: event.get(name) for name in ("adapter", "number", "digest", "alias")}
    asked = {name: value for name, value in reference._asdict().items() if value is not None}
    return event.get("type") == "alias.moved" and said.items() >= asked.items()


def _events(entry: JournalEntry) -> list[dict[str, Any]]:
    """As plain data: there may be kinds that this version does not know, and nobody vouches for any of it yet."""
    try:
        return msgspec.json.decode(entry.body, type=_Entry).events
    except (msgspec.DecodeError, RecursionError):
        raise InvalidRequest(f"what the registry sent as entry {entry.seq} is none; is this a tunegate?") from None


class _Entry(msgspec.Struct):
    events: list[dict[str, Any]]


def _show_proof(found: JournalEntry, signed: Checkpoint, holds: bool) -> None:
    document = {"valid": holds, "seq": found.seq, "size": signed.size, "root": signed.root.hex()}
    journal = f"the journal of {signed.size} entries that was signed"
    if not holds:
        show(document, f"[red]no proof[/]: what the registry shows as entry {found.seq} is not in {journal}")
        return
    entry = msgspec.json.decode(found.body)
    kinds = ", ".join(event["type"] for event in entry["events"])
    what = f"entry {found.seq} ({kinds}, by {entry['actor']['person']} at {entry['at']})"
    show(document | {"entry": entry}, escape(f"{what} is in {journal}"))


def _show(found: Audited, signed: Checkpoint | None) -> None:
    size = signed.size if signed else None
    document = {
        "valid": not found.problems,
        "seq": found.head.seq,
        "hash": found.head.hash,
        "root": found.root.hex(),
        "approvals": found.approvals,
        "checkpoint": size,
        "problems": found.problems,
    }
    if found.problems:
        lines = [f"[red]broken[/]: {escape(one)}" for one in found.problems]
    else:
        more = f", the first {size} as signed" if signed else ""
        lines = [f"{found.head.seq} entries verify{more}; {found.approvals} approvals verify; head {found.head.hash}"]
    show(document, "\n".join(lines))


def _contradiction(client: Client, before: Checkpoint, now: Checkpoint) -> str | None:
    """Why the journal of `now` is not the one of `before` with more entries after it, or None."""
    if now.origin != before.origin:
        return f"this is the journal {now.origin}, and before it was {before.origin}"
    if now.size < before.size:
        return f"the journal has {now.size} entries, and before it had {before.size}: its end is lost"
    hashes: list[str] = []
    if 0 < before.size < now.size:
        hashes = client.consistency(before.size, now.size).hashes
    if not consistency_holds(before.size, before.root, now.size, now.root, [bytes.fromhex(one) for one in hashes]):
        return f"the first {before.size} entries are not those of before: the journal was rewritten"
    return None


def _signed(note: str, keys: list[Key]) -> Checkpoint:
    """What the note says. It has no date, so a key's time does not count, but a revoked key does not sign."""
    trusted = [key.public for key in keys if CHECKPOINT in key.roles and key.revoked_at is None]
    return open_checkpoint(note, trusted)


COMMANDS = (audit_group,)
