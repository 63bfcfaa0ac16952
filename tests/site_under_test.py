"""A running registry as its users meet it, with shortcuts for the way of a version."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import factories
import httpx
import msgspec
from factories import BASE, BASE_TENSORS, SIZES, SUITES, entry_of, make_adapter, make_suite, make_training

from evaluator.evidence import write_rows
from registry.api.app import create_app
from registry.api.limits import Rates
from registry.api.server import Server
from registry.client import Client
from registry.opening import open_registry
from registry.records import (
    CreateAdapter,
    CreateToken,
    GateReport,
    Policy,
    Rating,
    RegisterSuite,
    ReviewRule,
    Role,
    SubmitVersion,
)
from registry.registry import Registry
from registry.settings import Home

# The default policy, with a review that a test can afford, whose people need no time to read.
SMALL_REVIEW = Policy(review=ReviewRule(outputs=5, min_seconds=0))
KINDS = {"perplexity": "conversations", "accuracy": "questions", "forgetting": "questions", "review": "prompts"}
DATASET = b'{"use": "train", "messages": [{"role": "user", "content": "Do you sell hats?"}]}'
LEDGER = b"ledger"


class Site:
    """`tokens` by role; reviewers are `reviewer`, `reviewer-2` … `reviewer-6`."""

    def __init__(self, home: Home, registry: Registry, url: str) -> None:
        self.home, self.registry, self.url = home, registry, url
        self.tokens = {"admin": home.admin_token.read_text().strip()}
        self._open = contextlib.ExitStack()
        self._clients: dict[str, Client] = {}
        for role in Role:
            if role is not Role.ADMIN:
                self.add_token(role.value, role, f"{role.value} person")
        for number in range(2, 7):
            self.add_token(f"reviewer-{number}", Role.REVIEWER, f"reviewer {number}")

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._open.close()

    def add_token(self, name: str, role: Role, person: str, scope: str | None = None) -> str:
        made = self.client("admin").create_token(CreateToken(role=role, person=person, scope=scope))
        self.tokens[name] = str(made.secret)
        return self.tokens[name]

    def client(self, who: str) -> Client:
        if who not in self._clients:
            self._clients[who] = self._open.enter_context(Client(self.url, self.tokens[who]))
        return self._clients[who]

    def http(self, method: str, path: str, who: str | None = "admin", **request: Any) -> httpx.Response:
        """A plain request, as any HTTP client would send it."""
        headers = dict(request.pop("headers", {}))
        if who is not None:
            headers.setdefault("Authorization", f"Bearer {self.tokens[who]}")
        return httpx.request(method, self.url + path, headers=headers, timeout=30, verify=False, **request)

    # -- the way of a version ------------------------------------------------------------------------------------

    def publish_suites(self) -> dict[str, str]:
        """Register the four suites of the default policy; their pinned names by section."""
        client, found = self.client("admin"), {}
        for section, name in SUITES.items():
            files = make_suite(name, KINDS[section], SIZES[section])
            for data in files.values():
                client.upload(data)
            request = RegisterSuite(name=name, files=[entry_of(path, data) for path, data in files.items()])
            found[section] = client.register_suite(request).ref
        return found

    def create_adapter(self, name: str = "support-bot", policy: Policy = SMALL_REVIEW) -> str:
        if not self.client("admin").suites():
            self.publish_suites()
        request = CreateAdapter(name=name, base=BASE, base_tensors=BASE_TENSORS, policy=policy)
        self.client("admin").create_adapter(request)
        return name

    def submit(self, adapter: str = "support-bot", fill: int = 1, who: str = "ci", complete: bool = True) -> str:
        """A version, uploaded and by default completed; another `fill` is another version."""
        client, files = self.client(who), make_adapter(fill=fill)
        request = SubmitVersion(
            files=[entry_of(path, data) for path, data in files.items()],
            training=make_training(dataset=DATASET, ledger=LEDGER),
        )
        created = client.submit(adapter, request)
        for data in (*files.values(), DATASET, LEDGER):
            client.upload(data)
        return client.complete(created.ref).ref if complete else created.ref

    def evaluate(self, tmp_path: Path, **numbers: int) -> GateReport:
        """Claim the oldest job and post evidence with these numbers."""
        client = self.client("evaluator")
        job = client.claim(["evaluation"], "test")
        assert job is not None
        suites = {section: getattr(job.document, section).suite for section in SUITES}
        rows, evidence = factories.rows_and_evidence(suites, job.digest, job.policy, **numbers)
        write_rows(tmp_path / "rows.parquet", rows)
        stored = client.upload(tmp_path / "rows.parquet")
        client.post_evidence(job, msgspec.structs.replace(evidence, rows=stored.sha256))
        return self.client("admin").gate(job.ref)

    def review(self, people: int = 3, **scores: Any) -> None:
        """People rate until nothing is left for them."""
        rating = Rating(**{"clarity": 5, "relevance": 5, "safety": 5, "accuracy": 5, "hallucination": False, **scores})
        for number in range(1, people + 1):
            client = self.client("reviewer" if number == 1 else f"reviewer-{number}")
            while (item := client.next_assignment()) is not None:
                client.rate(item.id, rating)

    def approved(self, tmp_path: Path, fill: int = 1) -> str:
        """A version that went all the way."""
        ref = self.submit(fill=fill)
        self.evaluate(tmp_path)
        self.review()
        self.client("release-manager").promote(ref)
        return ref


def body(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(response.content)
    return found


@contextlib.contextmanager
def running(home: Home, *, lease_seconds: float = 30.0, rates: Rates | None = None) -> Iterator[Site]:
    """A registry over a home, served by uvicorn on 127.0.0.1; a home that was used before goes on."""
    registry, _ = open_registry(home, lease_seconds=lease_seconds)
    listener = socket.create_server(("127.0.0.1", 0))
    server = Server(create_app(registry, rates=rates), registry)
    thread = threading.Thread(target=lambda: server.run(sockets=[listener]), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        with Site(home, registry, f"http://127.0.0.1:{listener.getsockname()[1]}") as found:
            yield found
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        listener.close()
    assert not thread.is_alive()
