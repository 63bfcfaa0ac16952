"""What holds of the exchange even where the way over HTTP would not let it come so far; and of proven bytes."""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from ci_under_test import CLAIMS, ISSUER, Issuer, claims_at
from registry_under_test import ADMIN, Bench, bench_in

from registry.access import Principal
from registry.commands import blobs, publishers, tokens
from registry.commands.context import Context, Outcome
from registry.commands.publishers import Accepted
from registry.errors import AlreadyExists, Conflict, Forbidden, NotFound, Unauthenticated
from registry.events import TokenMinted
from registry.names import sha256_hex
from registry.oidc import read_token
from registry.records import AddPublisher, CreateToken, PublisherInfo, Role

KEY = Issuer()
SCOPED = Principal("t-scoped", "carl", Role.CI, "team")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with bench_in(tmp_path / "home") as found:
        yield found


def trusted(bench: Bench) -> PublisherInfo:
    request = AddPublisher(scope="team/bot", issuer=ISSUER, claims={"sub": CLAIMS["sub"]}, keys=[KEY.public])
    info: PublisherInfo = bench.run(ADMIN, publishers.add, request=request).value
    return info


def accepted(bench: Bench) -> Accepted:
    now = datetime.now(UTC)
    known = [(one, one.keys or []) for one in bench.registry.view().publishers(ISSUER)]
    return publishers.accept(read_token(KEY.token(claims_at(now))), known, now)


def test_a_publisher_that_is_removed_between_check_and_exchange_gives_no_token(bench: Bench) -> None:
    info, found = trusted(bench), accepted(bench)
    bench.run(ADMIN, publishers.remove, id_=info.id)
    head = bench.registry.journal.head
    with pytest.raises(Unauthenticated, match="just removed"):
        bench.registry.execute(found.principal, partial(publishers.mint, accepted=found))
    assert bench.registry.journal.head == head


def test_one_identity_is_one_token_by_the_catalogs_own_key(bench: Bench) -> None:
    """Even a command that forgot to look could not use a CI token twice."""
    trusted(bench)
    found = accepted(bench)
    bench.registry.execute(found.principal, partial(publishers.mint, accepted=found))

    def forgetful(context: Context) -> Outcome:
        again = TokenMinted(token="t", publisher=found.publisher, issuer=ISSUER, subject="", jti=found.identity)
        return Outcome(None, [again])

    head = bench.registry.journal.head
    with pytest.raises(Conflict):
        bench.registry.execute(ADMIN, forgetful)
    assert bench.registry.journal.head == head


def test_the_catalog_of_publishers_and_minted_tokens_is_rebuilt_as_it_was(bench: Bench) -> None:
    info = trusted(bench)
    for _ in range(3):
        found = accepted(bench)
        bench.registry.execute(found.principal, partial(publishers.mint, accepted=found))
    assert bench.tables() == bench.rebuilt()
    bench.run(ADMIN, publishers.remove, id_=info.id)
    assert bench.tables() == bench.rebuilt()
    assert all(one.revoked_at for one in bench.registry.view().tokens() if one.publisher)


def test_bytes_are_proven_once_and_only_where_it_takes_proof(bench: Bench) -> None:
    sha256 = bench.registry.blobs.put(b"bytes")
    head = bench.registry.journal.head
    assert bench.run(ADMIN, blobs.sent, sha256=sha256).status == 204
    with pytest.raises(NotFound, match="is not stored"):
        bench.run(SCOPED, blobs.sent, sha256=sha256_hex(b"others"))
    assert bench.registry.journal.head == head
    for _ in range(2):
        bench.run(SCOPED, blobs.sent, sha256=sha256)
    assert bench.registry.journal.head.seq == head.seq + 1
    view = bench.registry.view()
    assert view.was_sent(sha256, "team") and not view.was_sent(sha256, "team/bot") and not view.was_sent(sha256, "tea")
    bench.run(SCOPED._replace(scope="other/bot"), blobs.sent, sha256=sha256)
    assert view.was_sent(sha256, "other") and view.was_sent(sha256, "other/bot")


def test_a_token_is_revoked_once(bench: Bench) -> None:
    made = bench.run(ADMIN, tokens.create, request=CreateToken(role=Role.CI, person="carl")).value.token
    head = bench.registry.journal.head
    assert [bench.run(ADMIN, tokens.revoke, id_=made.id).status for _ in range(2)] == [204, 204]
    assert bench.registry.journal.head.seq == head.seq + 1


def test_a_project_trusts_so_many_publishers_and_no_more(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishers, "MOST_PUBLISHERS", 3)

    def add(scope: str, subject: str, who: Principal = ADMIN) -> PublisherInfo:
        request = AddPublisher(scope=scope, issuer=ISSUER, claims={"sub": subject}, keys=[KEY.public])
        info: PublisherInfo = bench.run(who, publishers.add, request=request).value
        return info

    first, _, _ = add("team", "a"), add("team/bot", "b"), add("team/other", "c")
    head = bench.registry.journal.head
    for who in (ADMIN, ADMIN._replace(scope="team")):
        with pytest.raises(Conflict, match="'team' trusts 3 publishers already"):
            add("team/bot", "d", who)
    with pytest.raises(AlreadyExists):
        add("team", "a")
    with pytest.raises(Forbidden):
        add("tea", "d", ADMIN._replace(scope="team"))
    assert bench.registry.journal.head == head
    add("tea", "d")
    bench.run(ADMIN, publishers.remove, id_=first.id)
    add("team/bot", "d")
