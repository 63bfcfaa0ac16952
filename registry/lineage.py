"""Which rows trained an adapter, and which adapters a row or a source trained: over the ledgers of a registry.

What cannot be known is said: a version without a training record, or whose ledger cannot be read, may have used
anything.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from msgspec import Struct

from registry.client import Client
from registry.errors import InvalidRequest, TunegateError
from registry.ledgers import TRAINED, Ledger, LedgerEntry
from registry.records import State, VersionInfo


class Use(Struct, frozen=True):
    """What a version did with the rows that were looked for; `uses`: how many ended how. rows: the first hundred."""

    ref: str
    state: State
    uses: dict[str, int]
    rows: list[LedgerEntry]

    @property
    def trained(self) -> int:
        return self.uses.get(TRAINED, 0)


class Unknown(Struct, frozen=True):
    ref: str
    state: State
    reason: str


class Trace(Struct, frozen=True):
    """found: versions that had such rows. unknown: versions of which it cannot be said. looked: all that were asked."""

    looked: int
    found: list[Use]
    unknown: list[Unknown]


_SHOWN = 100
Match = Callable[[Ledger], Iterator[LedgerEntry]]


class Ledgers:
    """The ledgers of a registry's versions, each fetched once into a directory, named by its digest."""

    def __init__(self, client: Client, cache: Path) -> None:
        self._client, self._cache = client, cache

    def of(self, version: VersionInfo) -> Ledger:
        """Raises InvalidRequest where the version has no training record, and what the registry refuses."""
        if version.training is None:
            raise InvalidRequest(
                f"{version.ref} has no training record, or this token may not see it (trainer, evaluator, auditor or "
                "admin may): nothing is known of what it was trained on"
            )
        sha256 = version.training.ledger.removeprefix("sha256:")
        file = self._cache / f"{sha256}.parquet"
        if not file.exists():
            self._cache.mkdir(parents=True, exist_ok=True)
            self._client.download(sha256, file)
        return Ledger(file)


def trace(client: Client, ledgers: Ledgers, match: Match, adapter: str | None = None) -> Trace:
    """Look into the ledger of every version that this token sees, or of one adapter's versions."""
    found, unknown, looked = [], [], 0
    for name in [adapter] if adapter else [one.name for one in client.adapters()]:
        for version in client.versions(name):
            looked += 1
            try:
                with ledgers.of(version) as ledger:
                    rows = list(match(ledger))
            except TunegateError as error:
                unknown.append(Unknown(version.ref, version.state, str(error)))
                continue
            if rows:
                uses = dict(Counter(one.disposition for one in rows))
                found.append(Use(version.ref, version.state, uses, rows[:_SHOWN]))
    return Trace(looked, found, unknown)
