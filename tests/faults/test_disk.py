"""A full disk, a disk that fails, two processes on one home: refusals in words, and nothing acknowledged is lost."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import httpx
import msgspec
import pytest
from factories import sha
from forked_under_test import needs_strace
from registry_under_test import ADMIN, NAME, Bench, bench_in, submission
from server_under_test import PLAIN, Server, served
from soak import amount

from registry.client import Client
from registry.commands import tokens
from registry.records import CreateToken, Role, State
from registry.settings import Home

pytestmark = pytest.mark.slow
DISK_BYTES = 64 * 1024**2
WAIT_SECONDS = 30


class SmallDisk:
    """A tmpfs in a mount namespace of its own; `inside` enters it, `path` shows it to the test."""

    def __init__(self, mount: Path) -> None:
        self.mount = mount
        own = [] if os.geteuid() == 0 else ["-r"]
        script = f"mount -t tmpfs -o size={DISK_BYTES} tmpfs '{mount}' && echo mounted && exec sleep 600"
        self._holder = subprocess.Popen(
            ["unshare", *own, "-m", "sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self._holder.stdout is not None
        if (said := self._holder.stdout.readline()) != "mounted\n":
            self.close()
            pytest.skip(f"no tmpfs can be mounted here: {said.strip()}")
        user = [] if os.geteuid() == 0 else ["-U", "--preserve-credentials"]
        self.inside = ["nsenter", "-t", str(self._holder.pid), *user, "-m"]
        self.path = Path(f"/proc/{self._holder.pid}/root{mount}")

    def fill(self) -> None:
        """Leave not a byte."""
        with (self.path / "ballast").open("ab", buffering=0) as file:
            for size in (1024 * 1024, 4096, 1):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

    def clear(self) -> None:
        (self.path / "ballast").unlink()

    def close(self) -> None:
        self._holder.kill()
        self._holder.wait(timeout=20)
        assert self._holder.stdout is not None
        self._holder.stdout.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if shutil.which("unshare") is None or shutil.which("nsenter") is None:
        pytest.skip("unshare and nsenter (util-linux) are not installed")
    (tmp_path / "disk").mkdir()
    found = SmallDisk(tmp_path / "disk")
    yield found
    found.close()


@contextlib.contextmanager
def approved(root: Path) -> Iterator[tuple[Bench, str]]:
    """An open home with an approved version, and the token of an admin and a CI job."""
    with bench_in(root) as bench:
        bench.create_adapter()
        bench.promote(bench.approvable(101))
        yield bench, secret_of(bench, Role.CI)


def secret_of(bench: Bench, role: Role) -> str:
    secret: str = bench.run(ADMIN, tokens.create, request=CreateToken(role=role, person=f"{role} person")).value.secret
    return secret


def submit(http: httpx.Client, fill: int) -> httpx.Response:
    """Always another version; its notes need more of the disk than any half-used page has."""
    made = submission(1)
    weights = msgspec.structs.replace(made.files[1], sha256=f"{fill:064x}")
    request = msgspec.structs.replace(made, files=[made.files[0], weights], notes="n" * 4000)
    headers = {"Idempotency-Key": f"submit-{fill}", "Content-Type": "application/json"}
    return http.post(f"/v1/adapters/{NAME}/versions", content=msgspec.json.encode(request), headers=headers)


def test_on_a_full_disk_writes_are_refused_reads_go_on_and_nothing_acknowledged_is_lost(
    disk: SmallDisk, tmp_path: Path
) -> None:
    with approved(tmp_path / "first") as (bench, secret):
        pass
    shutil.copytree(tmp_path / "first", disk.path / "home")
    blob = os.urandom(100_000)
    server = Server(Home(disk.mount / "home"), before=disk.inside, log=tmp_path / "serve.log")
    try:
        with PLAIN(base_url=server.address(), headers={"Authorization": f"Bearer {secret}"}) as http:
            assert submit(http, 1).status_code == 201
            for _ in range(3):
                disk.fill()
                for refused in (http.put(f"/v1/blobs/sha256:{sha(blob)}", content=blob), submit(http, 2)):
                    assert (refused.status_code, refused.json()["code"]) == (507, "storage_full"), refused.text
                found = http.get("/v1/resolve", params={"ref": f"{NAME}@approved"})
                assert found.is_success and found.json()["state"] == State.APPROVED
                assert http.get("/readyz").is_success
                disk.clear()
            assert submit(http, 2).json()["number"] == 3
            assert http.put(f"/v1/blobs/sha256:{sha(blob)}", content=blob).status_code == 201
    finally:
        server.kill()
    shutil.copytree(disk.path / "home", tmp_path / "second")
    with bench_in(tmp_path / "second") as bench:
        assert bench.registry.view().last_number(NAME) == 3
        assert bench.rebuilt() == bench.tables()
        assert sha(bench.registry.blobs.path(sha(blob)).read_bytes()) == sha(blob)


def test_a_disk_that_fills_up_under_writes_loses_nothing_and_a_restart_with_space_goes_on(
    disk: SmallDisk, tmp_path: Path
) -> None:
    """Filled to the last bytes, the journal may have an entry that the catalog has no room for."""
    with approved(tmp_path / "first") as (bench, secret):
        first = bench.registry.journal.head.seq
    shutil.copytree(tmp_path / "first", disk.path / "home")
    acknowledged = 0
    fills = count(1)
    rounds = amount(3, 12)
    for spare in range(1, rounds + 1):
        server = Server(Home(disk.mount / "home"), before=disk.inside, log=tmp_path / "serve.log")
        try:
            with PLAIN(base_url=server.address(), headers={"Authorization": f"Bearer {secret}"}) as http:
                disk.fill()
                os.truncate(disk.path / "ballast", (disk.path / "ballast").stat().st_size - 4096 * spare)
                try:
                    while (answer := submit(http, next(fills))).is_success:
                        acknowledged += 1
                    assert answer.status_code in (503, 507), answer.text
                except httpx.TransportError:
                    assert server.process.wait(timeout=WAIT_SECONDS) != 0
        finally:
            server.kill()
        disk.clear()
    shutil.copytree(disk.path / "home", tmp_path / "second")
    with bench_in(tmp_path / "second") as bench:
        assert acknowledged <= bench.registry.view().last_number(NAME) - 1 <= acknowledged + rounds
        assert bench.registry.journal.head.seq > first
        assert bench.rebuilt() == bench.tables()


def test_a_home_on_a_full_disk_is_refused_in_words_or_served(disk: SmallDisk, tmp_path: Path) -> None:
    with approved(tmp_path / "first") as (_, secret):
        pass
    shutil.copytree(tmp_path / "first", disk.path / "home")
    disk.fill()
    server = Server(Home(disk.mount / "home"), before=disk.inside, log=tmp_path / "serve.log")
    try:
        with contextlib.suppress(AssertionError), Client(server.address(), secret) as client:
            assert client.resolve(f"{NAME}@approved").state is State.APPROVED
            return
        assert server.process.wait(timeout=WAIT_SECONDS) not in (0, None)
        said = server.log.read_text()
        assert "space" in said and "Traceback" not in said
    finally:
        server.kill()


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "ENOSPC"])
def test_after_a_failed_sync_of_the_journal_the_service_ends_and_the_next_start_goes_on(
    home: Home, tmp_path: Path, error: str
) -> None:
    """Also where the disk says full at every sync, so that the journal cannot even take back what it wrote."""
    with approved(home.root) as (bench, secret):
        head = bench.registry.journal.head
    server = Server(home)
    try:
        url, pid = server.address(), str(server.process.pid)
        failing = f"inject=fsync,fdatasync:error={error}"
        tracer = subprocess.Popen(
            ["strace", "-f", "-o", "/dev/null", "-e", failing, "-p", pid],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert tracer.stderr is not None and "attached" in tracer.stderr.readline()
        try:
            with PLAIN(base_url=url, headers={"Authorization": f"Bearer {secret}"}) as http:
                refused = submit(http, 1)
                assert (refused.status_code, refused.json()["code"]) == (503, "storage_damaged"), refused.text
                with contextlib.suppress(httpx.TransportError):
                    assert http.get("/readyz").status_code == 503
                    assert submit(http, 1).status_code == 503
            assert server.process.wait(timeout=WAIT_SECONDS) not in (0, None), "a supervisor must start it anew"
        finally:
            tracer.kill()
            tracer.wait(timeout=WAIT_SECONDS)
            tracer.stderr.close()
    finally:
        server.kill()
    with served(home) as url, PLAIN(base_url=url, headers={"Authorization": f"Bearer {secret}"}) as http:
        assert submit(http, 1).json()["number"] == submit(http, 1).json()["number"] == 2
    with bench_in(home.root) as bench:
        assert bench.registry.journal.head.seq == head.seq + 1
        assert bench.rebuilt() == bench.tables()


def test_a_second_process_on_a_home_is_refused_in_words_and_the_first_serves_on(home: Home) -> None:
    with served(home) as url, Client(url, home.admin_token.read_text().strip()) as admin:
        for words in (["serve", "--port", "0"], ["rebuild"]):
            second = subprocess.run(
                [sys.executable, "-m", "registry", *words],
                env={**os.environ, "TUNEGATE_HOME": str(home.root)},
                capture_output=True,
                text=True,
                timeout=60,
            )
            said = " ".join((second.stdout + second.stderr).split())
            assert second.returncode not in (0, None) and "Traceback" not in said
            assert "in use by another tunegate process" in said, said
        assert admin.create_token(CreateToken(role=Role.CI, person="carl")).token.person == "carl"
