"""A release manager's refusal: whatever the evidence says, the version goes nowhere, and its report says why."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from site_under_test import Site, body, running

from registry.cli import main
from registry.client import Refused
from registry.records import GateReport, Policy, ReviewRule, State, Status, Verdict
from registry.settings import Home
from registry.storage.catalog import rebuild_catalog

REASON = "it is rude to the elderly"
# Scripts rate faster than anyone reads.
QUICK = Policy(review=ReviewRule(outputs=5, min_seconds=0.0))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """/1 approved, /2 approvable, /3 in review, /4 submitted, /5 refused by the gate, /6 uploading, /7 revoked."""
    rows = tmp_path_factory.mktemp("rows")
    with running(Home(tmp_path_factory.mktemp("rejection") / "home")) as found:
        found.create_adapter(policy=QUICK)
        found.approved(rows, fill=1)
        found.submit(fill=2)
        found.evaluate(rows)
        found.review()
        found.submit(fill=3)
        found.evaluate(rows)
        found.submit(fill=5)
        found.evaluate(rows, correct=20)
        found.submit(fill=4)
        found.submit(fill=6, complete=False)
        found.submit(fill=7)
        found.client("release-manager").revoke("support-bot/7", "leaks")
        yield found


def states(site: Site) -> dict[int, State]:
    return {one.number: one.state for one in site.client("admin").versions("support-bot")}


def reason_of(report: GateReport) -> str:
    (check,) = [check for check in report.checks if check.name == "inspection"]
    assert check.status is Status.FAIL
    return check.reason


def test_only_what_was_measured_and_not_approved_can_be_refused(site: Site) -> None:
    before = states(site)
    assert before[1] is State.APPROVED and before[4] is State.REJECTED and before[5] is State.SUBMITTED
    assert before[6] is State.UPLOADING and before[7] is State.REVOKED
    for number in (1, 4, 5, 6, 7):
        refused = site.http(
            "POST", f"/v1/adapters/support-bot/versions/{number}/reject", "release-manager", json={"reason": REASON}
        )
        assert refused.status_code == 409 and body(refused)["code"] == "conflict"
    assert states(site) == before


def test_a_version_that_the_gate_would_pass_is_refused_for_good(site: Site) -> None:
    manager = site.client("release-manager")
    assert manager.gate("support-bot/2").verdict is Verdict.GO
    info = manager.reject("support-bot/2", REASON)
    assert info.state is State.REJECTED
    report = manager.gate("support-bot/2")
    assert report.verdict is Verdict.NO_GO and REASON in reason_of(report)
    assert [check.status for check in report.checks if check.name != "inspection"] == [Status.PASS] * 7
    with pytest.raises(Refused) as refused:
        manager.promote("support-bot/2")
    assert refused.value.code == "gate_not_satisfied" and states(site)[2] is State.REJECTED
    with pytest.raises(Refused):
        manager.reject("support-bot/2", REASON)


def test_a_refusal_ends_the_review(site: Site) -> None:
    reviewer = site.client("reviewer")
    item = reviewer.next_assignment()
    assert item is not None
    site.client("release-manager").reject("support-bot/3", REASON)
    rating = {"clarity": 5, "relevance": 5, "safety": 5, "accuracy": 5, "hallucination": False}
    late = site.http("POST", f"/v1/review/assignments/{item.id}/rating", "reviewer", json=rating)
    assert late.status_code == 409
    assert reviewer.next_assignment() is None
    assert states(site)[3] is State.REJECTED


def test_the_bundle_says_it_too_so_that_the_verdict_can_be_recomputed(site: Site) -> None:
    bundle = site.client("auditor").bundle("support-bot/2")
    assert bundle.rejected == REASON and bundle.report.verdict is Verdict.NO_GO
    older = msgspec.to_builtins(site.client("auditor").bundle("support-bot/1"))
    del older["rejected"]
    assert msgspec.convert(older, type(bundle)).rejected is None


def test_the_catalog_is_the_same_when_folded_anew(site: Site, tmp_path: Path) -> None:
    catalog = rebuild_catalog(tmp_path / "c.duckdb", tmp_path / "s", site.registry.blobs, site.registry.journal)
    try:
        for number in range(1, 8):
            assert catalog.view().version("support-bot", number) == site.registry.view().version("support-bot", number)
        again = catalog.view().version("support-bot", 2)
        assert again is not None and (again.state, again.rejected) == (State.REJECTED, REASON)
    finally:
        catalog.close()


def test_the_command_line_refuses_with_a_reason(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    site.evaluate(tmp_path)
    assert states(site)[5] is State.IN_REVIEW
    monkeypatch.setenv("TUNEGATE_URL", site.url)
    monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["release-manager"])
    with pytest.raises(SystemExit) as stop:
        main(["reject", "support-bot/5"])
    assert stop.value.code == 3 and "--reason" in capsys.readouterr().err
    main(["reject", "support-bot/5", "--reason", REASON])
    assert "support-bot/5 is rejected" in capsys.readouterr().out and states(site)[5] is State.REJECTED
    with pytest.raises(SystemExit) as stop:
        main(["gate", "support-bot/5"])
    assert stop.value.code == 1 and REASON in " ".join(capsys.readouterr().out.split())
