"""What is read of a preflight: a summary in the terminal, JSON Lines for machines, one HTML page with plots.

The page stands alone: no script, no font, no picture from anywhere, so that it can be kept beside the run it is about.
"""

import html
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from rich.markup import escape

from trainer.preflight.check import LOW_SCORE, Report
from trainer.preflight.codes import RULES, Problem

_SHOWN_LINES, _SHOWN_PROBLEMS = 5, 100
_WIDTH, _BAR = 560, 18


def write_problems(path: Path, problems: Sequence[Problem]) -> None:
    """One finding a line, all of them."""
    path.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in problems))


def code_lines() -> list[str]:
    """Every code with what it means and what to do, for `--codes` and for the documentation."""
    return [f"| `{rule.code}` | {rule.what} | {rule.fix} |" for rule in RULES.values()]


# -- the terminal


def summary(report: Report) -> list[str]:
    """Lines with rich's markup."""
    lines = [*_numbers(report), ""]
    by_rule = _by_rule(report.problems)
    for code, count in report.counts().items():
        rule, waived = RULES[code], code in report.waived
        colour = "dim" if waived else "red" if rule.blocks else "yellow"
        where = ", ".join(str(one.line) for one in by_rule[code][:_SHOWN_LINES] if one.line)
        more = " …" if count > _SHOWN_LINES else ""
        lines.append(
            f"[{colour}]{code}[/] {count:>6} × {escape(rule.what)}" + (f"; lines {where}{more}" if where else "")
        )
        lines.append(f"              {escape(by_rule[code][0].message)}; {escape(rule.fix)}")
        if waived:
            lines.append(f"              waived: {escape(report.waived[code])}")
    return [*lines, "", _verdict(report)]


def _numbers(report: Report) -> Iterator[str]:
    splits = ", ".join(f"{count} {split}" for split, count in report.splits.items())
    counts = f"{report.lines:,} {report.kind}, {report.rows:,} read, {report.distinct:,} distinct"
    yield f"{counts}; {splits}" if splits else counts
    if report.lengths:
        how = "estimated; --base counts them" if report.lengths_by == "estimate" else f"by {escape(report.lengths_by)}"
        middle, high, most = (_quantile(report.lengths, share) for share in (0.5, 0.95, 1.0))
        yield f"tokens a {_one(report)}: {middle:,} in the middle, 95 % up to {high:,}, at most {most:,} ({how})"
        yield f"prompts of one form: {report.template_share:.0%}"
    if report.clusters:
        largest = f"the largest of {report.clusters[0]} {report.kind}"
        yield f"clusters of near duplicates: {len(report.clusters)}, {largest}"
    if report.low:
        yield f"{report.kind} with a quality score below {LOW_SCORE}: {len(report.low)}"
    yield f"leakage was looked for in: {escape(', '.join(report.compared)) or 'nothing'}"


def _verdict(report: Report) -> str:
    these, them = ("these pairs", "them") if report.kind == "pairs" else ("this data", "it")
    if report.blocked:
        remedy = f"correct {them}, or waive a code with a reason (--waive CODE --reason …)"
        return f"[red]a run would refuse {these}[/]: {remedy}"
    return f"[green]a run would take {these}[/]" + (" with what was waived" if report.waived else "")


def _one(report: Report) -> str:
    return report.kind.removesuffix("s")


def _quantile(values: Sequence[int], share: float) -> int:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _by_rule(problems: Sequence[Problem]) -> Mapping[str, list[Problem]]:
    by_rule: dict[str, list[Problem]] = {}
    for one in problems:
        by_rule.setdefault(one.rule, []).append(one)
    return by_rule


# -- the page


def page(report: Report) -> str:
    """The whole report as one HTML document."""
    name = html.escape(Path(report.data).name)
    lengths = _bars(_histogram(report.lengths), mark=report.max_length)
    plots = [
        (f"Tokens a {_one(report)}", f"counted by: {report.lengths_by}", lengths),
        *([("Splits", "a run with this seed", _bars(list(report.splits.items())))] if report.splits else []),
        (
            "Clusters of near duplicates",
            f"{report.kind} in a cluster, and how many such clusters",
            _bars(_sizes(report)),
        ),
        (
            "Forms of prompt",
            f"skeletons by {report.kind}; what differs from {_one(report)} to {_one(report)} is …",
            _bars(report.skeletons),
        ),
        ("Findings", "by code", _bars(list(report.counts().items()))),
    ]
    sections = "".join(
        f"<section><h2>{html.escape(title)}</h2><p class=note>{html.escape(note)}</p>{plot}</section>"
        for title, note, plot in plots
    )
    verdict, these = "refused" if report.blocked else "taken", "these pairs" if report.kind == "pairs" else "this data"
    waived = "".join(f"<li>{code} waived: {html.escape(why)}</li>" for code, why in report.waived.items())
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Preflight of {name}</title>'
        f"<style>{_STYLE}</style>"
        f"<h1>Preflight of {name}</h1><p>sha256 <code>{report.sha256}</code></p>"
        f"<p>{report.lines:,} {report.kind}, {report.rows:,} read, {report.distinct:,} distinct. "
        f'A run would have {these} <b class="{verdict}">{verdict}</b>. Leakage was looked for in: '
        f"{html.escape(', '.join(report.compared)) or 'nothing'}.</p><ul>{waived}</ul>{sections}{_table(report)}"
        "</html>\n"
    )


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;"
    "background:#fff}"
    "h2{margin:2rem 0 0;font-size:1.15rem}.note{margin:0 0 .5rem;color:#555}svg{max-width:100%;height:auto}"
    "table{border-collapse:collapse;width:100%;font-size:.9rem}td,th{border-top:1px solid #ccc;padding:.3rem .5rem;"
    "text-align:left;vertical-align:top;overflow-wrap:anywhere}.refused,.error{color:#a40000}.taken{color:#1a6e1a}"
)


def _histogram(values: Sequence[int], bins: int = 16) -> list[tuple[str, int]]:
    """Counts in up to 16 ranges of equal and round width."""
    if not values:
        return []
    width = max(1, -(-max(values) // bins))
    digits = 10 ** max(0, len(str(width)) - 2)
    width = -(-width // digits) * digits
    counts = Counter(value // width for value in values)
    return [(f"{place * width:,}–{(place + 1) * width - 1:,}", counts[place]) for place in range(max(counts) + 1)]


def _sizes(report: Report) -> list[tuple[str, int]]:
    return [(f"{size} {report.kind}", count) for size, count in sorted(Counter(report.clusters).items())][-16:]


def _bars(rows: Sequence[tuple[str, int]], mark: int | None = None) -> str:
    """Horizontal bars with their numbers. mark: a limit on the labels' scale; ranges beyond it are drawn in red."""
    if not rows:
        return "<p>none</p>"
    most = max(count for _, count in rows) or 1
    height = len(rows) * (_BAR + 6)
    drawn = []
    for place, (label, count) in enumerate(rows):
        y = place * (_BAR + 6)
        length = (_WIDTH - 300) * count / most
        over = mark is not None and int(label.split("–")[0].replace(",", "")) >= mark
        colour = "#a40000" if over else "#3465a4"
        short = html.escape(label if len(label) <= 34 else label[:33] + "…")
        drawn.append(
            f'<text x="235" y="{y + 14}" text-anchor="end">{short}'
            f"<title>{html.escape(label)}</title></text>"
            f'<rect x="240" y="{y}" width="{max(1.0, length):.1f}" height="{_BAR}" fill="{colour}"/>'
            f'<text x="{246 + length:.1f}" y="{y + 14}">{count:,}</text>'
        )
    return (
        f'<svg role="img" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" height="{height}" font-size="12" '
        f'font-family="system-ui,sans-serif">{"".join(drawn)}</svg>'
    )


def _table(report: Report) -> str:
    """The findings, up to a hundred of each code; the JSON Lines have them all."""
    rows = []
    for code, problems in _by_rule(report.problems).items():
        rows += [_cells(one) for one in problems[:_SHOWN_PROBLEMS]]
        if (more := len(problems) - _SHOWN_PROBLEMS) > 0:
            rows.append(f"<tr><td>{code}<td><td>and {more:,} more: --report lists every one<td>")
    head = "<tr><th>code<th>line<th>what<th>what to do"
    return f"<h2>Every finding</h2><table>{head}{''.join(rows)}</table>"


def _cells(one: Problem) -> str:
    what, todo = html.escape(one.message), html.escape(one.fix)
    return f'<tr><td class="{one.severity}">{one.rule}<td>{one.line or ""}<td>{what}<td>{todo}'
