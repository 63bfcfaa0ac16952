"""Whatever is asked wrongly is answered with problem+json in one shape; never a 500, never a look inside."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from factories import BASE, make_adapter, make_training, sha
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from site_under_test import Site, running

from registry import errors
from registry.api.cursor import write_cursor
from registry.api.problems import TABLE
from registry.settings import Home

JSON = {"Content-Type": "application/json"}
ADAPTERS, BOT = "/v1/adapters", "/v1/adapters/support-bot"
NEW: dict[str, Any] = {"name": "new-bot", "base": {"id": BASE.id, "digest": BASE.digest}}
FILES = [{"path": path, "size": len(data), "sha256": sha(data)} for path, data in make_adapter(9).items()]
RATING = {"clarity": 5, "relevance": 5, "safety": 5, "accuracy": 5, "hallucination": False}
TRAINING: dict[str, Any] = {name: getattr(make_training(), name) for name in make_training().__struct_fields__}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("problems") / "home")) as found:
        found.create_adapter()
        found.approved(tmp_path_factory.mktemp("rows"))
        yield found


@pytest.fixture(scope="module")
def http(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url, timeout=30) as client:
        yield client


def check_problem(answer: httpx.Response, status: int | None = None) -> dict[str, Any]:
    """The one shape of an error."""
    assert answer.headers["Content-Type"] == "application/problem+json", answer.text
    found: dict[str, Any] = json.loads(answer.content)
    assert found.keys() >= {"type", "title", "status", "detail", "code"}
    assert found["status"] == answer.status_code and 400 <= answer.status_code < 500, found
    assert found["type"].endswith("/" + found["code"]) and found["title"] not in ("", "Error") and found["detail"]
    for inside in ("Traceback", ".py", "Error:", "duckdb", "msgspec", "litestar", "'data'"):
        assert inside not in answer.text
    if status is not None:
        assert answer.status_code == status, found
    return found


def test_every_error_has_a_status_and_a_code_of_its_own() -> None:
    def tree(kind: type[errors.TunegateError]) -> list[type[errors.TunegateError]]:
        return [kind, *(one for child in kind.__subclasses__() for one in tree(child))]

    deliberate = {kind for kind in tree(errors.TunegateError) if kind.__module__ == errors.__name__}
    assert set(TABLE) == deliberate - {errors.TunegateError}
    assert len({code for _, code in TABLE.values()}) == len(TABLE)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nope", 404),
        ("GET", "/v1", 404),
        ("PATCH", ADAPTERS, 405),
        ("DELETE", BOT, 405),
        ("GET", BOT + "/versions/x", 404),
        ("GET", BOT + "/versions/0", 422),
        ("GET", BOT + "/versions/-1", 422),
        ("GET", BOT + "/versions/2147483648", 404),
        ("GET", BOT + "/versions/" + "9" * 30, 422),
        ("GET", BOT + "/versions/" + "9" * 5000, 404),
        ("GET", BOT + "/versions/7/gate", 404),
        ("GET", ADAPTERS + "?limit=0", 422),
        ("GET", ADAPTERS + "?limit=1001", 422),
        ("GET", ADAPTERS + "?limit=many", 422),
        ("GET", ADAPTERS + "?limit=" + "9" * 50, 422),
        ("GET", ADAPTERS + "?cursor=%C3%A9", 422),
        ("GET", ADAPTERS + "?cursor=A", 422),
        ("GET", ADAPTERS + "?cursor=" + "A" * 2001, 422),
        ("GET", BOT + "/versions?cursor=" + write_cursor("foo"), 422),
        ("GET", BOT + "/versions?cursor=" + write_cursor("-1"), 422),
        ("GET", BOT + "/versions?cursor=" + write_cursor("9" * 60), 422),
        ("GET", BOT + "/versions?cursor=" + write_cursor("٣"), 422),
        ("GET", BOT + "/versions?state=nope", 422),
        ("GET", BOT + "/versions/1/items", 422),
        ("GET", "/v1/resolve", 422),
        ("GET", "/v1/resolve?ref=", 422),
        ("GET", "/v1/resolve?ref=%00", 422),
        ("GET", "/v1/resolve?ref=a@b@c", 422),
        ("GET", "/v1/resolve?ref=support-bot@sha256:123", 422),
        ("GET", "/v1/resolve?ref=a/b/c/1", 422),
        ("GET", "/v1/resolve?ref=../../etc/passwd", 422),
        ("GET", "/v1/resolve?ref=" + "a" * 301, 422),
        ("GET", "/v1/resolve?ref=support-bot/" + "9" * 200, 422),
        ("GET", "/v1/blobs/sha256:xyz", 422),
        ("GET", "/v1/blobs/sha256:" + "A" * 64, 422),
        ("GET", "/v1/blobs/sha256:" + "0" * 64 + "%0A", 422),
        ("GET", "/v1/blobs/sha256:" + "0" * 64, 404),
        ("GET", "/v1/audit/events?after=-1", 422),
        ("GET", "/v1/jobs/%00", None),
        ("GET", ADAPTERS + "/" + "x" * 64, 422),
        ("DELETE", "/v1/tokens/%00", 404),
        ("GET", "/adapters/support-bot/" + "9" * 30, 422),
    ],
)
def test_a_request_that_fits_no_resource_is_a_problem(
    site: Site, http: httpx.Client, method: str, path: str, status: int | None
) -> None:
    headers = {"Authorization": f"Bearer {site.tokens['admin']}"}
    check_problem(http.request(method, path, headers=headers), status)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/adapters/../../etc/passwd",
        "/v1/adapters/..%2f..%2fetc%2fpasswd",
        "/v1/adapters/%2e%2e/%2e%2e",
        "/v1/adapters/%252e%252e%252f",
        "/v1/adapters/..%5c..%5cwindows",
        "/v1/adapters/a%00b/versions",
        "/v1/adapters/a%0d%0aX-Injected:1",
        "/v1/adapters/support-bot%0a",
        "/v1/adapters/SUPPORT-BOT",
        "/v1/adapters/support-bot%20",
        "/v1/adapters/%EF%BD%93upport-bot",
        "/v1/adapters/%E2%84%AA",
        "/v1/adapters/%ff",
        "/v1/adapters/support-bot/aliases/%00",
        "/v1/adapters/support-bot/aliases/..%2f..",
        "/v1/blobs/..%2f..%2fetc%2fpasswd",
        "/v1/blobs/sha256:..%2f..",
        "/static/..%2fpages.py",
        "/static/../pages.py",
        "/schema/..%2f..%2fetc%2fpasswd",
    ],
)
def test_a_path_that_climbs_or_pretends_finds_nothing(site: Site, path: str) -> None:
    """Sent as raw bytes: clients clean paths before they send them."""
    host, port = urlsplit(site.url).netloc.split(":")
    request = (
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {site.tokens['admin']}\r\n"
        "Connection: close\r\n\r\n"
    )
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request.encode())
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    head, _, content = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status in (404, 422) and b"application/problem+json" in head and b"x-injected:" not in head.lower()
    assert json.loads(content)["status"] == status


def body_cases() -> list[Any]:
    digest = {"id": "x", "digest": BASE.digest}
    cases = [
        ("admin", ADAPTERS, b"{", 400),
        ("admin", ADAPTERS, b"\xff\xfe", 400),
        ("admin", ADAPTERS, b"nonsense", 400),
        ("admin", ADAPTERS, b'{"name": "\\ud800"}', 400),
        ("admin", ADAPTERS, b"[" * 100_000, 422),
        ("admin", ADAPTERS, b'{"name":' * 5_000, 422),
        ("admin", ADAPTERS, b"", 422),
        ("admin", ADAPTERS, b"null", 422),
        ("admin", ADAPTERS, b"[]", 422),
        ("admin", ADAPTERS, b'"text"', 422),
        ("admin", ADAPTERS, {}, 422),
        ("admin", ADAPTERS, {**NEW, "nmae": 1}, 422),
        ("admin", ADAPTERS, {**NEW, "name": 5}, 422),
        ("admin", ADAPTERS, {**NEW, "name": ""}, 422),
        ("admin", ADAPTERS, {**NEW, "name": "../x"}, 422),
        ("admin", ADAPTERS, {**NEW, "name": "Foo"}, 422),
        ("admin", ADAPTERS, {**NEW, "name": "a_b"}, 422),
        ("admin", ADAPTERS, {**NEW, "name": "a\n"}, 422),
        ("admin", ADAPTERS, {**NEW, "name": "a\0"}, 422),
        ("admin", ADAPTERS, {**NEW, "name": "a/b/c"}, 422),
        ("admin", ADAPTERS, {**NEW, "name": "team/7"}, 422),
        ("admin", ADAPTERS, {**NEW, "name": "x" * 64}, 422),
        ("admin", ADAPTERS, {**NEW, "name": "latest"}, 422),
        ("admin", ADAPTERS, {**NEW, "name": "\u212a"}, 422),
        ("admin", ADAPTERS, {**NEW, "base": {**digest, "digest": BASE.digest + "\n"}}, 422),
        ("admin", ADAPTERS, {**NEW, "base_tensors": {"w": [2**53]}}, 422),
        ("admin", ADAPTERS, {**NEW, "base_tensors": {"w": [10**400]}}, 422),
        ("admin", ADAPTERS, {**NEW, "base_tensors": {"w": [-1]}}, 422),
        ("admin", ADAPTERS, {**NEW, "base_tensors": {"w": ["5"]}}, 422),
        ("admin", ADAPTERS, {**NEW, "policy": {"accuracy": {"min": "0.5"}}}, 422),
        ("admin", ADAPTERS, {**NEW, "policy": {"accuracy": {"minn": 0.5}}}, 422),
        ("ci", BOT + "/versions", {"files": []}, 422),
        ("ci", BOT + "/versions", {"files": FILES * 9}, 422),
        ("ci", BOT + "/versions", {"files": [*FILES, FILES[0]]}, 422),
        ("ci", BOT + "/versions", {"files": [{**FILES[0], "size": 2**53}, FILES[1]]}, 422),
        ("ci", BOT + "/versions", {"files": [{**FILES[0], "size": "5"}, FILES[1]]}, 422),
        ("ci", BOT + "/versions", {"files": [{**FILES[0], "size": 5.0 + 0.5}, FILES[1]]}, 422),
        ("ci", BOT + "/versions", {"files": [{**FILES[0], "size": True}, FILES[1]]}, 422),
        ("ci", BOT + "/versions", {"files": [{**FILES[0], "path": "../adapter_config.json"}, FILES[1]]}, 422),
        ("ci", BOT + "/versions", {"files": [*FILES, {**FILES[0], "path": "training_args.bin"}]}, 422),
        ("ci", BOT + "/versions", {"files": FILES, "notes": "x" * 4001}, 422),
        ("ci", BOT + "/versions", {"files": FILES, "training": {**TRAINING, "seed": 10**30}}, 422),
        ("ci", BOT + "/versions", {"files": FILES, "training": {**TRAINING, "seconds": "1"}}, 422),
        ("release-manager", BOT + "/aliases/approved/rollback", {"to": 10**60, "reason": "x"}, 422),
        ("release-manager", BOT + "/aliases/approved/rollback", {"to": 2**53 - 1, "reason": "x"}, 404),
        ("release-manager", BOT + "/aliases/approved/rollback", {"to": 0, "reason": "x"}, 422),
        ("release-manager", BOT + "/aliases/approved/rollback", {"to": 1, "reason": ""}, 422),
        ("release-manager", BOT + "/aliases/latest!/rollback", {"to": 1, "reason": "x"}, 422),
        ("release-manager", BOT + "/versions/1/promote", {"alias": "latest"}, 422),
        ("release-manager", BOT + "/versions/1/promote", {"alias": "../x"}, 422),
        ("release-manager", BOT + "/versions/1/revoke", {}, 422),
        ("evaluator", "/v1/jobs/claim", {"kinds": "evaluation"}, 422),
        ("evaluator", "/v1/jobs/x/heartbeat", {"fence": "1"}, 422),
        ("evaluator", "/v1/jobs/x/heartbeat", {"fence": -1}, 422),
        ("evaluator", "/v1/jobs/x/heartbeat", {"fence": 1}, 404),
        ("reviewer", "/v1/review/assignments/x/rating", RATING, 404),
        ("reviewer", "/v1/review/assignments/x/rating", {**RATING, "hallucination": "no"}, 422),
        ("reviewer", "/v1/review/assignments/x/rating", {**RATING, "hallucination": 0}, 422),
        ("reviewer", "/v1/review/assignments/x/rating", dict.fromkeys(RATING, 5), 422),
        ("admin", "/v1/tokens", {"role": "root", "person": "x"}, 422),
        ("admin", "/v1/tokens", {"role": "ci", "person": "x\r\ny"}, 422),
        ("admin", "/v1/tokens", {"role": "ci", "person": "x", "expires_days": 0}, 422),
        ("admin", "/v1/tokens", {"role": "ci", "person": "x", "expires_days": "90"}, 422),
        ("admin", "/v1/suites", {"name": "x", "files": FILES}, 422),
    ]
    return [pytest.param(*case, id=f"{number}-{case[1]}") for number, case in enumerate(cases)]


@pytest.mark.parametrize(("who", "path", "content", "status"), body_cases())
def test_a_body_that_does_not_fit_changes_nothing(
    site: Site, http: httpx.Client, who: str, path: str, content: Any, status: int
) -> None:
    before = site.registry.journal.head.seq
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    headers = {"Authorization": f"Bearer {site.tokens[who]}", **JSON}
    check_problem(http.post(path, content=data, headers=headers), status)
    assert site.registry.journal.head.seq == before


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", '"nan"', '"1.0"', "null", "true", "[]"])
def test_a_bound_that_is_no_finite_number_never_reaches_a_policy(site: Site, http: httpx.Client, number: str) -> None:
    before = site.client("admin").policy("support-bot")
    headers = {"Authorization": f"Bearer {site.tokens['admin']}", **JSON}
    for section, key in (("accuracy", "min"), ("perplexity", "max"), ("forgetting", "margin")):
        content = f'{{"{section}": {{"{key}": {number}}}}}'.encode()
        check_problem(http.put(BOT + "/policy", content=content, headers=headers))
    assert site.client("admin").policy("support-bot") == before


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_a_body_that_does_not_say_it_is_json_is_refused(site: Site, http: httpx.Client, kind: str) -> None:
    """A form of another site can send these without asking the browser first."""
    headers = {"Authorization": f"Bearer {site.tokens['admin']}"} | ({"Content-Type": kind} if kind else {})
    content = json.dumps(NEW).encode()
    found = check_problem(http.post(ADAPTERS, content=content, headers=headers), 415)
    assert found["code"] == "unsupported_media_type"
    chunked = http.post(ADAPTERS, content=iter([content]), headers=headers)
    check_problem(chunked, 415)
    check_problem(http.put(BOT + "/policy", content=b"{}", headers=headers), 415)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_refused_with_or_without_its_length(
    site: Site, http: httpx.Client, chunked: bool
) -> None:
    headers = {"Authorization": f"Bearer {site.tokens['admin']}", **JSON}
    size = 11 * 1024 * 1024
    content: Any = iter([b" " * (1024 * 1024)] * 11) if chunked else b" " * size
    found = check_problem(http.post(ADAPTERS, content=content, headers=headers), 413)
    assert found["code"] == "too_large"


def test_every_problem_of_a_policy_is_listed_at_once(site: Site, http: httpx.Client) -> None:
    wrong = {
        "accuracy": {"min": 7, "confidence": 2},
        "review": {"reviewers": 1},
        "forgetting": {"suite": "general-knowledge"},
    }
    headers = {"Authorization": f"Bearer {site.tokens['admin']}"}
    found = check_problem(http.put(BOT + "/policy", json=wrong, headers=headers), 422)
    assert len(found["problems"]) == 3
    unknown = {section: {"suite": "none"} for section in ("accuracy", "perplexity", "forgetting", "review")}
    assert len(check_problem(http.put(BOT + "/policy", json=unknown, headers=headers), 422)["problems"]) == 4


def test_the_api_describes_itself_without_loading_anything(http: httpx.Client) -> None:
    document = http.get("/schema/openapi.json").json()
    assert document["openapi"].startswith("3.") and "/v1/adapters" in document["paths"]
    assert "//cdn" not in http.get("/schema").text


WORDS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(max_size=20),
    st.sampled_from(
        [BASE.digest, "approved", "support-bot", "evaluation", "ci", "\0", "a" * 300, "1", 2**53, -1, 0, 1, 5]
    ),
)
KEYS = st.sampled_from(
    "name base policy files path size sha256 digest id reason to alias fence kinds worker role person scope accuracy "
    "min clarity relevance safety hallucination training notes evidence manifest expires_days retry comment".split()
)
BODIES = st.recursive(
    WORDS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)
MUTATING = [
    ("admin", "POST", ADAPTERS),
    ("admin", "PUT", BOT + "/policy"),
    ("admin", "POST", "/v1/tokens"),
    ("admin", "POST", "/v1/suites"),
    ("admin", "POST", BOT + "/versions/9/revoke"),
    ("ci", "POST", BOT + "/versions"),
    ("release-manager", "POST", BOT + "/aliases/approved/rollback"),
    ("release-manager", "POST", BOT + "/versions/1/promote"),
    ("evaluator", "POST", "/v1/jobs/claim"),
    ("evaluator", "POST", "/v1/jobs/x/evidence"),
    ("evaluator", "POST", "/v1/jobs/x/fail"),
    ("reviewer", "POST", "/v1/review/assignments/x/rating"),
    ("reviewer", "POST", "/v1/review/assignments/x/skip"),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
@given(content=BODIES)
def test_no_body_whatever_makes_the_registry_fail(site: Site, http: httpx.Client, content: Any) -> None:
    data = json.dumps(content).encode()
    for who, method, path in MUTATING:
        headers = {"Authorization": f"Bearer {site.tokens[who]}", **JSON}
        answer = http.request(method, path, content=data, headers=headers)
        if answer.status_code >= 400:
            check_problem(answer)
    assert http.get("/readyz").status_code == 200
