"""What monitors and load balancers see, and what a request leaves in the log."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from site_under_test import Site, body, running

from registry.settings import Home

pytestmark = pytest.mark.slow


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running(Home(tmp_path / "home")) as found:
        yield found


def metric(site: Site, name: str, **labels: str) -> float | None:
    """The value of one sample, or None if there is no such sample."""
    text = site.http("GET", "/metrics", who=None).text
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return None


def eventually(holds: Callable[[], bool]) -> bool:
    """An answer is counted and logged when it has been sent, which its reader may be a moment ahead of."""
    for _ in range(200):
        if holds():
            return True
        time.sleep(0.02)
    return False


def test_metrics_count_versions_jobs_and_entries(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    site.submit(complete=False)
    assert metric(site, "tunegate_versions", state="uploading") == 1
    site.submit()
    assert metric(site, "tunegate_versions", state="submitted") == 1
    assert metric(site, "tunegate_jobs", kind="evaluation", state="queued") == 1
    assert metric(site, "tunegate_journal_entries") == site.registry.journal.head.seq
    assert metric(site, "tunegate_journal_lag_entries") == 0
    assert metric(site, "tunegate_damaged") == 0
    assert (metric(site, "tunegate_disk_free_bytes") or 0) > 0
    assert metric(site, "tunegate_commands_waiting") == 0
    assert metric(site, "tunegate_webhook_messages", outcome="pending") == 0


def test_requests_are_counted_by_route_and_status_not_by_path(site: Site) -> None:
    site.create_adapter()
    for number in (7, 8):
        site.http("GET", f"/v1/adapters/support-bot/versions/{number}")
    route = "/v1/adapters/{name}/versions/{number}"
    name = "tunegate_http_request_seconds_count"
    assert eventually(lambda: metric(site, name, method="GET", route=route, status="404") == 2)
    site.http("GET", "/nowhere/at/all", who=None)
    assert eventually(lambda: metric(site, name, route="none", status="404") == 1)
    text = site.http("GET", "/metrics", who=None).text
    assert "support-bot" not in text and "nowhere" not in text


def test_what_resolve_answers_from_memory_is_counted_too(site: Site, tmp_path: Path) -> None:
    site.create_adapter()
    ref = site.approved(tmp_path)
    for _ in range(3):
        assert site.http("GET", f"/v1/resolve?ref={ref}", who="consumer").status_code == 200
    assert eventually(
        lambda: metric(site, "tunegate_http_request_seconds_count", route="/v1/resolve", status="200") == 3
    )


def test_metrics_may_need_a_token(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEGATE_METRICS", "token")
    assert site.http("GET", "/metrics", who=None).status_code == 401
    assert site.http("GET", "/metrics", who="consumer").status_code == 403
    assert site.http("GET", "/metrics", who="auditor").status_code == 200


def test_a_registry_that_is_about_to_stop_is_alive_but_not_ready(site: Site) -> None:
    assert body(site.http("GET", "/readyz", who=None))["status"] == "ready"
    site.registry.drain()
    refused = site.http("GET", "/readyz", who=None)
    assert refused.status_code == 503 and "Retry-After" in refused.headers
    assert site.http("GET", "/healthz", who=None).status_code == 200
    assert site.http("GET", "/v1/adapters").status_code == 200


def test_changes_and_refusals_are_logged_without_secrets_and_polls_are_not(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="tunegate.access")
    made = site.http("POST", "/v1/tokens", json={"role": "ci", "person": "somebody unusual"})
    site.http("GET", "/v1/adapters")
    site.http("GET", "/v1/adapters/none?secret=hunter2")

    def logged() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "tunegate.access"]

    assert eventually(lambda: len(logged()) > 1)
    lines = logged()
    assert [(line.method, line.path, line.status) for line in lines] == [  # type: ignore[attr-defined]
        ("POST", "/v1/tokens", 201),
        ("GET", "/v1/adapters/none", 404),
    ]
    everything = " ".join(str(vars(line)) for line in lines)
    assert (
        body(made)["secret"] not in everything and "somebody unusual" not in everything and "hunter2" not in everything
    )
    assert lines[0].token is not None and lines[0].token in site.tokens["admin"]  # type: ignore[attr-defined]
    assert made.headers["X-Request-ID"] == lines[0].request  # type: ignore[attr-defined]


def test_every_answer_has_a_request_id_of_its_own(site: Site) -> None:
    found = [site.http("GET", path, who=None).headers["X-Request-ID"] for path in ("/healthz", "/healthz", "/no")]
    assert len(set(found)) == 3 and all(re.fullmatch("[0-9a-f]{16}", one) for one in found)
