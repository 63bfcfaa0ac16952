"""Webhooks over HTTP, from the command line and across a killed process, with a real receiver on loopback."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from receiver_under_test import Handler, Receiver, answers, receiving
from registry_under_test import ADMIN, bench_in
from server_under_test import Server
from site_under_test import Site, body, running

from registry.cli import main
from registry.client import Client
from registry.commands import webhooks
from registry.commands.webhooks import MOST_IN_A_NAMESPACE
from registry.outbound import post
from registry.records import CreateWebhook, DeliveryState, Role, WebhookCreated, WebhookEvent
from registry.settings import Home
from registry.webhooks.signing import signed_headers

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"
WAIT_SECONDS = 30.0


@pytest.fixture(scope="module")
def hooks() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture(scope="module")
def site(hooks: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """It reads at its start whom it may call."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNEGATE_OUTBOUND_ALLOW", hooks.place)
        with running(Home(tmp_path_factory.mktemp("webhooks") / "home")) as found:
            yield found


@pytest.fixture
def receiver(hooks: Receiver, site: Site) -> Iterator[Receiver]:
    """Content and without memory; afterwards there is no webhook."""
    hooks.behaviour = answers(204)
    hooks.seen.clear()
    yield hooks
    for one in site.client("admin").webhooks():
        site.client("admin").delete_webhook(one.id)


def make(site: Site, receiver: Receiver, scope: str | None = None, who: str = "admin") -> WebhookCreated:
    request = CreateWebhook(url=receiver.url, events=list(WebhookEvent), scope=scope)
    return site.client(who).create_webhook(request)


def done(client: Client, webhook: str, count: int = 1) -> list[Any]:
    """The deliveries of a webhook, newest first, once so many are done."""
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = list(client.deliveries(webhook))
        if len(found) >= count and all(one.state != DeliveryState.PENDING for one in found):
            return found
        time.sleep(0.02)
    raise AssertionError(f"not done: {found}")


def ask(site: Site, method: str, path: str, who: str = "admin", **request: Any) -> tuple[int, str]:
    answer = site.http(method, f"/v1/webhooks{path}", who, **request)
    return answer.status_code, "" if answer.status_code == 204 else body(answer).get("code", "")


# -- over HTTP ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_receiver_is_told_of_the_whole_way_of_a_version(site: Site, receiver: Receiver, tmp_path: Path) -> None:
    made = make(site, receiver)
    site.create_adapter()
    ref = site.approved(tmp_path)
    site.client("release-manager").revoke(ref, "it leaks")
    found = done(site.client("admin"), made.webhook.id, 5)
    messages = [json.loads(one.body) for one in receiver.seen]
    told = [(one["type"], one["data"]["state"]) for one in messages]
    assert told == [
        ("gate.decided", "in_review"),
        ("review.needed", "in_review"),
        ("gate.decided", "approvable"),
        ("alias.moved", "approved"),
        ("version.revoked", "revoked"),
    ]
    assert [one.sequence for one in found][::-1] == [one["data"]["sequence"] for one in messages]
    assert {one["data"]["ref"] for one in messages} == {ref}
    assert site.registry.journal.head.seq >= messages[-1]["data"]["sequence"]


def test_the_secret_is_shown_once(site: Site, receiver: Receiver) -> None:
    wanted = {"url": receiver.url, "events": ["alias.moved", "gate.decided", "alias.moved"]}
    headers = {"Idempotency-Key": "one"}
    first, second = (site.http("POST", "/v1/webhooks", json=wanted, headers=headers) for _ in range(2))
    assert (first.status_code, second.status_code, second.headers["Idempotency-Replayed"]) == (201, 201, "true")
    secret = body(first)["secret"]
    assert re.fullmatch(r"whsec_[A-Za-z0-9+/]{43}=", secret)
    assert "secret" not in body(second) and body(second)["webhook"] == body(first)["webhook"]
    assert body(first)["webhook"]["events"] == ["alias.moved", "gate.decided"]
    everything = site.http("GET", "/v1/webhooks").text + site.http("GET", "/v1/audit/events").text
    assert secret not in everything and "whsec_" not in everything


def test_a_webhook_is_tried_out_and_its_message_sent_again(site: Site, receiver: Receiver) -> None:
    client, made = site.client("admin"), make(site, receiver)
    before = site.registry.journal.head.seq
    sent = client.test_webhook(made.webhook.id).delivery
    (found,) = done(client, made.webhook.id)
    assert (found.id, found.type, found.state, found.status, found.attempts) == (
        sent,
        "webhook.test",
        DeliveryState.DELIVERED,
        204,
        1,
    )
    assert (found.sequence, found.error, found.next_attempt_at) == (before + 1, None, None)
    assert client.redeliver(made.webhook.id, sent).delivery == sent
    receiver.wait_for(2)
    assert [one.headers["webhook-id"] for one in receiver.seen] == [sent, sent]
    assert site.registry.journal.head.seq == before + 2, "each is one entry"


def test_a_deleted_webhook_is_gone(site: Site, receiver: Receiver) -> None:
    client, made = site.client("admin"), make(site, receiver)
    path = f"/{made.webhook.id}"
    client.delete_webhook(made.webhook.id)
    assert client.webhooks() == []
    assert ask(site, "DELETE", path) == ask(site, "POST", f"{path}/test") == (404, "not_found")
    assert ask(site, "GET", f"{path}/deliveries") == (404, "not_found")
    assert ask(site, "POST", f"{path}/deliveries/msg_1/redeliver") == (404, "not_found")


def test_an_unknown_delivery_is_not_sent_again(site: Site, receiver: Receiver) -> None:
    one, other = make(site, receiver), make(site, receiver)
    sent = site.client("admin").test_webhook(one.webhook.id).delivery
    done(site.client("admin"), one.webhook.id)
    before = site.registry.journal.head
    for webhook, delivery in ((one, "msg_unknown"), (other, sent)):
        path = f"/{webhook.webhook.id}/deliveries/{delivery}/redeliver"
        assert ask(site, "POST", path) == (404, "not_found")
    assert site.registry.journal.head == before


def test_a_disabled_webhook_is_neither_tried_nor_sent_again(site: Site, receiver: Receiver) -> None:
    client, made = site.client("admin"), make(site, receiver)
    receiver.behaviour = answers(410)
    sent = client.test_webhook(made.webhook.id).delivery
    (found,) = done(client, made.webhook.id)
    assert (found.state, found.status) == (DeliveryState.FAILED, 410)
    (info,) = client.webhooks()
    assert info.disabled_at is not None and "410" in str(info.disabled_reason)
    path = f"/{made.webhook.id}"
    assert ask(site, "POST", f"{path}/test") == (409, "conflict")
    assert ask(site, "POST", f"{path}/deliveries/{sent}/redeliver") == (409, "conflict")
    assert ask(site, "DELETE", path) == (204, "")


@pytest.mark.parametrize(
    "url",
    [
        "https://127.1/hook",
        "https://[::ffff:169.254.169.254]/hook",
        "https://2130706433/hook",
        "https://localhost:1@127.0.0.1/hook",
        "http://hooks.example/hook",
        "ftp://hooks.example/hook",
        "hooks.example",
    ],
)
def test_an_address_that_must_not_be_called_is_refused_at_once(site: Site, url: str) -> None:
    before = site.registry.journal.head
    assert ask(site, "POST", "", json={"url": url, "events": ["alias.moved"]}) == (422, "address_refused")
    assert site.registry.journal.head == before


@pytest.mark.parametrize(
    "wanted",
    [
        {"events": []},
        {"events": ["everything"]},
        {"events": ["alias.moved"] * 11},
        {"url": "https://hooks.example/" + "a" * 2000},
        {"url": 7},
        {"scope": "Team"},
        {"scope": "../team"},
        {"scope": ""},
        {"secret": "whsec_mine"},
    ],
)
def test_a_request_that_does_not_fit_is_refused(site: Site, wanted: dict[str, Any]) -> None:
    before = site.registry.journal.head
    asked = {"url": "https://hooks.example/hook", "events": ["alias.moved"], **wanted}
    assert ask(site, "POST", "", json=asked) == (422, "invalid_request")
    assert site.registry.journal.head == before


def test_a_scoped_admin_has_webhooks_inside_the_scope_only(site: Site, receiver: Receiver) -> None:
    site.add_token("team-admin", Role.ADMIN, "team admin", scope="team")
    outside = [make(site, receiver), make(site, receiver, scope="teams"), make(site, receiver, scope="other/bot")]
    inside = [make(site, receiver, scope, "team-admin") for scope in ("team", "team/bot")]
    for scope in (None, "teams", "other", "tea"):
        wanted = {"url": receiver.url, "events": ["alias.moved"], "scope": scope}
        assert ask(site, "POST", "", "team-admin", json=wanted) == (403, "forbidden")
    assert [one.id for one in site.client("team-admin").webhooks()] == [one.webhook.id for one in inside]
    assert len(site.client("admin").webhooks()) == 5
    for made in outside:
        path = f"/{made.webhook.id}"
        for method, tail in (
            ("DELETE", ""),
            ("POST", "/test"),
            ("GET", "/deliveries"),
            ("POST", "/deliveries/m/redeliver"),
        ):
            assert ask(site, method, path + tail, "team-admin") == ask(site, method, f"/wh_0{tail}", "team-admin")
            assert ask(site, method, path + tail, "team-admin") == (404, "not_found")
    assert ask(site, "DELETE", f"/{inside[0].webhook.id}", "team-admin") == (204, "")


def test_a_namespace_has_room_for_so_many(site: Site, receiver: Receiver) -> None:
    for number in range(MOST_IN_A_NAMESPACE):
        make(site, receiver, scope="team" if number % 2 else f"team/bot{number}x")
    wanted = {"url": receiver.url, "events": ["alias.moved"], "scope": "team/another"}
    assert ask(site, "POST", "", json=wanted) == (409, "conflict")
    assert ask(site, "POST", "", json={**wanted, "scope": "other"})[0] == 201
    assert ask(site, "POST", "", json={**wanted, "scope": None})[0] == 201


def test_deliveries_come_in_pages(site: Site, receiver: Receiver) -> None:
    client, made = site.client("admin"), make(site, receiver)
    sent = [client.test_webhook(made.webhook.id).delivery for _ in range(5)]
    done(client, made.webhook.id, 5)
    path, cursor, found = f"/v1/webhooks/{made.webhook.id}/deliveries", "", list[str]()
    while cursor is not None:
        page = body(site.http("GET", path, params={"limit": 2, **({"cursor": cursor} if cursor else {})}))
        assert len(page["items"]) <= 2
        found += [one["id"] for one in page["items"]]
        cursor = page["next_cursor"]
    assert found == sent[::-1]
    for wrong in ("x", "MQ", "-1", "a" * 3000):
        assert site.http("GET", path, params={"cursor": wrong}).status_code == 422
    assert site.http("GET", path, params={"limit": 0}).status_code == 422


# -- a killed process --------------------------------------------------------------------------------------------------


def serving(home: Home, receiver: Receiver) -> Server:
    return Server(home, environment={"TUNEGATE_OUTBOUND_ALLOW": receiver.place})


@pytest.mark.slow
def test_what_was_acknowledged_before_the_process_was_killed_is_sent_after_it_is_back(
    home: Home, receiver: Receiver
) -> None:
    """Killed between the journal and the delivery."""
    silent = threading.Event()
    receiver.behaviour = lambda handler: handler.say(204 if silent.is_set() else 503)
    server = serving(home, receiver)
    try:
        with Client(server.address(), home.admin_token.read_text().strip()) as client:
            request = CreateWebhook(url=receiver.url, events=list(WebhookEvent))
            made = client.create_webhook(request)
            sent = [client.test_webhook(made.webhook.id).delivery for _ in range(20)]
    finally:
        server.kill()
    delivered = set[str]()
    silent.set()
    server = serving(home, receiver)
    try:
        with Client(server.address(), home.admin_token.read_text().strip()) as client:
            found = done(client, made.webhook.id, len(sent))
            delivered = {one.id for one in found if one.state is DeliveryState.DELIVERED}
    finally:
        server.stop()
    assert delivered == set(sent)
    assert set(sent) <= {one.headers["webhook-id"] for one in receiver.seen}


@pytest.mark.slow
def test_what_was_being_sent_when_the_process_was_killed_is_sent_again_under_the_same_id(
    home: Home, receiver: Receiver
) -> None:
    """Killed between the delivery and its record."""
    go_on = threading.Event()

    def late(handler: Handler) -> None:
        go_on.wait(20)
        handler.say(204)

    receiver.behaviour = late
    server = serving(home, receiver)
    try:
        with Client(server.address(), home.admin_token.read_text().strip()) as client:
            made = client.create_webhook(CreateWebhook(url=receiver.url, events=list(WebhookEvent)))
            sent = client.test_webhook(made.webhook.id).delivery
            receiver.wait_for(1)
    finally:
        server.kill()
    go_on.set()
    server = serving(home, receiver)
    try:
        first, second = receiver.wait_for(2)
    finally:
        server.stop()
    assert first.headers["webhook-id"] == second.headers["webhook-id"] == sent
    assert first.body == second.body
    assert len(receiver.seen) == 2


def test_a_catalog_folded_anew_knows_the_same_webhooks(home: Home) -> None:
    with bench_in(home.root) as bench:
        command = partial(webhooks.create, allow=frozenset(), secret_of=lambda _: "whsec_x")
        urls = [f"https://hooks.example/{number}" for number in range(3)]
        made = [
            bench.run(ADMIN, command, request=CreateWebhook(url=url, events=[WebhookEvent.ALIAS_MOVED])).value.webhook
            for url in urls
        ]
        bench.run(ADMIN, webhooks.delete, id_=made[0].id)
        bench.run(ADMIN, webhooks.disable, id_=made[1].id, reason="gone")
        assert bench.run(ADMIN, webhooks.disable, id_=made[1].id, reason="again").value is None
        assert bench.run(ADMIN, webhooks.disable, id_=made[0].id, reason="again").value is None
        assert [(one.url, one.disabled_reason) for one in bench.registry.view().webhooks()] == [
            (urls[1], "gone"),
            (urls[2], None),
        ]
        assert bench.rebuilt() == bench.tables()


# -- from the command line ---------------------------------------------------------------------------------------------

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def tunegate(site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setenv("TUNEGATE_URL", site.url)
        monkeypatch.setenv("TUNEGATE_TOKEN", site.tokens["admin"])
        capsys.readouterr()
        try:
            main(list(arguments))
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
        found = capsys.readouterr()
        return code, found.out + found.err

    return run


def test_a_webhook_from_the_command_line(site: Site, receiver: Receiver, tunegate: Run) -> None:
    code, out = tunegate("webhook", "create", receiver.url, "--event", "alias.moved", "--scope", "team")
    id_, secret = out.split()
    assert code == 0 and secret.startswith("whsec_")
    code, out = tunegate("webhook", "list")
    assert (code, id_ in out, receiver.url in out, "team" in out, secret in out) == (0, True, True, True, False)
    code, out = tunegate("webhook", "test", id_)
    assert (code, "delivered" in out) == (0, True)
    code, out = tunegate("--json", "webhook", "deliveries", id_)
    (delivery,) = json.loads(out)
    assert delivery["state"] == "delivered"
    assert tunegate("webhook", "redeliver", id_, delivery["id"])[0] == 0
    receiver.wait_for(2)
    assert tunegate("webhook", "delete", id_)[0] == 0
    code, out = tunegate("webhook", "test", id_)
    assert (code, "does not exist" in out) == (3, True)


def test_a_test_that_fails_is_no_success(site: Site, receiver: Receiver, tunegate: Run) -> None:
    made = make(site, receiver)
    receiver.behaviour = answers(500)
    code, out = tunegate("webhook", "test", made.webhook.id)
    assert (code, "answered 500" in out) == (2, True)
    receiver.behaviour = answers(410)
    other = make(site, receiver)
    code, out = tunegate("webhook", "test", other.webhook.id)
    assert (code, "answered 410" in out) == (1, True)
    assert "disabled" in tunegate("webhook", "list")[1]


def test_a_secret_that_was_lost_on_the_way_is_said_to_be(
    site: Site, receiver: Receiver, tunegate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(site, receiver)
    monkeypatch.setattr(Client, "create_webhook", lambda *_: WebhookCreated(webhook=made.webhook))
    code, out = tunegate("webhook", "create", receiver.url)
    assert (code, f"webhook delete {made.webhook.id}" in out) == (3, True)


def test_a_test_that_nobody_sends_is_undetermined(
    site: Site, receiver: Receiver, tunegate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(site, receiver)
    monkeypatch.setattr("registry.cli.webhooks._WAIT_SECONDS", 0.0)
    code, out = tunegate("webhook", "test", made.webhook.id)
    assert (code, "is not sent yet" in out) == (3, True)


def test_every_event_is_asked_for_by_default_and_others_are_unknown(
    site: Site, receiver: Receiver, tunegate: Run
) -> None:
    assert tunegate("webhook", "create", receiver.url)[0] == 0
    assert site.client("admin").webhooks()[0].events == sorted(WebhookEvent)
    assert tunegate("webhook", "create", receiver.url, "--event", "token.created")[0] == 3


# -- the page ----------------------------------------------------------------------------------------------------------


def test_the_documented_receiver_takes_what_is_genuine_and_nothing_else(tmp_path: Path) -> None:
    example = re.search(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert example is not None
    (tmp_path / "hook.py").write_text(example[1])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    secret = "whsec_" + "c2VjcmV0IG9mIDI0IGJ5dGVzIG9yIG1vcmU="
    environment = {**os.environ, "WEBHOOK_SECRET": secret, "PORT": str(port)}
    output = (tmp_path / "log").open("wb")
    process = subprocess.Popen([sys.executable, tmp_path / "hook.py"], env=environment, stdout=output, stderr=output)
    try:
        url, allow = f"http://127.0.0.1:{port}/", frozenset({f"127.0.0.1:{port}"})
        wait_until_there(port)
        message = json.dumps({"type": "alias.moved", "data": {"ref": "support-bot/7"}}).encode()
        now = int(time.time())
        genuine = signed_headers(secret, "msg_1", now, message)
        forged = {
            "another secret": signed_headers("whsec_b3RoZXI=", "msg_2", now, message),
            "an old one": signed_headers(secret, "msg_3", now - 3600, message),
            "another id": {**genuine, "webhook-id": "msg_4"},
            "another time": {**genuine, "webhook-timestamp": str(now + 1)},
            "no signature": {**genuine, "webhook-signature": ""},
        }
        assert post(url, message, genuine, allow=allow).status == 204
        assert post(url, message, genuine, allow=allow).status == 204
        assert post(url, message + b" ", genuine, allow=allow).status == 401
        for what, headers in forged.items():
            assert post(url, message, headers, allow=allow).status == 401, what
    finally:
        process.kill()
        process.wait(timeout=20)
        output.close()
    said = (tmp_path / "log").read_text()
    assert said.count("alias.moved support-bot/7") == 1, "a repeat is ignored"


def wait_until_there(port: int) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise AssertionError("the example did not start")


def test_the_page_names_every_event() -> None:
    text = PAGE.read_text()
    assert [event for event in (*WebhookEvent, "webhook.test") if f"| `{event}` |" not in text] == []
