"""Gate reports as people, pull requests and CI systems get them."""

from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from factories import SEALED, make_evidence, make_ratings, make_subject
from rich.console import Console

from registry.cli.report import gate_junit, gate_markdown, gate_table
from registry.gate.decision import decide
from registry.records import Check, GateReport, SliceReport, Status, Verdict

DETAILS = [f"detail {number}" for number in range(1, 10)]
ODD = "<b>|`x`[/red] & \x00\x1b"


def make_check(status: Status = Status.FAIL, kind: str = "accuracy", **changes: Any) -> Check:
    values = {"reason": "too few", "observed": {}, "required": {}, **changes}
    return Check(name=kind, kind=kind, status=status, **values)


def make_report(*checks: Check) -> GateReport:
    return GateReport(
        ref="support-bot/1",
        digest="sha256:" + "1" * 64,
        policy="sha256:" + "2" * 64,
        verdict=Verdict.NO_GO,
        checks=list(checks),
    )


def make_slice(tag: str, p_value: float, alarm: bool, value: float = 0.5) -> SliceReport:
    return SliceReport(tag=tag, n=40, value=value, p_value=p_value, alarm=alarm)


def printed(report: GateReport, width: int = 80) -> str:
    console = Console(width=width, force_terminal=False, highlight=False)
    with console.capture() as capture:
        console.print(gate_table(report))
    return capture.get()


SLICES = [make_slice("fine", 0.9, False), make_slice("bad", 0.04, True), make_slice("worst", 0.001, True)]


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.PASS])
def test_details_explain_a_check_that_did_not_pass(status: Status) -> None:
    report = make_report(make_check(status, details=DETAILS))
    for text in (printed(report), gate_markdown(report)):
        assert "detail 1" in text and "detail 6" in text and "detail 7" not in text
        assert "… 3 more: --json shows all" in text


def test_a_check_that_passed_is_one_reason_and_its_alarms() -> None:
    report = make_report(make_check(Status.PASS, details=DETAILS, slices=SLICES))
    for text in (printed(report), gate_markdown(report)):
        assert "detail" not in text and "fine" not in text
        # The most certain first.
        line = "alarm by tag: worst 50.0% right of 40 (p 0.001), bad 50.0% right of 40 (p 0.04)"
        assert line in " ".join(text.split())


def test_a_slice_of_forgetting_is_a_change_against_the_base() -> None:
    found = make_check(kind="forgetting", slices=[make_slice("history", 0.01, True, value=-0.125)])
    assert "alarm by tag: history -12.5% of 40 (p 0.01)" in printed(make_report(found), width=120)


def test_many_alarms_are_counted() -> None:
    many = [make_slice(f"t{number}", number / 1000, True) for number in range(9)]
    report = make_report(make_check(Status.PASS, slices=many))
    text = printed(report, width=160)
    assert "t0 " in text and "t2 " in text and "t3 " not in text and "(p 0.002), 6 more" in text
    assert "t8 50.0% right of 40 (p 0.008)" in gate_junit(report)


def test_the_table_fits_eighty_columns_and_its_details_stand_under_the_reason() -> None:
    long = "right answers became 0.12 nats per token less likely (0.08 to 0.16), over 743 items with a known answer"
    lines = printed(make_report(make_check(details=[long, "x" * 200]))).splitlines()
    assert max(map(len, lines)) <= 80
    column = next(line for line in lines if "why" in line).index("why")
    assert next(line for line in lines if "right answers" in line).index("right answers") == column + 2


def test_a_long_name_leaves_room_for_the_reason() -> None:
    check = msgspec.structs.replace(make_check(reason="word " * 40), name="accuracy:support-desk/" + "long" * 20)
    lines = printed(make_report(check)).splitlines()
    assert max(map(len, lines)) <= 80 and len(lines) < 12


def test_a_report_without_details_is_as_compact_as_its_reasons() -> None:
    report = decide(make_subject(), make_evidence(), make_ratings(), SEALED)
    assert len(printed(report, width=400).splitlines()) == len(report.checks) + 3


def test_text_of_others_is_shown_as_it_is() -> None:
    """Suites bring item names and tags, workers their canaries' words: markup to someone, plain text here."""
    report = make_report(make_check(reason=ODD, details=[ODD], slices=[make_slice(ODD, 0.01, True)]))
    assert printed(report, width=200).count("<b>|`x`[/red] & \ufffd\ufffd") == 3
    row = next(line for line in gate_markdown(report).splitlines() if line.startswith("| accuracy"))
    assert row.count("&lt;b&gt;\\|`x`[/red] &amp;") == 3 and "<b>" not in row
    assert row.replace("\\|", "").count("|") == 4
    case = ElementTree.fromstring(gate_junit(report)).find("testcase")
    assert case is not None and "<b>|`x`[/red] & \ufffd\ufffd" in str(case.findtext("system-out"))


def test_junit_holds_every_detail_and_alarm_of_every_check() -> None:
    report = make_report(
        make_check(details=DETAILS), make_check(Status.PASS, details=["why it is fine"], slices=SLICES)
    )
    report = make_report(*report.checks, make_check(Status.PASS))
    failed, passed, plain = ElementTree.fromstring(gate_junit(report)).findall("testcase")
    assert str(failed.findtext("system-out")).splitlines() == DETAILS
    assert str(passed.findtext("system-out")).splitlines()[0] == "why it is fine"
    assert str(passed.findtext("system-out")).count("(p ") == 2
    assert passed.find("failure") is None and plain.find("system-out") is None
