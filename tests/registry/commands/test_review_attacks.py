"""Whatever people try who are not entitled, did not read or come too late: the quota is not reached by it.

One campaign stands one honest person short of its quota while every attack is made on it, one after another; then the
third honest person comes, and the seal says of everyone else by which rule they do not count.
"""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec
import pytest
from factories import SIZES, entry_of
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from registry_under_test import ADMIN, CI, EVALUATOR, MANAGER, NAME, submission
from review_under_test import FULL, RULE, Desk, desk_in, honest, rating, reviewer

from registry.access import Principal
from registry.commands import adapters, campaigns, disputes, rejection, review, reviewers, versions
from registry.commands.gate import assess
from registry.errors import Conflict, NotFound, TunegateError
from registry.events import AliasMoved, CampaignOpened, CampaignSealed, RatingRecorded
from registry.records import (
    Assignment,
    Channel,
    Policy,
    PromotionRule,
    Reject,
    ReviewRule,
    Role,
    SealCampaign,
    State,
)
from registry.review import campaign as plan

pytestmark = pytest.mark.slow
HONEST = [reviewer(f"honest {n}") for n in (1, 2, 3)]
OTHER_ADMIN = Principal("t-own-admin", CI.person, Role.ADMIN)  # the submitter's second hat


class Trait(NamedTuple):
    """What is wrong with somebody, and the rule that is to see it."""

    standing: str = "fine"
    hurried: bool = False
    blind: bool = False
    channel: Channel = Channel.WEB
    careless: bool = False  # rates half of it and leaves

    @property
    def rules(self) -> set[str]:
        found = {
            "late_reviewer": self.standing == "late",
            "wrong_domain": self.standing == "by submitter",
            "expired_credential": self.standing == "withdrawn midway",
            "too_fast": self.hurried and self.standing != "withdrawn midway",
            "failed_gold": self.blind,
            "incomplete": self.careless,
            # A sheet is a sheet, however it is sent.
            "channel": self.channel is Channel.API and self.standing != "withdrawn midway",
        }
        return {rule for rule, holds in found.items() if holds}


TRAITS = st.builds(
    Trait,
    standing=st.sampled_from(["fine", "late", "by submitter", "withdrawn midway", "none", "another domain"]),
    hurried=st.booleans(),
    blind=st.booleans(),
    channel=st.sampled_from([Channel.WEB, Channel.API]),
    careless=st.booleans(),
).filter(lambda trait: bool(trait.rules) or trait.standing in ("none", "another domain"))


class Scene(NamedTuple):
    desk: Desk
    number: int
    attackers: dict[str, Trait]
    numbers: Iterator[int]

    def is_open(self) -> bool:
        stored = self.desk.registry.view().campaign_of(NAME, self.number)
        assert stored is not None
        return stored.sealed_at is None and self.desk.state(self.number) is State.IN_REVIEW


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with desk_in(tmp_path_factory.mktemp("attacks")) as desk:
        for who in HONEST:
            desk.vouch(who.person)
        for n in range(60):  # who is of standing, and what they are worth is another matter
            desk.vouch(f"fine {n}")
        number = desk.open()
        desk.wait(1)
        for who in HONEST[:2]:
            assert desk.read_all(who) == 25
        found = Scene(desk, number, {}, itertools.count())
        assert found.is_open()
        yield found
        # The one honest person who was missing: now, and only now, it is enough.
        assert desk.read_all(HONEST[2]) == 25
        assert not found.is_open() and desk.state(number) is State.APPROVABLE
        (sealed,) = desk.told(CampaignSealed)
        assert sealed.counted == sorted(who.person for who in HONEST)
        rules: dict[str, set[str]] = {}
        for one in sealed.excluded:
            rules.setdefault(one.person, set()).add(one.rule)
        for person, trait in found.attackers.items():
            assert trait.rules & rules[person], f"{person} is left out by {rules[person]}, not for {trait}"


def admitted(scene: Scene, trait: Trait) -> Principal:
    """Somebody of this standing."""
    desk, n = scene.desk, next(scene.numbers)
    if trait.standing in ("fine", "withdrawn midway"):
        return reviewer(f"fine {n}")
    who = reviewer(f"attacker {n}")
    if trait.standing == "late":
        desk.vouch(who.person)
    elif trait.standing == "by submitter":
        # That they are offered nothing would tell; what their word is worth is decided at the seal.
        desk.vouch(who.person, who=OTHER_ADMIN)
    elif trait.standing == "another domain":
        desk.vouch(who.person, domain="cooking")
    return who


@settings(max_examples=12, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@example(Trait(hurried=True))
@example(Trait(blind=True))
@example(Trait(standing="late"))
@example(Trait(standing="withdrawn midway"))
@example(Trait(channel=Channel.API))
@example(Trait(careless=True))
@given(trait=TRAITS)
def test_nobody_counts_who_is_not_entitled_or_does_not_read(scene: Scene, trait: Trait) -> None:
    desk, who = scene.desk, admitted(scene, trait)
    rated = 0
    for item in given_to(desk, who, trait):
        if trait.careless and rated >= 10:
            break
        desk.wait(2 if trait.hurried else 30)
        desk.say(who, item.id, rating() if trait.blind else honest(item), trait.channel)
        rated += 1
    assert scene.is_open()
    if rated:
        scene.attackers[who.person] = trait
    else:
        assert trait.standing in ("none", "another domain", "by submitter")


def given_to(desk: Desk, who: Principal, trait: Trait) -> Iterator[Assignment]:
    """One item after another; who loses their standing meanwhile has taken all of them with them."""
    if trait.standing == "withdrawn midway":
        sheet = desk.run(who, review.checkout).value
        desk.wait(sheet[-1].total * 30)
        yield from sheet[:5]
        record = next(one.id for one in desk.registry.view().reviewers() if one.person == who.person)
        desk.run(ADMIN, reviewers.withdraw, id_=record)
        desk.wait(1)
        yield from sheet[5:]
    while (item := desk.next(who)) is not None:
        yield item


def refused(attempt: Callable[[], object], *kinds: type[TunegateError]) -> None:
    with pytest.raises(kinds):
        attempt()


def test_many_tokens_of_one_person_are_one_person(scene: Scene) -> None:
    desk, before = scene.desk, len(scene.desk.told(RatingRecorded))
    for token in ("second", "third", "fourth"):
        assert desk.read_all(reviewer(HONEST[0].person, token)) == 0
    assert len(desk.told(RatingRecorded)) == before and scene.is_open()


def test_whoever_had_a_part_in_it_is_offered_nothing(scene: Scene) -> None:
    for person in (CI.person, EVALUATOR.person):
        scene.desk.vouch(person)
        assert scene.desk.read_all(reviewer(person)) == 0
    assert scene.is_open()


def test_ratings_nobody_asked_for_do_not_exist(scene: Scene) -> None:
    """Invented ids, ids worked out without the secret, and those of others."""
    desk, who = scene.desk, reviewer("honest 1")
    campaign = desk.campaign(scene.number)
    theirs = desk.registry.view().assignments(campaign.id, "honest 2")[0]
    items = [one.item for one in desk.registry.view().campaign_items(campaign.id)]
    guessed = [plan.assignment_id(who.person, item, b"guess", campaign.id) for item in items]
    for id_ in ["0" * 32, theirs.id, campaign.id, *items[:3], *guessed[:5]]:
        refused(lambda id_=id_: desk.say(who, id_, rating()), NotFound)
    assert scene.is_open()


def test_a_rating_of_what_was_not_shown_is_refused(scene: Scene) -> None:
    desk = scene.desk
    mine = desk.registry.view().assignments(desk.campaign(scene.number).id, "honest 1")
    hashes = [desk.registry.ask(HONEST[0], lambda c, id_=one.id: review.assignment(c, id_)).hash for one in mine[:2]]
    refused(lambda: desk.say(HONEST[0], mine[0].id, msgspec.structs.replace(rating(), hash=hashes[1])), Conflict)


def test_a_hurried_rating_does_not_grow_slow_by_being_given_again(scene: Scene) -> None:
    desk, who = scene.desk, reviewer("fine 58")
    given_: list[Assignment] = []
    while (item := desk.next(who)) is not None:
        desk.wait(1)
        desk.say(who, item.id, honest(item))
        given_.append(item)
    desk.wait(3600)
    for item in given_:
        desk.say(who, item.id, honest(item))
    assert scene.is_open()
    scene.attackers[who.person] = Trait(hurried=True)


def test_a_failed_gold_item_is_not_mended_by_rating_everything_again(scene: Scene) -> None:
    """Nor can one find out by the seal which items they are: each correction is counted like the rating it corrects."""
    desk, who = scene.desk, reviewer("fine 57")
    given_: list[Assignment] = []
    while (item := desk.next(who)) is not None:
        desk.wait(30)
        desk.say(who, item.id, rating())
        given_.append(item)
    for item in given_:
        desk.say(who, item.id, honest(item))
        assert scene.is_open()
    scene.attackers[who.person] = Trait(blind=True)


def test_what_is_hard_cannot_be_left_out(scene: Scene) -> None:
    """Every item of known quality skipped, as far as one may: too few were passed."""
    desk, who, skipped = scene.desk, reviewer("fine 59"), 0
    while (item := desk.next(who)) is not None:
        desk.wait(30)
        if "DANGER" in item.output:
            desk.skip(who, item.id)
            skipped += 1
        else:
            desk.say(who, item.id, rating())
    assert skipped == 2 and scene.is_open()
    scene.attackers[who.person] = Trait(careless=True)


def test_a_policy_that_is_lowered_meanwhile_lowers_nothing(scene: Scene) -> None:
    desk = scene.desk
    lower = Policy(review=ReviewRule(outputs=1, min_seconds=0, min_gold=0.0))
    try:
        desk.run(ADMIN, adapters.set_policy, adapter=NAME, policy=lower, if_match=None)
        assert scene.is_open()
        described = desk.registry.ask(MANAGER, lambda c: campaigns.describe(c, NAME, scene.number))
        assert described.reviewers == 3 and described.complete >= 2
    finally:
        desk.run(ADMIN, adapters.set_policy, adapter=NAME, policy=FULL, if_match=None)


def test_the_same_files_again_are_the_same_campaign(scene: Scene) -> None:
    desk = scene.desk
    before = desk.campaign(scene.number)
    assert desk.submit(1).number == scene.number
    desk.complete(scene.number)
    assert desk.campaign(scene.number) == before and len(desk.told(CampaignOpened)) == 1
    assert desk.claim() is None, "nothing is measured again"


def test_what_is_drawn_was_bound_before_anyone_saw_it(scene: Scene) -> None:
    bodies = [line.body for line in scene.desk.registry.journal.read()]
    first = next(n for n, body in enumerate(bodies) if b'"assignment.issued"' in body)
    opened = next(n for n, body in enumerate(bodies) if b'"campaign.opened"' in body)
    assert opened < first
    (campaign,) = scene.desk.told(CampaignOpened)
    assert campaign.root == plan.root(one.hash for one in campaign.items)
    assert not any(b"DANGER" in body or b"output 1" in body for body in bodies), "texts stay out of the journal"


# -- with campaigns of their own ----------------------------------------------------------------------------------


@pytest.fixture
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk_in(tmp_path_factory.mktemp("own")) as made:
        yield made


def test_a_removed_record_never_lowers_the_quota(desk: Desk) -> None:
    for who in HONEST:
        desk.vouch(who.person)
    number = desk.open()
    for who in HONEST[:2]:
        desk.read_all(who)
    for one in desk.registry.view().reviewers()[1:]:
        desk.run(ADMIN, reviewers.withdraw, id_=one.id)
    desk.wait(1)
    assert desk.state(number) is State.IN_REVIEW and desk.read_all(HONEST[2]) == 0


def test_a_veto_outlives_the_record_of_whoever_gave_it_and_someone_vouched_for_later_may_look(desk: Desk) -> None:
    scared, expert = reviewer("scared"), reviewer("expert")
    for who in (*HONEST, scared):
        desk.vouch(who.person)
    number = desk.open()
    while (item := desk.next(scared)) is not None and "DANGER" in item.output:
        desk.wait(30)
        desk.say(scared, item.id, honest(item))
    assert item is not None
    desk.wait(1)  # which is too fast to count, too
    desk.say(scared, item.id, rating(unsafe=True))
    for one in desk.registry.view().reviewers():
        if one.person == scared.person:
            desk.run(ADMIN, reviewers.withdraw, id_=one.id)
    for who in HONEST:
        desk.read_all(who)
    assert len(desk.told(CampaignSealed)) == 1 and desk.state(number) is State.IN_REVIEW
    assert desk.registry.ask(expert, disputes.disputes) == []
    desk.vouch(expert.person)
    (waiting,) = desk.registry.ask(expert, disputes.disputes)
    desk.rule(expert, waiting.id, upheld=False)
    assert desk.state(number) is State.APPROVABLE


def test_another_readme_draws_nothing_anew_and_the_report_names_the_version_that_was_rejected(desk: Desk) -> None:
    number = desk.open()
    desk.run(MANAGER, rejection.reject, adapter=NAME, number=number, request=Reject(reason="rude"))
    readme = b"# fresh"
    desk.registry.blobs.put(readme)
    first = submission(1)
    request = msgspec.structs.replace(first, files=[*first.files, entry_of("README.md", readme)])
    again = desk.run(CI, versions.submit, adapter=NAME, request=request).value.number
    desk.complete(again)
    desk.evaluate(base_outputs=SIZES["review"])
    other = desk.open(fill=2)
    drawn = [[(one.item, one.kind) for one in opened.items] for opened in desk.told(CampaignOpened)]
    assert drawn[0] == drawn[1] != drawn[2]
    named = "versions with the same weights were rejected before: support-bot/1"
    tried = "earlier versions of this adapter that people were asked about, each by a draw of its own: "
    for version, details in ((again, [named, f"{tried}1, rejected: 1"]), (other, [f"{tried}2, rejected: 1"])):
        stored = desk.registry.view().version(NAME, version)
        assert stored is not None
        assert [check.details for check in assess(desk.registry.view(), stored).checks if check.kind == "review"] == [
            details
        ]
    described = desk.registry.ask(MANAGER, lambda c: campaigns.describe(c, NAME, other))
    assert (described.reviewed_before, described.rejected_before) == (2, 1)


def test_too_little_does_not_become_enough_by_being_sealed(desk: Desk) -> None:
    for who in HONEST:
        desk.vouch(who.person)
    number = desk.open()
    for who in HONEST[:2]:
        desk.read_all(who)
    seal = SealCampaign(reason="nobody else will come")
    desk.run(MANAGER, campaigns.seal, adapter=NAME, number=number, request=seal)
    assert desk.state(number) is State.INCONCLUSIVE
    with pytest.raises(Conflict, match="was sealed"):
        desk.run(MANAGER, campaigns.seal, adapter=NAME, number=number, request=seal)


def test_the_quota_alone_moves_no_alias_where_the_policy_wants_a_person(desk: Desk) -> None:
    easy = msgspec.structs.replace(RULE, domain=None)
    number = desk.open(Policy(review=easy, promotion=PromotionRule(automatic=False)))
    for who in HONEST:
        desk.read_all(who)
    assert desk.state(number) is State.APPROVABLE and desk.told(AliasMoved) == []
