"""Where the policy asks for it, no alias moves before a release manager, with a key of their own, signed it too."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from registry_under_test import ADMIN, CI, CONSUMER, MANAGER, NAME, POLICY, Bench, bench_in

from registry.access import Principal
from registry.approval.attestation import Signer
from registry.approval.keyring import read_keys
from registry.approval.verification import lacking, open_statement, read_claim
from registry.commands import adapters, approvals, keys, tokens, versions
from registry.commands.context import Context
from registry.errors import Conflict, Forbidden, InvalidRequest, NotFound
from registry.gate.policy import policy_digest
from registry.records import (
    AddKey,
    AliasInfo,
    Countersign,
    CreateToken,
    Policy,
    PromotionRule,
    Proposal,
    Revoke,
    Role,
    State,
)
from registry.settings import Home

pytestmark = pytest.mark.slow

SECOND = msgspec.structs.replace(POLICY, promotion=PromotionRule(second_signature=True))
MINE = Signer.generate()
OTHER = Principal("t-other", "otto", Role.RELEASE_MANAGER)


@pytest.fixture
def bench(home: Home) -> Iterator[Bench]:
    with bench_in(home.root) as made:
        made.create_adapter(policy=SECOND)
        for who in (MANAGER, OTHER, Principal(None, CI.person, Role.RELEASE_MANAGER)):
            made.run(ADMIN, tokens.create, request=CreateToken(role=Role.RELEASE_MANAGER, person=who.person))
        add_key(made, MINE, MANAGER.person)
        yield made


def add_key(bench: Bench, signer: Signer, person: str) -> None:
    bench.run(ADMIN, keys.add, request=AddKey(public=signer.public.public, person=person))


def waiting(bench: Bench, alias: str = "approved") -> Proposal:
    def question(context: Context) -> Proposal:
        return approvals.proposal(context, NAME, alias)

    return bench.registry.ask(MANAGER, question)


def request(proposal: Proposal, signer: Signer = MINE, **changes: Any) -> Countersign:
    signature = signer.signature(msgspec.json.decode(f'"{proposal.attestation.payload}"', type=bytes))
    values = {"keyid": signature.keyid, "sig": signature.sig, "alias": proposal.alias, **changes}
    return Countersign(**values)


def countersign(
    bench: Bench, number: int, who: Principal = MANAGER, signed: Countersign | None = None, **given: Any
) -> AliasInfo:
    signed = signed or request(waiting(bench), **given)
    answer: AliasInfo = bench.run(who, approvals.countersign, adapter=NAME, number=number, request=signed).value
    return answer


def named(bench: Bench, alias: str = "approved") -> int | None:
    stored = bench.registry.view().alias(NAME, alias)
    return stored.number if stored else None


def state(bench: Bench, number: int) -> State:
    stored = bench.registry.view().version(NAME, number)
    assert stored is not None
    return stored.state


def set_policy(bench: Bench, policy: Policy) -> None:
    bench.run(ADMIN, adapters.set_policy, adapter=NAME, policy=policy, if_match=None)


def test_a_promotion_waits_and_nothing_moves_until_it_is_countersigned(bench: Bench) -> None:
    number = bench.approvable(1)
    promoted = bench.promote(number)
    assert (promoted.unsigned, promoted.number, promoted.counter) == (True, number, 1)
    assert (named(bench), state(bench, number)) == (None, State.APPROVABLE)
    with pytest.raises(NotFound):
        bench.registry.ask(CONSUMER, lambda context: versions.resolve(context, f"{NAME}@approved"))
    moved = countersign(bench, number)
    assert (moved.unsigned, moved.number, moved.counter) == (False, number, 1)
    assert (named(bench), state(bench, number)) == (number, State.APPROVED)
    (move,) = bench.registry.view().alias_moves(NAME, "approved")
    assert move.by == MANAGER.person and move.reason.endswith(f"countersigned by {MANAGER.person}")
    with pytest.raises(NotFound, match="no move"):
        waiting(bench)
    assert bench.tables() == bench.rebuilt()


def test_what_was_countersigned_verifies_with_both_keys_and_with_neither_missing(bench: Bench) -> None:
    number = bench.approvable(1)
    bench.promote(number)
    unsigned = waiting(bench).attestation
    countersign(bench, number)
    known = bench.registry.ask(CONSUMER, lambda context: keys.key_set(context.view, context.services.signer))
    found = bench.registry.ask(CONSUMER, lambda context: versions.resolve(context, f"{NAME}@approved"))
    trusted = read_keys(msgspec.json.encode(known))

    def problems(envelope: Any) -> list[str]:
        opened = open_statement(msgspec.json.encode(envelope), trusted)
        claim = read_claim(opened.document)
        return list(lacking(trusted, opened.signed, claim.roles, claim.issued))

    assert found.attestation is not None and problems(found.attestation) == []
    assert len(problems(unsigned)) == 1
    assert len(problems(msgspec.structs.replace(found.attestation, signatures=found.attestation.signatures[1:]))) == 1


def test_promoting_again_while_it_waits_is_the_same_proposal(bench: Bench) -> None:
    number = bench.approvable(1)
    first = bench.promote(number)
    head = bench.registry.journal.head
    assert bench.promote(number) == first and bench.registry.journal.head == head


def test_a_newer_proposal_takes_the_place_of_an_older_one(bench: Bench) -> None:
    first, second = bench.approvable(1), bench.approvable(2)
    bench.promote(first)
    old = request(waiting(bench))
    bench.promote(second)
    for signed in (old, None):
        with pytest.raises(Conflict, match="waits for a signature"):
            countersign(bench, first, signed=signed)
    with pytest.raises(Conflict, match="still not whole"):
        countersign(bench, second, signed=old)
    assert countersign(bench, second).number == second


def test_a_proposal_is_void_once_the_alias_has_moved(bench: Bench) -> None:
    first, second = bench.approvable(1), bench.approvable(2)
    bench.promote(first)
    countersign(bench, first)
    bench.promote(second)
    old = request(waiting(bench))
    set_policy(bench, POLICY)
    # The present policy asks for no second signature, the version's own still does.
    with pytest.raises(Conflict, match="waits for a signature"):
        countersign(bench, first, signed=old)
    countersign(bench, second, signed=old)
    with pytest.raises(Conflict, match="waits for a signature"):
        countersign(bench, second, signed=old)
    assert named(bench) == second


def test_a_rollback_takes_a_second_signature_too(bench: Bench) -> None:
    first, second = bench.approvable(1), bench.approvable(2)
    for number in (first, second):
        bench.promote(number)
        countersign(bench, number)
    back = bench.rollback(first)
    assert (back.unsigned, back.counter, named(bench)) == (True, 3, second)
    assert bench.rollback(first) == back
    assert countersign(bench, first).counter == 3 and named(bench) == first
    assert state(bench, second) is State.SUPERSEDED
    assert bench.tables() == bench.rebuilt()


def test_who_submitted_a_version_can_not_countersign_it(bench: Bench) -> None:
    own, mine = Principal("t-own", CI.person, Role.RELEASE_MANAGER), Signer.generate()
    add_key(bench, mine, CI.person)
    number = bench.approvable(1)
    bench.promote(number)
    with pytest.raises(Forbidden, match="ask someone else"):
        countersign(bench, number, who=own, signer=mine)
    assert named(bench) is None


def test_only_a_key_of_ones_own_counts(bench: Bench) -> None:
    number = bench.approvable(1)
    bench.promote(number)
    for who, signer in ((OTHER, MINE), (MANAGER, Signer.generate()), (MANAGER, bench.registry.services.signer)):
        with pytest.raises(Forbidden, match="is not registered for"):
            countersign(bench, number, who=who, signer=signer)
    assert named(bench) is None


def test_a_revoked_key_and_one_registered_after_the_proposal_do_not_count(bench: Bench) -> None:
    number, late = bench.approvable(1), Signer.generate()
    bench.promote(number)
    add_key(bench, late, OTHER.person)
    with pytest.raises(Conflict, match="was not yet valid"):
        countersign(bench, number, who=OTHER, signer=late)
    bench.run(ADMIN, keys.revoke, id_=MINE.public.id, request=Revoke(reason="lost"))
    with pytest.raises(Conflict, match="propose one with"):
        countersign(bench, number)
    assert named(bench) is None


def test_a_proposal_older_than_every_key_that_could_sign_it_is_given_anew(bench: Bench) -> None:
    number, late = bench.approvable(1), Signer.generate()
    bench.promote(number)
    bench.run(ADMIN, keys.revoke, id_=MINE.public.id, request=Revoke(reason="lost"))
    add_key(bench, late, OTHER.person)
    bench.promote(number)
    assert countersign(bench, number, who=OTHER, signer=late).number == number


@pytest.mark.parametrize("sig", ["A" * 88, "A" * 86 + "==", "!" * 86 + "=="])
def test_a_signature_that_is_none_moves_nothing(bench: Bench, sig: str) -> None:
    number = bench.approvable(1)
    bench.promote(number)
    with pytest.raises((Conflict, InvalidRequest)):
        countersign(bench, number, signed=request(waiting(bench), sig=sig))
    assert named(bench) is None


def test_a_version_that_was_revoked_meanwhile_is_not_approved_by_a_signature(bench: Bench) -> None:
    number = bench.approvable(1)
    bench.promote(number)
    bench.revoke(number)
    with pytest.raises(Conflict, match="was revoked"):
        countersign(bench, number)
    assert (named(bench), state(bench, number)) == (None, State.REVOKED)


def test_a_stricter_policy_stops_a_proposal_that_waits(bench: Bench) -> None:
    number = bench.approvable(1)
    bench.promote(number)
    set_policy(bench, msgspec.structs.replace(SECOND, accuracy=msgspec.structs.replace(SECOND.accuracy, min=0.99)))
    with pytest.raises(Conflict, match="present policy"):
        countersign(bench, number)
    assert named(bench) is None


def test_an_old_proposal_is_given_anew(bench: Bench) -> None:
    number = bench.approvable(1)
    bench.promote(number)
    old = request(waiting(bench))
    at = datetime.now(UTC)
    bench.registry._clock = lambda: at + timedelta(days=183)
    with pytest.raises(Conflict, match="waits for a signature"):
        countersign(bench, number, signed=old)
    bench.promote(number)
    with pytest.raises(Conflict, match="still not whole"):
        countersign(bench, number, signed=old)
    assert countersign(bench, number).counter == 1


def test_an_automatic_promotion_waits_for_its_signature_too(bench: Bench) -> None:
    rule = PromotionRule(automatic=True, second_signature=True)
    set_policy(bench, msgspec.structs.replace(POLICY, promotion=rule))
    number = bench.approvable(1)
    assert (named(bench), state(bench, number), waiting(bench).by) == (None, State.APPROVABLE, "tunegate")
    assert countersign(bench, number).number == number


def test_a_policy_that_begins_to_ask_makes_the_present_approval_due(bench: Bench) -> None:
    set_policy(bench, POLICY)
    number = bench.approvable(1)
    assert not bench.promote(number).unsigned
    set_policy(bench, SECOND)
    again = bench.promote(number)
    assert (again.unsigned, again.counter, named(bench)) == (True, 2, number)
    assert countersign(bench, number).counter == 2


def test_a_policy_without_it_has_the_digest_it_always_had() -> None:
    """Versions that were sealed before there were second signatures name their policy by it."""
    assert policy_digest(Policy()) == "sha256:74c36dbf862202cc56e60247ed0a2b4953ce94fac58db0e8d7c0b513564313e8"
    assert policy_digest(SECOND) != policy_digest(POLICY)
