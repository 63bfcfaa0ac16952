"""Campaigns from before items had kinds and campaigns were sealed: read as they were, and gone on with.

The journal is made by today's commands, and stripped of every event and field that came with seals.
"""

import itertools
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from registry_under_test import MANAGER, NAME, REVIEWERS, Bench, bench_in

from registry.commands import campaigns, results
from registry.commands.gate import assess
from registry.errors import Conflict
from registry.events import GENESIS, chain_hash, decode_entry
from registry.names import canonical
from registry.records import Policy, ReviewRule, State, Verdict
from registry.review.campaign import item_hash
from registry.settings import Home

_LATER_FIELDS = {
    "assignment.issued": ("position", "batch"),
    "rating.recorded": ("unsafe", "discuss", "channel", "seconds"),
    "campaign.opened": (),
}


def older(event: dict[str, Any]) -> dict[str, Any] | None:
    """The event as it was written then; None for one that was not."""
    if event["type"] in ("campaign.sealed", "dispute.adjudicated"):
        return None
    event = {name: value for name, value in event.items() if name not in _LATER_FIELDS.get(event["type"], ())}
    if event["type"] == "campaign.opened":
        event["items"] = [{"item": one["source"] or one["item"], "hash": one["hash"]} for one in event["items"]]
    if event["type"] == "assignment.issued":
        event["item"] = event["item"].rpartition("/")[2]
    return event


def rehashed(event: dict[str, Any], known: dict[str, str]) -> dict[str, Any]:
    """An item was called by its suite's name for it, which is part of its hash."""
    known |= {event["type"]: event["digest"]} if event["type"] in ("version.created", "evidence.recorded") else {}
    if event["type"] == "campaign.opened":
        for one in event["items"]:
            n = int(one["item"][1:])
            texts = f"prompt {n}", f"output {n}"
            one["hash"] = item_hash(known["version.created"], known["evidence.recorded"], one["item"], *texts)
    return event


def rewrite(journal: Path) -> None:
    lines, prev = [], GENESIS
    known: dict[str, str] = {}
    for line in journal.read_bytes().splitlines():
        entry = json.loads(line.partition(b" ")[2])
        entry["events"] = [rehashed(event, known) for one in entry["events"] if (event := older(one)) is not None]
        entry["prev"] = prev
        body = canonical(entry)
        prev = chain_hash(body)
        decode_entry(body)
        lines.append(prev.encode() + b" " + body + b"\n")
    journal.write_bytes(b"".join(lines))


def slowly(bench: Bench, start: datetime) -> datetime:
    """Every command from now on takes a quarter of a minute; when it will have been a day."""
    steps = itertools.count()
    bench.registry._clock = lambda: start + timedelta(seconds=15 * next(steps))
    return start + timedelta(days=1)


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    """Version 1 was decided then; version 2 is in review, one person being through and another halfway.

    The policy is the default one but for how many outputs are rated: nobody measured then how long it took.
    """
    with bench_in(home.root) as made:
        later = slowly(made, datetime(2026, 3, 1, 9, tzinfo=UTC))
        made.create_adapter(policy=Policy(review=ReviewRule(outputs=2)))
        made.approvable(1)
        made.complete(made.submit(2).number)
        made.evaluate()
        while made.rate(REVIEWERS[0]):
            pass
        made.rate(REVIEWERS[1])
        made.close()
        rewrite(home.journal)
        for file in home.root.glob("catalog.duckdb*"):
            file.unlink()
        again = Bench(home)
        made.registry = again.registry
        slowly(made, later)
        yield made


def state(bench: Bench, number: int) -> State:
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None
    return stored.state


def test_what_was_decided_stays_decided_and_can_be_promoted(bench: Bench) -> None:
    view = bench.registry.view()
    stored = view.version(NAME, 1)
    assert stored is not None and stored.state is State.APPROVABLE
    report = assess(view, stored)
    assert report.verdict is Verdict.GO and "3 reviewers × 2 outputs" in report.checks[-1].reason
    assert bench.promote(1).number == 1 and state(bench, 1) is State.APPROVED


def test_what_was_open_goes_on_is_sealed_and_counts_all_that_was_rated(bench: Bench) -> None:
    campaign = bench.registry.view().campaign_of(NAME, 2)
    assert campaign is not None and campaign.sealed_at is None
    described = bench.registry.ask(MANAGER, lambda c: campaigns.describe(c, NAME, 2))
    assert [(one.rated, one.total) for one in described.progress] == [(2, 2), (1, 2)]
    for who in REVIEWERS[1:]:
        while bench.rate(who):
            pass
    assert state(bench, 2) is State.APPROVABLE
    result = bench.registry.ask(MANAGER, lambda c: results.result(c, NAME, 2))
    assert (len(result.counted), result.ratings) == (3, 6)
    with pytest.raises(Conflict, match="not sealed"):
        bench.registry.ask(MANAGER, lambda c: results.result(c, NAME, 1))
    assert bench.rebuilt() == bench.tables()
