"""Adapters: their base, the suites and policies they are judged by, and their aliases with every move."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from registry.records import AliasMove, Base, Envelope, FileEntry, Policy, Suite
from registry.storage.views.reader import Reader, read_json


class StoredAdapter(NamedTuple):
    name: str
    base: Base
    policy: str
    revision: int
    created_at: str


class StoredAlias(NamedTuple):
    adapter: str
    alias: str
    number: int
    digest: str
    counter: int
    moved_at: str


class StoredProposal(NamedTuple):
    adapter: str
    alias: str
    counter: int
    previous: int | None
    number: int
    digest: str
    proposed_by: str
    made_at: str
    reason: str
    attestation: Envelope


class Adapters(Reader):
    """Adapters, what they are judged by, and what is approved of them."""

    def suites(self) -> dict[str, Suite]:
        """Every registered suite under `name@digest`, and the newest of each name under `name`."""
        found: dict[str, Suite] = {}
        columns = "name, kind, digest, n_items, max_cut_off, chance"
        for files, *values in self._all(f"SELECT files, {columns} FROM suites ORDER BY seq"):
            facts = dict(zip(columns.split(", "), values, strict=True))
            suite = Suite(files=read_json(files, list[FileEntry]), **facts)
            found[suite.ref] = found[suite.name] = suite
        return found

    def policy(self, digest: str) -> Policy:
        row = self._one("SELECT document FROM policies WHERE digest = ?", digest)
        assert row is not None
        return read_json(row[0], Policy)

    def adapter(self, name: str) -> StoredAdapter | None:
        rows = self._adapters("WHERE name = ?", name)
        return rows[0] if rows else None

    def adapters(self, after: str, limit: int, scope: str | None = None) -> list[StoredAdapter]:
        """By name; `scope` is a namespace or one adapter that a token is limited to."""
        inside = "AND (?::TEXT IS NULL OR name = ? OR starts_with(name, ? || '/'))"
        return self._adapters(f"WHERE name > ? {inside} ORDER BY name LIMIT ?", after, scope, scope, scope, limit)

    def _adapters(self, clause: str, *values: Any) -> list[StoredAdapter]:
        rows = self._all(f"SELECT name, base, policy, revision, created_at FROM adapters {clause}", *values)
        return [stored_adapter(row) for row in rows]

    def base_tensors(self, adapter: str) -> dict[str, list[int]] | None:
        row = self._one("SELECT base_tensors FROM adapters WHERE name = ?", adapter)
        return read_tensors(row[0]) if row and row[0] else None

    def alias(self, adapter: str, alias: str) -> StoredAlias | None:
        row = self._one(
            "SELECT adapter, alias, number, digest, counter, moved_at FROM aliases WHERE adapter = ? AND alias = ?",
            adapter,
            alias,
        )
        return StoredAlias(*row) if row else None

    def aliases_of(self, adapters: Sequence[str]) -> dict[str, dict[str, int]]:
        """Each adapter's aliases and the numbers they name; one without aliases is missing."""
        among = "adapter IN (SELECT unnest(?::VARCHAR[]))"
        chosen = f"SELECT adapter, alias, number FROM aliases WHERE {among} ORDER BY alias"
        found: dict[str, dict[str, int]] = {}
        for adapter, alias, number in self._all(chosen, list(adapters)):
            found.setdefault(adapter, {})[alias] = number
        return found

    def alias_moves(self, adapter: str, alias: str) -> list[AliasMove]:
        rows = self._all(
            "SELECT alias, counter, previous, number, digest, moved_by, made_at, reason FROM alias_moves "
            "WHERE adapter = ? AND alias = ? ORDER BY counter",
            adapter,
            alias,
        )
        keys = ("alias", "counter", "previous", "number", "digest", "by", "at", "reason")
        return [AliasMove(**dict(zip(keys, row, strict=True))) for row in rows]

    def has_named(self, adapter: str, alias: str, number: int) -> bool:
        """Whether the alias named this version at any time."""
        chosen = "SELECT 1 FROM alias_moves WHERE adapter = ? AND alias = ? AND number = ? LIMIT 1"
        return self._one(chosen, adapter, alias, number) is not None

    def attestation(self, adapter: str, number: int, alias: str | None = None) -> Envelope | None:
        """The newest approval of a version as an alias that names it still, or as `alias` if that is given."""
        row = self._one(
            "SELECT m.attestation FROM alias_moves m JOIN aliases a ON a.adapter = m.adapter AND a.alias = m.alias "
            "AND a.counter = m.counter WHERE m.adapter = ? AND m.number = ? AND (?::TEXT IS NULL OR m.alias = ?) "
            "ORDER BY m.made_at DESC, m.counter DESC LIMIT 1",
            adapter,
            number,
            alias,
            alias,
        )
        return read_json(row[0], Envelope) if row else None

    def proposal(self, adapter: str, alias: str) -> StoredProposal | None:
        """The move of an alias that waits for a second signature."""
        columns = ", ".join(StoredProposal._fields)
        row = self._one(f"SELECT {columns} FROM proposals WHERE adapter = ? AND alias = ?", adapter, alias)
        return StoredProposal(*row)._replace(attestation=read_json(row[-1], Envelope)) if row else None


# The same few rows are asked for again and again, and nobody changes what was read from one.
@lru_cache(maxsize=64)
def stored_adapter(row: tuple[Any, ...]) -> StoredAdapter:
    """A StoredAdapter from values in the order of its fields, the base as JSON."""
    return StoredAdapter(row[0], read_json(row[1], Base), *row[2:])


# Large, asked for again and again, and never changed by who reads them.
@lru_cache(maxsize=64)
def read_tensors(text: str) -> dict[str, list[int]]:
    return read_json(text, dict[str, list[int]])
