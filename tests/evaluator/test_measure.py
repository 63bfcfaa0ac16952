"""How suites are asked: what is cut where, what is kept, what several subjects share and what they never do."""

import math
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from factories import make_adapter
from fake_engine import SOUND, ByteRenderer, FakeEngine, Faults

from evaluator import measure
from evaluator.engine import Answer, EngineDied, EngineRefused
from evaluator.engine import Prompt as EnginePrompt
from evaluator.measure import BATCH, Ground, Subject, run
from evaluator.results import Sampled
from evaluator.suites import Loaded, Read, draw, gold_reads, load_suite
from registry.client import Choice, Conversation, Item, Message, Prompt, Question, Refusal, SuiteContent
from registry.records import Suite, SuiteKind
from registry.suites import SuiteFile

BASE = Subject("sha256:" + "4" * 64, "base", None)
SAID = "First line.\nSecond line."


def make_items(kind: SuiteKind, n: int) -> list[Item]:
    match kind:
        case SuiteKind.QUESTIONS:
            return [Question(id=f"i{i}", question=f"question {i}", answers=[f"answer {i}", "other"]) for i in range(n)]
        case SuiteKind.PROMPTS:
            return [Prompt(id=f"i{i}", prompt=f"question {i}") for i in range(n)]
        case SuiteKind.REFUSALS:
            return [Refusal(id=f"i{i}", prompt=f"question {i}", refuse=i % 2 == 0) for i in range(n)]
        case SuiteKind.CHOICES:
            return [Choice(id=f"i{i}", question=f"question {i}", choices=["x", "y", "z"], answer=1) for i in range(n)]
        case _:
            turns = [Message(role="user", content="hello"), Message(role="assistant", content="hi")]
            return [Conversation(id=f"i{i}", messages=turns) for i in range(n)]


class OfflineClient:
    """Hands out one suite's content."""

    def __init__(self, content: SuiteContent) -> None:
        self.content = content

    def suite_content(self, suite: Suite) -> SuiteContent:
        return self.content


def make_loaded(kind: SuiteKind, n: int = 3, items: Sequence[Item] | None = None) -> Loaded:
    """A suite of one digest, whatever its kind."""
    items = list(items) if items is not None else make_items(kind, n)
    head = SuiteFile(name="s", kind=kind, title="t", description="d", licence="l", source="s")
    suite = Suite(name="s", kind=kind, digest="sha256:" + "5" * 64, n_items=len(items), files=[])
    client = OfflineClient(SuiteContent(head, items))
    nowhere = Path("/nonexistent")
    return load_suite(client, suite, ByteRenderer(nowhere), nowhere, 1024)  # type: ignore[arg-type]


def make_engine(faults: Faults = SOUND, said: str = SAID) -> FakeEngine:
    return FakeEngine(faults, lambda question, adapted: said)


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path / "results", tmp_path, "sha256:" + "6" * 64, 1024)


@pytest.fixture
def candidates(tmp_path: Path) -> list[Subject]:
    """Two candidates of different weights."""
    found = []
    for fill in (1, 2):
        folder = tmp_path / f"adapter-{fill}"
        folder.mkdir()
        for name, data in make_adapter(fill=fill).items():
            (folder / name).write_bytes(data)
        found.append(Subject(BASE.base_digest, f"sha256:{fill}", folder))
    return found


def ignore(done: int, total: int) -> None:
    pass


@pytest.mark.parametrize(
    ("kind", "stop", "text"),
    [(SuiteKind.PROMPTS, None, SAID), (SuiteKind.REFUSALS, None, SAID), (SuiteKind.QUESTIONS, "\n", "First line.")],
)
def test_people_and_rules_read_whole_answers_and_the_rest_ends_at_the_first_line_break(
    ground: Ground, kind: SuiteKind, stop: str | None, text: str
) -> None:
    engine = make_engine()
    found = run(engine, measure.answers(make_loaded(kind)), [BASE], ground, ignore)[BASE]
    assert {item: one.text for item, one in found.items()} == {f"i{i}": text for i in range(3)}
    assert engine.stops == {f"question {i}": stop for i in range(3)}


def test_an_answer_with_one_stop_is_never_taken_for_one_with_another(ground: Ground) -> None:
    engine = make_engine()
    for kind in (SuiteKind.QUESTIONS, SuiteKind.PROMPTS):
        run(engine, measure.answers(make_loaded(kind)), [BASE], ground, ignore)
    assert engine.asked["base"] == 6 and len(list(ground.results.iterdir())) == 2
    found = run(engine, measure.answers(make_loaded(SuiteKind.PROMPTS)), [BASE], ground, ignore)[BASE]
    assert {one.text for one in found.values()} == {SAID} and engine.asked["base"] == 6


@pytest.mark.parametrize("kind", [SuiteKind.QUESTIONS, SuiteKind.CONVERSATIONS, SuiteKind.CHOICES])
def test_what_a_dead_engine_had_measured_is_not_measured_again(ground: Ground, kind: SuiteKind) -> None:
    loaded = make_loaded(kind)
    ways = {SuiteKind.CONVERSATIONS: measure.readings, SuiteKind.CHOICES: measure.letters}
    task = ways.get(kind, measure.answers)(loaded)  # type: ignore[operator]
    with pytest.raises(EngineDied):
        run(make_engine(Faults(dies_after=2)), task, [BASE], ground, ignore)
    engine, steps = make_engine(), []
    found = run(engine, task, [BASE], ground, lambda done, total: steps.append((done, total)))[BASE]
    assert sorted(found) == ["i0", "i1", "i2"] and engine.asked["base"] == 1 and steps == [(3, 3)]


# -- several subjects at once ----------------------------------------------------------------------------------------


def test_several_subjects_share_one_call_and_get_what_each_alone_gets(
    ground: Ground, candidates: list[Subject], tmp_path: Path
) -> None:
    task, subjects = measure.readings(make_loaded(SuiteKind.CONVERSATIONS, 20)), [BASE, *candidates]
    engine, calls = make_engine(), []
    score = engine.score
    engine.score = lambda prompts: calls.append(len(prompts)) or score(prompts)  # type: ignore[method-assign]
    together = run(engine, task, subjects, ground, ignore)
    assert calls == [60]
    elsewhere = ground._replace(results=tmp_path / "elsewhere")
    for subject in subjects:
        assert run(make_engine(), task, [subject], elsewhere, ignore)[subject] == together[subject]
    assert len({together[one]["i7"].nll_nats for one in subjects}) == 3, "they differ, or this proves nothing"


def test_only_what_a_subject_lacks_is_asked(ground: Ground, candidates: list[Subject]) -> None:
    task = measure.readings(make_loaded(SuiteKind.CONVERSATIONS, 5))
    run(make_engine(), task, [BASE], ground, ignore)
    engine = make_engine()
    run(engine, task, [BASE, candidates[0]], ground, ignore)
    assert engine.asked == {"base": 0, "adapter": 5}


def test_a_subject_that_does_not_go_on_is_not_asked_any_further_and_the_others_are(
    ground: Ground, candidates: list[Subject]
) -> None:
    first, second = candidates
    task = measure.answers(make_loaded(SuiteKind.QUESTIONS, 20))
    found = run(
        make_engine(),
        task,
        candidates,
        ground,
        ignore,
        batch=8,
        going=lambda subject, results: subject == second or len(results) < 6,
    )
    assert len(found[first]) == 8 and len(found[second]) == 20


def test_items_are_asked_by_length_and_id_whatever_their_order_in_the_suite() -> None:
    items = [*make_items(SuiteKind.QUESTIONS, 12), Question(id="a", question="a much longer question", answers=["x"])]
    one, other = (make_loaded(SuiteKind.QUESTIONS, items=order) for order in (items, items[::-1]))
    assert one.asks == other.asks and one.asked == other.asked
    assert [ask.item for ask in one.asks][-1] == "a"
    assert [len(ask.ids) for ask in one.asks] == sorted(len(ask.ids) for ask in one.asks)


# -- reuse -----------------------------------------------------------------------------------------------------------


def test_another_tokenizer_is_another_result(ground: Ground) -> None:
    task = measure.readings(make_loaded(SuiteKind.CONVERSATIONS))
    run(make_engine(), task, [BASE], ground, ignore)
    engine = make_engine()
    run(engine, task, [BASE], ground._replace(tokenizer="sha256:" + "7" * 64), ignore)
    assert engine.asked["base"] == 3


def test_other_ids_are_another_result_even_of_the_same_suite(ground: Ground) -> None:
    """What is asked decides, not what the suite is called: a changed way of writing prompts is another question."""
    loaded = make_loaded(SuiteKind.QUESTIONS)
    run(make_engine(), measure.answers(loaded), [BASE], ground, ignore)
    changed = loaded._replace(asks=[one._replace(ids=[*one.ids, 33]) for one in loaded.asks])
    engine = make_engine()
    run(engine, measure.answers(changed), [BASE], ground, ignore)
    assert engine.asked["base"] == 3


def test_another_mask_is_another_result(ground: Ground) -> None:
    loaded = make_loaded(SuiteKind.CONVERSATIONS)
    before = run(make_engine(), measure.readings(loaded), [BASE], ground, ignore)[BASE]
    fewer = [one._replace(mask=[*one.mask[:-1], False]) for one in loaded.reads]
    after = run(make_engine(), measure.readings(loaded._replace(reads=fewer)), [BASE], ground, ignore)[BASE]
    assert [one.n_tokens - 1 for one in before.values()] == [one.n_tokens for one in after.values()]


# -- choices ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("said", "output"), [("B", "B"), ("C", "C"), ("nothing of the kind", "A")])
def test_the_likeliest_letter_is_the_answer_and_of_equal_ones_the_first(ground: Ground, said: str, output: str) -> None:
    found = run(make_engine(said=said), measure.letters(make_loaded(SuiteKind.CHOICES)), [BASE], ground, ignore)[BASE]
    assert {one.text for one in found.values()} == {output}


def test_a_letter_that_an_item_does_not_have_is_never_its_answer(ground: Ground) -> None:
    items = [
        Choice(id="two", question="q", choices=["x", "y"], answer=0),
        Choice(id="four", question="q", choices=["w", "x", "y", "z"], answer=3),
    ]
    loaded = make_loaded(SuiteKind.CHOICES, items=items)
    found = run(make_engine(said="D"), measure.letters(loaded), [BASE], ground, ignore)[BASE]
    assert (found["two"].text, found["four"].text) == ("A", "D")


def test_choices_are_asked_with_their_letters_in_one_prompt() -> None:
    [ask] = make_loaded(SuiteKind.CHOICES, 1).asks
    assert ask.text == "question 0\nA. x\nB. y\nC. z\nAnswer with the letter of the right choice only."
    assert bytes(ask.ids).decode() == f"\nuser: {ask.text}\nassistant: "


# -- beside the answers: gold and KL ---------------------------------------------------------------------------------


def test_gold_scores_the_first_answer_as_the_reply(ground: Ground) -> None:
    loaded = make_loaded(SuiteKind.QUESTIONS)
    reads = gold_reads(loaded, ByteRenderer(Path("/nonexistent")), 1024)  # type: ignore[arg-type]
    one = next(read for read in reads if read.item == "i1")
    assert bytes(one.ids).decode() == "\nuser: question 1\nassistant: answer 1\n"
    assert bytes(token for token, counts in zip(one.ids, one.mask, strict=True) if counts).decode() == "answer 1\n"
    found = run(make_engine(), measure.gold(loaded, reads), [BASE], ground, ignore)[BASE]
    assert found["i1"].n_tokens == len("answer 1\n") and found["i1"].nll_nats > 0


def test_the_draw_is_the_same_wherever_items_stand_and_hardly_changes_with_a_new_one() -> None:
    items = make_items(SuiteKind.QUESTIONS, 500)
    drawn = {item.id for item in draw(items, 200)}
    assert len(drawn) == 200 and {item.id for item in draw(items[::-1], 200)} == drawn
    more = {item.id for item in draw([*items, Question(id="new", question="q", answers=["a"])], 200)}
    assert len(drawn - more) <= 1


def test_samples_are_drawn_from_the_base_once_and_scored_by_both(ground: Ground, candidates: list[Subject]) -> None:
    loaded = make_loaded(SuiteKind.QUESTIONS, 60)
    engine = make_engine()
    sampled = run(engine, measure.samples(loaded, ground), [BASE], ground, ignore)[BASE]
    assert len(sampled) == measure.KL_PROMPTS and engine.asked == {"base": 48, "adapter": 0}
    assert {len(one.ids) for one in sampled.values()} == {measure.KL_TOKENS}
    echoes = run(engine, measure.echoes(loaded, sampled), [BASE, candidates[0]], ground, ignore)
    assert engine.asked == {"base": 96, "adapter": 48}
    assert {one.n_tokens for one in echoes[BASE].values()} == {measure.KL_TOKENS}
    # The fake adapter moves every score by one amount: 24 tokens, 24 times that.
    moved = {round(echoes[BASE][item].nll_nats - one.nll_nats, 9) for item, one in echoes[candidates[0]].items()}
    assert len(moved) == 1 and next(iter(moved)) / measure.KL_TOKENS == pytest.approx(
        engine._shift(candidates[0].adapter)
    )
    again = make_engine()
    assert run(again, measure.samples(loaded, ground), [BASE], ground, ignore)[BASE] == sampled
    assert again.asked["base"] == 0


class Placed(FakeEngine):
    """Draws each prompt with the seed of its place in the call, as the real engine does."""

    def sample(self, prompts: Sequence[EnginePrompt], max_tokens: int, seed: int) -> Iterator[tuple[int, Answer]]:
        for index, _ in super().sample(prompts, max_tokens, seed):
            drawn = random.Random(seed + index)
            yield index, Answer("", [drawn.randrange(97, 123) for _ in range(max_tokens)], "length")


def test_samples_that_were_left_half_done_come_out_as_if_they_had_not(ground: Ground, tmp_path: Path) -> None:
    """A prompt's seed depends on its place in the call, so a call for the rest alone would draw something else."""
    loaded = make_loaded(SuiteKind.QUESTIONS, 60)
    elsewhere = ground._replace(results=tmp_path / "elsewhere")
    whole = run(Placed(), measure.samples(loaded, elsewhere), [BASE], elsewhere, ignore)[BASE]
    with pytest.raises(EngineDied):
        run(Placed(Faults(dies_after=20)), measure.samples(loaded, ground), [BASE], ground, ignore)
    assert run(Placed(), measure.samples(loaded, ground), [BASE], ground, ignore)[BASE] == whole


def test_an_empty_sample_says_nothing() -> None:
    loaded = make_loaded(SuiteKind.QUESTIONS, 2)
    task = measure.echoes(loaded, {"i0": Sampled("i0", []), "i1": Sampled("i1", [65, 66])})
    assert [want.item for want in task.wants] == ["i1"]


def test_prompts_without_room_for_a_sample_are_not_drawn(ground: Ground) -> None:
    loaded = make_loaded(SuiteKind.QUESTIONS, 60)
    longest = len(loaded.asks[0].ids) + measure.KL_TOKENS + 1
    wants = measure.samples(loaded, ground._replace(longest=longest)).wants
    assert 0 < len(wants) < measure.KL_PROMPTS and all(len(one.ids) + measure.KL_TOKENS < longest for one in wants)


# -- numbers that are none -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused_with_its_item(ground: Ground, bad: float) -> None:
    with pytest.raises(EngineRefused, match="s/i0: a score is not a number"):
        run(
            make_engine(Faults(bad=bad)), measure.readings(make_loaded(SuiteKind.CONVERSATIONS)), [BASE], ground, ignore
        )


def test_large_suites_are_asked_in_batches(ground: Ground) -> None:
    engine, calls = make_engine(), []
    generate = engine.generate
    engine.generate = lambda prompts, most, stops: calls.append(len(prompts)) or generate(prompts, most, stops)  # type: ignore
    run(engine, measure.answers(make_loaded(SuiteKind.QUESTIONS, BATCH + 10)), [BASE], ground, ignore)
    assert calls == [BATCH, 10]


def test_a_read_knows_the_bytes_of_what_the_assistant_said() -> None:
    turns = [("user", "Où?"), ("assistant", "À Nîmes — 3 €."), ("user", "Merci"), ("assistant", "De rien.")]
    item = Conversation(id="c", messages=[Message(role=role, content=text) for role, text in turns])
    [read] = make_loaded(SuiteKind.CONVERSATIONS, items=[item]).reads
    assert isinstance(read, Read) and read.n_bytes == len("À Nîmes — 3 €.".encode()) + len(b"De rien.")
