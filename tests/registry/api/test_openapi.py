"""The OpenAPI document says what the routes do: a small life of a registry calls them, and statuses are compared."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from ci_under_test import CLAIMS, ISSUER, Issuer, claims_at
from factories import make_adapter, sha
from site_under_test import SMALL_REVIEW, Site, body, running

from registry.api.openapi import SUCCESSES
from registry.approval.attestation import Signer
from registry.records import PromotionRule, Role
from registry.settings import Home

pytestmark = pytest.mark.slow

NOBODY = "127.0.0.1:9"  # where nothing listens
SECOND = PromotionRule(second_signature=True)
RATING = {"clarity": 5, "relevance": 5, "safety": 5, "accuracy": 5, "hallucination": False}
# Not called by the life below: training runs, reviewers' records and rejections have tests of their own.
ELSEWHERE = {
    *("POST /v1/trainings", "POST /v1/jobs/{job_id}/progress", "POST /v1/jobs/{job_id}/finish"),
    *("DELETE /v1/reviewers/{record_id}", "POST /v1/adapters/{name}/versions/{number}/reject"),
}
LIVED = {
    *(SUCCESSES.keys() - ELSEWHERE),
    *("GET /healthz", "GET /readyz", "GET /schema", "GET /schema/openapi.json", "GET /v1/keys"),
    *("GET /v1/adapters", "POST /v1/adapters", "GET /v1/adapters/{name}", "GET /v1/suites"),
    *("GET /v1/adapters/{name}/policy", "PUT /v1/adapters/{name}/policy", "GET /v1/adapters/{name}/versions"),
    *(f"GET /v1/adapters/{{name}}/versions/{{number}}{tail}" for tail in ("", "/gate", "/items", "/bundle")),
    "GET /v1/adapters/{name}/versions/{number}/campaign",
    *(f"GET /v1/adapters/{{name}}/aliases/{{alias}}/{tail}" for tail in ("freshness", "history", "proposal")),
    *("GET /v1/jobs/{job_id}", "GET /v1/review/progress", "GET /v1/tokens", "POST /v1/tokens"),
    *("GET /v1/publishers", "POST /v1/publishers", "POST /v1/oidc/mint"),
    *("GET /v1/webhooks", "POST /v1/webhooks", "GET /v1/webhooks/{webhook_id}/deliveries"),
    *(f"GET /v1/audit/{what}" for what in ("events", "checkpoint", "proof", "consistency")),
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """After a life in which every kind of thing happened."""
    rows = tmp_path_factory.mktemp("rows")
    with pytest.MonkeyPatch.context() as settings:
        settings.setenv("TUNEGATE_OUTBOUND_ALLOW", NOBODY)
        with running(Home(tmp_path_factory.mktemp("openapi") / "home")) as found:
            submitting_and_judging(found, rows)
            releasing(found)
            signing_twice(found, rows)
            looking(found)
            managing(found)
            yield found


@pytest.fixture(scope="module")
def document(site: Site) -> dict[str, Any]:
    found: dict[str, Any] = site.http("GET", "/schema/openapi.json", None).json()
    return found


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By method and path, as SUCCESSES names them."""
    methods = ("get", "head", "put", "post", "delete")
    named = {
        f"{method.upper()} {path}": item[method]
        for path, item in document["paths"].items()
        for method in methods
        if method in item
    }
    for name, operation in named.items():
        if "/{second}" in name:
            twin = named[name.replace("/{second}", "")]
            assert operation["responses"] == twin["responses"], name
    return {name: operation for name, operation in named.items() if "/{second}" not in name}


def answered(site: Site) -> dict[str, set[str]]:
    """The statuses that each route succeeded with since the start, as its metrics count them."""
    text = site.http("GET", "/metrics", None).text
    counted = re.findall(r'request_seconds_count\{method="(\w+)",route="([^"]+)",status="([123]\d\d)"\}', text)
    found: dict[str, set[str]] = {}
    for method, route, status in counted:
        name = f"{method} {re.sub(r':[a-z]+', '', route).replace('/{second}', '')}"
        found.setdefault(name, set()).add(status)
    return found


def test_every_success_is_one_that_is_declared(site: Site, document: dict[str, Any]) -> None:
    declared, seen = operations(document), answered(site)
    wrong = [
        f"{name} answered {sorted(seen[name])}, declared are {sorted(operation['responses'])}"
        for name, operation in declared.items()
        if not seen.get(name, set()) <= operation["responses"].keys()
    ]
    assert not wrong
    assert declared.keys() >= LIVED, LIVED - declared.keys()
    assert seen.keys() >= LIVED, LIVED - seen.keys()


def test_every_success_that_is_declared_happens(site: Site) -> None:
    seen = answered(site)
    never = {
        name: set(map(str, statuses)) - seen.get(name, set())
        for name, statuses in SUCCESSES.items()
        if name not in ELSEWHERE
    }
    assert not {name: statuses for name, statuses in never.items() if statuses}


def test_every_failure_is_declared_as_a_problem(document: dict[str, Any]) -> None:
    for name, operation in operations(document).items():
        others = {status for status in operation["responses"] if not status.startswith(("2", "3"))}
        assert others == {"default"}, name
        assert "application/problem+json" in operation["responses"]["default"]["content"], name


def test_a_body_is_required_exactly_where_leaving_it_out_is_refused(site: Site, document: dict[str, Any]) -> None:
    sends = {name: one["requestBody"]["required"] for name, one in operations(document).items() if "requestBody" in one}
    assert {name for name, required in sends.items() if not required} == {
        "POST /v1/adapters/{name}/versions/{number}/promote",
        "PUT /v1/blobs/{digest}",
    }
    assert site.http("POST", "/v1/adapters/support-bot/versions/1/promote", "release-manager").status_code == 200
    assert site.http("PUT", f"/v1/blobs/sha256:{sha(b'')}", "ci").status_code == 201
    assert body(site.http("POST", "/v1/adapters"))["detail"].startswith("the body is missing")


@pytest.mark.parametrize("path", ["/schema/nothing", "/schema/nothing.html", "/schema/x.json", "/schema/a/b"])
def test_a_page_that_the_description_does_not_have_is_a_problem_like_any_other(site: Site, path: str) -> None:
    answer = site.http("GET", path, None)
    assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")
    assert (body(answer)["code"], body(answer)["status"]) == ("not_found", 404)
    assert site.http("GET", "/schema", None).status_code == 200


# -- the life ---------------------------------------------------------------------------------------------------------


def did(answer: httpx.Response) -> Any:
    assert answer.status_code < 400, (answer.request.method, answer.request.url.path, answer.text)
    return answer.json() if answer.content and "json" in answer.headers.get("Content-Type", "") else None


def submitting_and_judging(site: Site, rows: Path) -> None:
    """Versions 1 and 2 approved one after the other, 3 complete; what a worker and a reviewer call, down to nothing."""
    site.create_adapter()
    site.publish_suites()  # again: they are there
    site.submit(complete=False)
    site.submit()
    job = did(site.http("POST", "/v1/jobs/claim", "evaluator", json={"kinds": ["evaluation"], "worker": "w"}))
    path, lease = f"/v1/jobs/{job['id']}", {"fence": job["fence"]}
    did(site.http("POST", f"{path}/heartbeat", "evaluator", json=lease))
    did(site.http("GET", path, "evaluator"))
    did(site.http("POST", f"{path}/fail", "evaluator", json={**lease, "reason": "again", "retry": True}))
    site.evaluate(rows)
    item = did(site.http("GET", "/v1/review/next", "reviewer-6"))
    did(site.http("POST", f"/v1/review/assignments/{item['id']}/skip", "reviewer-6", json={"reason": "not mine"}))
    item = did(site.http("GET", "/v1/review/next", "reviewer"))
    did(site.http("POST", f"/v1/review/assignments/{item['id']}/rating", "reviewer", json=RATING))
    did(site.http("GET", "/v1/review/progress", "reviewer"))
    did(site.http("POST", "/v1/adapters/support-bot/versions/1/campaign", "release-manager"))
    site.review()
    site.client("release-manager").promote("support-bot/1")
    site.approved(rows, fill=2)
    did(site.http("POST", "/v1/jobs/claim", "evaluator", json={"kinds": ["evaluation"], "worker": "w"}))
    site.create_adapter("team/bot")
    site.submit("team/bot", fill=4, complete=False)


def releasing(site: Site) -> None:
    """Conditional reads, a new policy, a roll back, a revocation."""
    manager, bot = site.client("release-manager"), "/v1/adapters/support-bot"
    for path, query in ((f"{bot}/aliases/approved", {}), ("/v1/resolve", {"ref": "support-bot@approved"})):
        for _ in range(2):  # once more from memory
            tag = site.http("GET", path, "consumer", params=query).headers["ETag"]
            again = site.http("GET", path, "consumer", params=query, headers={"If-None-Match": tag})
            assert again.status_code == 304
    did(site.http("PUT", f"{bot}/policy", json=msgspec.to_builtins(SMALL_REVIEW)))
    manager.rollback("support-bot", 1, "to look at it")
    did(site.http("POST", f"{bot}/versions/2/revoke", json={"reason": "it leaks"}))


def signing_twice(site: Site, rows: Path) -> None:
    """An adapter whose moves wait for a second signature, there and back."""
    manager, bot, signer = site.client("release-manager"), "/v1/adapters/strict-bot", Signer.generate()
    site.create_adapter("strict-bot", msgspec.structs.replace(SMALL_REVIEW, promotion=SECOND))
    key = {"public": signer.public.public, "person": "release-manager person"}
    for _ in range(2):
        added = did(site.http("POST", "/v1/keys", json=key))
    for number in (1, 2):
        site.submit("strict-bot", fill=4 + number)
        site.evaluate(rows)
        site.review()
        assert site.http("POST", f"{bot}/versions/{number}/promote", "release-manager").status_code == 202
        payload = manager.proposal("strict-bot").attestation.payload
        signature = signer.signature(msgspec.json.decode(f'"{payload}"', type=bytes))
        signed = {"alias": "approved", "keyid": signature.keyid, "sig": signature.sig}
        did(site.http("POST", f"{bot}/versions/{number}/countersign", "release-manager", json=signed))
    back = {"to": 1, "reason": "and back"}
    assert site.http("POST", f"{bot}/aliases/approved/rollback", "release-manager", json=back).status_code == 202
    did(site.http("POST", f"/v1/keys/{added['id']}/revoke", json={"reason": "lost"}))


def looking(site: Site) -> None:
    version, suite = "/v1/adapters/support-bot/versions/1", site.client("admin").suites()[0].ref
    for tail in ("", "/gate", "/bundle", "/campaign"):
        did(site.http("GET", version + tail))
    did(site.http("GET", f"{version}/items", params={"suite": suite}))
    for path in ("", "/support-bot", "/support-bot/policy", "/support-bot/versions"):
        did(site.http("GET", f"/v1/adapters{path}"))
    for tail in ("history", "freshness"):
        did(site.http("GET", f"/v1/adapters/support-bot/aliases/approved/{tail}", "consumer"))
    for path in ("/healthz", "/readyz", "/schema", "/schema/openapi.json"):
        did(site.http("GET", path, None))
    for what, query in (
        ("events", {}),
        ("checkpoint", {}),
        ("proof", {"seq": "1"}),
        ("consistency", {"from": "1"}),
    ):
        did(site.http("GET", f"/v1/audit/{what}", "auditor", params=query))
    blob = f"/v1/blobs/sha256:{sha(make_adapter(fill=1)['adapter_model.safetensors'])}"
    for conditions in ({}, {"Range": "bytes=0-3"}, {"If-None-Match": f'"{blob.rpartition("/")[2]}"'}):
        for method in ("GET", "HEAD"):
            did(site.http(method, blob, "consumer", headers=conditions))
    data = b"in two pieces"
    for first, last in ((0, 5), (6, 12), (0, 12)):
        piece = {"Content-Range": f"bytes {first}-{last}/{len(data)}"}
        did(site.http("PUT", f"/v1/blobs/sha256:{sha(data)}", "ci", content=data[first : last + 1], headers=piece))


def managing(site: Site) -> None:
    """Tokens, publishers and webhooks, made and taken away."""
    issuer = Issuer()
    trusted = {"scope": "team/bot", "issuer": ISSUER, "claims": {"sub": CLAIMS["sub"]}, "keys": [issuer.public_fields]}
    publisher = did(site.http("POST", "/v1/publishers", json=trusted))
    did(site.http("POST", "/v1/oidc/mint", None, json={"token": issuer.token(claims_at(datetime.now(UTC)))}))
    hook = {"url": f"http://{NOBODY}/", "events": ["version.revoked"]}
    webhook = did(site.http("POST", "/v1/webhooks", json=hook))["webhook"]["id"]
    told = did(site.http("POST", f"/v1/webhooks/{webhook}/test"))["delivery"]
    deadline = time.monotonic() + 20
    while not did(site.http("GET", f"/v1/webhooks/{webhook}/deliveries"))["items"] and time.monotonic() < deadline:
        time.sleep(0.05)
    did(site.http("POST", f"/v1/webhooks/{webhook}/deliveries/{told}/redeliver"))
    for path in ("/v1/publishers", "/v1/webhooks", "/v1/tokens", "/v1/keys", "/v1/suites"):
        did(site.http("GET", path))
    token = did(site.http("POST", "/v1/tokens", json={"role": Role.CI, "person": "brief"}))["token"]["id"]
    for path in (f"/v1/tokens/{token}", f"/v1/publishers/{publisher['id']}", f"/v1/webhooks/{webhook}"):
        assert site.http("DELETE", path).status_code == 204
