"""Aliases move by the rules that hold now; the way back is judged by the rules of then."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from factories import SUITES, entry_of, make_suite
from registry_under_test import ADMIN, CI, CONSUMER, MANAGER, NAME, POLICY, REVIEWERS, Bench, bench_in

from registry.access import Principal
from registry.approval.keyring import read_keys
from registry.approval.verification import open_statement, read_claim
from registry.commands import adapters, approvals, review, versions
from registry.commands.gate import assess
from registry.errors import Forbidden, GateNotSatisfied
from registry.records import (
    AccuracyRule,
    KeySet,
    Policy,
    PromotionRule,
    RegisterSuite,
    Role,
    Rollback,
    State,
    Verdict,
)
from registry.settings import Home

pytestmark = pytest.mark.slow

AUTOMATIC = msgspec.structs.replace(POLICY, promotion=PromotionRule(automatic=True))
STRICT = AccuracyRule(min=0.99)


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter(policy=AUTOMATIC)
        yield made


def set_policy(bench: Bench, policy: Policy) -> None:
    bench.run(ADMIN, adapters.set_policy, adapter=NAME, policy=policy, if_match=None)


def state_of(bench: Bench, number: int) -> State:
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None
    return stored.state


def approved(bench: Bench) -> int | None:
    current = bench.registry.view().alias(NAME, "approved")
    return current.number if current else None


def in_review(bench: Bench, fill: int) -> int:
    number = bench.complete(bench.submit(fill).number).number
    bench.evaluate()
    return number


# -- automatic promotion ------------------------------------------------------------------------------------------


def test_the_last_rating_promotes_where_the_present_policy_still_asks_for_it(bench: Bench) -> None:
    number = in_review(bench, 1)
    bench.review()
    assert (state_of(bench, number), approved(bench)) == (State.APPROVED, number)
    assert bench.rebuilt() == bench.tables()


@pytest.mark.parametrize(
    "present",
    [
        msgspec.structs.replace(AUTOMATIC, accuracy=STRICT),
        msgspec.structs.replace(AUTOMATIC, promotion=PromotionRule(automatic=False)),
        msgspec.structs.replace(POLICY, accuracy=STRICT),
    ],
    ids=["stricter", "by people", "both"],
)
def test_the_last_rating_does_not_promote_against_the_present_policy(bench: Bench, present: Policy) -> None:
    number = in_review(bench, 1)
    set_policy(bench, present)
    bench.review()
    assert (state_of(bench, number), approved(bench)) == (State.APPROVABLE, None)
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None and assess(bench.registry.view(), stored).verdict is Verdict.GO
    assert bench.registry.view().alias_moves(NAME, "approved") == []


def test_a_version_sealed_before_the_policy_became_automatic_is_promoted_by_it(bench: Bench) -> None:
    set_policy(bench, POLICY)
    number = in_review(bench, 1)
    set_policy(bench, AUTOMATIC)
    bench.review()
    assert approved(bench) == number


def test_an_older_version_never_takes_the_alias_from_a_newer_one_by_itself(bench: Bench) -> None:
    """Its reviewers finish later: the alias stays, and a person may still decide otherwise."""
    set_policy(bench, POLICY)
    first, second = bench.approvable(1), bench.approvable(2)
    # Whoever submitted a version is not asked to rate it.
    older = bench.complete(bench.submit(3, who=Principal("t-owner", "another reviewer", Role.CI)).number).number
    bench.evaluate()
    newer = bench.complete(bench.submit(4).number).number
    bench.evaluate()
    set_policy(bench, AUTOMATIC)
    # The older campaign is offered first: leave its very last rating open, and finish the newer one.
    *most, last = REVIEWERS
    for who in most:
        while bench.rate(who):
            pass
    held = bench.run(last, review.next_assignment).value
    held_campaign = bench.registry.view().assignment(held.id)
    mine = bench.registry.view().campaign_of(NAME, older)
    assert held_campaign is not None and mine is not None and held_campaign.campaign == mine.id
    other = Principal("t-other", "another reviewer", Role.REVIEWER)
    while bench.rate(other):
        pass
    assert (state_of(bench, older), approved(bench)) == (State.IN_REVIEW, newer)
    while bench.rate(last):
        pass
    assert (state_of(bench, older), approved(bench)) == (State.APPROVABLE, newer)
    assert bench.promote(older).number == older
    assert {state_of(bench, one) for one in (first, second)} == {State.APPROVABLE}


# -- the way back -------------------------------------------------------------------------------------------------


@pytest.fixture
def manual(bench: Bench) -> Bench:
    set_policy(bench, POLICY)
    for fill in (1, 2):
        bench.promote(bench.approvable(fill))
    return bench


def change_suite(bench: Bench) -> None:
    """Another `support-desk/questions`, and the same policy, now pinned to it."""
    files = make_suite(SUITES["accuracy"], "questions", 201)
    for data in files.values():
        bench.registry.blobs.put(data)
    request = RegisterSuite(name=SUITES["accuracy"], files=[entry_of(path, data) for path, data in files.items()])
    bench.run(ADMIN, adapters.register_suite, request=request)
    set_policy(bench, POLICY)


def test_rollback_works_after_a_suite_has_changed(manual: Bench) -> None:
    change_suite(manual)
    third = manual.complete(manual.submit(3).number).number
    with pytest.raises(GateNotSatisfied):
        manual.promote(third)
    with pytest.raises(GateNotSatisfied, match="present policy"):
        manual.promote(1)
    assert manual.rollback(1).number == 1
    assert (state_of(manual, 1), state_of(manual, 2)) == (State.APPROVED, State.SUPERSEDED)


def test_rollback_works_after_the_policy_became_stricter(manual: Bench) -> None:
    set_policy(manual, msgspec.structs.replace(POLICY, accuracy=STRICT))
    assert manual.rollback(1).number == 1


def test_a_submitter_cannot_roll_back_to_their_own_version(manual: Bench) -> None:
    own = Principal("t-own", CI.person, Role.RELEASE_MANAGER)
    given: dict[str, Any] = {"adapter": NAME, "alias": "approved", "if_match": None}
    with pytest.raises(Forbidden, match="ask someone else"):
        manual.run(own, approvals.rollback, request=Rollback(to=1, reason="mine is better"), **given)
    assert approved(manual) == 2
    manual.run(MANAGER, approvals.rollback, request=Rollback(to=1, reason="it is better"), **given)
    assert approved(manual) == 1


def test_an_alias_resolves_with_its_own_approval_also_if_another_moved_to_that_version_later(manual: Bench) -> None:
    keys = read_keys(msgspec.json.encode(KeySet(keys=[manual.registry.services.signer.public])))

    def alias_of(reference: str) -> Any:
        found = manual.registry.ask(CONSUMER, lambda context: versions.resolve(context, reference))
        assert found.attestation is not None
        return read_claim(open_statement(msgspec.json.encode(found.attestation), keys).document).alias

    manual.promote(2, "canary")
    manual.promote(2, "beta")
    assert {alias: alias_of(f"{NAME}@{alias}") for alias in ("approved", "canary", "beta")} == {
        "approved": "approved",
        "canary": "canary",
        "beta": "beta",
    }
    assert alias_of(f"{NAME}/2") == "beta"
