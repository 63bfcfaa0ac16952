"""The writer's view: all questions of a View, with the point questions of commands answered from the working set.

It sees what the commands before it in the same transaction have changed.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import duckdb

from registry.records import Role
from registry.storage.views import (
    Database,
    Receipt,
    StoredAdapter,
    StoredAlias,
    StoredAssignment,
    StoredCampaign,
    StoredItem,
    StoredJob,
    StoredRating,
    StoredToken,
    StoredVersion,
    View,
    read_tensors,
    stored_adapter,
    stored_rating,
    stored_version,
)
from registry.storage.working import Key, Row, WorkingSet

# Manifest digests are remembered of so many adapters and versions, at 200 bytes a version; beyond that, of none.
_MOST_ADAPTERS, _MOST_DIGESTS = 10_000, 1_000_000
_FILTER_BITS = 2**24
_MOST_CAMPAIGNS = 100


class WriterView(View):
    """For the writer's thread. `rows` is how the fold changes what it answers from."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self.rows = WorkingSet(db)
        self._manifests, self._answered, self._drawn = Manifests(self.rows), Answered(self.rows), Drawn(self.rows)
        self.committed = Committed({}, {})
        super().__init__(self.rows)

    def settle(self) -> None:
        """After a commit."""
        self.rows.settle()
        self._manifests.settle()
        self._drawn.settle()
        self.committed = Committed(self.rows.all_remembered("adapters"), self.rows.all_remembered("versions"))

    # -- the questions that every submission, promotion and revocation asks -----------------------------------------

    def receipt(self, actor: str, key: str) -> Receipt | None:
        if not self._answered.perhaps(actor, key):
            return None
        row = self.rows.find("receipts", actor, key)
        return Receipt(row["request"], row["status"], row["answer"].encode()) if row else None

    def adapter(self, name: str) -> StoredAdapter | None:
        row = self.rows.find("adapters", name)
        return stored_adapter(_stored(row, StoredAdapter._fields)) if row else None

    def base_tensors(self, adapter: str) -> dict[str, list[int]] | None:
        row = self.rows.find("adapters", adapter)
        return read_tensors(row["base_tensors"]) if row and row["base_tensors"] else None

    def version(self, adapter: str, number: int) -> StoredVersion | None:
        row = self.rows.find("versions", adapter, number)
        return stored_version(_stored(row, StoredVersion._fields)) if row else None

    def version_by_digest(self, adapter: str, digest: str) -> StoredVersion | None:
        number = self._manifests.number(adapter, digest)
        return self.version(adapter, number) if number is not None else None

    def last_number(self, adapter: str) -> int:
        return self._manifests.last(adapter)

    def alias(self, adapter: str, alias: str) -> StoredAlias | None:
        row = self.rows.find("aliases", adapter, alias)
        return StoredAlias(*_stored(row, StoredAlias._fields)) if row else None

    def has_named(self, adapter: str, alias: str, number: int) -> bool:
        return self.rows.exists("alias_moves", adapter=adapter, alias=alias, number=number)

    def job(self, id_: str) -> StoredJob | None:
        row = self.rows.find("jobs", id_)
        return StoredJob(*_stored(row, StoredJob._fields)) if row else None

    def job_of(self, adapter: str, number: int) -> StoredJob | None:
        rows = self.rows.select("jobs", adapter=adapter, number=number)
        newest = max(rows, key=lambda row: row["seq"], default=None)
        return StoredJob(*_stored(newest, StoredJob._fields)) if newest else None

    def campaign_of(self, adapter: str, number: int) -> StoredCampaign | None:
        version = self.rows.find("versions", adapter, number)
        if version is None or version["policy"] is None:
            return None
        rows = self.rows.select("campaigns", adapter=adapter, number=number, policy=version["policy"])
        return StoredCampaign(*_stored(rows[0], StoredCampaign._fields)) if rows else None

    # -- the questions that every rating asks ------------------------------------------------------------------------

    def tokens_of(self, person: str) -> list[StoredToken]:
        rows = self.rows.select("tokens", person=person)
        found = [StoredToken(*_stored(row, StoredToken._fields))._replace(role=Role(row["role"])) for row in rows]
        return sorted(found, key=lambda one: (one.created_at, one.id))

    def campaign(self, id_: str) -> StoredCampaign | None:
        row = self.rows.find("campaigns", id_)
        return StoredCampaign(*_stored(row, StoredCampaign._fields)) if row else None

    def campaign_items(self, campaign: str) -> list[StoredItem]:
        return self._drawn.items(campaign) or self._drawn.keep(campaign, super().campaign_items(campaign))

    def shown(
        self, adapter: str, number: int, suite: str, item: str, subject: str = "candidate"
    ) -> tuple[str, str] | None:
        row = self.rows.find("items", adapter, number, suite, item, subject)
        whole = row is not None and row["prompt"] is not None and row["output"] is not None
        return (row["prompt"], row["output"]) if row is not None and whole else None

    def assignment(self, id_: str) -> StoredAssignment | None:
        row = self.rows.find("assignments", id_)
        return StoredAssignment(*_stored(row, StoredAssignment._fields)) if row else None

    def assignments(self, campaign: str, person: str | None = None) -> list[StoredAssignment]:
        if person is None:
            return super().assignments(campaign)
        rows = [row for row in self.rows.select("assignments", campaign=campaign) if row["person"] == person]
        found = [StoredAssignment(*_stored(row, StoredAssignment._fields)) for row in rows]
        return sorted(found, key=lambda one: (one.issued_at, one.position))

    def ratings(self, campaign: str, person: str | None = None) -> list[StoredRating]:
        if person is None:
            return super().ratings(campaign)
        rows = [row for row in self.rows.select("ratings", campaign=campaign) if row["person"] == person]
        found = [stored_rating(_stored(row, StoredRating._fields)) for row in rows]
        return sorted(found, key=lambda one: (one.seq, one.assignment, one.revision))


class Committed(NamedTuple):
    """Adapters and versions of late, as of the last commit that was answered. Never changed, so any thread may look."""

    adapters: Mapping[Key, Row | None]
    versions: Mapping[Key, Row | None]


class GlanceView(View):
    """A reader's view that asks the database only for what is not in memory, so not all of it is of one moment."""

    def __init__(self, db: Database, committed: Committed) -> None:
        super().__init__(db)
        self._committed = committed

    def adapter(self, name: str) -> StoredAdapter | None:
        row = self._committed.adapters.get((name,))
        return stored_adapter(_stored(row, StoredAdapter._fields)) if row else super().adapter(name)

    def base_tensors(self, adapter: str) -> dict[str, list[int]] | None:
        if row := self._committed.adapters.get((adapter,)):
            return read_tensors(row["base_tensors"]) if row["base_tensors"] else None
        return super().base_tensors(adapter)

    def version(self, adapter: str, number: int) -> StoredVersion | None:
        row = self._committed.versions.get((adapter, number))
        return stored_version(_stored(row, StoredVersion._fields)) if row else super().version(adapter, number)


class Manifests:
    """Number by manifest digest, of a whole adapter at a time: so a digest that is new is known to be."""

    def __init__(self, rows: WorkingSet) -> None:
        self._rows = rows
        self._of: dict[str, dict[bytes, int]] = {}
        self._last: dict[str, int] = {}
        self._size = 0
        rows.watch("versions", self)

    def number(self, adapter: str, digest: str) -> int | None:
        return self._adapter(adapter).get(_raw(digest))

    def last(self, adapter: str) -> int:
        self._adapter(adapter)
        return self._last[adapter]

    def inserted(self, row: Row) -> None:
        if (known := self._of.get(row["adapter"])) is not None:
            known[_raw(row["digest"])] = row["number"]
            self._size += 1
            self._last[row["adapter"]] = max(self._last[row["adapter"]], row["number"])

    def forgotten(self) -> None:
        self._of, self._last, self._size = {}, {}, 0

    def settle(self) -> None:
        if len(self._of) > _MOST_ADAPTERS or self._size > _MOST_DIGESTS:
            self.forgotten()

    def _adapter(self, adapter: str) -> dict[bytes, int]:
        if adapter not in self._of:
            found = self._rows.read("SELECT digest, number FROM versions WHERE adapter = ?", [adapter])
            known = self._of[adapter] = {_raw(digest): number for batch in found for digest, number in batch}
            self._last[adapter] = max(known.values(), default=0)
            self._size += len(known)
        return self._of[adapter]


class Drawn:
    """The items of campaigns of late, which never change once they are drawn."""

    def __init__(self, rows: WorkingSet) -> None:
        self._of: dict[str, list[StoredItem]] = {}
        rows.watch("campaign_items", self)

    def items(self, campaign: str) -> list[StoredItem]:
        return self._of.get(campaign, [])

    def keep(self, campaign: str, items: list[StoredItem]) -> list[StoredItem]:
        self._of[campaign] = items
        return items

    def inserted(self, row: Row) -> None:
        self._of.pop(row["campaign"], None)

    def forgotten(self) -> None:
        self._of = {}

    def settle(self) -> None:
        if len(self._of) > _MOST_CAMPAIGNS:
            self._of = {}


class Answered:
    """Which Idempotency-Keys may have been seen: a Bloom filter of two MiB over all receipts, right in every "no"."""

    def __init__(self, rows: WorkingSet) -> None:
        self._rows = rows
        self._bits: bytearray | None = None
        rows.watch("receipts", self)

    def perhaps(self, actor: str, key: str) -> bool:
        if self._bits is None:
            self._bits = bytearray(_FILTER_BITS // 8)
            for batch in self._rows.read("SELECT actor, key FROM receipts"):
                for one in batch:
                    self._add(self._bits, *one)
        return all(self._bits[place >> 3] >> (place & 7) & 1 for place in _places(actor, key))

    def inserted(self, row: Row) -> None:
        if self._bits is not None:
            self._add(self._bits, row["actor"], row["key"])

    def forgotten(self) -> None:
        self._bits = None

    def _add(self, bits: bytearray, actor: str, key: str) -> None:
        for place in _places(actor, key):
            bits[place >> 3] |= 1 << (place & 7)


def _places(actor: str, key: str) -> Iterator[int]:
    """Four bits of the filter."""
    number = int.from_bytes(hashlib.blake2b(f"{actor}\0{key}".encode(), digest_size=16).digest())
    for _ in range(4):
        yield number % _FILTER_BITS
        number //= _FILTER_BITS


def _raw(digest: str) -> bytes:
    return bytes.fromhex(digest.removeprefix("sha256:"))


def _stored(row: Row, fields: Sequence[str]) -> tuple[Any, ...]:
    return tuple(row[field] for field in fields)
