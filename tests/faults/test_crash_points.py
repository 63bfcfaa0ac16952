"""Every system call that makes something durable, one after another: the process dies there, or the call fails.

Each stage is one request to a registry at the moment before it. Whatever struck: what was acknowledged is there, what
was not is there whole or not at all, the same request with the same key acts once, and nothing unapproved is served.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from factories import BASE, make_adapter, sha
from forked_under_test import Point, forked, injected, needs_strace, points, struck, watched
from forked_work import Work, open_and_close, rebuild_catalog, serve
from registry_under_test import ADMIN, CI, EVALUATOR, NAME, POLICY, REVIEWERS, bench_in, make_rating, submission
from server_under_test import PLAIN
from soak import amount

from registry.commands import jobs, review, tokens
from registry.errors import StorageDamaged
from registry.records import AccuracyRule, ClaimJob, CreateAdapter, CreateToken, Promote, Revoke, Role, Rollback, State
from registry.settings import Home
from registry.storage.journal import Head, verify_chain

pytestmark = [pytest.mark.slow, needs_strace]

KILL, EIO, ENOSPC = FAULTS = ("signal=SIGKILL", "error=EIO", "error=ENOSPC")
VERSIONS = f"/v1/adapters/{NAME}/versions"
WEIGHTS = "adapter_model.safetensors"


class Stage(NamedTuple):
    """A request, who sends it, the home it is sent to, and how many journal entries it adds."""

    home: Path
    who: str
    method: str
    path: str
    content: bytes | None
    entries: int = 1

    def request(self, secrets: dict[str, str]) -> dict[str, Any]:
        kind = "application/octet-stream" if self.path.startswith("/v1/blobs") else "application/json"
        headers = {"Authorization": f"Bearer {secrets[self.who]}", "Idempotency-Key": "the-key"}
        if self.content is not None:
            headers["Content-Type"] = kind
        return {"method": self.method, "url": self.path, "content": self.content, "headers": headers}


class World(NamedTuple):
    stages: dict[str, Stage]
    secrets: dict[str, str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Version 1 is approved; version 2 goes all the way, and each step is kept as a stage."""
    folder = tmp_path_factory.mktemp("stages")
    live, stages = Home(folder / "live"), {}
    with bench_in(live.root) as bench:
        bench.create_adapter()
        bench.promote(bench.approvable(101))
        people = {"ci": CI.person, "reviewer": REVIEWERS[0].person}
        made = {
            role.value: bench.run(
                ADMIN, tokens.create, request=CreateToken(role=role, person=people.get(role.value, f"{role} person"))
            ).value
            for role in Role
        }

        def stage(name: str, who: str, method: str, path: str, body: Any = None, entries: int = 1) -> None:
            bench.close()
            shutil.copytree(live.root, folder / name)
            bench.reopen()
            content = body if body is None or isinstance(body, bytes) else msgspec.json.encode(body)
            stages[name] = Stage(folder / name, who, method, path, content, entries)

        weights = make_adapter(fill=102)[WEIGHTS]
        stage("upload", "ci", "PUT", f"/v1/blobs/sha256:{sha(weights)}", weights, entries=0)
        stage("submit", "ci", "POST", VERSIONS, submission(102))
        number = bench.submit(102).number
        stage("complete", "ci", "POST", f"{VERSIONS}/{number}/complete")
        bench.complete(number)
        stage("claim", "evaluator", "POST", "/v1/jobs/claim", ClaimJob(kinds=["evaluation"], worker="w"))
        job = bench.claim()
        assert job is not None
        evidence = bench.measured(job)
        stage("evidence", "evaluator", "POST", f"/v1/jobs/{job.id}/evidence", evidence)
        bench.run(EVALUATOR, jobs.record_evidence, job_id=job.id, request=evidence)
        stage("assignment", "reviewer", "GET", "/v1/review/next")
        item = bench.run(REVIEWERS[0], review.next_assignment).value
        rating = make_rating()
        stage("rating", "reviewer", "POST", f"/v1/review/assignments/{item.id}/rating", rating)
        bench.run(REVIEWERS[0], review.rate, assignment_id=item.id, rating=rating, comment_sha256=None)
        bench.review()
        stage("promote", "release-manager", "POST", f"{VERSIONS}/{number}/promote", Promote())
        bench.promote(number)
        back = Rollback(to=1, reason="the newer one is worse")
        stage("rollback", "release-manager", "POST", f"/v1/adapters/{NAME}/aliases/approved/rollback", back)
        stage("revoke", "release-manager", "POST", f"{VERSIONS}/{number}/revoke", Revoke(reason="it leaks"))
        stage(
            "policy",
            "admin",
            "PUT",
            f"/v1/adapters/{NAME}/policy",
            msgspec.structs.replace(POLICY, accuracy=AccuracyRule(min=0.9)),
        )
        stage("adapter", "admin", "POST", "/v1/adapters", CreateAdapter(name="other-bot", base=BASE))
        stage("token", "admin", "POST", "/v1/tokens", CreateToken(role=Role.CI, person="new person"))
        stage("token-end", "admin", "DELETE", f"/v1/tokens/{made['ci'].token.id}")
    return World(stages, {name: one.secret for name, one in made.items()})


STAGES = (
    "upload submit complete claim evidence assignment rating promote rollback revoke policy adapter token token-end"
).split()


# Where the calls of all three faults are met in `make test` too.
SAMPLE = ("upload", "submit", "promote")
SWEEP = [(name, fault) for name in STAGES for fault in FAULTS if fault == KILL or name in amount(SAMPLE, STAGES)]


@pytest.mark.parametrize(("name", "fault"), SWEEP)
def test_a_request_is_done_or_not_done_wherever_it_is_struck(
    world: World, tmp_path: Path, name: str, fault: str
) -> None:
    stage = world.stages[name]
    before = verify_chain(Home(stage.home).journal)
    hits = 0
    for number, point in enumerate(met_by(stage, world.secrets, tmp_path / "clean")):
        home = copied(stage.home, tmp_path / str(number))
        answer, hit = strike(stage, home, world.secrets, fault, point)
        assert fault == KILL or answer is not None, point
        acknowledged = answer is not None and answer.is_success
        recovered = verify_whole(home).seq - before.seq
        assert acknowledged * stage.entries <= recovered <= stage.entries, point
        if hit:
            check(stage, home, world.secrets, before, answer if acknowledged else None)
            hits += 1
    assert hits >= 4


def met_by(stage: Stage, secrets: dict[str, str], folder: Path) -> list[Point]:
    """The points that the request meets where nothing strikes."""
    home, log = copied(stage.home, folder), folder.with_suffix(".log")
    with forked(serve, home) as process, PLAIN(base_url=process.address()) as http, watched(process, log):
        answer = http.request(**stage.request(secrets))
        assert answer.is_success, answer.text
    found = points(log, home, process.pid)
    durable = [(point.call, point.path) for point in found]
    if stage.entries:
        # The journal is on disk before the catalog hears of it.
        assert durable.index(("fdatasync", "journal.log")) < durable.index(("write", "catalog.duckdb.wal"))
    else:
        folder = f"blobs/sha256/{stage.path[-64:][:2]}"
        assert ("fsync", folder) in durable and ("fsync", "blobs/sha256") in durable
    return found


def strike(
    stage: Stage, home: Home, secrets: dict[str, str], fault: str, point: Point
) -> tuple[httpx.Response | None, bool]:
    """Send the request while the fault waits; the answer, if there was one, and whether the fault came to pass."""
    log, answer = home.root.with_suffix(".log"), None
    with forked(serve, home) as process:
        url = process.address()
        with PLAIN(base_url=url) as http, injected(process, home, point, fault, log):
            try:
                answer = http.request(**stage.request(secrets))
            except httpx.TransportError:
                assert process.wait() == -9, "it answers, or it is dead"
    hit = struck(log)
    assert hit or (answer is not None and answer.is_success), answer
    if answer is not None and not answer.is_success:
        refused_honestly(answer)
    return answer, hit


def refused_honestly(answer: httpx.Response) -> None:
    assert answer.status_code in (503, 507), answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] in ("storage_full", "storage_damaged", "unavailable")


def check(stage: Stage, home: Home, secrets: dict[str, str], before: Head, first: httpx.Response | None) -> None:
    """Start again without a fault: the request repeated acts once, and consumers see approved versions only."""
    with forked(serve, home) as process, PLAIN(base_url=process.address()) as http:
        again = [http.request(**stage.request(secrets)) for _ in range(2)]
        assert all(one.is_success for one in again), again[0].text
        # An upload is known by its digest, and the secret of a token is told only once.
        if stage.entries and stage.path != "/v1/tokens":
            told = [one.content and one.json() for one in (*again, first or again[0])]
            assert told[0] == told[1] == told[2]
        only_what_is_approved_is_served(http, secrets["consumer"], home)
    assert verify_chain(home.journal).seq == before.seq + stage.entries


def only_what_is_approved_is_served(http: httpx.Client, consumer: str, home: Home) -> None:
    headers = {"Authorization": f"Bearer {consumer}"}
    versions = {number: make_adapter(fill=100 + number)[WEIGHTS] for number in (1, 2)}
    approved = set()
    for number, weights in versions.items():
        by_number = http.get("/v1/resolve", params={"ref": f"{NAME}/{number}"}, headers=headers)
        blob = http.get(f"/v1/blobs/sha256:{sha(weights)}", headers=headers)
        assert by_number.status_code == blob.status_code and blob.status_code in (200, 404)
        if blob.status_code == 200:
            assert by_number.json()["state"] == State.APPROVED and blob.content == weights
            approved.add(number)
    found = http.get("/v1/resolve", params={"ref": f"{NAME}@approved"}, headers=headers)
    assert approved == ({found.json()["number"]} if found.is_success else set())


def verify_whole(home: Home) -> Head:
    """The head of a journal that verifies; the catalog over it equals a rebuilt one, and every blob is what it says."""
    try:
        verify_chain(home.journal)
    except StorageDamaged as damage:
        raise AssertionError(f"{home.journal}: {damage}") from damage
    with bench_in(home.root) as bench:
        assert bench.rebuilt() == bench.tables()
        head = bench.registry.journal.head
    for blob in (home.blobs / "sha256").rglob("*"):
        assert blob.is_dir() or sha(blob.read_bytes()) == blob.name
    assert verify_chain(home.journal) == head
    return head


def copied(source: Path, target: Path) -> Home:
    shutil.copytree(source, target)
    return Home(target)


# -- starting, rebuilding, stopping ---------------------------------------------------------------------------------


def first_start(folder: Path) -> Home:
    """No home yet, or an empty directory."""
    folder.mkdir()
    return Home(folder / "home")


def in_use(folder: Path) -> Home:
    with bench_in(folder / "home") as bench:
        bench.create_adapter()
        bench.submit(1)
    return Home(folder / "home")


def without_catalog(folder: Path) -> Home:
    home = in_use(folder)
    home.catalog.unlink()
    return home


LIVES: dict[str, tuple[Callable[[Path], Home], Work]] = {
    "first start": (first_start, open_and_close),
    "start and stop": (in_use, open_and_close),
    "start without a catalog": (without_catalog, open_and_close),
    "rebuild": (in_use, rebuild_catalog),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", LIVES)
def test_a_start_that_is_struck_leaves_a_home_that_starts(tmp_path: Path, name: str, fault: str) -> None:
    make, work = LIVES[name]
    made = make(tmp_path / "made")
    made.root.mkdir(exist_ok=True)
    before = verify_chain(made.journal).seq if made.journal.exists() else 1
    home, log = copied(made.root, tmp_path / "clean"), tmp_path / "clean.log"
    with forked(work, home) as process, watched(process, log):
        process.go()
        assert process.wait() == 0
    met = points(log, home, process.pid)
    hits = 0
    for number, point in enumerate(met[amount(len(met) // 4, 0) :: amount(len(met) // 3, 1)]):
        home, log = copied(made.root, tmp_path / str(number)), tmp_path / f"{number}.log"
        with forked(work, home) as process, injected(process, home, point, fault, log):
            process.go()
            code = process.wait()
        hits += struck(log)
        assert (code == -9) == (fault == KILL and struck(log)), point
        assert verify_whole(home).seq == before, point
        assert home.admin_token.read_text().startswith("tg_admin_")
    assert hits >= 2
