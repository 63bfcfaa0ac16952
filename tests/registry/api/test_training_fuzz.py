"""Whatever is sent to /v1/trainings is answered: with a run, or with a problem that has a listed code, never a 500.

A case that once got through is kept below as an `@example`, so that it is tried every time.
"""

import itertools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from factories import BASE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from site_under_test import DATASET, Site, body, running
from soak import amount

from registry.api.problems import TABLE
from registry.records import CreateAdapter, CreateTraining, Role, TrainingStatus
from registry.settings import Home

pytestmark = pytest.mark.slow

LONG = settings(
    max_examples=amount(80, 5000),
    deadline=None,
    derandomize=not amount(0, 1),
    database=None,
    suppress_health_check=list(HealthCheck),
)
# Those of the errors' table below 500, and those of the framework's own refusals.
LISTED = {code for status, code in TABLE.values() if status < 500}
LISTED |= {"malformed", "method_not_allowed", "unsupported_media_type", "too_large", "not_found", "invalid_request"}
RECIPE = 'name = "r"\nbase = "b"\ndata = "d.jsonl"\n[lora]\nrank = 8\n[training]\nlearning_rate = 2e-4\n'
_numbers = itertools.count()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running(Home(tmp_path_factory.mktemp("fuzz") / "home")) as found:
        found.create_adapter()
        yield found


@pytest.fixture(scope="module")
def dataset(site: Site) -> str:
    return "sha256:" + site.client("trainer").upload(DATASET).sha256


@pytest.fixture(autouse=True)
def _queue_is_empty_afterwards(site: Site) -> Iterator[None]:
    yield
    for status in ("queued", "running", "paused"):
        for run in site.client("trainer").trainings(status=status):
            site.client("trainer").cancel_training(run.id)


def answered(answer: httpx.Response) -> httpx.Response:
    """An answer that keeps its form: what was asked for, or a problem document with a listed code."""
    if answer.status_code >= 400:
        told = json.loads(answer.content)
        assert answer.status_code < 500, told
        assert answer.headers["Content-Type"].startswith("application/problem+json")
        assert told["code"] in LISTED and told["status"] == answer.status_code and told["detail"]
        assert "Traceback" not in answer.text and str(answer.request.url.path) != told["detail"]
    return answer


def sent(site: Site, document: Any) -> httpx.Response:
    """Submitted; a run that came of it is cancelled, so that there is room for the next."""
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    headers = {"Content-Type": "application/json"}
    answer = answered(site.http("POST", "/v1/trainings", "trainer", content=content, headers=headers))
    if answer.status_code in (200, 201):
        assert answered(site.http("POST", f"/v1/trainings/{body(answer)['id']}/cancel", "trainer")).status_code == 200
    return answer


def refused(site: Site, document: Any, said: str) -> None:
    head = site.registry.journal.head
    answer = sent(site, document)
    assert answer.status_code == 422 and said in answer.text, answer.text
    assert site.registry.journal.head == head


# -- recipes -------------------------------------------------------------------------------------------------------

# What parsers have stumbled over, and what a recipe is not to reach.
_PIECES = [
    *("[" * 10_000, "a." * 5000 + "b = 1\n", "a = " + "[" * 3000, "a = " + "{b=" * 3000, '"""', "'''", "\\ud800"),
    *("\x00", "\ufeff", "\r", "\r\n", "\u2028", "😀", "é", "\x1b[2J", "#", "=", "\n[lora]\n", '\nname = "r"\n'),
    *("9" * 5000, "0x" + "f" * 5000, "0b" + "1" * 20_000, "1e999", "nan", "-inf", "1979-05-27T07:32:00Z", "24:61:61"),
    *('"../../etc/passwd"', '"/etc/passwd"', '"/proc/self/environ"', '"\\u0000"', '"' + "x" * 5000 + '"', "[]", "{}"),
    *("[[waive]]\n", '[[waive]]\ncode = "E999"\nreason = ""\n', "[replay]\n", "[dpo]\n", "[[lora]]\n", "true"),
]


@st.composite
def recipes(draw: st.DrawFn) -> str:
    """The text of a recipe with some changes."""
    text = RECIPE
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        size = draw(st.integers(0, 12))
        piece = draw(st.sampled_from(_PIECES) | st.text(max_size=8))
        text = text[:at] + piece + text[at + draw(st.sampled_from([0, size])) :]
    return text


@LONG
@given(recipes() | st.text(max_size=60))
@example(RECIPE + "seed = 0x" + "f" * 5000)
@example(RECIPE + "x" * 64_000)
@example("")
def test_any_recipe_is_a_run_or_is_refused(site: Site, dataset: str, recipe: str) -> None:
    answer = sent(site, {"adapter": "support-bot", "recipe": recipe, "dataset": dataset})
    if answer.status_code in (200, 201):
        assert body(answer)["recipe"] == recipe
        assert body(answered(site.http("GET", f"/v1/trainings/{body(answer)['id']}", "auditor")))["recipe"] == recipe


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("[" * 10_000, "nested deeper"),
        ("a." * 10_000, "parts"),
        (RECIPE + "[x]\na = " + "[" * 10_000 + "]" * 10_000, "nested deeper"),
        ('name = "x"\n' + RECIPE, "not valid TOML"),
        (RECIPE + "[lora]\n", "not valid TOML"),
        (RECIPE + "seed = " + "9" * 5000, "not valid TOML"),
        ("x" * 64_001, "64000"),
        ('name = 5\nbase = ["b"]\ndata = nan\n', "'base'"),
        (RECIPE + "[replay]\n[dpo]\n", "preferences digest"),
    ],
)
def test_a_recipe_that_cannot_be_one_is_told_why(site: Site, dataset: str, recipe: str, said: str) -> None:
    refused(site, {"adapter": "support-bot", "recipe": recipe, "dataset": dataset}, said)


# -- the body ------------------------------------------------------------------------------------------------------

_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_DIGESTS = st.sampled_from(
    ["sha256:" + "0" * 64, "sha256:" + "F" * 64, "sha256:", "0" * 64, "md5:0", "sha256:" + "0" * 63 + "\n", "../x", ""]
)
_FIELDS = ("adapter", "recipe", "dataset", "replay", "preferences", "notes")


@LONG
@given(st.dictionaries(st.sampled_from(_FIELDS) | st.text(max_size=8), _VALUES | _DIGESTS, min_size=1, max_size=4))
@example({"notes": "\ud800"})
@example({"notes": "\x00"})
@example({"adapter": "../support-bot"})
@example({"adapter": "support-bot\n"})
def test_any_value_of_any_field_is_a_run_or_is_refused(site: Site, dataset: str, changes: dict[str, Any]) -> None:
    sent(site, {"adapter": "support-bot", "recipe": RECIPE, "dataset": dataset, **changes})


@LONG
@given(data=st.data())
@example(data=None)
def test_any_bytes_are_refused_or_are_a_request(site: Site, dataset: str, data: Any) -> None:
    good = json.dumps({"adapter": "support-bot", "recipe": RECIPE, "dataset": dataset}).encode()
    if data is None:
        for content in (
            b"",
            b"null",
            b"[" * 50_000,
            b'{"a":' * 50_000,
            b"\xff\xfe",
            good + good,
            good[:-1] + b',"x":1e999}',
        ):
            assert sent(site, content).status_code in (400, 422)
        return
    at = data.draw(st.integers(0, len(good)))
    piece = data.draw(st.binary(max_size=12) | st.sampled_from([b"[" * 3000, b"\\ud800", b"9" * 5000, b"NaN", b'"']))
    sent(site, good[:at] + piece + good[at + data.draw(st.integers(0, 8)) :])


def test_a_body_of_another_kind_is_refused(site: Site) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/toml", ""):
        answer = site.http("POST", "/v1/trainings", "trainer", content=RECIPE, headers={"Content-Type": kind})
        assert answered(answer).status_code in (400, 415, 422), kind


def test_data_that_are_not_this_runs_to_use_are_refused_alike(site: Site, dataset: str) -> None:
    """Unknown, another project's, a suite's, a version's weights: the answer tells none from the other."""
    client = site.client("admin")
    client.create_adapter(CreateAdapter(name="fuzz/bot", base=BASE))
    headers = {"Authorization": f"Bearer {site.add_token('fuzz', Role.TRAINER, 'fuzz trainer', scope='fuzz')}"}
    items = next(file.sha256 for file in client.suites()[0].files if file.path == "items.jsonl")
    weights = client.version(site.submit(fill=9)).files[0].sha256
    told = set()
    for digest in (items, weights, dataset.removeprefix("sha256:"), "0" * 64):
        for field in ("dataset", "preferences", "replay"):
            given_here = {"adapter": "fuzz/bot", "recipe": RECIPE, "dataset": f"sha256:{digest}"}
            if field != "dataset":
                section = '[dpo]\npairs = "p"\n' if field == "preferences" else '[replay]\nprompts = "p"\n'
                given_here |= {"recipe": RECIPE + section, field: f"sha256:{digest}"}
            answer = answered(site.http("POST", "/v1/trainings", json=given_here, headers=headers))
            assert answer.status_code == 422, (digest, field)
            told.add(body(answer)["detail"].replace(digest, "X").replace("sha256:X, sha256:X", "sha256:X"))
    assert len(told) == 1 and "not stored here" in told.pop()


# -- a run's paths -------------------------------------------------------------------------------------------------

_IDS = [
    "0" * 32,
    "x",
    "%00",
    "..%2f..",
    "%F0%9F%98%80",
    "a" * 4000,
    "%",
    "'; DROP TABLE trainings",
    "-1",
    " ",
    "sha256:0",
]


@pytest.mark.parametrize("id_", _IDS)
@pytest.mark.parametrize("path", ["", "/events", "/metrics", "/checkpoints", "/logs"])
def test_a_run_that_is_none_is_not_found(site: Site, id_: str, path: str) -> None:
    assert answered(site.http("GET", f"/v1/trainings/{id_}{path}", "trainer")).status_code in (400, 404)
    if not path:
        for action in ("cancel", "pause", "resume", "delete"):
            answer = answered(site.http("POST", f"/v1/trainings/{id_}/{action}", "trainer"))
            assert answer.status_code in (400, 404, 405)


@LONG
@given(
    st.sampled_from(["limit", "cursor", "points", "status", "adapter"]), st.text(max_size=12) | st.integers().map(str)
)
@example("cursor", "MA")
@example("limit", "0")
@example("points", "1e3")
@example("cursor", "LTE")
def test_any_question_about_runs_is_answered_or_refused(site: Site, dataset: str, name: str, value: str) -> None:
    asked = CreateTraining(adapter="support-bot", recipe=RECIPE, dataset=dataset)
    run = site.client("trainer").submit_training(asked)
    for path in ("", f"/{run.id}/events", f"/{run.id}/metrics", f"/{run.id}/checkpoints"):
        answered(site.http("GET", f"/v1/trainings{path}", "trainer", params={name: value}))


@pytest.mark.parametrize("last", ["x", "1", "-", "9" * 400, "1-1-1", "é-1", "١-١", "1-" + "9" * 16])
def test_a_stream_goes_on_behind_an_event_of_ours_only(site: Site, dataset: str, last: str) -> None:
    run = site.client("trainer").submit_training(
        CreateTraining(adapter="support-bot", recipe=f"{RECIPE}# {next(_numbers)}", dataset=dataset)
    )
    site.client("trainer").cancel_training(run.id)
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last.encode()}
    assert answered(site.http("GET", f"/v1/trainings/{run.id}/events", "trainer", headers=headers)).status_code in (
        200,
        422,
    )


# -- orders --------------------------------------------------------------------------------------------------------

S = TrainingStatus
# By status, what each order makes of it; what is not here is a conflict.
_ORDERS = {
    "pause": {S.QUEUED: S.PAUSED, S.RUNNING: S.PAUSED, S.PAUSED: S.PAUSED},
    "resume": {S.QUEUED: S.QUEUED, S.RUNNING: S.RUNNING, S.PAUSED: S.QUEUED, S.FAILED: S.QUEUED, S.CANCELLED: S.QUEUED},
    "cancel": {S.QUEUED: S.CANCELLED, S.RUNNING: S.CANCELLED, S.PAUSED: S.CANCELLED, S.CANCELLED: S.CANCELLED},
    "claim": {S.QUEUED: S.RUNNING},
    "fail": {S.RUNNING: S.FAILED},
    "give back": {S.RUNNING: S.QUEUED},
}


@settings(LONG, max_examples=amount(25, 1000))
@given(st.lists(st.sampled_from([*_ORDERS, "again", "progress"]), min_size=1, max_size=12))
def test_orders_in_any_order_are_done_or_are_a_conflict(site: Site, dataset: str, orders: list[str]) -> None:
    asked = {"adapter": "support-bot", "recipe": f"{RECIPE}# {next(_numbers)}", "dataset": dataset}
    id_, status, fence = body(site.http("POST", "/v1/trainings", "trainer", json=asked))["id"], S.QUEUED, 0
    for order in orders:
        before, wanted = site.registry.journal.head.seq, _ORDERS.get(order, {}).get(status)
        answer = answered(_order(site, order, id_, fence, asked))
        if order == "claim":
            assert answer.status_code == (200 if wanted else 204)
            fence += answer.status_code == 200
        elif order in ("again", "progress"):
            assert answer.status_code == (200 if order == "again" or status is S.RUNNING else 409)
            wanted = status
        else:
            assert answer.status_code == (200 if wanted else 409), (order, status)
        changed = wanted is not None and wanted is not status
        assert site.registry.journal.head.seq - before == int(changed), "an event for what changed, and no other"
        status = wanted or status
        assert site.client("trainer").training(id_).status is status
    site.client("trainer").resume_training(id_)
    site.client("trainer").cancel_training(id_)


def _order(site: Site, order: str, id_: str, fence: int, asked: dict[str, str]) -> httpx.Response:
    if order == "again":
        return site.http("POST", "/v1/trainings", "admin", json=asked)
    if order == "claim":
        return site.http("POST", "/v1/jobs/claim", "trainer", json={"kinds": ["training"], "worker": "w"})
    if order in ("fail", "give back"):
        told = {"fence": fence, "kind": "user_error", "code": "x", "reason": "y", "retry": order == "give back"}
        return site.http("POST", f"/v1/jobs/{id_}/fail", "trainer", json=told)
    if order == "progress":
        return site.http("POST", f"/v1/jobs/{id_}/progress", "trainer", json={"fence": fence})
    return site.http("POST", f"/v1/trainings/{id_}/{order}", "trainer")
