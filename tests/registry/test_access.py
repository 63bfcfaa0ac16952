"""The pure rules of access: tokens and their text, roles, scopes, and what is hidden from whom."""

from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from registry.access import (
    ALL_ROLES,
    BLOB_READERS,
    Principal,
    authenticate,
    check_token,
    hidden_from,
    may_know_blob,
    new_secret,
    require_role,
    require_sight,
    token_id_of,
    within,
)
from registry.errors import Forbidden, NotFound, Unauthenticated
from registry.names import sha256_hex
from registry.records import Role, State
from registry.storage.views import Holder, StoredToken, View

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Tokens:
    """A view that knows tokens only."""

    def __init__(self, *tokens: StoredToken) -> None:
        self._by_id = {token.id: token for token in tokens}

    def token(self, id_: str) -> StoredToken | None:
        return self._by_id.get(id_)


def issued(role: Role = Role.CI, **changes: Any) -> tuple[str, View]:
    """A token's text, and a view in which it is stored."""
    id_, text = new_secret(role)
    values: dict[str, Any] = {
        "id": id_,
        "role": role,
        "person": "ada",
        "scope": "team",
        "secret_sha256": sha256_hex(text.encode()),
        "created_at": NOW.isoformat(),
        "expires_at": (NOW + timedelta(days=1)).isoformat(),
        "revoked_at": None,
        **changes,
    }
    return text, cast(View, Tokens(StoredToken(**values)))


@pytest.mark.parametrize("role", list(Role))
def test_the_whole_text_of_a_token_is_its_principal(role: Role) -> None:
    text, view = issued(role)
    assert authenticate(view, text, NOW) == Principal(text.split("_")[2], "ada", role, "team")


def test_two_secrets_are_never_the_same() -> None:
    assert len({part for _ in range(50) for part in new_secret(Role.CI)}) == 100


@pytest.mark.parametrize("position", range(0, 100, 7))
def test_a_token_with_one_other_character_is_refused(position: int) -> None:
    text, view = issued()
    position %= len(text)
    other = text[:position] + ("0" if text[position] != "0" else "1") + text[position + 1 :]
    with pytest.raises(Unauthenticated):
        authenticate(view, other, NOW)


@pytest.mark.parametrize("change", ["{}\n", " {}", "{}x", "Bearer {}", "{:.50}", ""])
def test_more_or_less_than_the_token_is_refused(change: str) -> None:
    text, view = issued()
    with pytest.raises(Unauthenticated, match="not a tunegate token"):
        authenticate(view, change.format(text), NOW)


def test_a_well_formed_token_that_was_never_issued_is_refused() -> None:
    _, view = issued()
    with pytest.raises(Unauthenticated, match="not known here"):
        authenticate(view, new_secret(Role.ADMIN)[1], NOW)


def test_the_id_of_a_token_without_its_secret_is_worth_nothing() -> None:
    text, view = issued(secret_sha256=sha256_hex(b"another"))
    with pytest.raises(Unauthenticated, match="not known here"):
        authenticate(view, text, NOW)


def test_the_role_in_the_text_is_not_what_counts() -> None:
    """The stored role is; the text only says where a leaked token came from."""
    text, view = issued(Role.ADMIN)
    stored = cast(Any, view).token(text.split("_")[2])
    assert authenticate(cast(View, Tokens(stored._replace(role=Role.CONSUMER))), text, NOW).role is Role.CONSUMER


@pytest.mark.parametrize(
    "changes",
    [
        {"revoked_at": NOW.isoformat()},
        {"expires_at": NOW.isoformat()},
        {"expires_at": (NOW - timedelta(seconds=1)).isoformat()},
    ],
)
def test_a_token_that_is_revoked_or_expired_is_refused(changes: dict[str, str]) -> None:
    text, view = issued(**changes)
    with pytest.raises(Unauthenticated, match=r"was revoked|expired"):
        authenticate(view, text, NOW)


def test_a_token_is_good_until_the_second_it_expires() -> None:
    text, view = issued()
    stored = cast(Any, view).token(text.split("_")[2])
    check_token(stored, NOW + timedelta(days=1, microseconds=-1))
    with pytest.raises(Unauthenticated, match="expired"):
        check_token(stored, NOW + timedelta(days=1))


@pytest.mark.parametrize("role", list(Role))
def test_no_role_implies_another(role: Role) -> None:
    principal = Principal("t", "ada", role)
    require_role(principal, frozenset({role}))
    with pytest.raises(Forbidden):
        require_role(principal, ALL_ROLES - {role})
    with pytest.raises(Forbidden):
        require_role(principal, frozenset())


@pytest.mark.parametrize(
    ("scope", "adapter", "visible"),
    [
        (None, "team/bot", True),
        ("team", "team/bot", True),
        ("team/bot", "team/bot", True),
        ("bot", "bot", True),
        ("team", "team", True),
        ("team", "teams/bot", False),
        ("team", "tea", False),
        ("team", "other/team", False),
        ("team/bot", "team/bot-2", False),
        ("team/bot", "team", False),
        ("", "bot", False),
    ],
)
def test_a_scope_is_a_namespace_or_one_adapter(scope: str | None, adapter: str, visible: bool) -> None:
    principal = Principal("t", "ada", Role.ADMIN, scope)
    assert principal.may_see(adapter) is visible
    if visible:
        require_sight(principal, adapter)
    else:
        with pytest.raises(NotFound, match="does not exist or is not visible"):
            require_sight(principal, adapter)


@pytest.mark.parametrize("state", list(State))
def test_consumers_see_approved_versions_only_and_reviewers_none_under_review(state: State) -> None:
    hidden = {role for role in Role if hidden_from(Principal("t", "ada", role), state)}
    expected = set() if state is State.APPROVED else {Role.CONSUMER}
    assert hidden == (expected | {Role.REVIEWER} if state is State.IN_REVIEW else expected)


@pytest.mark.parametrize(
    ("own", "scope", "inside"),
    [
        (None, None, True),
        (None, "team", True),
        ("team", None, False),
        ("team", "team", True),
        ("team", "team/bot", True),
        ("team/bot", "team", False),
        ("team", "teams", False),
    ],
)
def test_a_scope_within_a_scope_is_no_wider(own: str | None, scope: str | None, inside: bool) -> None:
    assert within(Principal("t", "ada", Role.ADMIN, own), scope) is inside


class Blobs:
    """A view that knows who sent which bytes, and which versions hold them."""

    def __init__(self, sent: Collection[str] = (), holders: tuple[Holder, ...] = ()) -> None:
        self._sent, self._holders = sent, holders

    def was_sent(self, sha256: str, scope: str) -> bool:
        return scope in self._sent

    def holders(self, sha256: str) -> list[Holder]:
        return list(self._holders)


@pytest.mark.parametrize(
    ("blobs", "known"),
    [
        (Blobs(), False),
        (Blobs(sent={"team"}), True),
        (Blobs(sent={"other"}), False),
        (Blobs(holders=(Holder("team/bot", State.SUBMITTED, "file"),)), True),
        (Blobs(holders=(Holder("team/bot", State.UPLOADING, "file"),)), False),
        (Blobs(holders=(Holder("other/bot", State.APPROVED, "file"),)), False),
        (Blobs(holders=(Holder("team/bot", State.UPLOADING, "file"), Holder("team/b", State.REVOKED, "file"))), True),
        # Suites, and the digests of their files, are listed for everyone.
        (Blobs(holders=(Holder(None, None, "suite"),)), True),
    ],
)
def test_within_a_scope_a_blob_is_known_by_proof_only(blobs: Blobs, known: bool) -> None:
    view = cast(View, blobs)
    assert may_know_blob(view, Principal("t", "ada", Role.CI, "team"), "0" * 64) is known
    assert may_know_blob(view, Principal("t", "ada", Role.CI), "0" * 64)


def test_the_id_in_a_token_is_all_that_need_be_sent() -> None:
    id_, text = new_secret(Role.CI)
    assert token_id_of(text) == token_id_of(f" {text}\n") == id_
    assert token_id_of(id_) == id_ and token_id_of(text[:-1]) == text[:-1]


@pytest.mark.parametrize(
    ("changes", "reason"), [({"revoked_at": "x"}, "revoked"), ({"expires_at": NOW.isoformat()}, "expired")]
)
def test_a_refused_token_that_is_known_says_whose_it_is(changes: dict[str, str], reason: str) -> None:
    text, view = issued(**changes)
    with pytest.raises(Unauthenticated) as refused:
        authenticate(view, text, NOW)
    assert (refused.value.token, refused.value.reason) == (text.split("_")[2], reason)
    with pytest.raises(Unauthenticated) as unknown:
        authenticate(view, new_secret(Role.CI)[1], NOW)
    assert unknown.value.token is None


def test_reviewers_and_consumers_read_neither_scores_nor_training_data() -> None:
    for what in ("items", "dataset", "ledger"):
        assert not {Role.REVIEWER, Role.CONSUMER} & BLOB_READERS[what]
    assert Role.REVIEWER not in BLOB_READERS["file"] and Role.CONSUMER in BLOB_READERS["file"]
    assert Role.CI not in BLOB_READERS["items"]
