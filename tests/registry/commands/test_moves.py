"""What a signed move says is what was decided on, and the registry's word on an alias is about what it names now."""

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from registry_under_test import ADMIN, CONSUMER, MANAGER, NAME, POLICY, Bench, bench_in

from registry.access import Principal
from registry.approval.attestation import ratings_digest
from registry.approval.keyring import read_keys
from registry.approval.verification import FRESHNESS_TYPE, open_statement, read_claim
from registry.commands import adapters, approvals, keys, moves, versions
from registry.commands.bundle import bundle_of
from registry.commands.context import Context
from registry.errors import NotFound
from registry.events import CampaignOpened
from registry.names import digest_of
from registry.records import Envelope, PromotionRule
from registry.settings import Home

pytestmark = pytest.mark.slow

AUTOMATIC = msgspec.structs.replace(POLICY, promotion=PromotionRule(automatic=True))


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter()
        yield made


def approval(bench: Bench, ref: str) -> Envelope:
    found = bench.registry.ask(CONSUMER, lambda context: versions.resolve(context, ref)).attestation
    assert found is not None
    return found


def predicate(envelope: Envelope) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(base64.b64decode(envelope.payload))["predicate"]
    return found


def freshness(bench: Bench, alias: str = "approved", who: Principal = CONSUMER) -> Envelope:
    def question(context: Context) -> Envelope:
        stored = context.view.alias(NAME, alias)
        assert stored is not None
        return moves.freshness(context, approvals.alias_info(stored))

    return bench.registry.ask(who, question)


@pytest.mark.parametrize("policy", [POLICY, AUTOMATIC], ids=["by a person", "by the last rating"])
def test_an_approval_names_by_digest_all_that_was_decided_on(bench: Bench, policy: Any) -> None:
    """The last rating of an automatic promotion is not recorded yet when the statement is made."""
    bench.run(ADMIN, adapters.set_policy, adapter=NAME, policy=policy, if_match=None)
    number = bench.approvable(1)
    if policy is POLICY:
        bench.promote(number)
    stored = bench.registry.view().version(NAME, number)
    (opened,) = (
        event
        for line in bench.registry.journal.read()
        for event in line.entry.events
        if isinstance(event, CampaignOpened)
    )
    bundle = bench.registry.ask(MANAGER, lambda context: bundle_of(context, NAME, number))
    assert stored is not None and stored.training is not None and len(bundle.ratings) == 6
    said = {
        one["uri"]: f"sha256:{one['digest']['sha256']}"
        for one in predicate(approval(bench, f"{NAME}@approved"))["inputAttestations"]
    }
    assert said == {
        "tunegate:evidence": bundle.evidence_digest,
        f"tunegate:campaign/{opened.id}": opened.root,
        f"tunegate:campaign/{opened.id}/ratings": ratings_digest(bundle.ratings),
        "tunegate:training": digest_of(msgspec.to_builtins(stored.training)),
    }
    assert predicate(approval(bench, f"{NAME}@approved"))["policy"]["digest"]["sha256"] == bundle.policy[7:]


def test_a_version_by_its_number_comes_with_the_approval_of_an_alias_that_names_it_still(bench: Bench) -> None:
    """An alias that moved on since would say that this version is what it names."""
    first, second = bench.approvable(1), bench.approvable(2)
    bench.promote(first, "canary")
    bench.promote(first)
    bench.promote(second)
    assert predicate(approval(bench, f"{NAME}/{first}"))["tunegate"]["alias"] == "canary"


def test_the_word_on_an_alias_is_signed_about_what_it_names_and_for_a_day(bench: Bench) -> None:
    bench.promote(bench.approvable(1))
    bench.promote(bench.approvable(2))
    at = datetime(2030, 1, 1, tzinfo=UTC)
    bench.registry._clock = lambda: at
    known = bench.registry.ask(CONSUMER, lambda context: keys.key_set(context.view, context.services.signer))
    opened = open_statement(
        msgspec.json.encode(freshness(bench)), read_keys(msgspec.json.encode(known)), FRESHNESS_TYPE
    )
    claim = read_claim(json.loads(base64.b64decode(approval(bench, f"{NAME}@approved").payload)))
    assert opened.document["predicate"] == {
        "adapter": NAME,
        "number": 2,
        "alias": "approved",
        "counter": 2,
        "issued": at.isoformat(),
        "expires": (at + timedelta(hours=24)).isoformat(),
    }
    assert opened.document["subject"] == [{"name": f"{NAME}/2", "digest": {"sha256": claim.manifest}}]


def test_there_is_no_word_on_what_was_revoked(bench: Bench) -> None:
    number = bench.approvable(1)
    bench.promote(number)
    bench.revoke(number)
    for who in (CONSUMER, MANAGER):
        with pytest.raises(NotFound, match="not approved any more"):
            freshness(bench, who=who)
