"""tunegate promote, rollback, revoke, history, review: what people decide."""

import click
from rich.markup import escape

from registry.cli.console import NO_GO, concrete, connected, errors, leave, show
from registry.cli.report import gate_table
from registry.client import Refused
from registry.errors import InvalidRequest
from registry.names import parse_reference
from registry.records import CRITERIA, AliasInfo, Assignment, Rating

_RATING = click.IntRange(1, 5)


@click.command()
@click.argument("ref")
@click.option("--alias", default="approved", show_default=True)
def promote(ref: str, alias: str) -> None:
    """Point an alias at a version whose gate says go; exits 1 with the whole report if it does not."""
    with connected() as client:
        try:
            moved = client.promote(concrete(client, ref).ref, alias)
        except Refused as error:
            if error.report is None:
                raise
            show(error.report, gate_table(error.report))
            errors.print(f"[bold red]refused[/]: {escape(str(error))}")
            leave(NO_GO)
    show(moved, f"{moved.adapter}@{moved.alias} {_came_to(moved, 'is now')} ({moved.digest[:19]}…)")


@click.command()
@click.argument("name")
@click.option("--to", "number", required=True, type=int, help="The version number to go back to.")
@click.option("--reason", required=True)
@click.option("--alias", default="approved", show_default=True)
def rollback(name: str, number: int, reason: str, alias: str) -> None:
    """Point an alias back at a version it named before."""
    with connected() as client:
        moved = client.rollback(name, number, reason, alias)
    show(moved, f"{moved.adapter}@{moved.alias} {_came_to(moved, 'is back at')}")


def _came_to(moved: AliasInfo, moved_to: str) -> str:
    if not moved.unsigned:
        return f"{moved_to} {moved.ref}"
    name = f"{moved.adapter}@{moved.alias}"
    return f"is where it was: {moved.ref} waits for `tunegate countersign {name} --key FILE`"


@click.command()
@click.argument("ref")
@click.option("--reason", required=True)
def revoke(ref: str, reason: str) -> None:
    """Stop a version from being pulled, at once and for good."""
    with connected() as client:
        info = client.revoke(concrete(client, ref).ref, reason)
    show(info, f"{info.ref} is revoked; roll its alias back with `tunegate rollback`")


@click.command()
@click.argument("ref")
def history(ref: str) -> None:
    """Every move of an alias (`support-bot@approved`): from, to, who, when, why."""
    parsed = parse_reference(ref)
    if parsed.alias is None:
        raise InvalidRequest(f"{ref!r} names no alias; give one, such as {parsed.adapter}@approved")
    with connected() as client:
        moves = client.history(parsed.adapter, parsed.alias)
    lines = [
        f"{move.counter:>4}  {move.at[:19]}  {move.previous or '-'} → {move.number}  by {move.by}: {move.reason}"
        for move in moves
    ]
    show(moves, "\n".join(map(escape, lines)) or f"{ref} was never moved")


@click.group()
def review() -> None:
    """Rate outputs, one blinded item at a time."""


@review.command(name="next")
def next_item() -> None:
    """The item to rate now; the same one until it is rated or skipped."""
    with connected() as client:
        assignment = client.next_assignment()
    show(assignment, _shown(assignment) if assignment else "nothing to rate: you are done")


@review.command()
@click.argument("assignment")
@click.option("--clarity", type=_RATING, required=True)
@click.option("--relevance", type=_RATING, required=True)
@click.option("--safety", type=_RATING, required=True)
@click.option("--accuracy", type=_RATING, required=True)
@click.option("--hallucination/--no-hallucination", default=False, show_default=True)
@click.option("--comment")
def rate(
    assignment: str, clarity: int, relevance: int, safety: int, accuracy: int, hallucination: bool, comment: str | None
) -> None:
    """Rate the item that `review next` showed, 1 (bad) to 5 (good) each."""
    rating = Rating(
        clarity=clarity,
        relevance=relevance,
        safety=safety,
        accuracy=accuracy,
        hallucination=hallucination,
        comment=comment,
    )
    with connected() as client:
        progress = client.rate(assignment, rating)
    show(progress, f"{progress.rated} of {progress.total} rated")


@review.command()
@click.argument("assignment")
@click.option("--reason", required=True)
def skip(assignment: str, reason: str) -> None:
    """Leave an item to others, with a reason."""
    with connected() as client:
        progress = client.skip(assignment, reason)
    show(progress, f"{progress.rated} of {progress.total} rated, {progress.skipped} skipped")


@review.command()
def progress() -> None:
    """Your own progress."""
    with connected() as client:
        found = client.review_progress()
    show(found, f"{found.rated} of {found.total} rated, {found.skipped} skipped")


def _shown(assignment: Assignment) -> str:
    scale = " ".join(f"--{criterion} 1..5" for criterion in CRITERIA)
    return (
        f"[bold]{assignment.position} of {assignment.total}[/]\n\n[dim]prompt[/]\n{escape(assignment.prompt)}\n\n"
        f"[dim]output[/]\n{escape(assignment.output)}\n\n[dim]tunegate review rate {assignment.id} {scale}[/]"
    )


COMMANDS = (promote, rollback, revoke, history, review)
