"""What was waived when an adapter was trained stands in its gate report, in the registry's and in a recomputed one."""

from factories import make_evidence, make_ratings, make_subject

from registry.gate.decision import Case, decide, provenance
from registry.records import Status


def test_waivers_are_shown_and_fail_nothing() -> None:
    waived = {"E140": "a pilot", "E103": "x" * 1000}
    check = provenance(Case(make_subject(waived=waived), None, [], None))
    assert check.status is Status.PASS and "E140 (a pilot)" in check.reason
    assert check.reason.index("E103") < check.reason.index("E140") and len(check.reason) < 400


def test_a_report_without_waivers_reads_as_it_did() -> None:
    report = decide(make_subject(), make_evidence(), make_ratings(), None)
    reasons = [check.reason for check in report.checks if check.kind == "provenance"]
    assert reasons == ["training record present"]
