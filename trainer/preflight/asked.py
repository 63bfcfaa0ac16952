"""What is asked of the adapter, indexed so that a prompt meets only the items that it may give away. Pure.

The work for one prompt grows with its length and never with the number of items: where very many items share a run of
words, `_MOST` of them stand for all, and the answer says so where that may have hidden a leak.

>>> Asked([("q-1", "How long is the warranty on a tent?")]).leaked_by("how long IS the warranty on a tent")
'q-1'
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Set
from typing import NamedTuple

from trainer.preflight.text import Words, grams, words

_LONG, _COVER, _NEAR = 13, 8, 5
_NEAR_SHARE, _COVER_SHARE = 0.8, 0.5
_WHOLE, _WHOLE_SHARE = 5, 2 / 3
_COURTESY = frozenset("hello hi hey dear good morning afternoon evening please thank thanks you kind regards".split())
_FRAME_PROMPTS, _FRAME_SHARE = 10, 0.005
# Items of one run of words that are looked at, and texts of a prompt's length that are compared with one prompt.
_MOST = 100


class Compared(NamedTuple):
    """`item`: the name of one that the prompt gives away. cut: there is none among those that were looked at, which
    were not all."""

    item: str | None
    cut: bool = False


class Asked:
    """What is asked of the adapter, each with a name, ready to be compared with training prompts."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self._names: list[str] = []
        self._words: list[Words] = []
        self._same: dict[Words, int] = {}
        self._long: dict[Words, int] = {}
        self._plain: dict[Words, int] = {}
        self._starts: dict[Words, set[int]] = {}
        for name, text in texts:
            self._add(name, words(text))
        self._cover = _Cover(self._words)
        self._near = _Near(self._words)

    def __len__(self) -> int:
        return len(self._names)

    def leave_out_frames(self, prompts: Iterable[str]) -> None:
        """Forget runs of words that stand in so many different prompts that they are a form of asking, and give nothing
        away: in more than 0.5 % of them, and in more than ten."""
        spread: Counter[Words] = Counter()
        texts = {words(prompt) for prompt in prompts}
        for said in texts:
            long = {gram for gram in grams(said, _LONG) if gram in self._long}
            spread.update(long | {gram for gram in grams(said, _COVER) if gram in self._cover.items})
        for gram, count in spread.items():
            if count > max(_FRAME_PROMPTS, _FRAME_SHARE * len(texts)):
                self._long.pop(gram, None)
                self._cover.items.pop(gram, None)

    def leaked_by(self, prompt: str) -> str | None:
        """The name of an item that this training prompt gives away."""
        return self.compare(prompt).item

    def compare(self, prompt: str) -> Compared:
        """An item that this training prompt gives away, and whether one may have been missed."""
        said = words(prompt)
        cut = False
        for found in self._looked_for(said) if said else ():
            if found.item is not None:
                return Compared(self._names[found.item])
            cut = cut or found.cut
        return Compared(None, cut)

    def _looked_for(self, said: Words) -> "Iterator[_Found]":
        """By each rule in its turn, the cheapest first."""
        yield _Found(self._same.get(said))
        if len(said) >= _LONG:
            yield _Found(next((self._long[gram] for gram in grams(said, _LONG) if gram in self._long), None))
        yield self._cover.of(said)
        yield self._near.of(said)
        yield self._inside(_without_courtesy(said))

    def _add(self, name: str, said: Words) -> None:
        if not said or said in self._same:
            return
        number = len(self._names)
        self._names.append(name)
        self._words.append(said)
        self._same[said] = number
        if len(said) >= _LONG:
            for gram in grams(said, _LONG):
                self._long.setdefault(gram, number)
        if plain := _without_courtesy(said):
            self._plain.setdefault(plain, number)
        if len(said) >= _WHOLE:
            self._starts.setdefault(said[:_WHOLE], set()).add(len(said))

    def _inside(self, said: Words) -> "_Found":
        """An item that is the prompt but for courtesy, or of at least five words and two thirds of the prompt."""
        if said in self._plain:
            return _Found(self._plain[said])
        compared = 0
        for start in range(min(len(said) - _WHOLE, len(said) // 3) + 1):
            for size in self._starts.get(said[start : start + _WHOLE], ()):
                if size < _WHOLE_SHARE * len(said) or start + size > len(said):
                    continue
                if compared == _MOST:
                    return _Found(None, cut=True)
                compared += 1
                if (number := self._same.get(said[start : start + size])) is not None:
                    return _Found(number)
        return _Found(None)


class _Found(NamedTuple):
    """The number of an item; cut as in `Compared`."""

    item: int | None
    cut: bool = False


class _Cover:
    """Items by their runs of eight words, for those of which a prompt covers at least half.

    items: those of each run, of very many the ones that are covered most easily; `_crowded` says of such a run how
    hard the first is that is left out, in words for each place at which a run may stand.
    """

    def __init__(self, texts: list[Words]) -> None:
        self.items: dict[Words, list[int]] = {}
        self._texts = texts
        self._crowded: dict[Words, float] = {}
        self._most_places: list[int] = []
        for number, said in enumerate(texts):
            runs = Counter(grams(said, _COVER) if len(said) >= _COVER else ())
            self._most_places.append(max(runs.values(), default=1))
            for gram in runs:
                self.items.setdefault(gram, []).append(number)
        for gram, numbers in self.items.items():
            if len(numbers) > _MOST:
                numbers.sort(key=self._hardness)
                self._crowded[gram] = self._hardness(numbers[_MOST])
                del numbers[_MOST:]

    def _hardness(self, number: int) -> float:
        return len(self._texts[number]) / self._most_places[number]

    def of(self, said: Words) -> _Found:
        own = {gram for gram in grams(said, _COVER) if gram in self.items} if len(said) >= _COVER else set()
        crowded = own & self._crowded.keys()
        shared = Counter(number for gram in own for number in self.items[gram])
        compared = 0
        for number, count in shared.most_common():
            if not _may_cover(count + len(crowded), self._hardness(number)):
                continue
            if compared == _MOST:
                return _Found(None, cut=True)
            compared += 1
            if self._is_covered(number, own):
                return _Found(number)
        return _Found(None, cut=any(_may_cover(len(crowded), self._crowded[gram]) for gram in crowded))

    def _is_covered(self, number: int, own: Set[Words]) -> bool:
        held = end = 0
        for start, gram in enumerate(grams(self._texts[number], _COVER)):
            if gram in own:
                held += start + _COVER - max(start, end)
                end = start + _COVER
        return held >= _COVER_SHARE * len(self._texts[number])


def _may_cover(runs: int, hardness: float) -> bool:
    """Whether so many runs would cover half of an item, were all of them in it and apart from each other."""
    return runs * _COVER >= _COVER_SHARE * hardness


class _Near:
    """Items by the rarest of their runs of five words, for those with a Jaccard index of at least 0.8.

    Of two sets so much alike, the rarest few of each have one in common, the sooner the larger both are. Source:
    Xiao et al., Efficient Similarity Joins for Near Duplicate Detection, WWW 2008 (prefix and positional filtering).
    """

    def __init__(self, texts: list[Words]) -> None:
        self._texts = texts
        self._spread = Counter(gram for said in texts for gram in set(grams(said, _NEAR)))
        # By run of words, then by the size of the item's set and the place of the run among its rarest.
        self._items: dict[Words, dict[tuple[int, int], list[int]]] = {}
        for number, said in enumerate(texts):
            own = set(grams(said, _NEAR))
            for place, gram in enumerate(self._rarest(own)):
                self._items.setdefault(gram, {}).setdefault((len(own), place), []).append(number)

    def _rarest(self, own: Set[Words]) -> list[Words]:
        by_spread = sorted(own, key=lambda gram: (self._spread.get(gram, 0), gram))
        return by_spread[: len(own) - int(_NEAR_SHARE * len(own)) + 1]

    def of(self, said: Words) -> _Found:
        own = set(grams(said, _NEAR))
        seen: set[int] = set()
        for number in self._candidates(own):
            if number in seen:
                continue
            if len(seen) == _MOST:
                return _Found(None, cut=True)
            seen.add(number)
            other = set(grams(self._texts[number], _NEAR))
            if _is_near(len(own & other), len(own), len(other)):
                return _Found(number)
        return _Found(None)

    def _candidates(self, own: Set[Words]) -> Iterator[int]:
        """Items that share a run at a place in both orders from which on they may share enough."""
        for place, gram in enumerate(self._rarest(own)):
            for (size, other), numbers in self._items.get(gram, {}).items():
                if _is_near(min(len(own) - place, size - other), len(own), size):
                    yield from numbers


def _is_near(shared: int, one: int, other: int) -> bool:
    return shared >= _NEAR_SHARE * (one + other - shared)


def _without_courtesy(said: Words) -> Words:
    """The words without a greeting before and thanks behind them."""
    start, end = 0, len(said)
    while start < end and said[start] in _COURTESY:
        start += 1
    while end > start and said[end - 1] in _COURTESY:
        end -= 1
    return said[start:end]
