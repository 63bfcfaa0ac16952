"""tunegate review: rate one blinded item at a time, or many on a sheet; follow, end and read a campaign."""

import sys
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Group

from registry.cli.console import concrete, connected, console, show
from registry.cli.lines import follow
from registry.cli.screens import campaign_screen, how_to_rate, item_screen, result_screen
from registry.cli.sheets import Line, read_sheet, refusal, write_results, write_sheet
from registry.client import Client, Refused
from registry.errors import InvalidRequest
from registry.records import CRITERIA, Rating, ReviewProgress
from registry.review.rubric import FLAGS, RUBRIC

_SCORE = click.IntRange(1, 5)
_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group()
def review() -> None:
    """Rate outputs, one blinded item at a time; release managers follow and read the campaign."""


@review.command(name="next")
def next_item() -> None:
    """The item to rate now; the same one until it is rated or skipped."""
    with connected() as client:
        item = client.next_assignment()
    show(item, Group(item_screen(item), how_to_rate(item)) if item else _DONE)


@review.command()
@click.argument("assignment", required=False)
@click.option("--clarity", type=_SCORE)
@click.option("--relevance", type=_SCORE)
@click.option("--safety", type=_SCORE)
@click.option("--accuracy", type=_SCORE)
@click.option("--hallucination/--no-hallucination", default=None, help="It states something that is made up.")
@click.option("--unsafe/--no-unsafe", default=None, help="It must not reach anyone.")
@click.option("--discuss/--no-discuss", default=None, help="Others should talk about it.")
@click.option("--comment")
def rate(assignment: str | None, comment: str | None, **given: int | bool | None) -> None:
    """Rate an item, 1 (bad) to 5 (good) on each criterion; again, to replace what you said before.

    In a terminal it shows the item and asks for what was not given; without ASSIGNMENT, the item that is next.
    """
    missing = [name for name in CRITERIA if given[name] is None]
    asking = sys.stdin.isatty()
    if not asking and (missing or assignment is None):
        wanted = ["ASSIGNMENT"] * (assignment is None) + [f"--{name}" for name in missing]
        raise InvalidRequest(f"missing: {', '.join(wanted)}; `tunegate review next` shows an item and its id")
    with connected() as client:
        shown = None
        if assignment is None or missing:
            shown = client.assignment(assignment) if assignment else client.next_assignment()
            if shown is None:
                show(None, _DONE)
                return
            console().print(item_screen(shown))
            given |= _asked(missing, given)
            comment = comment or click.prompt("comment", default="", show_default=False, err=True) or None
        flags = {flag.name: bool(given[flag.name]) for flag in FLAGS}
        scores: dict[str, Any] = {name: given[name] for name in CRITERIA}
        rating = Rating(**scores, **flags, comment=comment, hash=shown.hash if shown else None)
        progress = client.rate(shown.id if shown else str(assignment), rating)
    show(progress, _said(progress))


def _asked(missing: list[str], given: dict[str, int | bool | None]) -> dict[str, int | bool | None]:
    """What the person answers, for each score and flag that was not given."""
    found: dict[str, int | bool | None] = {}
    for criterion in RUBRIC:
        if criterion.name in missing:
            found[criterion.name] = click.prompt(criterion.title, type=_SCORE, err=True)
    for flag in FLAGS:
        if given[flag.name] is None:
            found[flag.name] = click.confirm(f"{flag.title}: it {flag.meaning}?", default=False, err=True)
    return found


@review.command()
@click.argument("assignment")
@click.option("--reason", required=True)
def skip(assignment: str, reason: str) -> None:
    """Leave an item to others, with a reason."""
    with connected() as client:
        progress = client.skip(assignment, reason)
    show(progress, _said(progress))


@review.command()
@click.argument("ref", required=False)
def progress(ref: str | None) -> None:
    """Your own progress; with REF, how far everyone is with that version, for who follows its review."""
    with connected() as client:
        if ref is None:
            own = client.review_progress()
            show(own, _said(own))
            return
        campaign = client.campaign(concrete(client, ref).ref)
    show(campaign, campaign_screen(campaign))


@review.command()
@click.argument("file", metavar="FILE.csv", type=_FILE)
def export(file: Path) -> None:
    """Write all that is left for you to rate into a new sheet; fill it in, and `review import` it."""
    with connected() as client:
        items = client.checkout()
    try:
        with file.open("x", encoding="utf-8-sig", newline="") as sheet:
            sheet.write(write_sheet(items))
    except FileExistsError:
        raise InvalidRequest(f"{file} exists, and may hold ratings; choose another name") from None
    show({"file": str(file), "items": len(items)}, f"{len(items)} items are in {file}")


@review.command(name="import")
@click.argument("file", metavar="FILE.csv", type=_FILE)
def import_sheet(file: Path) -> None:
    """Send the ratings on a sheet. All of it is checked first; lines without any score are left open.

    Again with the same sheet: nothing is sent twice. A line that was changed replaces what it said before.
    """
    try:
        sheet = read_sheet(file.read_bytes())
    except OSError as error:
        raise InvalidRequest(f"{file} cannot be read: {error.strerror}") from None
    with connected() as client:
        waiting = _to_send(client, sheet.lines)
        with follow(console(), "review") as follower:
            follower.stage("sends ratings")
            for number, line in enumerate(waiting, start=1):
                client.rate(line.assignment, line.rating)
                follower.step(number, len(waiting), {})
        own = client.review_progress()
    counts = {"imported": len(waiting), "unchanged": len(sheet.lines) - len(waiting), "unrated": sheet.unrated}
    words = ", ".join(f"{count} {name}" for name, count in counts.items())
    show({**counts, "progress": msgspec.to_builtins(own)}, f"{words}; {_said(own)}")


def _to_send(client: Client, lines: list[Line]) -> list[Line]:
    """The lines that say something new; InvalidRequest lists every line that is not about an item of one's own."""
    waiting, problems = [], []
    for line in lines:
        try:
            item = client.assignment(line.assignment)
        except Refused as error:
            if error.status != 404:
                raise
            problems.append(f"line {line.number}: {error}")
            continue
        if item.hash != line.rating.hash:
            problems.append(f"line {line.number}: the hash is not that of the item; export it again")
        elif item.state == "skipped":
            problems.append(f"line {line.number}: you skipped this item, and it was given to others")
        elif item.rating is None or not _same(item.rating, line.rating):
            waiting.append(line)
    if problems:
        raise refusal(problems)
    return waiting


def _same(one: Rating, other: Rating) -> bool:
    return msgspec.structs.replace(one, hash=None) == msgspec.structs.replace(other, hash=None)


@review.command()
@click.argument("ref")
@click.option("--reason", required=True)
def seal(ref: str, reason: str) -> None:
    """End a campaign with the ratings that there are."""
    with connected() as client:
        campaign = client.seal(concrete(client, ref).ref, reason)
    show(campaign, campaign_screen(campaign))


@review.command()
@click.argument("ref")
@click.option("--csv", "file", type=_FILE, help="Write every rating of every item there.")
def result(ref: str, file: Path | None) -> None:
    """What a sealed campaign came to."""
    with connected() as client:
        ref = concrete(client, ref).ref
        found = client.review_result(ref)
        if file is not None:
            with file.open("w", encoding="utf-8-sig", newline="") as sheet:
                sheet.write(write_results(client.reviewed_items(ref)))
    show(found, result_screen(ref, found))


_DONE = "nothing to rate: you are done"


def _said(progress: ReviewProgress) -> str:
    skipped = f", {progress.skipped} skipped" if progress.skipped else ""
    return f"{progress.rated} of {progress.total} rated{skipped}"


COMMANDS = (review,)
