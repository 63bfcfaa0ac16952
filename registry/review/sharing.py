"""How outputs stand that are shared out among people, and which of them still lack ratings. Pure.

As many outputs get all their ratings as were drawn to be rated. Where one cannot get them any more, from the people who
are there, the next spare takes its place, the same for everyone; which outputs it is follows from who met what, and
from nothing that anybody said.
"""

from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from registry.records import ReviewRule
from registry.review.campaign import Items, Shared


class Share(NamedTuple):
    """One person's part. met: all that they were shown, whatever became of it; given: what they rated so that it can
    count, or are about to rate; through: whether nothing is left of what was planned for them."""

    met: frozenset[str]
    given: frozenset[str]
    through: bool


def stand(person: str, shares: Mapping[str, Share], items: Items, rule: ReviewRule) -> Shared:
    """How the outputs stand for this person, who is one of `shares`. Whoever is lost to the campaign is not."""
    given = Counter(item for one in shares.values() for item in one.given)
    by_others = given - Counter(shares[person].given)
    enough = sum(one.through for one in shares.values()) >= rule.reviewers
    return Shared(by_others, _short(given, shares, items, rule.ratings_per_output or 0) if enough else ())


def _short(given: Mapping[str, int], shares: Mapping[str, Share], items: Items, each: int) -> list[str]:
    """The outputs that lack ratings, of those that are to be brought to `each`: the ones that have as many already,
    then those that the people who are there can bring to it, in the order in which they were drawn."""

    def within_reach(item: str) -> bool:
        return given.get(item, 0) + sum(item not in one.met for one in shares.values()) >= each

    reached = [item for item in (*items.core, *items.spares) if within_reach(item)]
    wanted = sorted(reached, key=lambda item: given.get(item, 0) < each)[: len(items.core)]
    return [item for item in wanted if given.get(item, 0) < each]
