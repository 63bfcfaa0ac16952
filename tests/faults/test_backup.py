"""A backup under load and under SIGKILL: what it calls whole is whole, and restores to what was acknowledged."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from forked_under_test import forked, injected, needs_strace, points, struck, watched
from forked_work import Work, back_up_home, restore_home
from registry_under_test import ADMIN, CONSUMER, NAME, bench_in, submission, tables
from server_under_test import PLAIN, Server, served
from soak import amount

from registry.approval.keyring import read_keys
from registry.audit.log import audit
from registry.client import Client
from registry.commands import tokens, versions
from registry.errors import InvalidRequest, StorageDamaged
from registry.events import AliasMoved
from registry.opening import open_registry
from registry.operations.backup import back_up, read_manifest, restore
from registry.records import CreateToken, Role, Rollback
from registry.settings import Home
from registry.storage.journal import Head, read_chain, verify_chain

pytestmark = [pytest.mark.slow, pytest.mark.timeout(amount(300, 3600))]

_BACKUPS = amount(3, 30)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Two approved versions. Copy it before changing it."""
    made = Home(tmp_path_factory.mktemp("backup") / "home")
    with bench_in(made.root) as bench:
        bench.create_adapter()
        for fill in (101, 102):
            bench.promote(bench.approvable(fill))
    return made


# -- under load ---------------------------------------------------------------------------------------------------


class Load(threading.Thread):
    """Sends requests one after another; `acknowledged` is the last answer."""

    def __init__(self, url: str, token: str, requests: Any) -> None:
        super().__init__(daemon=True)
        self.http = PLAIN(base_url=url, headers={"Authorization": f"Bearer {token}"})
        self.requests, self.stopping, self.acknowledged = requests, threading.Event(), dict[str, Any]()
        self.sent = 0

    def run(self) -> None:
        with self.http:
            for path, body in self.requests:
                if self.stopping.is_set():
                    return
                try:
                    answer = self.http.post(
                        path,
                        content=msgspec.json.encode(body),
                        headers={"Content-Type": "application/json", "Idempotency-Key": f"{id(self)}-{self.sent}"},
                    )
                except httpx.TransportError:
                    return
                assert answer.is_success, answer.text
                self.acknowledged, self.sent = answer.json(), self.sent + 1


def submissions() -> Any:
    """Different versions without end, whose weights are only announced."""
    made = submission(1)
    config, weights = made.files
    for fill in count(1):
        files = [config, msgspec.structs.replace(weights, sha256=f"{fill:064x}")]
        yield f"/v1/adapters/{NAME}/versions", msgspec.structs.replace(made, files=files)


def moves() -> Any:
    """The alias back and forth between versions 1 and 2."""
    for number in count():
        yield f"/v1/adapters/{NAME}/aliases/approved/rollback", Rollback(to=1 + number % 2, reason="load")


def tokens_of(home: Home) -> dict[Role, str]:
    with bench_in(home.root) as bench:
        requests = [CreateToken(role=role, person=f"{role} person") for role in (Role.CI, Role.RELEASE_MANAGER)]
        return {one.role: bench.run(ADMIN, tokens.create, request=one).value.secret for one in requests}


def run_backup(home: Home, target: Path) -> dict[str, Any]:
    """The command, in a process of its own beside the service."""
    done = subprocess.run(
        [sys.executable, "-m", "registry", "backup", "--to", str(target), "--json"],
        env={**os.environ, "TUNEGATE_HOME": str(home.root)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_backup_beside_a_service_under_load_restores_after_it_was_killed(home: Home, tmp_path: Path) -> None:
    live, target, other = Home(tmp_path / "live"), tmp_path / "backup", Home(tmp_path / "other" / "home")
    shutil.copytree(home.root, live.root)
    secrets = tokens_of(live)
    server = Server(live)
    try:
        url = server.address()
        loads = [
            Load(url, secrets[Role.CI], submissions()),
            Load(url, secrets[Role.CI], submissions()),
            Load(url, secrets[Role.RELEASE_MANAGER], moves()),
        ]
        for load in loads:
            load.start()
        seqs = []
        for _ in range(_BACKUPS):
            moved = loads[2].acknowledged.get("counter", 0)
            seqs.append(run_backup(live, target)["seq"])
    finally:
        server.kill()
    for load in loads:
        load.join(timeout=30)
    assert seqs == sorted(set(seqs)) and min(load.sent for load in loads) > 3, "it was under load all the time"

    manifest = restore(target, other)
    assert live.journal.read_bytes().startswith(other.journal.read_bytes())
    assert verify_chain(other.journal) == (manifest.seq, manifest.hash) and manifest.seq == seqs[-1]
    lines = list(read_chain(other.journal))
    found = audit(lines, read_keys(live.public_keys.read_bytes()))
    assert found.problems == [] and found.approvals >= 2
    last = [event for line in lines for event in line.entry.events if isinstance(event, AliasMoved)][-1]
    assert last.counter >= moved, "what was acknowledged before a backup began is in it"
    with served(other) as url, Client(url, other.admin_token.read_text().strip()) as client:
        resolved = client.resolve(f"{NAME}@approved")
        assert (resolved.number, resolved.digest) == (last.number, last.digest)
        for file in resolved.files:
            client.download(file.sha256, tmp_path / file.path)


# -- killed in the middle -----------------------------------------------------------------------------------------


def resolves_to(home: Home) -> int:
    with bench_in(home.root) as bench:
        number: int = bench.registry.ask(CONSUMER, partial(versions.resolve, reference=f"{NAME}@approved")).number
        return number


@needs_strace
def test_a_backup_killed_anywhere_leaves_the_one_before_or_the_new_one(home: Home, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    shutil.copytree(home.root, ready / "home")
    back_up(Home(ready / "home"), ready / "backup")
    before = verify_chain(home.journal)
    with bench_in(ready / "home") as bench:
        bench.promote(bench.approvable(103))
    after = verify_chain(Home(ready / "home").journal)
    seen = set[Head]()
    for root in struck_at_every_point(back_up_home, ready, tmp_path):
        manifest = restore(root / "backup", Home(root / "restored"))
        seen.add(Head(manifest.seq, manifest.hash))
        assert resolves_to(Home(root / "restored")) == (3 if manifest.seq == after.seq else 2)
        back_up(Home(root / "home"), root / "backup")
        assert read_manifest(root / "backup").seq == after.seq, "the next one goes on from there"
    assert seen == {before, after}


@needs_strace
def test_a_first_backup_killed_anywhere_is_none(home: Home, tmp_path: Path) -> None:
    shutil.copytree(home.root, tmp_path / "ready" / "home")
    whole = refused = 0
    for root in struck_at_every_point(back_up_home, tmp_path / "ready", tmp_path):
        try:
            restore(root / "backup", Home(root / "restored"))
        except InvalidRequest as error:
            assert "holds no finished backup" in str(error)
            refused += 1
        else:  # the last calls come after the manifest
            assert resolves_to(Home(root / "restored")) == 2
            whole += 1
    assert refused > 5 and whole


@needs_strace
def test_a_restore_killed_anywhere_leaves_no_home_or_a_whole_one(home: Home, tmp_path: Path) -> None:
    back_up(home, tmp_path / "ready" / "backup")
    with bench_in(home.root) as bench:
        whole = tables(bench.registry)
    unfinished = finished = 0
    for root in struck_at_every_point(restore_home, tmp_path / "ready", tmp_path):
        made = Home(root / "restored")
        if made.restoring.exists():
            unfinished += 1
            with pytest.raises(StorageDamaged, match="unfinished restore"):
                open_registry(made)
        elif made.root.exists() and any(made.root.iterdir()):
            finished += 1
            with bench_in(made.root) as bench:
                assert tables(bench.registry) == whole
    assert unfinished > 5 and finished


def struck_at_every_point(work: Work, ready: Path, folder: Path) -> Iterator[Path]:
    """Copies of `ready` in which the work was killed at one point each, and at last one where it was not.

    A sample holds every renaming besides the blobs' own, since that is where one state ends and another begins.
    """
    root, log = folder / "clean", folder / "clean.log"
    shutil.copytree(ready, root)
    with forked(work, Home(root)) as process, watched(process, log):
        process.go()
        assert process.wait() == 0
    met = points(log, Home(root), process.pid)
    step = amount(max(1, len(met) // 8), 1)
    for number, point in enumerate(met):
        if number % step and not (point.call.startswith("rename") and "blobs/" not in point.path):
            continue
        at, log = folder / str(number), folder / f"{number}.log"
        shutil.copytree(ready, at)
        with forked(work, Home(at)) as process, injected(process, Home(at), point, "signal=SIGKILL", log):
            process.go()
            code = process.wait()
        assert struck(log) == (code != 0), point
        yield at
        shutil.rmtree(at)
    yield root
