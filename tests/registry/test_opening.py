"""A home opens with its own keys and its own journal, or not at all, and a refusal changes nothing in it."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from registry_under_test import MANAGER, NAME, Bench, bench_in

from registry.approval.attestation import Signer
from registry.cli import main
from registry.commands import versions
from registry.errors import InvalidRequest, NotFound, StorageDamaged, Unauthenticated
from registry.opening import open_registry, rebuild, recover_admin
from registry.records import Role, State
from registry.settings import Home
from registry.storage.views import StoredToken

pytestmark = pytest.mark.slow


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


# -- keys ---------------------------------------------------------------------------------------------------------


REPLACED: dict[str, Callable[[Home], object]] = {
    "signing.pem": lambda home: home.signing_key.write_bytes(Signer.generate().to_pem()),
    "draw.secret": lambda home: home.draw_secret.write_bytes(b"x" * 32),
    "no signing.pem": lambda home: home.signing_key.unlink(),
    "no draw.secret": lambda home: home.draw_secret.unlink(),
    "unreadable signing.pem": lambda home: home.signing_key.write_bytes(b"-----BEGIN NOTHING-----"),
}


@pytest.mark.parametrize("what", REPLACED)
def test_a_home_with_other_keys_is_refused_and_not_touched(home: Home, what: str) -> None:
    with bench_in(home.root) as bench:
        bench.create_adapter()
    original = {path: path.read_bytes() for path in (home.signing_key, home.draw_secret)}
    REPLACED[what](home)
    before = files(home.root)
    assert str(home.public_keys.relative_to(home.root)) in before
    for _ in range(2):
        with pytest.raises(StorageDamaged, match=r"restore (the keys|it from a backup)") as refused:
            open_registry(home)
        assert what.split()[-1] in str(refused.value)
        assert files(home.root) == before
    for path, data in original.items():
        path.write_bytes(data)
    with bench_in(home.root) as bench:
        assert bench.registry.view().adapter(NAME) is not None


# -- rebuilding ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept_loss", [False, True])
@pytest.mark.parametrize("exists", [False, True])
def test_a_home_without_a_journal_is_not_rebuilt(home: Home, accept_loss: bool, exists: bool) -> None:
    if exists:
        home.root.mkdir()
    with pytest.raises(InvalidRequest, match=r"no journal in .*TUNEGATE_HOME"):
        rebuild(home, accept_loss=accept_loss)
    assert home.root.exists() == exists and (not exists or list(home.root.iterdir()) == [])


def revoked_last(home: Home) -> bytes:
    """A home whose last act was to revoke what `approved` names; its journal."""
    with bench_in(home.root) as bench:
        bench.create_adapter()
        number = bench.approvable(1)
        bench.promote(number)
        bench.revoke(number)
    return home.journal.read_bytes()


def serves(bench: Bench) -> bool:
    try:
        bench.registry.ask(MANAGER, lambda context: versions.resolve(context, f"{NAME}@approved"))
    except NotFound:
        return False
    return True


@pytest.mark.parametrize("catalog", ["kept", "lost"])
def test_a_revocation_is_not_undone_by_a_changed_byte(home: Home, catalog: str) -> None:
    good = revoked_last(home)
    if catalog == "lost":
        home.catalog.unlink()
    begin = good[:-1].rindex(b"\n") + 1
    for offset in (begin, begin + 63, begin + 64, begin + 65, (begin + len(good)) // 2, len(good) - 2):
        bad = bytearray(good)
        bad[offset] ^= 1
        home.journal.write_bytes(bad)
        for attempt in (open_registry, rebuild):
            with pytest.raises(StorageDamaged, match=r"does not verify.*rebuild --accept-loss"):
                attempt(home)
            assert home.journal.read_bytes() == bad
    assert not list(home.root.glob("*.torn-at-*"))
    home.journal.write_bytes(good)
    with bench_in(home.root) as bench:
        assert not serves(bench)


def test_a_revocation_whose_line_end_is_gone_is_known_to_the_catalog(home: Home) -> None:
    good = revoked_last(home)
    home.journal.write_bytes(good[:-1] + b"\x0b")
    with pytest.raises(StorageDamaged, match="lost its tail"):
        open_registry(home)
    with pytest.raises(StorageDamaged, match="lost its tail"):
        rebuild(home)


def test_an_accepted_loss_sets_the_last_entry_aside_and_says_so(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    good = revoked_last(home)
    begin = good[:-1].rindex(b"\n") + 1
    bad = bytearray(good)
    bad[-20] ^= 1
    home.journal.write_bytes(bad)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tunegate"):
        last = rebuild(home, accept_loss=True)
    aside = home.journal.with_name(f"{home.journal.name}.torn-at-{begin}")
    assert aside.read_bytes() == bad[begin:]
    assert home.journal.read_bytes() == good[:begin]
    said = [record.getMessage() for record in caplog.records if record.name == "tunegate"]
    assert len(said) == 1 and str(aside) in said[0] and f"{len(good) - begin} bytes" in said[0]
    with bench_in(home.root) as bench:
        assert bench.registry.journal.head.seq == last
        stored = bench.registry.view().version(NAME, 1)
        assert stored is not None and stored.state is State.APPROVED


# -- the admin's token ------------------------------------------------------------------------------------------------


def days_left(token: StoredToken) -> float:
    return (datetime.fromisoformat(token.expires_at) - datetime.now(UTC)).total_seconds() / 86_400


def test_the_first_admin_token_lives_for_thirty_days(home: Home) -> None:
    with bench_in(home.root) as bench:
        (token,) = bench.registry.view().tokens()
        assert token.role is Role.ADMIN and 29.9 < days_left(token) <= 30
        assert bench.registry.authenticate(home.admin_token.read_text().strip()).token == token.id


def test_where_no_admin_token_is_valid_the_home_makes_another_and_the_journal_tells(home: Home) -> None:
    with bench_in(home.root) as bench:
        (first,) = bench.registry.view().tokens()
        old = home.admin_token.read_text().strip()
        bench.registry._clock = lambda: datetime.now(UTC) + timedelta(days=31)
        with pytest.raises(Unauthenticated, match="expired"):
            bench.registry.authenticate(old)
        with pytest.raises(StorageDamaged, match="in use by another"):
            recover_admin(home)
        head = bench.registry.journal.head
    made = recover_admin(home)
    assert home.admin_token.stat().st_mode & 0o077 == 0
    with bench_in(home.root) as bench:
        assert bench.registry.journal.head.seq == head.seq + 1
        principal = bench.registry.authenticate(home.admin_token.read_text().strip())
        assert (principal.token, principal.role, principal.scope) == (made.id, Role.ADMIN, None)
        assert made.id != first.id and home.admin_token.read_text().strip() != old
        assert bench.tables() == bench.rebuilt()


def test_there_is_no_token_to_recover_where_there_is_no_registry(home: Home) -> None:
    with pytest.raises(InvalidRequest, match=r"no journal in .*TUNEGATE_HOME"):
        recover_admin(home)
    assert not home.journal.exists()


def test_the_command_makes_the_token_and_says_where_it_is_but_not_what(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    open_registry(home).registry.close()
    monkeypatch.setenv("TUNEGATE_HOME", str(home.root))
    main(["token", "recover"])
    said, secret = capsys.readouterr().out, home.admin_token.read_text().strip()
    assert str(home.admin_token) in said and secret not in said
    with bench_in(home.root) as bench:
        assert bench.registry.authenticate(secret).role is Role.ADMIN
        with pytest.raises(SystemExit) as running:
            main(["token", "recover"])
        assert running.value.code == 3 and home.admin_token.read_text().strip() == secret
