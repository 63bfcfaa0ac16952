"""What `tunegate review` shows in a terminal: items, progress, results. Texts of others act as nothing but text."""

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from registry.records import Assignment, Campaign, ReviewResult
from registry.review.rubric import RUBRIC
from registry.web.inert import plain


def item_screen(item: Assignment) -> Group:
    """One item with the meaning of every score, and nothing that says whose it is."""
    head = Text(f"{item.position} of {item.total}", style="bold")
    if item.state == "rated":
        head.append("  rated; rating it again replaces that", style="yellow")
    elif item.state == "skipped":
        head.append("  skipped", style="yellow")
    return Group(head, _pane("prompt", item.prompt), _pane("output", item.output), _anchors())


def how_to_rate(item: Assignment) -> Text:
    scale = " ".join(f"--{criterion.name} 1..5" for criterion in RUBRIC)
    return _text(f"tunegate review rate {item.id} {scale}", "dim")


def campaign_screen(campaign: Campaign) -> Group:
    """How far everyone is; no scores."""
    state = f"sealed at {campaign.sealed_at[:16]}Z" if campaign.sealed_at else "open"
    counts = f"{campaign.complete} of {campaign.reviewers} reviewers are done with {campaign.items} items to draw from"
    lines: list[RenderableType] = [Text.assemble((f"Review of {campaign.ref}", "bold"), f"  {state}"), _text(counts)]
    if campaign.reviewed_before:
        earlier = f"earlier versions that people were asked about: {campaign.reviewed_before}"
        lines.append(_text(f"{earlier}, rejected: {campaign.rejected_before}"))
    if campaign.disputes:
        lines.append(_text(f"{campaign.disputes} outputs were rated unsafe and wait for an uninvolved expert", "red"))
    table = _table("reviewer", "rated", "skipped", "of")
    for one in campaign.progress:
        table.add_row(plain(one.person), str(one.rated), str(one.skipped), str(one.total))
    behind = ", ".join(one.person for one in campaign.progress if one.looks_behind)
    note = f"can rate no more, for a token of theirs looks behind the review: {plain(behind)}"
    return Group(*lines, *([table] if campaign.progress else []), *([_text(note, "red")] if behind else []))


def result_screen(ref: str, result: ReviewResult) -> Group:
    """What a sealed campaign came to, with everything that was left out and why."""
    head = Text.assemble((f"Review of {ref}", "bold"), f"  {len(result.counted)} reviewers, {result.ratings} ratings")
    table = _table("criterion", "mean", "from", "to", "1 2 3 4 5", "agreement", "alpha", "AC2", "minus control")
    for one in result.criteria:
        numbers = (one.mean, one.lower, one.upper)
        shares = (one.agreement, one.alpha, one.ac2)
        histogram = " ".join(map(str, one.histogram))
        shown = [*map(_number, numbers), histogram, *map(_number, shares), _number(one.difference, "+.2f")]
        table.add_row(one.criterion, *shown)
    lines = [
        f"hallucination {_number(result.hallucination_rate, '.1%')}, at most "
        f"{_number(result.hallucination_upper, '.1%')} with confidence",
        f"counted: {', '.join(result.counted) or 'nobody'}",
        *(f"left out: {one.person}{f', item {one.item}' if one.item else ''}: {one.reason}" for one in result.excluded),
        *(f"unsafe, and not cleared: item {item}" for item in result.vetoes),
        f"root over all ratings: {result.root}",
    ]
    return Group(head, table, *(_text(line) for line in lines))


def _number(value: float | None, form: str = ".2f") -> str:
    return "–" if value is None else format(value, form)


def _pane(title: str, text: str) -> Panel:
    return Panel(_text(text), title=title, title_align="left", border_style="dim")


def _anchors() -> Group:
    lines = []
    for criterion in RUBRIC:
        line = Text.assemble((criterion.title, "bold"), f" {criterion.question} ", no_wrap=False, overflow="fold")
        for score, anchor in enumerate(criterion.anchors, start=1):
            line.append(f" {score} ", "bold cyan").append(anchor, "dim")
        lines.append(line)
    return Group(*lines)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    for number, name in enumerate(columns):
        table.add_column(name, overflow="fold", justify="left" if number == 0 else "right")
    return table


def _text(text: str, style: str = "") -> Text:
    return Text(plain(text), style, no_wrap=False, overflow="fold")
