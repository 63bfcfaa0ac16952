"""tunegate data …: which rows trained an adapter, which adapters a row or a source trained; the same as documents."""

import json
import re
from pathlib import Path

import click
from rich.markup import escape
from rich.table import Table

from registry import settings
from registry.cli.console import GO, NO_GO, UNDECIDED, concrete, connected, leave, show
from registry.disclosure import bill_of_materials, croissant, made
from registry.errors import InvalidRequest
from registry.ledgers import LedgerEntry
from registry.lineage import Ledgers, Match, Trace, trace
from registry.review.preferences import MARGIN, Preference, preferences

PATH = click.Path(path_type=Path)
_SHA256 = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


@click.group()
def data() -> None:
    """Where an adapter's training data came from, and where data went."""


@data.command(name="trace")
@click.argument("ref", required=False)
@click.option("--source", metavar="URI", help="Which versions used rows of this source; with * at its end, all below.")
@click.option("--row", metavar="SHA256", help="Which versions used the row of this content or rendered hash.")
@click.option("--adapter", help="With --source or --row: only versions of this adapter.")
@click.option("--disposition", help="With a reference: only rows that ended so (trained, validation, too_long …).")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1), help="At most so many rows.")
def trace_command(
    ref: str | None, source: str | None, row: str | None, adapter: str | None, disposition: str | None, limit: int
) -> None:
    """Rows of a version (`data trace support-bot/2`), or versions that a row or a source went into.

    Exit code 2: of some versions it cannot be said.
    """
    if sum(one is not None for one in (ref, source, row)) != 1:
        raise InvalidRequest("give one of a reference (support-bot/2), --source URI and --row SHA256")
    if ref is not None:
        _show_rows(ref, disposition, limit)
        return
    match = _match(source, row)
    with connected() as client:
        found = trace(client, Ledgers(client, settings.home().cache / "ledgers"), match, adapter)
    show(found, _described(found))
    leave(UNDECIDED if found.unknown else GO)


def _show_rows(ref: str, disposition: str | None, limit: int) -> None:
    with connected() as client:
        version = concrete(client, ref)
        with Ledgers(client, settings.home().cache / "ledgers").of(version) as ledger:
            counts, rows = ledger.counts("disposition"), list(ledger.entries(disposition))
    if disposition is not None and disposition not in counts:
        raise InvalidRequest(f"no row of {version.ref} ended as {disposition!r}; its rows: {', '.join(counts)}")
    table = Table("line", "id", "ended as", "learnt", "source", "licence", "reviewer", "credential", "content")
    for one in rows[:limit]:
        ended = f"{one.disposition} ({one.reason})" if one.reason else one.disposition
        told = (
            _line(one),
            one.id,
            ended,
            str(one.trained_tokens),
            one.origin,
            one.licence,
            one.reviewer,
            _credential(one),
        )
        table.add_row(*map(escape, told), one.content_sha256[:16])
    head = f"{version.ref}: {', '.join(f'{count:,} {name}' for name, count in counts.items())}"
    left = len(rows) - limit
    table.caption = f"{left:,} more; --limit shows them" if left > 0 else None
    table.title = escape(head)
    show({"ref": version.ref, "rows": counts, "entries": rows[:limit]}, table)


def _credential(one: LedgerEntry) -> str:
    """The credential as it stood at the review, for example "nurse AT-1234 until 2027-12-31, reviewed 2026-03-01"."""
    until = f" until {one.credential_valid_until}" if one.credential_valid_until else ""
    return f"{one.credential}{until}{f', reviewed {one.reviewed_at}' if one.reviewed_at else ''}"


def _line(one: LedgerEntry) -> str:
    return str(one.line) if one.source == "data" else f"{one.source} {one.line}"


def _match(source: str | None, row: str | None) -> Match:
    if source is not None:
        if not source.strip("*"):
            raise InvalidRequest("--source is empty; give a row's source, or the beginning of some with * behind it")
        return lambda ledger: ledger.from_origin(source)
    parsed = _SHA256.fullmatch(row or "")
    if parsed is None:
        raise InvalidRequest(f"--row {row!r} is no sha256; `data trace REF --json` lists content_sha256 of every row")
    return lambda ledger: ledger.of_row(parsed[1])


def _described(found: Trace) -> str:
    trained = [one for one in found.found if one.trained]
    lines = [f"{found.looked} versions looked at: {len(trained)} trained on it"]
    for one in found.found:
        uses = ", ".join(f"{count:,} {name}" for name, count in one.uses.items())
        lines.append(f"  [bold]{one.ref}[/] ({one.state}): {escape(uses)}")
    lines += [f"  [yellow]{one.ref} ({one.state}) cannot be told[/]: {escape(one.reason)}" for one in found.unknown]
    return "\n".join(lines)


@data.command(name="export")
@click.argument("ref")
@click.option("--croissant", "croissant_file", type=PATH, help="Write the training data's description (Croissant 1.1).")
@click.option("--bom", "bom_file", type=PATH, help="Write the adapter's bill of materials (CycloneDX 1.7).")
def export_command(ref: str, croissant_file: Path | None, bom_file: Path | None) -> None:
    """What an adapter was made of, for auditors' tools."""
    if croissant_file is None and bom_file is None:
        raise InvalidRequest("nothing to write; give --croissant FILE, --bom FILE or both")
    with connected() as client:
        version = concrete(client, ref)
        with Ledgers(client, settings.home().cache / "ledgers").of(version) as ledger:
            found = made(version, ledger)
        documents = ((croissant_file, croissant(found, client.url)), (bom_file, bill_of_materials(found)))
    written = []
    for file, document in documents:
        if file is not None:
            file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            written.append(str(file))
    show({"ref": version.ref, "written": written}, f"written: {', '.join(written)}")


@data.command(name="preferences")
@click.argument("ref")
@click.option("--out", "target", required=True, type=PATH, help="Write the pairs to this file (JSON Lines).")
@click.option(
    "--margin",
    default=MARGIN,
    show_default=True,
    type=click.FloatRange(0, 4),
    help="By how much the mean rating of the preferred answer is higher.",
)
def preferences_command(ref: str, target: Path, margin: float) -> None:
    """Pairs for [dpo] out of a version's sealed review: its answers against those of the control.

    For those who may read reviewed items: release managers, admins, auditors. Exit code 1: there is no pair.
    """
    with connected() as client:
        version = concrete(client, ref)
        found = preferences(client.reviewed_items(version.ref), margin)
    target.write_text("".join(_pair_line(version.ref, one) for one in found.found), encoding="utf-8")
    left = "".join(f"\n  {count:,} left out: {escape(why)}" for why, count in found.left.items())
    show(found, f"{len(found.found):,} pairs of {version.ref} written to {escape(str(target))}{left}")
    leave(GO if found.found else NO_GO)


def _pair_line(ref: str, one: Preference) -> str:
    said = {"margin": one.margin, "raters": one.raters, "preferred": one.preferred, "other": one.other}
    line = {"id": one.item, "prompt": one.prompt, "chosen": one.chosen, "rejected": one.rejected}
    return json.dumps({**line, "source": f"review of {ref}", "meta": said}, ensure_ascii=False) + "\n"


COMMANDS = (data,)
