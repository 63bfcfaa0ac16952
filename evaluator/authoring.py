"""What is wrong with a suite before it measures anything: doubles, answers that decide nothing, leaks.

Problems make a suite's numbers wrong; warnings make them weak.
"""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from evaluator.accuracy import is_right
from evaluator.contamination import TrainingIndex
from evaluator.suites import compared_texts, tokenise
from evaluator.terms import MEASURES, is_number, terms, words
from registry.client import (
    Choice,
    Conversation,
    Document,
    InvalidRequest,
    Item,
    Prompt,
    Question,
    Refusal,
    SuiteContent,
)
from registry.records import Suite

_LONG_ALIAS_WORDS = 12
_LONG_TEXT_CHARACTERS = 4000  # some 1,000 tokens, which is all that the default engine takes
_SLICE_ITEMS = 5
_GUESSABLE = 0.2
_IN_ANY_REPLY = frozenset(
    "am and are as at be but by can do for from has have he i if in is it its may me my no not of on or our she so "
    "that there they this to us was we will with yes you your".split()
)


class Finding(NamedTuple):
    """`severity` is "problem" or "warning"; `item` is the suite's name where all of it is meant."""

    severity: str
    item: str
    message: str


_problem, _warning = partial(Finding, "problem"), partial(Finding, "warning")


def check_items(content: SuiteContent, training_prompts: Iterable[str] = ()) -> list[Finding]:
    """Every finding: first those of the items in their order, then those of the whole suite.

    training_prompts: what must not be in the suite.
    """
    index = TrainingIndex(training_prompts)
    first: dict[object, Item] = {}
    found: list[Finding] = []
    for item in content.items:
        found += _doubles(item, first)
        found += [
            _problem(item.id, f"{text[:60]!r} is in the training data; take it out of one of the two")
            for text in compared_texts(item)
            if index.holds(text)
        ]
        if isinstance(item, Question):
            found += _answers(item)
        elif isinstance(item, Choice):
            found += _choices(item)
    return [*found, *(one for check in _WHOLE for one in check(content))]


def token_check(base: Path) -> Callable[[SuiteContent], list[Finding]]:
    """A check that counts with a base's own tokenizer whether items fit into the engine's context.

    Raises InvalidRequest for a directory without a chat model's tokenizer.
    """
    from evaluator.rendering import Renderer
    from evaluator.vllm_process import EngineSettings

    if not (base / "tokenizer_config.json").is_file():
        raise InvalidRequest(f"{base} has no tokenizer_config.json; give the directory of a base model")
    renderer, longest = Renderer(base), EngineSettings._field_defaults["max_model_len"]

    def check(content: SuiteContent) -> list[Finding]:
        head = content.head
        suite = Suite(name=head.name, kind=head.kind, digest="", n_items=len(content.items), files=[])
        try:
            tokenise(suite, content, renderer, longest)
        except InvalidRequest as error:
            return [_problem(head.name, str(error))]
        return []

    return check


# -- one item -----------------------------------------------------------------------------------------------------


def _doubles(item: Item, first: dict[object, Item]) -> Iterator[Finding]:
    earlier = first.setdefault(_asked(item), item)
    if earlier is item:
        return
    if _contradict(earlier, item):
        yield _problem(item.id, f"asks the same as {earlier.id!r} but wants another answer; correct one of the two")
    else:
        yield _problem(item.id, f"asks the same as {earlier.id!r}, so it counts twice; take one out")


def _asked(item: Item) -> object:
    """Equal for items that ask the same, whatever the spelling."""
    if isinstance(item, Document):
        return msgspec.json.encode(item.doc, order="sorted")
    asked = tuple(word for text in compared_texts(item) for word in words(text))
    return (asked, frozenset(map(_plain, item.choices))) if isinstance(item, Choice) else asked


def _contradict(one: Item, other: Item) -> bool:
    match one, other:
        case Question(), Question():
            return not any(is_right(answer, other.answers, other.question) for answer in one.answers)
        case Choice(), Choice():
            return _plain(one.choices[one.answer]) != _plain(other.choices[other.answer])
        case Refusal(), Refusal():
            return one.refuse != other.refuse
    return False


def _answers(item: Question) -> Iterator[Finding]:
    for answer in item.answers:
        said = terms(answer)
        if not said:
            yield _problem(item.id, f"answer {answer!r} has no word that could be found in a reply")
        elif is_right(item.question, [answer], ""):
            yield _problem(item.id, f"answer {answer!r} is in the question: repeating it would be right")
        elif not is_right(answer, [answer], item.question):
            yield _problem(item.id, f"answer {answer!r} spans lines, but of a reply only the first line is compared")
        elif _IN_ANY_REPLY.issuperset(said):
            yield _warning(item.id, f"answer {answer!r} is in many a reply that means something else; say more of it")
        elif len(said) > _LONG_ALIAS_WORDS:
            yield _warning(item.id, f"answer {answer[:40]!r}… is so long that hardly any reply contains it")
        elif unit := _unit_left_out(answer, item):
            yield _warning(
                item.id, f"answer {answer!r} is right with any unit; write {answer} {unit}, or ask in {unit}s"
            )


def _unit_left_out(answer: str, item: Question) -> str | None:
    """The unit that another answer gives the same bare number, unless the question holds replies to its kind."""
    said = terms(answer)
    if len(said) != 1 or not is_number(said[0]):
        return None
    asked = {MEASURES[term] for term in terms(item.question) if term in MEASURES}
    pairs = (pair for other in item.answers for pair in pairwise(terms(other)))
    return next(
        (unit for number, unit in pairs if number == said[0] and unit in MEASURES and MEASURES[unit] not in asked), None
    )


def _choices(item: Choice) -> Iterator[Finding]:
    twice = [text for text, times in Counter(map(_plain, item.choices)).items() if times > 1]
    if twice:
        yield _problem(item.id, f"choice {' '.join(twice[0])!r} is listed twice, so two letters are the same answer")


def _plain(text: str) -> tuple[str, ...]:
    # Signs may be all that tells choices apart ("+", "-"), and words are not made of them.
    return tuple(words(text)) or (text,)


# -- the whole suite ----------------------------------------------------------------------------------------------


def _tags(content: SuiteContent) -> Iterator[Finding]:
    """Only what is right or wrong is judged by tags."""
    if isinstance(content.items[0], Conversation | Prompt):
        return
    if bare := [item.id for item in content.items if not item.tags]:
        yield _warning(
            content.head.name, f"{len(bare)} items have no tag, first {bare[0]!r}; no slice shows their losses"
        )
    counts = Counter(tag for item in content.items for tag in set(item.tags))
    if few := sorted(tag for tag, n in counts.items() if n < _SLICE_ITEMS):
        named = ", ".join(f"{tag} ({counts[tag]})" for tag in few[:5])
        yield _warning(
            content.head.name,
            f"{len(few)} tags have fewer than {_SLICE_ITEMS} items, so nothing can be said about them: {named}",
        )


def _lengths(content: SuiteContent) -> Iterator[Finding]:
    for item in content.items:
        size = len(_text(item)) + len(content.head.system or "")
        if size > _LONG_TEXT_CHARACTERS:
            yield _warning(
                item.id, f"has {size:,} characters, which may be longer than the engine's context; count with --base"
            )


def _text(item: Item) -> str:
    match item:
        case Conversation():
            return "".join(one.content for one in item.messages)
        case Choice():
            return "".join([item.question, *item.choices])
    return "".join(compared_texts(item))


def _one_reply(content: SuiteContent) -> Iterator[Finding]:
    """Whether one and the same reply would be right much too often."""
    questions = [item for item in content.items if isinstance(item, Question)]
    shared = Counter(answer for item in questions for answer in {" ".join(terms(one)) for one in item.answers})
    for answer, n in shared.most_common(1):
        if n >= _SLICE_ITEMS and n > _GUESSABLE * len(questions):
            yield _warning(
                content.head.name,
                f"the reply {answer!r} alone is right for {n} of {len(questions)} items; ask for more",
            )


def _one_class(content: SuiteContent) -> Iterator[Finding]:
    wanted = [item.refuse for item in content.items if isinstance(item, Refusal)]
    refuse = sum(wanted)
    if wanted and refuse in (0, len(wanted)):
        always = "refusing everything" if refuse else "answering everything"
        yield _problem(content.head.name, f"{always} would be right throughout; add items of the other class")
    elif wanted and not _GUESSABLE < refuse / len(wanted) < 1 - _GUESSABLE:
        yield _warning(content.head.name, f"{refuse} of {len(wanted)} items are to be refused; hold the classes even")


def _cues(content: SuiteContent) -> Iterator[Finding]:
    """Whether the right choice gives itself away: three standard deviations more often than by chance."""
    choices = [item for item in content.items if isinstance(item, Choice)]
    chance = math.fsum(1 / len(item.choices) for item in choices)
    spread = math.sqrt(math.fsum((1 - 1 / len(item.choices)) / len(item.choices) for item in choices))
    [(place, most)] = Counter(item.answer for item in choices).most_common(1) or [(0, 0)]
    longest = sum(
        len(item.choices[item.answer]) > max(len(one) for place, one in enumerate(item.choices) if place != item.answer)
        for item in choices
    )
    for n, where, remedy in (
        (most, f"under {chr(ord('A') + place)}", "shuffle the choices"),
        (longest, "the longest", "make the wrong ones as long"),
    ):
        if n > chance + 3 * spread:
            yield _warning(
                content.head.name,
                f"the right choice is {where} in {n} of {len(choices)} items, {chance:.0f} by chance; {remedy}",
            )


_WHOLE: tuple[Callable[[SuiteContent], Iterator[Finding]], ...] = (_tags, _lengths, _one_reply, _one_class, _cues)
