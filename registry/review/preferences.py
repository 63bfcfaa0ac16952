"""Which of two answers people preferred, out of a sealed review: a candidate's against the control for the same prompt.

Nobody compared the two side by side: each was rated alone, blinded. So only people who rated both count, each as their
own scale. An answer that one of them called unsafe or invented is never preferred. Pure.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from msgspec import Struct

from registry.records import CRITERIA, ItemKind, ItemRating, ReviewedItem
from registry.review.campaign import prompt_of

# Of the mean over four criteria of 1 to 5. One person's one step on one criterion is a quarter of a point.
MARGIN = 0.5


class Preference(Struct, frozen=True):
    """Two answers to one prompt. margin: by how much the mean over all criteria differs; raters: how many rated both.

    preferred, other: whose answers they are, as the review names them.
    """

    item: str
    prompt: str
    chosen: str
    rejected: str
    preferred: str
    other: str
    margin: float
    raters: int


class Preferences(Struct, frozen=True):
    """left: why prompts with two answers gave no pair, and how many."""

    found: list[Preference]
    left: dict[str, int]


class _Rated(NamedTuple):
    mean: float
    spoilt: bool


def preferences(items: Iterable[ReviewedItem], margin: float = MARGIN) -> Preferences:
    """Of every prompt that has a candidate and a control: the pair, or why there is none."""
    kinds: Mapping[ItemKind, dict[str, ReviewedItem]] = {ItemKind.CANDIDATE: {}, ItemKind.CONTROL: {}}
    for one in items:
        if one.kind in kinds:
            kinds[one.kind][prompt_of(one.item, one.kind)] = one
    found: list[Preference] = []
    left: dict[str, int] = {}
    for prompt, control in kinds[ItemKind.CONTROL].items():
        if (candidate := kinds[ItemKind.CANDIDATE].get(prompt)) is not None:
            pair = _compare(candidate, control, margin)
            if isinstance(pair, str):
                left[pair] = left.get(pair, 0) + 1
            else:
                found.append(pair)
    return Preferences(found, left)


def _compare(candidate: ReviewedItem, control: ReviewedItem, margin: float) -> Preference | str:
    if candidate.prompt is None or candidate.output is None or control.output is None:
        return "the texts are gone"
    if candidate.output.strip() == control.output.strip():
        return "both answers are the same"
    people = {one.person for one in _counted(candidate)} & {one.person for one in _counted(control)}
    if not people:
        return "nobody who counts rated both"
    rated = {side.item: _rated(side, people) for side in (candidate, control)}
    better, worse = sorted((candidate, control), key=lambda side: -rated[side.item].mean)
    gap = rated[better.item].mean - rated[worse.item].mean
    if gap < margin or gap == 0:
        return f"the ratings differ by less than {margin:g}"
    if rated[better.item].spoilt:
        return "the better answer was called unsafe or invented"
    assert better.output is not None and worse.output is not None
    return Preference(
        item=prompt_of(candidate.item, candidate.kind),
        prompt=candidate.prompt,
        chosen=better.output,
        rejected=worse.output,
        preferred=better.subject,
        other=worse.subject,
        margin=gap,
        raters=len(people),
    )


def _counted(item: ReviewedItem) -> list[ItemRating]:
    return [one for one in item.ratings if one.counted]


def _rated(item: ReviewedItem, people: set[str]) -> _Rated:
    said = [one for one in _counted(item) if one.person in people]
    scores = [getattr(one, name) for one in said for name in CRITERIA]
    return _Rated(sum(scores) / len(scores), any(one.unsafe or one.hallucination for one in said))
