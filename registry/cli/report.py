"""Gate reports for people, pull requests and CI systems.

What explains a number (`details`) is shown under the checks that did not pass, alarms of slices under every check; the
rest is in the JSON.
"""

import html
import re
from xml.etree import ElementTree

from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from registry.records import Check, GateReport, SliceReport, Status, Verdict

_STYLES = {
    Status.PASS: "green",
    Status.FAIL: "red",
    Status.INVALID: "red",
    Status.INCONCLUSIVE: "yellow",
    Status.PENDING: "yellow",
}
# How many details, and how many tags that alarm, a report shows under one check.
_MOST_DETAILS, _MOST_ALARMS = 6, 3
# Columns for a check's name: an extra suite's may be long, and the reason needs the room.
_CHECK_WIDTH = 24
# What XML 1.0 cannot carry, not even escaped, and what a terminal would obey.
_CONTROL = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_VERDICTS = {Verdict.GO: "bold green", Verdict.NO_GO: "bold red"}


def gate_table(report: GateReport) -> Group:
    """The report as a terminal table."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("check", max_width=_CHECK_WIDTH, overflow="fold")
    table.add_column("status", no_wrap=True)
    table.add_column("why", overflow="fold")
    for check in report.checks:
        lines = [Padding(Text(_plain(line), style="dim", overflow="fold"), (0, 0, 0, 2)) for line in explanation(check)]
        why = Group(Text(_plain(check.reason), overflow="fold"), *lines)
        table.add_row(check.name, Text(check.status, style=_STYLES[check.status]), why)
    verdict = (report.verdict.value, _VERDICTS.get(report.verdict, "bold yellow"))
    head = Text.assemble((f"Gate report {report.ref}", "bold"), "  ", verdict)
    return Group(head, table, Text(_footer(report), style="dim"))


def gate_markdown(report: GateReport) -> str:
    """The report for a pull request."""
    lines = [f"## Gate report {report.ref}: **{report.verdict}**", "", "| check | status | why |", "|---|---|---|"]
    for check in report.checks:
        why = "<br>".join([_cell(check.reason), *(f"<sub>{_cell(line)}</sub>" for line in explanation(check))])
        lines.append(f"| {check.name} | {check.status} | {why} |")
    return "\n".join([*lines, "", _footer(report), ""])


def gate_junit(report: GateReport) -> str:
    """The report as JUnit XML: what is not a pass is a failure, what could not be judged an error.

    `system-out` holds every detail and alarm, of checks that pass too.
    """
    failed = sum(check.status is Status.FAIL for check in report.checks)
    errors = sum(check.status not in (Status.FAIL, Status.PASS) for check in report.checks)
    suite = ElementTree.Element(
        "testsuite", name=f"gate {report.ref}", tests=str(len(report.checks)), failures=str(failed), errors=str(errors)
    )
    for check in report.checks:
        case = ElementTree.SubElement(suite, "testcase", classname=report.ref, name=check.name)
        if check.status is not Status.PASS:
            kind = "failure" if check.status is Status.FAIL else "error"
            ElementTree.SubElement(case, kind, message=_plain(check.reason), type=check.status.value)
        if lines := [*check.details, *alarms(check)]:
            ElementTree.SubElement(case, "system-out").text = _plain("\n".join(lines))
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def explanation(check: Check) -> list[str]:
    """The lines shown under a check's reason: its details, if it did not pass, and the slices that alarm."""
    details = check.details if check.status is not Status.PASS else []
    left = len(details) - _MOST_DETAILS
    more = [f"… {left} more: --json shows all"] if left > 0 else []
    return [*details[:_MOST_DETAILS], *more, *alarms(check, _MOST_ALARMS)]


def alarms(check: Check, most: int | None = None) -> list[str]:
    """At most one line: the tags whose items do significantly worse than the check asks, the most certain first."""
    found = sorted((one for one in check.slices if one.alarm), key=lambda one: one.p_value)
    named = [f"{one.tag} {_slice_value(check, one)} of {one.n} (p {one.p_value:.1g})" for one in found[:most]]
    if left := len(found) - len(named):
        named.append(f"{left} more")
    return [f"alarm by tag: {', '.join(named)}"] if named else []


def _slice_value(check: Check, one: SliceReport) -> str:
    """The number of a slice in the words of its check: a change against the base, or a share of right answers."""
    return f"{one.value:+.1%}" if check.kind == "forgetting" else f"{one.value:.1%} right"


def _cell(text: str) -> str:
    """Text that stays within one cell of a Markdown table and starts no HTML."""
    return " ".join(html.escape(_plain(text), quote=False).replace("|", "\\|").split())


def _plain(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)


def _footer(report: GateReport) -> str:
    measured = report.evaluated_with
    engine = (
        f"{measured.distribution} {measured.version}, {measured.device}, {measured.dtype}, served as {measured.serving}"
        if measured
        else "nothing measured yet"
    )
    return f"manifest {report.digest[:19]}… · policy {report.policy[:19]}… · {engine}"
