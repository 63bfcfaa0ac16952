"""Rows that hold what the adapter will be measured on: suites, held-out files, other splits. Pure but for reading them.

A prompt leaks an item by the evaluator's own rule of contamination: the same normalised text, a common run of 13 words
(GPT-3's rule), runs of 8 words of the prompt that cover at least half of the item, or a Jaccard index of at least 0.8
over runs of 5. So does a prompt that is an item but for a greeting, thanks and a few words around it. Runs that many
different prompts share are a form of asking, not an item. Rephrasings are not found.
"""

from collections.abc import Iterator, Sequence
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
from trainer.preflight.asked import Asked
from trainer.preflight.codes import Problem, found
from trainer.preflight.duplicates import Clusters, NearPair
from trainer.preflight.reading import Row, Split, read
from trainer.preflight.text import Words, words

__all__ = ["Asked", "check_asked", "check_splits", "held_out_texts", "read_suite_folder", "suite_texts"]


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
    """Rows one of whose questions gives an item away, and those that share too much with too many items to say."""
    asked.leave_out_frames(one.content for row in rows for one in row.prompt if one.role == "user")
    problems = []
    for row in rows:
        compared = [asked.compare(one.content) for one in row.prompt if one.role == "user"]
        if item := next((one.item for one in compared if one.item is not None), None):
            problems.append(found("E160", f"its prompt holds {item}", row=row.number, line=row.line))
        elif any(one.cut for one in compared):
            message = "its prompt shares its words with very many items and was compared with some of them only"
            problems.append(found("W164", message, row=row.number, line=row.line))
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
