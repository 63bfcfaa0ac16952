"""Gate reports for people, pull requests and CI systems."""

from xml.etree import ElementTree

from rich.console import Group
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from registry.records import GateReport, Status, Verdict

_STYLES = {
    Status.PASS: "green",
    Status.FAIL: "red",
    Status.INVALID: "red",
    Status.INCONCLUSIVE: "yellow",
    Status.PENDING: "yellow",
}
_VERDICTS = {Verdict.GO: "bold green", Verdict.NO_GO: "bold red"}


def gate_table(report: GateReport) -> Group:
    """The report as a terminal table."""
    table = Table(box=None, pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("check", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("why", overflow="fold")
    for check in report.checks:
        table.add_row(check.name, f"[{_STYLES[check.status]}]{check.status}[/]", escape(check.reason))
    verdict = (report.verdict.value, _VERDICTS.get(report.verdict, "bold yellow"))
    head = Text.assemble((f"Gate report {report.ref}", "bold"), "  ", verdict)
    return Group(head, table, Text(_footer(report), style="dim"))


def gate_markdown(report: GateReport) -> str:
    """The report for a pull request."""
    lines = [f"## Gate report {report.ref}: **{report.verdict}**", "", "| check | status | why |", "|---|---|---|"]
    lines += [f"| {one.name} | {one.status} | {one.reason.replace('|', '/')} |" for one in report.checks]
    return "\n".join([*lines, "", _footer(report), ""])


def gate_junit(report: GateReport) -> str:
    """The report as JUnit XML: what is not a pass is a failure, what could not be judged an error."""
    failed = sum(check.status is Status.FAIL for check in report.checks)
    errors = sum(check.status not in (Status.FAIL, Status.PASS) for check in report.checks)
    suite = ElementTree.Element(
        "testsuite", name=f"gate {report.ref}", tests=str(len(report.checks)), failures=str(failed), errors=str(errors)
    )
    for check in report.checks:
        case = ElementTree.SubElement(suite, "testcase", classname=report.ref, name=check.name)
        if check.status is not Status.PASS:
            kind = "failure" if check.status is Status.FAIL else "error"
            ElementTree.SubElement(case, kind, message=check.reason, type=check.status.value)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite, encoding="unicode") + "\n"


def _footer(report: GateReport) -> str:
    measured = report.evaluated_with
    engine = (
        f"{measured.distribution} {measured.version}, {measured.device}, {measured.dtype}, served as {measured.serving}"
        if measured
        else "nothing measured yet"
    )
    return f"manifest {report.digest[:19]}… · policy {report.policy[:19]}… · {engine}"
