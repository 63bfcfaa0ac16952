"""Every route × every kind of token. The table is the contract's; a route without a row in it fails."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import pytest
from factories import BASE, entry_of, make_adapter, sha
from litestar.routes import HTTPRoute
from site_under_test import Site, body, running

from registry.access import new_secret
from registry.api.app import create_app
from registry.api.limits import Rate, Rates
from registry.records import Role
from registry.settings import Home
from registry.storage.views import StoredToken, View

ADMIN, CI, TRAINER, EVALUATOR = Role.ADMIN, Role.CI, Role.TRAINER, Role.EVALUATOR
REVIEWER, MANAGER, CONSUMER, AUDITOR = Role.REVIEWER, Role.RELEASE_MANAGER, Role.CONSUMER, Role.AUDITOR
ALL = frozenset(Role)
NAME = "/v1/adapters/{name:str}"
VERSION = NAME + "/versions/{number:int}"
DIGEST = "sha256:" + "1" * 64
HIDDEN, UNKNOWN = "hidden-bot", "unknown-bot"
BASE_JSON = {"id": BASE.id, "digest": BASE.digest}
FILES = [{"path": path, "size": len(data), "sha256": sha(data)} for path, data in make_adapter().items()]


class Row(NamedTuple):
    """Who may call a route, and a body that fits it."""

    roles: frozenset[Role]
    body: Any = None


def who(*roles: Role, body: Any = None) -> Row:
    return Row(frozenset(roles), body)


TABLE: dict[tuple[str, str], Row] = {
    ("POST", "/v1/adapters"): who(ADMIN, MANAGER, body={"name": HIDDEN, "base": BASE_JSON}),
    ("GET", "/v1/adapters"): Row(ALL),
    ("GET", NAME): Row(ALL),
    ("GET", NAME + "/policy"): Row(ALL),
    ("PUT", NAME + "/policy"): who(ADMIN, body={}),
    ("POST", NAME + "/versions"): who(CI, TRAINER, body={"files": FILES}),
    ("GET", NAME + "/versions"): Row(ALL),
    ("GET", VERSION): Row(ALL),
    ("POST", VERSION + "/complete"): who(CI, TRAINER),
    ("GET", VERSION + "/gate"): Row(ALL),
    # Bundles, and the rows that belong to them, hold suite items.
    ("GET", VERSION + "/bundle"): who(ADMIN, MANAGER, AUDITOR, EVALUATOR),
    ("GET", VERSION + "/items"): Row(ALL - {CONSUMER}),
    ("POST", VERSION + "/campaign"): who(MANAGER),
    ("GET", VERSION + "/campaign"): who(ADMIN, MANAGER, AUDITOR, CI),
    ("POST", VERSION + "/campaign/seal"): who(MANAGER, body={"reason": "enough"}),
    # What people said, once nobody can be led by it any more.
    ("GET", VERSION + "/campaign/result"): who(ADMIN, MANAGER, AUDITOR),
    ("GET", VERSION + "/campaign/items"): who(ADMIN, MANAGER, AUDITOR),
    ("POST", VERSION + "/promote"): who(MANAGER),
    ("POST", VERSION + "/reject"): who(MANAGER, body={"reason": "rude"}),
    ("POST", VERSION + "/revoke"): who(ADMIN, MANAGER, body={"reason": "leaks"}),
    ("POST", VERSION + "/countersign"): who(MANAGER, body={"keyid": "0" * 64, "sig": "A" * 88}),
    ("GET", NAME + "/aliases/{alias:str}/proposal"): who(ADMIN, MANAGER, AUDITOR),
    ("GET", NAME + "/aliases/{alias:str}/freshness"): Row(ALL),
    ("GET", NAME + "/aliases/{alias:str}"): Row(ALL),
    ("GET", NAME + "/aliases/{alias:str}/history"): Row(ALL),
    ("POST", NAME + "/aliases/{alias:str}/rollback"): who(MANAGER, body={"to": 1, "reason": "worse"}),
    ("POST", "/v1/suites"): who(ADMIN, MANAGER),
    ("GET", "/v1/suites"): Row(ALL),
    ("GET", "/v1/resolve"): Row(ALL),
    # Admins and release managers upload suites.
    ("PUT", "/v1/blobs/{digest:str}"): who(CI, TRAINER, EVALUATOR, ADMIN, MANAGER),
    ("GET", "/v1/blobs/{digest:str}"): Row(ALL - {REVIEWER}),
    ("HEAD", "/v1/blobs/{digest:str}"): Row(ALL - {REVIEWER}),
    ("POST", "/v1/jobs/claim"): who(EVALUATOR, TRAINER),
    ("POST", "/v1/jobs/{job_id:str}/heartbeat"): who(EVALUATOR, TRAINER, body={"fence": 1}),
    ("POST", "/v1/jobs/{job_id:str}/evidence"): who(EVALUATOR),
    ("POST", "/v1/jobs/{job_id:str}/fail"): who(EVALUATOR, TRAINER, body={"fence": 1, "reason": "broken"}),
    ("GET", "/v1/jobs/{job_id:str}"): who(EVALUATOR, TRAINER, ADMIN, MANAGER, AUDITOR),
    ("POST", "/v1/jobs/{job_id:str}/progress"): who(TRAINER, body={"fence": 1}),
    ("POST", "/v1/jobs/{job_id:str}/finish"): who(TRAINER, body={"fence": 1, "version": "support-bot/1"}),
    ("POST", "/v1/trainings"): who(TRAINER, ADMIN, body={"adapter": HIDDEN, "recipe": "x = 1", "dataset": DIGEST}),
    ("GET", "/v1/trainings"): who(TRAINER, ADMIN, MANAGER, AUDITOR),
    ("GET", "/v1/trainings/{training:str}"): who(TRAINER, ADMIN, MANAGER, AUDITOR),
    ("GET", "/v1/trainings/{training:str}/events"): who(TRAINER, ADMIN, MANAGER, AUDITOR),
    ("GET", "/v1/trainings/{training:str}/metrics"): who(TRAINER, ADMIN, MANAGER, AUDITOR),
    ("GET", "/v1/trainings/{training:str}/checkpoints"): who(TRAINER, ADMIN, MANAGER, AUDITOR),
    ("GET", "/v1/trainings/{training:str}/logs"): who(TRAINER, ADMIN, MANAGER, AUDITOR),
    ("POST", "/v1/trainings/{training:str}/cancel"): who(TRAINER, ADMIN),
    ("POST", "/v1/trainings/{training:str}/pause"): who(TRAINER, ADMIN),
    ("POST", "/v1/trainings/{training:str}/resume"): who(TRAINER, ADMIN),
    ("GET", "/v1/review/next"): who(REVIEWER),
    ("GET", "/v1/review/progress"): who(REVIEWER),
    ("POST", "/v1/review/checkout"): who(REVIEWER),
    ("GET", "/v1/review/assignments"): who(REVIEWER),
    ("GET", "/v1/review/assignments/{assignment:str}"): who(REVIEWER),
    ("GET", "/v1/review/disputes"): who(REVIEWER),
    ("POST", "/v1/review/disputes/{dispute:str}"): who(REVIEWER, body={"upheld": True, "reason": "harmful"}),
    ("POST", "/v1/review/assignments/{assignment:str}/rating"): who(REVIEWER),
    ("POST", "/v1/review/assignments/{assignment:str}/skip"): who(REVIEWER),
    ("POST", "/v1/review/erasures"): who(ADMIN, body={"person": "nobody", "reason": "asked to"}),
    ("POST", "/v1/reviewers"): who(ADMIN, body={}),
    ("GET", "/v1/reviewers"): who(ADMIN, MANAGER, AUDITOR),
    ("DELETE", "/v1/reviewers/{record_id:str}"): who(ADMIN),
    ("POST", "/v1/tokens"): who(ADMIN),
    ("GET", "/v1/tokens"): Row(ALL),
    ("DELETE", "/v1/tokens/{token_id:str}"): Row(ALL),
    ("POST", "/v1/publishers"): who(ADMIN, body={}),
    ("GET", "/v1/publishers"): who(ADMIN, AUDITOR),
    ("DELETE", "/v1/publishers/{publisher_id:str}"): who(ADMIN),
    ("POST", "/v1/webhooks"): who(ADMIN, body={"url": "https://hooks.example/x", "events": ["alias.moved"]}),
    ("GET", "/v1/webhooks"): who(ADMIN),
    ("DELETE", "/v1/webhooks/{webhook_id:str}"): who(ADMIN),
    ("POST", "/v1/webhooks/{webhook_id:str}/test"): who(ADMIN),
    ("GET", "/v1/webhooks/{webhook_id:str}/deliveries"): who(ADMIN),
    ("POST", "/v1/webhooks/{webhook_id:str}/deliveries/{delivery:str}/redeliver"): who(ADMIN),
    ("GET", "/v1/keys"): Row(ALL),
    ("POST", "/v1/keys"): who(ADMIN, body={"public": "A" * 43 + "=", "person": "nobody"}),
    ("POST", "/v1/keys/{key_id:str}/revoke"): who(ADMIN, body={"reason": "lost"}),
    ("GET", "/v1/audit/events"): who(AUDITOR, ADMIN),
    ("GET", "/v1/audit/checkpoint"): who(AUDITOR, ADMIN),
    ("GET", "/v1/audit/proof"): who(AUDITOR, ADMIN),
    ("GET", "/v1/audit/consistency"): who(AUDITOR, ADMIN),
}
OPEN = {
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    # By default; with TUNEGATE_METRICS=token it needs one.
    ("GET", "/metrics"),
    ("GET", "/schema"),
    ("GET", "/schema/openapi.json"),
    ("GET", "/schema/{path:str}"),
    # What it is given, a CI's own token, says who asks: see test_publishers.py.
    ("POST", "/v1/oidc/mint"),
    # Pages check the cookie themselves: see tests/registry/web/test_pages.py.
    ("GET", "/"),
    ("GET", "/adapters/{name:str}/{number:int}"),
    ("GET", "/adapters/{name:str}/{number:int}/campaign"),
    ("POST", "/adapters/{name:str}/{number:int}/campaign"),
    ("POST", "/sign-in"),
    ("POST", "/sign-out"),
    ("GET", "/static/style.css"),
    ("GET", "/review"),
    ("GET", "/review/done"),
    ("GET", "/review/{assignment:str}"),
    ("POST", "/review/{assignment:str}"),
    ("POST", "/review/{assignment:str}/skip"),
    ("GET", "/review/disputes"),
    ("POST", "/review/disputes/{dispute:str}"),
    ("GET", "/static/review.js"),
    ("GET", "/trainings/{training:str}"),
    ("GET", "/trainings/compare"),
}
SCOPED_ROUTES = [key for key in TABLE if key[1].startswith(NAME) or key == ("POST", "/v1/adapters")]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two adapters with one sealed version each; nothing in this file changes them."""
    # Far more refused tokens than an honest client would send: see test_limits.py.
    rates = Rates(failures=Rate(1e6, 1e6))
    with running(Home(tmp_path_factory.mktemp("access") / "home"), rates=rates) as found:
        for name in (HIDDEN, "team/support-bot"):
            found.create_adapter(name)
            found.submit(name)
        yield found


@pytest.fixture(scope="module")
def http(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=30) as client:
        yield client


def call(
    http: httpx.Client, method: str, template: str, token: str | None, adapter: str = HIDDEN, *, with_body: bool = True
) -> httpx.Response:
    """The route with values filled in; without its body an allowed role gets as far as 422 and changes nothing."""
    path = template
    values = {
        "{name:str}": adapter,
        "{number:int}": "1",
        "{alias:str}": "approved",
        "{digest:str}": DIGEST,
        "{path:str}": "x",
    }
    for placeholder, value in values.items():
        path = path.replace(placeholder, value)
    path = path.replace("{job_id:str}", "j").replace("{assignment:str}", "a").replace("{token_id:str}", "t")
    path = path.replace("{publisher_id:str}", "p")
    path = path.replace("{key_id:str}", "k").replace("{dispute:str}", "d")
    json = TABLE.get((method, template), Row(ALL)).body if with_body else None
    if json and "name" in json:
        json = {**json, "name": adapter}
    query = (
        {"suite": "x"} if path.endswith("/items") else {"ref": f"{adapter}/1"} if path.endswith("/resolve") else None
    )
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return http.request(method, path, json=json, params=query, headers=headers)


def routes(site: Site) -> set[tuple[str, str]]:
    """Every method and path the application answers, an adapter with and without namespace counted once."""
    found = set()
    for route in create_app(site.registry).routes:
        assert isinstance(route, HTTPRoute), f"{route.path} is no HTTP route: say here who may use it"
        found |= {(method, route.path.replace("/{second:str}", "")) for method in route.methods}
    return {(method, path) for method, path in found if method != "OPTIONS"}


def test_every_route_has_a_row_that_says_who_may_call_it(site: Site) -> None:
    assert routes(site) == set(TABLE) | OPEN


def test_open_routes_answer_without_a_token_and_no_other_does(site: Site, http: httpx.Client) -> None:
    for method, path in sorted(routes(site)):
        answer = call(http, method, path, None)
        if (method, path) in OPEN:
            # Forms are refused for what they lack, not for who sends them.
            assert answer.status_code not in (401, 403, 500), path
        else:
            assert (answer.status_code, answer.headers.get("WWW-Authenticate")) == (401, "Bearer"), (method, path)


def test_other_methods_open_nothing(site: Site, http: httpx.Client) -> None:
    """HEAD only where there is a row for it; OPTIONS, which the framework adds to every route, for nobody."""
    for path in sorted({path for _, path in routes(site)}):
        # The framework's own routes are open whole; that they answer to OPTIONS says nothing that they do not.
        own = not path.startswith("/schema")
        assert call(http, "OPTIONS", path, None).status_code == (401 if own else 204), path
        for role in ("admin", "consumer"):
            assert call(http, "OPTIONS", path, site.tokens[role]).status_code == (403 if own else 204), path
        if ("HEAD", path) not in TABLE:
            for token in (None, site.tokens["admin"]):
                assert call(http, "HEAD", path, token).status_code == 405, path
        for method in ("PATCH", "TRACE", "CONNECTED"):
            assert call(http, method, path, None).status_code in (400, 401, 405), (method, path)


def test_each_role_may_do_what_the_table_says_and_nothing_else(site: Site, http: httpx.Client) -> None:
    wrong = []
    for (method, path), row in TABLE.items():
        for role in Role:
            status = call(http, method, path, site.tokens[role.value], with_body=False).status_code
            if status >= 500 or status == 401 or (status == 403) == (role in row.roles):
                wrong.append(f"{role} {method} {path}: {status}")
    assert not wrong


@pytest.mark.parametrize("kind", ["unknown", "revoked", "mistyped", "expired", "empty", "basic", "no bearer"])
def test_a_token_that_is_not_valid_opens_nothing(site: Site, http: httpx.Client, kind: str) -> None:
    good = site.tokens["admin"]
    authorization = {
        "unknown": f"Bearer {new_secret(ADMIN)[1]}",
        "mistyped": f"Bearer {good[:-1]}{'0' if good[-1] != '0' else '1'}",
        "empty": "Bearer",
        "basic": f"Basic {good}",
        "no bearer": good,
    }
    if kind == "revoked":
        authorization[kind] = f"Bearer {site.add_token('gone', CI, 'gone person')}"
        assert http.get("/v1/tokens", headers={"Authorization": authorization[kind]}).status_code == 200
        gone = next(one.id for one in site.client("gone").tokens())
        assert site.http("DELETE", f"/v1/tokens/{gone}").status_code == 204
    if kind == "expired":
        authorization[kind] = f"Bearer {site.tokens['ci']}"
        site.registry._clock = lambda: datetime.now(UTC) + timedelta(days=91)
    try:
        for method, path in TABLE:
            headers = {"Authorization": authorization[kind]}
            path = path.replace("{name:str}", HIDDEN).replace("{number:int}", "1").replace("{digest:str}", DIGEST)
            assert http.request(method, path, headers=headers).status_code == 401, (method, path)
    finally:
        site.registry._clock = lambda: datetime.now(UTC)
    assert http.get("/v1/keys", headers={"Authorization": f"Bearer {good}"}).status_code == 200


@pytest.mark.parametrize("kind", ["unknown", "revoked", "mistyped", "expired"])
def test_a_cookie_that_is_not_valid_shows_no_page(site: Site, http: httpx.Client, kind: str) -> None:
    good = site.tokens["admin"]
    token = {"unknown": new_secret(ADMIN)[1], "mistyped": good[:-1] + ("0" if good[-1] != "0" else "1")}.get(kind)
    if kind == "revoked":
        token = site.add_token("left", CI, "left person")
        site.client("admin").revoke_token(token.split("_")[2])
    if kind == "expired":
        token = site.tokens["ci"]
        site.registry._clock = lambda: datetime.now(UTC) + timedelta(days=91)
    try:
        for path in ("/", f"/adapters/{HIDDEN}/1", "/adapters/team/support-bot/1"):
            answer = http.get(path, headers={"Cookie": f"tunegate_token={token}"})
            assert answer.status_code == 401 and HIDDEN not in answer.text and "support-bot" not in answer.text
    finally:
        site.registry._clock = lambda: datetime.now(UTC)


def test_a_mistyped_token_is_refused_without_a_look_at_the_catalog(
    site: Site, http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    look = View.token

    def noted(view: View, id_: str) -> StoredToken | None:
        asked.append(id_)
        return look(view, id_)

    monkeypatch.setattr(View, "token", noted)
    good = site.add_token("asked", CI, "asked person")
    for wrong in (good[:-1] + ("0" if good[-1] != "0" else "1"), good[:-9], "tg_ci_x", "x" * 5000):
        assert http.get("/v1/keys", headers={"Authorization": f"Bearer {wrong}"}).status_code == 401
    assert good.split("_")[2] not in asked
    assert http.get("/v1/keys", headers={"Authorization": f"Bearer {good}"}).status_code == 200
    assert good.split("_")[2] in asked


def test_two_authorization_headers_are_refused(site: Site, http: httpx.Client) -> None:
    twice = [("Authorization", f"Bearer {site.tokens['admin']}")] * 2
    assert http.get("/v1/keys", headers=twice).status_code == 401


@pytest.mark.parametrize("role", list(Role))
def test_what_lies_outside_a_tokens_scope_looks_like_what_does_not_exist(
    site: Site, http: httpx.Client, role: Role
) -> None:
    token = site.tokens.get(f"scoped-{role}") or site.add_token(f"scoped-{role}", role, f"scoped {role}", scope="team")
    for method, path in SCOPED_ROUTES:
        if role not in TABLE[method, path].roles:
            continue
        hidden, unknown = (call(http, method, path, token, name) for name in (HIDDEN, UNKNOWN))
        assert hidden.status_code == unknown.status_code == 404, (method, path, hidden.text)
        assert hidden.text.replace(HIDDEN, "X") == unknown.text.replace(UNKNOWN, "X")
        # A prefix of letters is no namespace.
        assert call(http, method, path, token, "teamwork").status_code == 404
    inside = http.get("/v1/adapters", headers={"Authorization": f"Bearer {token}"})
    assert [one["name"] for one in body(inside)["items"]] == ["team/support-bot"]
    if role is not CONSUMER:
        assert call(http, "GET", VERSION, token, "team/support-bot").status_code == 200


def test_a_scope_covers_references_blobs_jobs_and_reviews_too(site: Site, http: httpx.Client) -> None:
    site.add_token("other-ci", CI, "other", scope="other")
    site.add_token("one-ci", CI, "one", scope="team/support-bot")
    site.add_token("other-evaluator", EVALUATOR, "other", scope="other")
    mine = [entry_of(path, data) for path, data in make_adapter().items()]
    for ref in (f"{HIDDEN}/1", f"{HIDDEN}@approved", f"{UNKNOWN}/1", "team/support-bot/1"):
        assert site.http("GET", f"/v1/resolve?ref={ref}", "other-ci").status_code == 404
    assert site.http("GET", "/v1/resolve?ref=team/support-bot/1", "one-ci").status_code == 200
    assert site.http("GET", f"/v1/blobs/sha256:{mine[0].sha256}", "one-ci").status_code == 200
    assert site.http("GET", f"/v1/blobs/sha256:{mine[0].sha256}", "other-ci").status_code == 404
    assert site.client("other-evaluator").claim(["evaluation"], "w") is None
    job = next(iter(site.registry.view().unfinished_jobs(["evaluation"])))
    assert site.http("GET", f"/v1/jobs/{job.id}", "evaluator").status_code == 200
    assert site.http("GET", f"/v1/jobs/{job.id}", "other-evaluator").status_code == 404
    lease = {"fence": job.fence}
    assert site.http("POST", f"/v1/jobs/{job.id}/heartbeat", "other-evaluator", json=lease).status_code == 404


def test_the_journal_tells_of_every_adapter_so_a_scoped_token_may_not_read_it(site: Site) -> None:
    site.add_token("team-auditor", AUDITOR, "team auditor", scope="team")
    assert site.http("GET", "/v1/audit/events", "auditor").status_code == 200
    assert site.http("GET", "/v1/audit/events", "team-auditor").status_code == 403


def test_anyone_sees_and_revokes_their_own_tokens_only(site: Site) -> None:
    site.add_token("mine", CI, "me myself")
    listed = site.client("mine").tokens()
    assert [one.person for one in listed] == ["me myself"]
    assert {one.person for one in site.client("admin").tokens()} > {"me myself", "ci person"}
    other = next(one.id for one in site.client("ci").tokens())
    assert site.http("DELETE", f"/v1/tokens/{other}", "mine").status_code == 404
    assert site.http("DELETE", f"/v1/tokens/{listed[0].id}", "mine").status_code == 204
    assert site.http("GET", "/v1/tokens", "mine").status_code == 401
    assert site.http("GET", "/v1/tokens", "ci").status_code == 200


def test_an_adapter_named_like_an_open_page_is_not_open(site: Site, http: httpx.Client) -> None:
    for name in ("schema", "healthz", "schema-bot", "static"):
        assert http.get(f"/v1/adapters/{name}").status_code == 401
    refused = site.http("POST", "/v1/adapters", json={"name": "schema", "base": BASE_JSON})
    assert refused.status_code == 422
