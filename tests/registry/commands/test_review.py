"""The reviewer's side: what is offered, what a rating is, and what nobody is told."""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import timedelta
from io import StringIO
from pathlib import Path

import msgspec
import pytest
from registry_under_test import ADMIN, CI, EVALUATOR, MANAGER, NAME, make_rating
from review_under_test import DOMAIN, FULL, RULE, Desk, desk_in, honest, rating, reviewer
from rich.console import Console

from registry.access import Principal
from registry.cli.screens import campaign_screen
from registry.commands import campaigns, review, reviewers, tokens
from registry.commands.context import Context, Outcome
from registry.commands.part import parts, shared_of
from registry.errors import Conflict, NotFound
from registry.events import AssignmentIssued, AssignmentSkipped, CampaignSealed, RatingRecorded, TokenCreated
from registry.records import (
    AddReviewer,
    Assignment,
    Campaign,
    Channel,
    CreateToken,
    ItemKind,
    Policy,
    ReviewRule,
    Role,
    State,
)
from registry.review import campaign as plan
from registry.settings import Home

ANNA = reviewer("anna")
EASY = Policy(review=ReviewRule(outputs=4, min_seconds=0, from_accuracy=0))


@pytest.fixture
def desk(home: Home) -> Iterator[Desk]:
    with desk_in(home.root) as made:
        yield made


def kind_of(desk: Desk, item: Assignment) -> ItemKind:
    stored = desk.registry.view().assignment(item.id)
    assert stored is not None
    return next(one.kind for one in desk.registry.view().campaign_items(stored.campaign) if one.item == stored.item)


def whose_last_is(desk: Desk, number: int, kind: ItemKind) -> Principal:
    """Somebody whose last item, of those that are planned, is of this kind."""
    campaign, secret = desk.campaign(number), desk.registry.services.draw_secret
    kinds = {one.item: one.kind for one in desk.registry.view().campaign_items(campaign.id)}
    items = plan.Items.of(desk.registry.view().policy(campaign.policy).review, kinds)
    for n in range(10_000):
        last = plan.schedule(f"{kind} {n}", items, secret, campaign.id).get(items.total - 1)
        if (kinds[last] if last else ItemKind.CANDIDATE) is kind:
            return reviewer(f"{kind} {n}")
    raise AssertionError(f"nobody meets a {kind} last")


# -- who is offered anything --------------------------------------------------------------------------------------


def test_people_who_only_looked_or_rated_little_keep_nobody_out(desk: Desk) -> None:
    number = desk.open(EASY)
    people = [reviewer(f"person {n}") for n in range(9)]
    for who in people[:6]:
        item = desk.next(who)
        assert item is not None
        desk.say(who, item.id, rating())
    for who in people[6:]:
        assert desk.read_all(who) >= 4
    assert desk.state(number) is State.APPROVABLE


def test_nobody_is_offered_what_they_had_a_part_in(desk: Desk) -> None:
    desk.open(EASY)
    for person in (CI.person, EVALUATOR.person):
        assert desk.next(reviewer(person)) is None
    assert desk.next(ANNA) is not None


def test_only_people_of_the_policys_domain_are_offered_anything(desk: Desk) -> None:
    desk.vouch("anna")
    desk.vouch("bob", domain="cooking")
    desk.open(FULL)
    assert desk.next(ANNA) is not None and desk.next(reviewer("bob")) is None
    record = next(one.id for one in desk.registry.view().reviewers() if one.person == "anna")
    desk.run(ADMIN, reviewers.withdraw, id_=record)
    desk.wait(1)
    assert desk.next(ANNA) is None


def hat(desk: Desk, person: str, role: Role, scope: str | None = None, days: int = 90) -> str:
    """The id of another token of this person."""
    request = CreateToken(role=role, person=person, scope=scope, expires_days=days)
    id_: str = desk.run(ADMIN, tokens.create, request=request).value.token.id
    return id_


def old_hat(desk: Desk, person: str, role: Role, scope: str | None = None) -> str:
    """The same from a journal of when nobody was refused one in the middle of a review."""
    at = (desk.time + timedelta(days=90)).isoformat()
    made = TokenCreated(
        id=f"old-{person}", role=role, person=person, scope=scope, secret_sha256="0" * 64, expires_at=at
    )
    desk.registry.execute(ADMIN, lambda _: Outcome(None, [made]))
    return made.id


BEHIND = (Role.ADMIN, Role.AUDITOR, Role.RELEASE_MANAGER, Role.EVALUATOR)


@pytest.mark.parametrize("role", Role)
def test_nobody_is_given_a_token_that_would_end_their_part_in_an_open_review(desk: Desk, role: Role) -> None:
    number = desk.open(EASY)
    assert desk.next(ANNA) is not None
    hat(desk, "anna", role, scope="elsewhere")
    hat(desk, "bob", role)
    if role not in BEHIND:
        hat(desk, "anna", role)
        return
    for scope in (None, NAME):
        with pytest.raises(Conflict, match=rf"role {role} .* 'anna' rates in open reviews: {NAME}/{number}; .* wait"):
            hat(desk, "anna", role, scope)
    for name in ("cleo", "dora", "emil"):
        desk.read_all(reviewer(name))
    assert desk.campaign(number).sealed_at is not None
    hat(desk, "anna", role)


def test_the_manager_is_told_who_can_rate_no_more_for_a_token_that_looks_behind(desk: Desk) -> None:
    number = desk.open(EASY)
    for who in (ANNA, reviewer("bob")):
        desk.next(who)

    def told() -> Campaign:
        found: Campaign = desk.registry.ask(MANAGER, lambda context: campaigns.describe(context, NAME, number))
        return found

    def on_the_screen() -> str:
        console = Console(width=200, file=StringIO())
        console.print(campaign_screen(told()))
        return console.file.getvalue()  # type: ignore[attr-defined,no-any-return]

    assert [one.looks_behind for one in told().progress] == [False, False] and "no more" not in on_the_screen()
    old_hat(desk, "anna", Role.AUDITOR)
    assert [(one.person, one.looks_behind) for one in told().progress] == [("anna", True), ("bob", False)]
    assert "can rate no more, for a token of theirs looks behind the review: anna" in on_the_screen()
    assert desk.registry.ask(CI, lambda context: campaigns.describe(context, NAME, number)).progress == []
    # Who looks behind already loses nothing by another one.
    hat(desk, "anna", Role.ADMIN)


@pytest.mark.parametrize("role", Role)
def test_nobody_rates_who_may_look_behind_the_review(desk: Desk, role: Role) -> None:
    desk.open(EASY)
    held = desk.next(ANNA)
    assert held is not None
    old_hat(desk, "anna", role, scope=NAME)
    if role not in BEHIND:
        assert desk.next(ANNA) == held
        desk.say(ANNA, held.id, rating())
        return
    before = desk.registry.journal.head
    assert desk.next(ANNA) is None and desk.run(ANNA, review.checkout).value == []
    for question in (review.assignments, lambda context: review.progress(context).total):
        assert not desk.registry.ask(ANNA, question)
    with pytest.raises(Conflict, match="use a person who does not look behind"):
        desk.say(ANNA, held.id, rating())
    with pytest.raises(Conflict, match="use a person who does not look behind"):
        desk.skip(ANNA, held.id)
    assert desk.registry.journal.head == before


def test_only_a_token_that_worked_while_the_campaign_was_open_and_shows_this_adapter_looks_behind(desk: Desk) -> None:
    revoked = hat(desk, "anna", Role.AUDITOR)
    hat(desk, "anna", Role.AUDITOR, days=1)
    desk.wait(60)
    desk.run(ADMIN, tokens.revoke, id_=revoked)
    desk.wait(2 * 86400)
    desk.open(EASY)
    hat(desk, "anna", Role.AUDITOR, scope="elsewhere")
    hat(desk, "bob", Role.AUDITOR, scope=NAME)
    assert desk.next(ANNA) is not None and desk.next(reviewer("bob")) is None


def test_what_was_read_behind_the_review_is_known_after_the_token_is_gone(desk: Desk) -> None:
    """The journal names every gold item: an auditor's token that is revoked after a look would undo the blindness."""
    desk.open(EASY)
    held = desk.next(ANNA)
    assert held is not None
    desk.wait(60)
    desk.run(ADMIN, tokens.revoke, id_=old_hat(desk, "anna", Role.AUDITOR))
    hat(desk, "bob", Role.AUDITOR, days=1)
    desk.wait(2 * 86400)
    assert desk.next(ANNA) is None and desk.next(reviewer("bob")) is None
    with pytest.raises(Conflict, match="had while this review was open"):
        desk.say(ANNA, held.id, rating())


# -- outputs that are shared out ----------------------------------------------------------------------------------

SHARED = Policy(
    review=ReviewRule(
        outputs=6, reviewers=5, ratings_per_output=3, min_seconds=0, from_accuracy=0, controls=0, gold=1, duplicates=0
    )
)


def times_rated(desk: Desk, number: int, but: str = "") -> Counter[str]:
    view, campaign = desk.registry.view(), desk.campaign(number).id
    kinds = {one.item: one.kind for one in view.campaign_items(campaign)}
    own = [one for one in view.assignments(campaign) if one.state == "rated" and one.person != but]
    return Counter(one.item for one in own if kinds[one.item] is ItemKind.CANDIDATE)


def test_shared_out_five_people_give_every_output_three_ratings_and_the_seal_follows(desk: Desk) -> None:
    number = desk.open(SHARED)
    for n in range(5):
        assert desk.state(number) is State.IN_REVIEW
        assert desk.read_all(reviewer(f"person {n}")) == 7
    assert times_rated(desk, number) == Counter(dict.fromkeys(times_rated(desk, number), 3))
    assert desk.state(number) is State.APPROVABLE and len(desk.told(CampaignSealed)) == 1


def test_shared_out_who_leaves_is_made_up_for_a_day_later(desk: Desk) -> None:
    number = desk.open(SHARED)
    assert len(desk.run(reviewer("leaver"), review.checkout).value) == 7
    desk.wait(2 * 86400)
    for n in range(5):
        desk.read_all(reviewer(f"person {n}"))
    assert set(times_rated(desk, number, "leaver").values()) == {3} and desk.state(number) is State.APPROVABLE


def test_shared_out_what_somebody_rated_who_does_not_count_is_rated_by_others(desk: Desk) -> None:
    """One who fails the gold item, which nobody is told: the sixth is given what that one had rated."""
    number = desk.open(SHARED)
    blind = reviewer("blind")
    while (item := desk.next(blind)) is not None:
        desk.say(blind, item.id, rating())
    for n in range(4):
        desk.read_all(reviewer(f"person {n}"))
    assert desk.state(number) is State.IN_REVIEW
    assert desk.read_all(reviewer("person 4")) >= 7
    assert min(times_rated(desk, number, "blind").values()) >= 3 and desk.state(number) is State.APPROVABLE


def test_shared_out_a_skipped_output_is_given_to_another_or_to_who_looks_in_again(desk: Desk) -> None:
    number = desk.open(SHARED)
    people = [reviewer(f"person {n}") for n in range(5)]
    for who in people:
        while who in (people[1], people[3]) and (item := desk.next(who)) is not None:
            if kind_of(desk, item) is ItemKind.CANDIDATE:
                desk.skip(who, item.id)
                break
            desk.say(who, item.id, honest(item))
        desk.read_all(who)
    for who in people:
        desk.read_all(who)
    assert min(times_rated(desk, number).values()) >= 3 and desk.state(number) is State.APPROVABLE


def test_shared_out_an_output_that_everyone_skips_is_replaced_by_a_spare_and_the_campaign_ends(desk: Desk) -> None:
    number = desk.open(SHARED)
    view = desk.registry.view()
    kinds = {one.item: one.kind for one in view.campaign_items(desk.campaign(number).id)}
    planned = plan.Items.of(SHARED.review, kinds)
    hard = planned.core[3]
    people = [reviewer(f"person {n}") for n in range(5)]
    for who in people * 3:
        while (item := desk.next(who)) is not None:
            stored = desk.registry.view().assignment(item.id)
            assert stored is not None
            if stored.item == hard:
                desk.skip(who, item.id)
            else:
                desk.say(who, item.id, honest(item))
    times = times_rated(desk, number)
    assert desk.state(number) is State.APPROVABLE and times[hard] == 0
    assert len(times) >= len(planned.core) and times[planned.spares[0]] >= 3


def test_shared_out_who_rated_a_part_and_left_is_made_up_for_a_day_later(desk: Desk) -> None:
    """What they rated counts for nothing, as they never finish."""
    number = desk.open(SHARED)
    assert desk.read_all(reviewer("leaver"), most=4) == 4
    desk.wait(2 * 86400)
    for n in range(5):
        desk.read_all(reviewer(f"person {n}"))
    assert min(times_rated(desk, number, "leaver").values()) >= 3 and desk.state(number) is State.APPROVABLE


def test_shared_out_a_hurried_rating_is_given_to_another(desk: Desk) -> None:
    review_ = msgspec.structs.replace(SHARED.review, min_seconds=5)
    number = desk.open(Policy(review=review_))
    people = [reviewer(f"person {n}") for n in range(5)]
    while (item := desk.next(people[0])) is not None and kind_of(desk, item) is not ItemKind.CANDIDATE:
        desk.wait(30)
        desk.say(people[0], item.id, honest(item))
    assert item is not None
    desk.wait(1)
    desk.say(people[0], item.id, honest(item))
    for who in people * 3:
        desk.read_all(who)
    assert desk.state(number) is State.APPROVABLE
    (sealed,) = desk.told(CampaignSealed)
    assert len(sealed.counted) == 5 and [one.rule for one in sealed.excluded] == ["too_fast"]


def test_shared_out_who_still_owes_a_rating_is_not_taken_for_lost(desk: Desk) -> None:
    """Through but for one in place of another: what they rated need not be rated by others."""
    number = desk.open(SHARED)
    owing, others = whose_last_is(desk, number, ItemKind.CANDIDATE), [reviewer(f"person {n}") for n in range(4)]
    for who in others:
        desk.read_all(who)
    while (item := desk.next(owing)) is not None and item.position < 7:
        desk.say(owing, item.id, honest(item))
    assert item is not None
    desk.skip(owing, item.id)
    sixth = reviewer("sixth")
    assert desk.next(sixth) is not None
    given = met_by_others(desk, sixth)
    assert sum(given.values()) == 4 * 7 + 6
    assert desk.read_all(sixth, most=1) == 1
    assert desk.read_all(owing) == 1
    desk.wait(2 * 86400)  # the sixth stays away
    for who in others:
        desk.read_all(who)
    assert desk.state(number) is State.APPROVABLE


def test_shared_out_who_owes_a_rating_and_stays_away_is_made_up_for_a_day_later(desk: Desk) -> None:
    number = desk.open(SHARED)
    owing = whose_last_is(desk, number, ItemKind.CANDIDATE)
    while (item := desk.next(owing)) is not None and item.position < 7:
        desk.say(owing, item.id, honest(item))
    assert item is not None
    desk.skip(owing, item.id)
    desk.wait(2 * 86400)
    for n in range(5):
        desk.read_all(reviewer(f"person {n}"))
    assert desk.state(number) is State.APPROVABLE


def met_by_others(desk: Desk, who: Principal) -> Mapping[str, int]:
    """What others have rated, or are about to, as it is known when this person is given their next item."""

    def asked(context: Context) -> Mapping[str, int]:
        (found,) = parts(context)
        return shared_of(context, found).met

    found: Mapping[str, int] = desk.registry.ask(who, asked)
    return found


# -- one item after another ---------------------------------------------------------------------------------------


def test_an_item_stays_until_it_is_rated_or_skipped_and_positions_count_up(desk: Desk) -> None:
    desk.vouch("anna")
    desk.open()
    seen = []
    while (item := desk.next(ANNA)) is not None:
        assert desk.next(ANNA) == item and item.total == 25
        seen.append(item)
        desk.wait(30)
        desk.say(ANNA, item.id, honest(item))
    assert [one.position for one in seen] == list(range(1, 26))
    assert len({one.id for one in seen}) == len({one.hash for one in seen}) == 25
    # A duplicate repeats an item whole, and the four answers to questions are alike here; two controls ask what a
    # candidate's item asks.
    assert (len({one.prompt for one in seen}), len({(one.prompt, one.output) for one in seen})) == (19, 21)


def test_what_a_person_has_met_they_find_again_with_their_own_words(desk: Desk) -> None:
    desk.vouch("anna")
    desk.open()
    first, second = desk.next(ANNA), None
    assert first is not None
    desk.wait(30)
    desk.say(ANNA, first.id, rating(clarity=2, unsafe=True))
    second = desk.next(ANNA)
    assert second is not None
    found = desk.registry.ask(ANNA, review.assignments)
    assert [(one.id, one.position, one.state) for one in found] == [(first.id, 1, "rated"), (second.id, 2, "open")]
    again = desk.registry.ask(ANNA, lambda context: review.assignment(context, first.id))
    assert (again.prompt, again.output, again.state) == (first.prompt, first.output, "rated")
    assert again.rating is not None and (again.rating.clarity, again.rating.unsafe) == (2, True)
    assert desk.registry.ask(ANNA, lambda context: review.assignment(context, second.id)).rating is None
    with pytest.raises(NotFound):
        desk.registry.ask(reviewer("bob"), lambda context: review.assignment(context, first.id))


def test_a_correction_takes_the_place_of_a_rating_and_both_stay_in_the_journal(desk: Desk) -> None:
    desk.vouch("anna")
    number = desk.open()
    item = desk.next(ANNA)
    assert item is not None
    desk.wait(7.5)
    desk.say(ANNA, item.id, rating(clarity=1))
    desk.wait(600)
    progress = desk.say(ANNA, item.id, rating(clarity=4))
    assert (progress.rated, progress.total) == (1, 25)
    told = desk.told(RatingRecorded)
    # Coming back later is no slower reading: the time of the first rating stays.
    assert [(one.clarity, one.seconds) for one in told] == [(1, 7.5), (4, 7.5)]
    kept = desk.registry.view().ratings(desk.campaign(number).id)
    assert [(one.revision, one.clarity) for one in kept] == [(1, 1), (2, 4)]


def test_a_rating_of_another_items_hash_is_refused(desk: Desk) -> None:
    desk.open(EASY)
    item = desk.next(ANNA)
    assert item is not None
    with pytest.raises(Conflict, match="another item"):
        desk.say(ANNA, item.id, make_rating(hash="0" * 64))
    assert desk.told(RatingRecorded) == []
    desk.say(ANNA, item.id, make_rating(hash=item.hash))


def test_an_output_that_is_not_the_one_that_was_drawn_is_not_shown(desk: Desk) -> None:
    """The catalog can be tampered with; what the journal named is not shown as something else."""
    desk.open(Policy(review=msgspec.structs.replace(EASY.review, controls=0, gold=0)))
    assert desk.next(ANNA) is not None

    def swap(context: Context) -> Outcome:
        context.view._db.execute("UPDATE items SET output = 'a better one' WHERE subject = 'candidate'")
        return Outcome(None)

    desk.registry.execute(ADMIN, swap)
    with pytest.raises(Conflict, match="not the one that was drawn"):
        desk.next(ANNA)


def test_how_a_rating_came_in_is_recorded(desk: Desk) -> None:
    desk.open(EASY)
    for channel in (Channel.WEB, Channel.API):
        item = desk.next(ANNA)
        assert item is not None
        desk.say(ANNA, item.id, rating(), channel)
    (last, *_) = desk.run(ANNA, review.checkout).value
    desk.say(ANNA, last.id, rating(), Channel.API)
    assert [one.channel for one in desk.told(RatingRecorded)] == [Channel.WEB, Channel.API, Channel.CSV]


# -- what takes an item's place -----------------------------------------------------------------------------------


def test_a_skip_needs_a_reason_is_replaced_at_the_end_and_no_more_than_a_tenth_are(desk: Desk) -> None:
    desk.vouch("anna")
    number = desk.open()
    for _ in range(2):
        item = desk.next(ANNA)
        assert item is not None
        desk.skip(ANNA, item.id)
    third = desk.next(ANNA)
    assert third is not None and (third.position, third.total) == (3, 25)
    with pytest.raises(Conflict, match="as many as may be"):
        desk.skip(ANNA, third.id)
    with pytest.raises(Conflict, match="skipped already"):
        desk.say(ANNA, item.id, rating())
    assert len(desk.told(AssignmentSkipped)) == 2
    desk.read_all(ANNA)
    kinds = {one.item: one.kind for one in desk.registry.view().campaign_items(desk.campaign(number).id)}
    mine = desk.registry.view().assignments(desk.campaign(number).id, "anna")
    good = [one for one in mine if one.state == "rated" and kinds[one.item] == "candidate"]
    assert len(good) >= RULE.outputs and sum(one.state == "rated" for one in mine) == 25


def test_a_hurried_rating_is_answered_like_any_other_and_a_spare_comes_at_the_end(desk: Desk) -> None:
    desk.vouch("anna")
    desk.vouch("bob")
    desk.open()
    answers = {}
    for who, hurry in ((ANNA, 3), (reviewer("bob"), 0)):
        answers[who.person] = []
        for place in range(1000):
            if (item := desk.next(who)) is None:
                break
            desk.wait(1 if place < hurry else 30)
            progress = desk.say(who, item.id, honest(item))
            answers[who.person].append((progress.rated, progress.skipped, progress.total, item.position, item.total))
    anna, bob = answers["anna"], answers["bob"]
    # Nothing tells them apart until everything was rated that was planned for both.
    assert anna[:24] == bob[:24]
    # Three were hurried, whatever their kind: three come in their place.
    assert len(bob) == 25 and [one[4] for one in anna[25:]] == [28, 28, 28]


def test_a_rating_from_a_gap_between_two_credentials_is_made_up_for_like_any_other(desk: Desk) -> None:
    """It cannot count, so without a spare the person would be through and never be complete."""
    for first, last in (("2026-01-01", "2026-03-02"), ("2026-03-05", "2027-01-01")):
        request = AddReviewer(person="anna", domain=DOMAIN, credential="c", valid_from=first, valid_until=last)
        desk.run(ADMIN, reviewers.vouch, request=request)
        desk.wait(1)
    desk.open()
    held = desk.next(ANNA)
    assert held is not None and held.total == 25
    desk.wait(3 * 86400)  # the first record has ended, the second has not begun
    assert desk.next(ANNA) is None
    desk.say(ANNA, held.id, honest(held))
    desk.wait(3 * 86400)
    assert desk.read_all(ANNA) == 25


@pytest.mark.parametrize("seconds", [None, 1, 30], ids=["skipped", "hurried", "read"])
def test_the_last_item_is_answered_alike_whatever_its_kind(desk: Desk, seconds: int | None) -> None:
    number = desk.open(Policy(review=ReviewRule(outputs=4, from_accuracy=0, duplicates=0)))
    answers, kinds = set(), set()
    for kind in (ItemKind.CANDIDATE, ItemKind.CONTROL, ItemKind.GOLD):
        who = whose_last_is(desk, number, kind)
        desk.read_all(who, most=7)
        last = desk.next(who)
        assert last is not None and last.total == 8
        kinds.add(kind_of(desk, last))
        desk.wait(seconds or 30)
        answer = desk.skip(who, last.id).value if seconds is None else desk.say(who, last.id, honest(last))
        answers.add((answer.rated, answer.skipped, answer.total))
    assert len(kinds) == 3 and answers == {(8 - (seconds is None), int(seconds is None), 8 if seconds == 30 else 9)}


# -- offline ------------------------------------------------------------------------------------------------------


def test_a_checkout_issues_everything_at_once_and_its_time_is_shared_out(desk: Desk) -> None:
    desk.vouch("anna")
    desk.open()
    first = desk.next(ANNA)
    sheet = desk.run(ANNA, review.checkout).value
    assert sheet[0] == first and [one.position for one in sheet] == list(range(1, 26))
    assert desk.run(ANNA, review.checkout).value == sheet and len(desk.told(AssignmentIssued)) == 25
    desk.wait(24 * 40)
    for item in sheet:
        desk.say(ANNA, item.id, honest(item), Channel.API)
    seconds = [one.seconds for one in desk.told(RatingRecorded)]
    assert seconds[0] == 960 and set(seconds[1:]) == {40}


def test_a_sheet_that_is_filled_in_at_once_counts_for_nothing(desk: Desk) -> None:
    for name in ("anna", "bob", "cleo"):
        desk.vouch(name)
    number = desk.open()
    for name in ("anna", "bob", "cleo"):
        sheet = desk.run(reviewer(name), review.checkout).value
        desk.wait(25)
        for item in sheet:
            desk.say(reviewer(name), item.id, honest(item), Channel.API)
    assert desk.state(number) is State.IN_REVIEW


def test_what_waited_on_a_sheet_is_not_read_by_clicking_through_it_on_the_page(desk: Desk) -> None:
    """A policy that takes the page only would else be served by taking a sheet, waiting, and a burst of clicks."""
    desk.vouch("anna")
    desk.open()
    sheet = desk.run(ANNA, review.checkout).value
    desk.wait(25 * 60)
    for item in sheet:
        desk.wait(1)
        desk.say(ANNA, item.id, honest(item))
    seconds = [one.seconds for one in desk.told(RatingRecorded)]
    assert seconds[0] > 1000 and set(seconds[1:]) == {1}


def test_who_takes_a_sheet_and_then_rates_on_the_page_is_as_fast_as_they_are(desk: Desk) -> None:
    desk.vouch("anna")
    desk.open()
    for item in desk.run(ANNA, review.checkout).value:
        desk.wait(30)
        desk.say(ANNA, item.id, honest(item))
    assert {one.seconds for one in desk.told(RatingRecorded)} == {30}
    assert desk.next(ANNA) is None


# -- the end ------------------------------------------------------------------------------------------------------


def test_after_the_seal_nothing_is_taken_and_nothing_offered(desk: Desk) -> None:
    number = desk.open(EASY)
    held = desk.next(reviewer("late"))
    rated = desk.next(ANNA)
    assert held is not None and rated is not None
    for name in ("anna", "bob", "cleo"):
        desk.read_all(reviewer(name))
    assert desk.campaign(number).sealed_at is not None
    before = desk.registry.journal.head
    for who, item in ((reviewer("late"), held), (ANNA, rated)):
        with pytest.raises(Conflict, match="closed"):
            desk.say(who, item.id, rating(clarity=1))
    with pytest.raises(Conflict, match="closed"):
        desk.skip(reviewer("late"), held.id)
    assert desk.next(reviewer("late")) is None and desk.registry.journal.head == before
    # One's own items can still be read.
    assert desk.registry.ask(ANNA, lambda context: review.assignment(context, rated.id)).rating is not None


def test_a_skip_completes_the_quota_where_nothing_is_left_to_rate(desk: Desk) -> None:
    """The last person's controls came in a way that does not count, for which they were given all spares there are."""
    rule = ReviewRule(outputs=4, min_seconds=0, from_accuracy=0, duplicates=0, channels=[Channel.WEB])
    number = desk.open(Policy(review=rule))
    for who in (ANNA, reviewer("bob")):
        desk.read_all(who)
    who = reviewer("cleo")
    while (item := desk.next(who)) is not None and item.position < 10:
        control = kind_of(desk, item) is ItemKind.CONTROL
        desk.say(who, item.id, honest(item), Channel.API if control else Channel.WEB)
    assert item is not None and item.total == 10 and desk.campaign(number).sealed_at is None
    desk.skip(who, item.id)
    (sealed,) = desk.told(CampaignSealed)
    assert len(sealed.counted) == 3 and desk.state(number) is State.APPROVABLE and desk.next(who) is None
    assert desk.rebuilt() == desk.tables()


def test_a_comment_lies_in_a_blob_and_can_be_erased(desk: Desk) -> None:
    desk.open(EASY)
    item = desk.next(ANNA)
    assert item is not None
    sha256 = desk.registry.blobs.put(b"the price is old")
    given = {"assignment_id": item.id, "rating": rating(), "comment_sha256": sha256}
    desk.run(ANNA, review.rate, **given)

    def said() -> str | None:
        found = desk.registry.ask(ANNA, lambda context: review.assignment(context, item.id)).rating
        assert found is not None
        return found.comment

    assert said() == "the price is old"
    assert b"the price is old" not in b"".join(line.body for line in desk.registry.journal.read())
    path: Path = desk.home.blobs / "sha256" / sha256[:2] / sha256
    assert path.exists()
    path.unlink()
    assert said() is None


def test_the_catalog_is_the_same_when_it_is_built_anew(desk: Desk) -> None:
    desk.vouch("anna")
    desk.open()
    desk.read_all(ANNA, most=12)
    desk.run(ANNA, review.checkout)
    assert desk.rebuilt() == desk.tables()
