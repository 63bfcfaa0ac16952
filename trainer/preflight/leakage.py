"""Rows that hold what the adapter will be measured on: suites, held-out files, other splits. Pure but for reading them.

A prompt leaks an item by the evaluator's own rule of contamination: the same normalised text, a common run of 13 words
(GPT-3's rule), runs of 8 words of the prompt that cover at least half of the item, or a Jaccard index of at least 0.8
over runs of 5. So does a prompt that is an item but for a greeting, thanks and a few words around it. Runs that many
different prompts share are a form of asking, not an item. Rephrasings are not found.

>>> Asked([("q-1", "How long is the warranty on a tent?")]).leaked_by("how long IS the warranty on a tent")
'q-1'
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

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
    read_suite,
)
from trainer.preflight.codes import Problem, found
from trainer.preflight.duplicates import Clusters, NearPair
from trainer.preflight.reading import Row, Split, read
from trainer.preflight.text import Words, grams, words

_LONG, _COVER, _NEAR = 13, 8, 5
_NEAR_SHARE, _COVER_SHARE = 0.8, 0.5
_WHOLE, _WHOLE_SHARE = 5, 2 / 3
_COURTESY = frozenset("hello hi hey dear good morning afternoon evening please thank thanks you kind regards".split())
_FRAME_PROMPTS, _FRAME_SHARE = 10, 0.005


class Asked:
    """What is asked of the adapter, each with a name, ready to be compared with training prompts."""

    def __init__(self, texts: Iterable[tuple[str, str]]) -> None:
        self._names: list[str] = []
        self._words: list[Words] = []
        self._same: dict[Words, int] = {}
        self._long: dict[Words, int] = {}
        self._cover: dict[Words, list[tuple[int, int]]] = {}
        self._near: dict[Words, set[int]] = {}
        self._near_sizes: list[int] = []
        self._plain: dict[Words, int] = {}
        self._starts: dict[Words, list[int]] = {}
        for name, text in texts:
            self._add(name, words(text))

    def __len__(self) -> int:
        return len(self._names)

    def leave_out_frames(self, prompts: Iterable[str]) -> None:
        """Forget runs of words that stand in so many different prompts that they are a form of asking, and give nothing
        away: in more than 0.5 % of them, and in more than ten."""
        spread: Counter[Words] = Counter()
        texts = {words(prompt) for prompt in prompts}
        for said in texts:
            long = {gram for gram in grams(said, _LONG) if gram in self._long}
            spread.update(long | {gram for gram in grams(said, _COVER) if gram in self._cover})
        for gram, count in spread.items():
            if count > max(_FRAME_PROMPTS, _FRAME_SHARE * len(texts)):
                self._long.pop(gram, None)
                self._cover.pop(gram, None)

    def leaked_by(self, prompt: str) -> str | None:
        """The name of an item that this training prompt gives away."""
        said = words(prompt)
        if not said:
            return None
        item = self._same.get(said)
        if item is None and len(said) >= _LONG:
            item = next((self._long[gram] for gram in grams(said, _LONG) if gram in self._long), None)
        if item is None:
            item = self._covered(said)
        if item is None:
            item = self._nearest(said)
        if item is None:
            item = self._inside(_without_courtesy(said))
        return None if item is None else self._names[item]

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
        if len(said) >= _COVER:
            for start, gram in enumerate(grams(said, _COVER)):
                self._cover.setdefault(gram, []).append((number, start))
        if plain := _without_courtesy(said):
            self._plain.setdefault(plain, number)
        if len(said) >= _WHOLE:
            self._starts.setdefault(said[:_WHOLE], []).append(number)
        near = set(grams(said, _NEAR))
        self._near_sizes.append(len(near))
        for gram in near:
            self._near.setdefault(gram, set()).add(number)

    def _covered(self, said: Words) -> int | None:
        places: dict[int, set[int]] = {}
        if len(said) >= _COVER:
            for gram in grams(said, _COVER):
                for number, start in self._cover.get(gram, ()):
                    places.setdefault(number, set()).update(range(start, start + _COVER))
        return next((one for one, held in places.items() if len(held) >= _COVER_SHARE * len(self._words[one])), None)

    def _inside(self, said: Words) -> int | None:
        """An item that is the prompt but for courtesy, or of at least five words and two thirds of the prompt."""
        if said in self._plain:
            return self._plain[said]
        for start in range(len(said) - _WHOLE + 1):
            for number in self._starts.get(said[start : start + _WHOLE], ()):
                whole = self._words[number]
                if said[start : start + len(whole)] == whole and len(whole) >= _WHOLE_SHARE * len(said):
                    return number
        return None

    def _nearest(self, said: Words) -> int | None:
        own = set(grams(said, _NEAR))
        shared = Counter(number for gram in own for number in self._near.get(gram, ()))
        for number, count in shared.items():
            if count >= _NEAR_SHARE * (len(own) + self._near_sizes[number] - count):
                return number
        return None


def _without_courtesy(said: Words) -> Words:
    """The words without a greeting before and thanks behind them."""
    start, end = 0, len(said)
    while start < end and said[start] in _COURTESY:
        start += 1
    while end > start and said[end - 1] in _COURTESY:
        end -= 1
    return said[start:end]


def suite_texts(name: str, suite: SuiteContent) -> Iterator[tuple[str, str]]:
    """Every question of a suite with its name, `suite/item`."""
    for item in suite.items:
        for text in _questions(item):
            yield f"{name}/{item.id}", text


def _questions(item: Item) -> list[str]:
    if isinstance(item, Question | Choice):
        return [item.question]
    if isinstance(item, Prompt | Refusal):
        return [item.prompt]
    if isinstance(item, Conversation):
        return [one.content for one in item.messages if one.role == "user"]
    return [value for value in item.doc.values() if isinstance(value, str)] if isinstance(item, Document) else []


def read_suite_folder(folder: Path) -> tuple[str, SuiteContent]:
    """A suite's name and content from its two files. Raises InvalidRequest that says what is wrong with them."""
    try:
        files = {name: (folder / name).read_bytes() for name in ("suite.toml", "items.jsonl")}
    except OSError as error:
        raise InvalidRequest(
            f"{folder} is no suite: {error.filename}: {error.strerror}; give the folder of suite.toml and items.jsonl"
        ) from None
    suite = read_suite(files)
    return suite.head.name, suite


def held_out_texts(file: Path) -> list[tuple[str, str]]:
    """The questions of a held-out data file. Raises InvalidRequest where it has no readable row."""
    rows = read(file).rows
    if not rows:
        raise InvalidRequest(f"held-out file {file} has no readable row; look at it with `tunegate preflight`")
    return [(f"{file.name} line {row.line}", one.content) for row in rows for one in row.prompt if one.role == "user"]


def check_asked(rows: Sequence[Row], asked: Asked) -> list[Problem]:
    """Rows one of whose questions gives an item away."""
    asked.leave_out_frames(one.content for row in rows for one in row.prompt if one.role == "user")
    problems = []
    for row in rows:
        questions = (one.content for one in row.prompt if one.role == "user")
        if item := next(filter(None, map(asked.leaked_by, questions)), None):
            problems.append(found("E160", f"its prompt holds {item}", row=row.number, line=row.line))
    return problems


def check_splits(rows: Sequence[Row], distinct: Sequence[Row], pairs: Sequence[NearPair]) -> list[Problem]:
    """Held-out rows that ask what a training row asks, or stand in a cluster of near duplicates with one.

    rows: all of them; pairs: of the distinct ones. Only splits that the file declares can leak: those that a run draws
    keep such rows together.
    """
    twins: dict[int, Row] = {}
    trained = {_asked_by(row): row for row in reversed(rows) if row.split is Split.TRAIN}
    clusters = Clusters(len(distinct))
    for pair in pairs:
        clusters.join(pair.first, pair.second)
    taught = {clusters.of(index): row for index, row in enumerate(distinct) if row.split is Split.TRAIN}
    for index, row in enumerate(distinct):
        if twin := taught.get(clusters.of(index)):
            twins[row.line] = twin
    problems = []
    for row in rows:
        twin = trained.get(_asked_by(row)) or twins.get(row.line)
        if twin and row.split in (Split.VALIDATION, Split.TEST):
            message = f"it is in {row.split}, and line {twin.line} in train is nearly the same"
            problems.append(found("E161", message, row=row.number, line=row.line, related=[twin.line]))
    return problems


def _asked_by(row: Row) -> tuple[Words, ...]:
    return tuple(words(one.content) for one in row.prompt if one.role == "user")
