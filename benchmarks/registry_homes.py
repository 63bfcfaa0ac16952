"""Homes for the registry's benchmark: one with approved versions, made command by command; one with very many versions.

The many are written straight into the journal, as copies of the entries of the first home's own versions with other
names, numbers and digests; `tunegate rebuild` then folds them as it would fold any journal.
"""

import hashlib
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from registry.commands import tokens
from registry.events import (
    Actor,
    AdapterCreated,
    AnyEvent,
    Entry,
    Event,
    EvidenceRecorded,
    GateDecided,
    JobClaimed,
    PolicySet,
    VersionCreated,
    VersionSubmitted,
)
from registry.records import CreateToken, FileEntry, Role, State
from registry.settings import Home
from registry.storage.blobs import LocalBlobs
from registry.storage.journal import FileJournal, Head, Line, line_of

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from factories import make_row  # noqa: E402
from registry_under_test import ADMIN, NAME, bench_in  # noqa: E402

from evaluator.evidence import write_rows  # noqa: E402

__all__ = ["MANY", "NAME", "alias", "approved", "many"]

MANY = "many-versions"
_EVENT = TypeVar("_EVENT", bound=Event)
_GROUP = 1000
# Of the many versions: one in ten was decided, one in a hundred has evidence.
_DECIDED, _MEASURED = 10, 100
_AT = "2026-06-01T00:00:00.000000Z"
_ACTOR = Actor(person="bench", role="ci")


def alias(place: int) -> str:
    return f"alias-{place}"


def approved(home: Home, aliases: int) -> dict[Role, str]:
    """A home whose versions 1 and 2 were approved under each alias; a token for every role."""
    with bench_in(home.root) as bench:
        bench.create_adapter()
        for fill in (1, 2):
            number = bench.approvable(fill)
            for name in ("approved", *map(alias, range(aliases))):
                bench.promote(number, name)
        requests = [CreateToken(role=role, person=f"{role} person") for role in Role]
        return {one.role: bench.run(ADMIN, tokens.create, request=one).value.secret for one in requests}


class _Patterns(NamedTuple):
    policy: PolicySet
    adapter: AdapterCreated
    created: VersionCreated
    submitted: VersionSubmitted
    evidence: EvidenceRecorded
    decided: GateDecided


def many(home: Home, versions: int) -> None:
    """Add so many versions to a home from `approved`: half of them to one adapter, the others to up to 1,000 more."""
    rows = home.root / "rows.parquet"
    write_rows(rows, [make_row("support-desk/questions", f"i{n:04}", correct=True) for n in range(4)])
    held = LocalBlobs(home.blobs).put(rows.read_bytes())
    journal = FileJournal(home.journal)
    try:
        patterns, head, group = _patterns(journal), journal.head, list[Line]()
        for events in _batches(patterns, versions, held):
            line = line_of(Entry(seq=head.seq + 1, prev=head.hash, at=_AT, actor=_ACTOR, events=events))
            head = Head(line.entry.seq, line.hash)
            group.append(line)
            if len(group) == _GROUP:
                journal.append(group)
                group = []
        journal.append(group)
    finally:
        journal.close()


def _batches(patterns: _Patterns, versions: int, rows: str) -> Iterator[list[AnyEvent]]:
    change: Any = msgspec.structs.replace
    others = min(1000, max(1, versions // 100))
    names = [MANY, *(f"team-{n % 10}/bot-{n:04}" for n in range(others))]
    for name in names:
        yield [change(patterns.adapter, name=name), change(patterns.policy, adapter=name, revision=1)]
    counts, turns = dict.fromkeys(names, 0), itertools.cycle(names[1:])
    for n in range(versions):
        name = MANY if n // _MEASURED % 2 else next(turns)
        counts[name] += 1
        number, digest = counts[name], hashlib.sha256(str(n).encode()).hexdigest()
        config, weights = patterns.created.files
        files = [config, FileEntry(path=weights.path, size=weights.size, sha256=digest)]
        about = {"adapter": name, "number": number}
        yield [change(patterns.created, **about, digest=f"sha256:{digest}", files=files)]
        yield [change(patterns.submitted, **about, job=digest[:32])]
        if n % _MEASURED == 0:
            yield [JobClaimed(id=digest[:32], fence=1, worker="w")]
            evidence = change(patterns.evidence.evidence, manifest=f"sha256:{digest}", rows=rows)
            yield [change(patterns.evidence, **about, job=digest[:32], evidence=evidence)]
        if n % _DECIDED == 0:
            state = State.REJECTED if n % (2 * _DECIDED) else State.INCONCLUSIVE
            yield [change(patterns.decided, **about, state=state)]


def _patterns(journal: FileJournal) -> _Patterns:
    events = [event for line in journal.read() for event in line.entry.events]

    def first(kind: type[_EVENT]) -> _EVENT:
        return next(event for event in events if isinstance(event, kind))

    return _Patterns(
        first(PolicySet),
        first(AdapterCreated),
        first(VersionCreated),
        first(VersionSubmitted),
        first(EvidenceRecorded),
        first(GateDecided),
    )
