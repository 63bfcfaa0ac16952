"""Clocks that jump: order is the journal's numbers, tokens fail closed, counters only rise."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec
import pytest
from registry_under_test import ADMIN, CI, NAME, bench_in, submission
from server_under_test import PLAIN, Server

from registry.commands import tokens
from registry.records import CreateToken, Role, State
from registry.settings import Home

pytestmark = pytest.mark.slow
HOUR, YEAR = 3600, 366 * 24 * 3600
Jump = Callable[[int], None]


def library() -> str | None:
    """libfaketime, where `faketime` finds it."""
    if shutil.which("faketime") is None:
        return None
    return subprocess.run(
        ["faketime", "-f", "+0", "printenv", "LD_PRELOAD"], capture_output=True, text=True, timeout=20
    ).stdout.strip()


@pytest.fixture
def two_approved(home: Home) -> dict[str, str]:
    """Secrets by role; the alias has named versions 1 and 2."""
    with bench_in(home.root) as bench:
        bench.create_adapter()
        for fill in (1, 2):
            bench.promote(bench.approvable(fill))
        people = {Role.CI: CI.person}
        roles = (Role.CI, Role.RELEASE_MANAGER, Role.CONSUMER, Role.ADMIN)
        requests = [
            CreateToken(
                role=role,
                person=people.get(role, f"{role} person"),
                expires_days=3650 if role is Role.RELEASE_MANAGER else 90,
            )
            for role in roles
        ]
        return {str(one.role): bench.run(ADMIN, tokens.create, request=one).value.secret for one in requests}


@pytest.fixture
def clock(home: Home, tmp_path: Path) -> Iterator[tuple[Server, Jump]]:
    """A server whose wall clock jumps to so many seconds from now. Its monotonic clock is left alone."""
    if not (preload := library()):
        pytest.skip("libfaketime is not installed: `make packages`")
    offset = tmp_path / "offset"
    offset.write_text("+0")
    environment = {
        "LD_PRELOAD": preload,
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    server = Server(home, environment=environment)
    try:
        yield server, lambda seconds: offset.write_text(f"{seconds:+d}") and None
    finally:
        server.kill()


def test_jumps_of_the_clock_change_no_order_revive_no_token_and_lower_no_counter(
    home: Home, two_approved: dict[str, str], clock: tuple[Server, Jump]
) -> None:
    server, jump = clock
    counters, numbers = [2], [2]
    with PLAIN(base_url=server.address()) as http:

        def send(role: str, method: str, path: str, **request: object) -> httpx.Response:
            return http.request(method, path, headers={"Authorization": f"Bearer {two_approved[role]}"}, **request)

        def move() -> None:
            """An alias moves, and a version is made where the token still allows it."""
            back = {"to": 1 + counters[-1] % 2, "reason": "the clock jumped"}
            moved = send("release-manager", "POST", f"/v1/adapters/{NAME}/aliases/approved/rollback", json=back)
            assert moved.status_code == 200, moved.text
            counters.append(moved.json()["counter"])
            document = msgspec.to_builtins(submission(100 + len(counters)))
            made = send("ci", "POST", f"/v1/adapters/{NAME}/versions", json=document)
            if made.status_code == 201:
                numbers.append(made.json()["number"])
            else:
                assert made.status_code == 401 and "expired" in made.json()["detail"]

        move()
        jump(-HOUR)
        move()
        jump(YEAR)
        for role in ("ci", "consumer"):
            assert send(role, "GET", "/v1/resolve", params={"ref": f"{NAME}@approved"}).status_code == 401
        move()
        late = send("release-manager", "GET", "/v1/resolve", params={"ref": f"{NAME}@approved"})
        assert late.json()["state"] == State.APPROVED
        jump(0)
        move()
        assert send("consumer", "GET", "/v1/resolve", params={"ref": f"{NAME}@approved"}).is_success
    server.kill()
    assert counters == [2, 3, 4, 5, 6]
    assert numbers == [2, 3, 4, 5]
    with bench_in(home.root) as bench:
        assert bench.rebuilt() == bench.tables()
        moves = bench.registry.view().alias_moves(NAME, "approved")
        assert [one.counter for one in moves] == list(range(1, 7))
        stamps = [line.entry.at for line in bench.registry.journal.read()]
        assert stamps != sorted(stamps), "the clock did jump"
