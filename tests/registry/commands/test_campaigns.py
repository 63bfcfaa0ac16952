"""A campaign from its opening to its seal and beyond, and the seal computed again from the journal's bytes alone."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from registry_under_test import ADMIN, CI, MANAGER, NAME
from review_under_test import Desk, desk_in, honest, rating, reviewer

from registry.access import Principal
from registry.commands import campaigns, disputes, results, reviewed, tokens
from registry.commands.bundle import bundle_of
from registry.commands.context import Outcome
from registry.commands.gate import assess
from registry.errors import Conflict, NotFound
from registry.events import (
    CampaignOpened,
    CampaignSealed,
    DisputeAdjudicated,
    TrainingClaimed,
    TrainingFinished,
    TrainingSubmitted,
)
from registry.gate.recompute import recompute
from registry.names import digest_of
from registry.records import (
    CRITERIA,
    Assignment,
    Bounds,
    Check,
    CreateToken,
    ItemKind,
    Policy,
    RatingRow,
    ReviewerInfo,
    ReviewFacts,
    ReviewResult,
    ReviewRule,
    Role,
    SealCampaign,
    State,
    Status,
    Verdict,
)
from registry.review import counting
from registry.review.campaign import gold_passed, prompt_of
from registry.review.counting import Facts
from registry.review.result import review_result
from registry.review.standing import Doings, Opening, bars, lapsed

pytestmark = pytest.mark.slow
ANNA, BOB, CLEO, HASTY, EXPERT = map(reviewer, ("anna", "bob", "cleo", "hasty", "expert"))


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A sealed campaign: three people who count, one who hurried, a correction, a skip, an output found unsafe."""
    with desk_in(tmp_path_factory.mktemp("story")) as desk:
        for who in (ANNA, BOB, CLEO, HASTY, EXPERT):
            desk.vouch(who.person)
        desk.open()
        desk.read_all(HASTY, seconds=1)
        first = desk.next(ANNA)
        assert first is not None
        desk.wait(20)
        desk.say(ANNA, first.id, rating(clarity=1))
        desk.say(ANNA, first.id, honest(first))
        second = desk.next(ANNA)
        assert second is not None
        while not _is_candidate(desk, second):
            desk.wait(30)
            desk.say(ANNA, second.id, honest(second))
            second = desk.next(ANNA)
            assert second is not None
        desk.skip(ANNA, second.id, "not mine")
        desk.read_all(ANNA)
        desk.read_all(BOB)
        while (item := desk.next(CLEO)) is not None:
            desk.wait(30)
            # Not one that is shown again, which is met first among the first three.
            unsafe = item.position > 5 and item.output.startswith("output") and not _flagged(desk)
            desk.say(CLEO, item.id, rating(safety=2, unsafe=True) if unsafe else honest(item))
        assert desk.campaign(1).sealed_at is not None
        yield desk


def _id(desk: Desk) -> str:
    return desk.campaign(1).id


def _is_candidate(desk: Desk, item: Assignment) -> bool:
    stored = desk.registry.view().assignment(item.id)
    kinds = {one.item: one.kind for one in desk.registry.view().campaign_items(_id(desk))}
    return stored is not None and kinds[stored.item] is ItemKind.CANDIDATE


def _flagged(desk: Desk) -> bool:
    return any(one.unsafe for one in desk.registry.view().ratings(_id(desk)))


# -- opening ------------------------------------------------------------------------------------------------------


def test_the_journal_names_every_item_with_its_kind_before_anyone_rates(story: Desk) -> None:
    (opened,) = story.told(CampaignOpened)
    kinds = [one.kind for one in opened.items]
    assert [kinds.count(kind) for kind in ItemKind] == [26, 2, 2, 1]
    assert all(one.words > 0 and len(one.hash) == 64 for one in opened.items)
    for one in opened.items:
        assert (one.expect is not None) == (one.kind is ItemKind.GOLD)
        assert one.subject == {"control": "base", "gold": "gold"}.get(one.kind, "candidate")


def test_the_approved_versions_answers_are_the_controls_of_the_next_one(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    policy = Policy(review=ReviewRule(outputs=6, min_seconds=0, duplicates=0))
    with desk_in(tmp_path_factory.mktemp("next")) as desk:
        desk.open(policy)
        for who in (ANNA, BOB, CLEO):
            desk.read_all(who)
        desk.promote(1)
        desk.open(policy, fill=2)
        controls = [one for one in desk.told(CampaignOpened)[-1].items if one.kind is ItemKind.CONTROL]
        assert [(one.subject, one.number) for one in controls] == [("candidate", 1)] * 2
        item = desk.next(ANNA)
        assert item is not None and desk.campaign(2).sealed_at is None


# -- before the seal ----------------------------------------------------------------------------------------------


def test_before_the_seal_managers_learn_how_far_people_are_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with desk_in(tmp_path_factory.mktemp("open")) as desk:
        for who in (ANNA, HASTY):
            desk.vouch(who.person)
        desk.open()
        desk.read_all(ANNA, most=7)
        desk.read_all(HASTY, seconds=1, most=7)
        described = desk.registry.ask(MANAGER, lambda c: campaigns.describe(c, NAME, 1))
        assert (described.complete, described.sealed_at, described.disputes) == (0, None, 0)
        counts = [(one.person, one.rated, one.total) for one in described.progress]
        assert counts == [("anna", 7, 25), ("hasty", 7, 25)]
        # Whoever submits learns not even whom it is that is waited for.
        told = desk.registry.ask(CI, lambda c: campaigns.describe(c, NAME, 1))
        assert told == msgspec.structs.replace(described, progress=[])
        for question in (results.result, lambda c, a, n: results.reviewed_items(c, a, n, -1, 9)):
            with pytest.raises(Conflict, match="not sealed"):
                desk.registry.ask(MANAGER, lambda c, q=question: q(c, NAME, 1))


# -- the seal -----------------------------------------------------------------------------------------------------


def test_the_seal_says_who_counts_and_who_does_not_and_why(story: Desk) -> None:
    (sealed,) = story.told(CampaignSealed)
    assert sealed.counted == ["anna", "bob", "cleo"] and sealed.reason is None
    left_out = {(one.person, one.rule) for one in sealed.excluded if one.item is None}
    assert left_out == {("hasty", "too_fast"), ("hasty", "failed_gold")}
    assert sealed.ratings == len(story.registry.view().ratings(_id(story)))
    result = story.registry.ask(MANAGER, lambda c: results.result(c, NAME, 1))
    assert result.root == sealed.root and len(result.criteria) == 4 and result.ratings == 60
    assert result.gold == {"anna": 1.0, "bob": 1.0, "cleo": 1.0, "hasty": 0.0}
    # Cleo finds one output unsafe the first time she meets it: the draw may have made that the doubled one.
    assert result.consistency in (1.0, 2 / 3)


def test_after_the_seal_every_item_is_shown_with_its_kind_texts_and_ratings(story: Desk) -> None:
    pages: list[Any] = []
    after = -1
    while page := story.registry.ask(MANAGER, lambda c, a=after: results.reviewed_items(c, NAME, 1, a, 10)):
        pages += page
        after = page[-1][0]
    items = [one for _, one in pages]
    assert len(items) == 31 and all(one.prompt and one.output for one in items)
    counted = [r for one in items for r in one.ratings if r.counted and one.kind is ItemKind.CANDIDATE]
    assert len(counted) == 60 and {r.person for r in counted} == {"anna", "bob", "cleo"}
    assert max(r.revisions for one in items for r in one.ratings) == 2
    gold = [one for one in items if one.kind is ItemKind.GOLD]
    assert {one.output[:6] for one in gold} == {"DANGER"} and not any(r.counted for one in gold for r in one.ratings)


def test_a_campaign_nobody_rated_can_be_sealed(tmp_path_factory: pytest.TempPathFactory) -> None:
    with desk_in(tmp_path_factory.mktemp("empty")) as desk:
        desk.open()
        request = SealCampaign(reason="called off")
        desk.run(MANAGER, campaigns.seal, adapter=NAME, number=1, request=request)
        (sealed,) = desk.told(CampaignSealed)
        assert (sealed.ratings, sealed.counted, sealed.reason) == (0, [], "called off")
        assert sealed.root == "sha256:" + hashlib.sha256(b"").hexdigest() and desk.state(1) is State.INCONCLUSIVE
        assert refold(desk.home.journal.read_bytes()) == [(sealed.root, sealed.result)]


def test_newer_rules_never_decide_otherwise_on_what_was_sealed(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of three hurried, so that the seal left too few; rules that let it pass find nothing decided by them."""
    policy = Policy(review=ReviewRule(outputs=6, duplicates=0))
    with desk_in(tmp_path_factory.mktemp("newer")) as desk:
        desk.open(policy)
        for who, seconds in ((ANNA, 30), (BOB, 30), (HASTY, 1)):
            desk.read_all(who, seconds=seconds)
        desk.run(MANAGER, campaigns.seal, adapter=NAME, number=1, request=SealCampaign(reason="enough"))
        (sealed,) = desk.told(CampaignSealed)
        assert sealed.counted == ["anna", "bob"] and desk.campaign(1).result == sealed.result

        def review_check() -> Check:
            view = desk.registry.view()
            stored = view.version(NAME, 1)
            assert stored is not None
            return next(check for check in assess(view, stored).checks if check.kind == "review")

        assert review_check().status is Status.INCONCLUSIVE
        monkeypatch.setattr(counting, "_is_too_fast", lambda *_: False)
        reviewed._result_digest.cache_clear()  # as in the process of a newer release
        found = review_check()
        assert found.status is Status.INVALID and "than the one that the campaign was sealed with" in found.reason
        with pytest.raises(Conflict):
            desk.promote(1)
        bundle = desk.registry.ask(MANAGER, lambda c: bundle_of(c, NAME, 1))
        assert bundle.evidence is not None and bundle.report.verdict is Verdict.INCONCLUSIVE
        assert recompute(bundle, desk.registry.services.read_rows(bundle.evidence.rows)).differences == []


# -- from the journal alone ---------------------------------------------------------------------------------------


def test_the_seal_computes_again_from_the_journals_bytes_bit_for_bit(story: Desk) -> None:
    (sealed,) = story.told(CampaignSealed)
    assert refold(story.home.journal.read_bytes()) == [(sealed.root, sealed.result)]


def test_one_score_changed_is_another_seal(story: Desk) -> None:
    (sealed,) = story.told(CampaignSealed)
    lines = story.home.journal.read_bytes().splitlines()
    last = max(n for n, line in enumerate(lines) if b'"type":"rating.recorded"' in line)
    lines[last] = lines[last].replace(b'"clarity":5', b'"clarity":4', 1)
    changed = b"\n".join(lines)
    ((root, result),) = refold(changed)
    assert root != sealed.root and result != sealed.result


def test_a_catalog_built_anew_holds_the_same_campaign(story: Desk) -> None:
    assert story.rebuilt() == story.tables()


def test_the_bundle_comes_to_the_same_verdict_under_pseudonyms(story: Desk) -> None:
    bundle = story.registry.ask(MANAGER, lambda c: bundle_of(c, NAME, 1))
    assert bundle.evidence is not None
    again = recompute(bundle, story.registry.services.read_rows(bundle.evidence.rows))
    assert again.differences == [] and again.report.verdict is bundle.report.verdict
    assert not {"anna", "bob", "cleo", "hasty"} & {row.person for row in bundle.ratings}


def refold(journal: bytes) -> list[tuple[str, str]]:
    """Root and digest of the result of every seal, from the bytes of the journal and the rules, and nothing else."""
    policies: dict[str, Policy] = {}
    made: dict[tuple[str, int], dict[str, str]] = {}
    records: dict[str, dict[str, Any]] = {}
    opened: dict[str, dict[str, Any]] = {}
    shown: dict[str, dict[str, Any]] = {}
    said: dict[str, list[dict[str, Any]]] = {}
    seals = []
    for line in journal.splitlines():
        entry = json.loads(line.partition(b" ")[2])
        who, at = entry["actor"]["person"], entry["at"]
        for event in entry["events"]:
            match event["type"]:
                case "policy.set":
                    policies[event["digest"]] = msgspec.convert(event["document"], Policy)
                case "version.created":
                    made[event["adapter"], event["number"]] = {"submitter": who}
                case "version.submitted":
                    made[event["adapter"], event["number"]]["sealed_by"] = who
                case "reviewer.vouched":
                    fields = {k: v for k, v in event.items() if k != "type"}
                    records[event["id"]] = {**fields, "vouched_by": who, "vouched_at": at, "withdrawn_at": None}
                case "reviewer.withdrawn":
                    records[event["id"]]["withdrawn_at"] = at
                case "campaign.opened":
                    opened[event["id"]] = {**event, "opened_by": who, "opened_at": at}
                    said[event["id"]] = []
                case "assignment.issued":
                    shown[event["id"]] = event
                case "rating.recorded":
                    about = shown[event["assignment"]]
                    said[about["campaign"]].append({**event, **_about(about), "rated_at": at})
                case "campaign.sealed":
                    seals.append(_seal(opened[event["id"]], said[event["id"]], shown, policies, made, records))
    return seals


def _about(assignment: dict[str, Any]) -> dict[str, Any]:
    return {"person": assignment["person"], "item": assignment["item"]}


def _seal(
    opened: dict[str, Any],
    said: list[dict[str, Any]],
    shown: dict[str, dict[str, Any]],
    policies: dict[str, Policy],
    made: dict[tuple[str, int], dict[str, str]],
    records: dict[str, dict[str, Any]],
) -> tuple[str, str]:
    items, rule = {one["item"]: one for one in opened["items"]}, policies[opened["policy"]].review
    leaves = [
        json.dumps({k: v for k, v in one.items() if k != "type"}, sort_keys=True, separators=(",", ":")).encode()
        for one in said
    ]
    root = "sha256:" + _tree([hashlib.sha256(b"\0" + leaf).digest() for leaf in leaves]).hex()
    rows = []
    history: dict[str, list[dict[str, Any]]] = {}
    for one in said:
        history.setdefault(one["assignment"], []).append(one)
    part = made[opened["adapter"], opened["number"]]
    opening = Opening(
        part["submitter"], frozenset([part["sealed_by"]]), opened["opened_by"], opened["opened_at"], rule.domain
    )
    for first, one in [(each[0], each[-1]) for each in history.values()]:
        item, kind = items[one["item"]], ItemKind(items[one["item"]]["kind"])
        fields = {k: one[k] for k in ("person", "clarity", "relevance", "safety", "accuracy", "hallucination")}
        fields |= {k: one[k] for k in ("unsafe", "seconds", "channel")}
        fields |= {"item": prompt_of(one["item"], kind), "kind": kind, "words": item["words"]}
        row = msgspec.convert({**fields, "position": shown[one["assignment"]]["position"]}, RatingRow)
        if item["expect"] is not None:
            expect = msgspec.convert(item["expect"], dict[str, Bounds])
            row = msgspec.structs.replace(row, gold_passed=gold_passed(expect, first), gold_low=_is_low(expect))
        if (scores := tuple(first[name] for name in CRITERIA)) != tuple(one[name] for name in CRITERIA):
            row = msgspec.structs.replace(row, first=scores)
        mine = [msgspec.convert(each, ReviewerInfo) for each in records.values() if each["person"] == one["person"]]
        late = any(lapsed(opening, mine, each["rated_at"]) for each in history[one["assignment"]])
        row = msgspec.structs.replace(row, lapsed=late)
        rows.append(row)
    barred = {}
    for person in sorted({one["person"] for one in said}):
        times = [one["rated_at"] for one in said if one["person"] == person]
        own = [msgspec.convert(one, ReviewerInfo) for one in records.values() if one["person"] == person]
        if rules := bars(opening, Doings(person, times, own)):
            barred[person] = rules
    gold = sum(one["kind"] == "gold" for one in items.values())
    low = sum(
        _is_low(msgspec.convert(one["expect"], dict[str, Bounds])) for one in items.values() if one["kind"] == "gold"
    )
    known = ReviewFacts(sealed=True, gold=gold, gold_low=low, barred=barred)
    result: ReviewResult = review_result(Facts(rule, known), rows, root)
    return root, digest_of(msgspec.to_builtins(result))


def _is_low(expect: dict[str, Bounds]) -> bool:
    return any(bounds.max < 5 for bounds in expect.values())


def _tree(leaves: list[bytes]) -> bytes:
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    half = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\1" + _tree(leaves[:half]) + _tree(leaves[half:])).digest()


def test_what_becomes_known_of_the_making_after_the_seal_changes_nothing_that_was_counted(story: Desk) -> None:
    """A run of one who counted ends, belatedly, in this version: from now on they promote nothing; the seal stands."""
    (sealed,) = story.told(CampaignSealed)
    assert "anna" in sealed.counted
    trainer = Principal("t-trainer", "anna", Role.TRAINER)
    for event in (
        TrainingSubmitted(id="late", adapter=NAME, recipe="r", dataset="sha256:" + "0" * 64),
        TrainingClaimed(id="late", fence=1, worker="w"),
        TrainingFinished(id="late", fence=1, number=1),
    ):
        story.wait(1)
        story.registry.execute(trainer, lambda _, event=event: Outcome(None, [event]))
    view = story.registry.view()
    stored = view.version(NAME, 1)
    assert stored is not None and view.trained_by(stored) == {"anna"}
    found = story.registry.ask(MANAGER, lambda c: results.result(c, NAME, 1))
    assert digest_of(msgspec.to_builtins(found)) == sealed.result and found.counted == sealed.counted


# -- what was found unsafe, last because it ends the story --------------------------------------------------------


def test_an_unsafe_output_waits_for_someone_uninvolved_and_then_decides(story: Desk) -> None:
    assert story.state(1) is State.IN_REVIEW
    described = story.registry.ask(MANAGER, lambda c: campaigns.describe(c, NAME, 1))
    assert described.disputes == 1
    for who in (ANNA, CLEO, HASTY, reviewer("carl"), reviewer("nobody vouched for me")):
        assert story.registry.ask(who, disputes.disputes) == [], who.person
    # Nor anyone who may read all scores, or who decides on the version.
    story.vouch("manager")
    hat = CreateToken(role=Role.RELEASE_MANAGER, person="manager", scope=NAME, expires_days=1)
    assert len(story.registry.ask(reviewer("manager"), disputes.disputes)) == 1
    story.run(ADMIN, tokens.create, request=hat)
    assert story.registry.ask(reviewer("manager"), disputes.disputes) == []
    (dispute,) = story.registry.ask(EXPERT, disputes.disputes)
    assert dispute.scores == [2] and dispute.output.startswith("output")
    (sealed,) = story.told(CampaignSealed)
    opened = story.told(CampaignOpened)[0]
    assert dispute.id not in {one.item for one in opened.items} and sealed.reason is None
    for who, id_ in ((ANNA, dispute.id), (EXPERT, "0" * 32)):
        with pytest.raises(NotFound):
            story.rule(who, id_, upheld=False)
    story.rule(EXPERT, dispute.id, upheld=False, reason="clumsy, and harmless")
    assert story.state(1) is State.APPROVABLE
    with pytest.raises(NotFound, match="decided"):
        story.rule(EXPERT, dispute.id, upheld=False)
    assert len(story.told(DisputeAdjudicated)) == 1
    shown = story.registry.ask(MANAGER, lambda c: results.reviewed_items(c, NAME, 1, -1, 100))
    (ruled,) = (one for _, one in shown if one.ruling is not None)
    assert ruled.ruling is not None and not ruled.ruling.upheld
    # The ratings stay in the means; what the seal fixed stays what it was.
    bundle = story.registry.ask(MANAGER, lambda c: bundle_of(c, NAME, 1))
    assert bundle.report.verdict is Verdict.GO and bundle.review is not None
    assert [one.person for one in bundle.review.adjudications] == ["expert 1"]
    assert bundle.evidence is not None
    again = recompute(bundle, story.registry.services.read_rows(bundle.evidence.rows))
    assert again.differences == []
    assert refold(story.home.journal.read_bytes()) == [(sealed.root, sealed.result)]
