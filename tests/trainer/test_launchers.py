"""One contract for every place where trainers run: this machine, and a real Ray cluster of one node."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from trainer.launchers import CannotLaunch, Launcher, LocalLauncher, RayLauncher, Stage, Task

_PATIENCE_SECONDS = 240.0


HEAD = """
import ray, sys
port, folder = int(sys.argv[1]), sys.argv[2]
ray.init(num_cpus=1, include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=port, _temp_dir=folder,
         _node_ip_address="127.0.0.1", object_store_memory=80_000_000, log_to_driver=False)
sys.stdin.read()
"""


def free_port() -> int:
    """None of those that the system gives to whoever asks for any: Ray takes its port only after some seconds."""
    while True:
        port = random.randint(11_000, 31_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a Ray head of our own; it ends with the process that made it.

    Never by `ray stop`, which ends every Ray of the machine.
    """
    folder = Path("/tmp") / f"ray-{uuid.uuid4().hex[:8]}"  # Ray's sockets must have short names
    port = free_port()
    log = tmp_path_factory.mktemp("ray") / "head.log"
    # A busy machine is no dead one.
    patience = {"RAY_health_check_timeout_ms": "60000", "RAY_health_check_period_ms": "30000"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", HEAD, str(port), str(folder)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            # On loopback, and for these tests only; a token would be written to the home directory of who runs them.
            env={**os.environ, **patience, "RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "disabled"},
            start_new_session=True,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                RayLauncher(address)
                break
            except CannotLaunch:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(1)
        yield address
    finally:
        try:
            process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(
    params=["local", pytest.param("ray", marks=[pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(900)])]
)
def launcher(request: pytest.FixtureRequest) -> Launcher:
    if request.param == "local":
        return LocalLauncher()
    return RayLauncher(request.getfixturevalue("head"), cpus=1)


def task(tmp_path: Path, code: str, attempt: int = 1, run: str | None = None, **environment: str) -> Task:
    command = (sys.executable, "-c", code)
    return Task(run or uuid.uuid4().hex, attempt, command, tmp_path, tmp_path / f"log-{attempt}.txt", environment)


def until_over(launcher: Launcher, one: Task) -> Stage:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not (stage := launcher.stage(one)).over:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return stage


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_task_runs_in_its_directory_with_its_environment_and_its_words_are_kept(
    launcher: Launcher, tmp_path: Path
) -> None:
    code = "import os, sys; print(os.environ['COLOUR'], os.getcwd()); print('oh', file=sys.stderr)"
    one = task(tmp_path, code, COLOUR="blue, 'deep'")
    launcher.start(one)
    assert until_over(launcher, one).code == 0
    assert {f"blue, 'deep' {tmp_path}", "oh"} <= set(one.log.read_text().splitlines())


def test_how_a_task_ended_is_told(launcher: Launcher, tmp_path: Path) -> None:
    one = task(tmp_path, "raise SystemExit(7)")
    launcher.start(one)
    stage = until_over(launcher, one)
    assert stage.code == 7 and stage.reason


def test_the_same_attempt_twice_is_one_process(launcher: Launcher, tmp_path: Path) -> None:
    one = task(tmp_path, "open('ran', 'a').write('x'); import time; time.sleep(1)")
    launcher.start(one)
    launcher.start(one)
    until_over(launcher, one)
    launcher.start(one)
    assert until_over(launcher, one).code == 0 and (tmp_path / "ran").read_text() == "x"


def test_a_stop_ends_it_and_what_it_started(launcher: Launcher, tmp_path: Path) -> None:
    code = """
import json, os, subprocess, time
child = subprocess.Popen(["sleep", "600"])
open("part", "w").write(json.dumps([os.getpid(), child.pid]))
os.rename("part", "pids")
time.sleep(600)
"""
    one = task(tmp_path, code)
    launcher.start(one)
    wait_for(tmp_path / "pids")
    assert launcher.stage(one).name == "running"
    launcher.stop(one)
    assert launcher.stage(one).over and launcher.stage(one).code != 0
    for pid in json.loads((tmp_path / "pids").read_text()):
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while _lives(pid):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    launcher.stop(one)  # what is over stays so


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_task_that_was_never_started_is_over(launcher: Launcher, tmp_path: Path) -> None:
    one = task(tmp_path, "pass")
    assert launcher.stage(one).over and launcher.stage(one).code is None
    launcher.stop(one)


@pytest.mark.parametrize("code", ["raise SystemExit(7)", "import time; time.sleep(600)"])
def test_the_number_of_a_process_that_is_over_is_never_signalled_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    launcher, one = LocalLauncher(), task(tmp_path, code)
    launcher.start(one)
    if "sleep" in code:
        launcher.stop(one)
    over = until_over(launcher, one)
    assert over.code == (-signal.SIGKILL if "sleep" in code else 7)
    signalled: list[int] = []
    monkeypatch.setattr(os, "killpg", lambda group, _: signalled.append(group))
    assert launcher.stage(one) == over
    launcher.stop(one)
    launcher.start(one)
    assert launcher.stage(one) == over and not signalled


@pytest.mark.stack
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_on_ray_a_task_waits_for_its_place_and_an_older_attempt_is_ended_first(head: str, tmp_path: Path) -> None:
    launcher, run = RayLauncher(head, cpus=1), uuid.uuid4().hex
    first = task(tmp_path, "open('first', 'w'); import time; time.sleep(600)", run=run)
    launcher.start(first)
    wait_for(tmp_path / "first")
    other = task(tmp_path, "open('other', 'w')")
    launcher.start(other)
    assert launcher.stage(other).name == "waiting" and not (tmp_path / "other").exists()
    # The next worker's attempt at the first run: its launcher knows of the older one only through Ray.
    second = task(tmp_path, "open('second', 'w')", attempt=2, run=run)
    RayLauncher(head, cpus=1).start(second)
    assert launcher.stage(first).over
    assert until_over(launcher, other).code == 0 and until_over(launcher, second).code == 0


def test_a_ray_cluster_that_does_not_answer_is_named() -> None:
    with pytest.raises(CannotLaunch, match=r"127\.0\.0\.1:1"):
        RayLauncher("http://127.0.0.1:1")


def test_a_program_that_is_not_there_cannot_be_launched(tmp_path: Path) -> None:
    one = task(tmp_path, "pass")._replace(command=("/no/such/program",))
    with pytest.raises(CannotLaunch, match="/no/such/program cannot be started"):
        LocalLauncher().start(one)


def test_a_local_trainer_is_held_to_its_memory(tmp_path: Path) -> None:
    launcher = LocalLauncher(memory_bytes=1024**3)
    one = task(tmp_path, "import time; time.sleep(1); bytearray(3 * 1024**3)")
    launcher.start(one)
    assert until_over(launcher, one).code == 1 and "MemoryError" in one.log.read_text()
