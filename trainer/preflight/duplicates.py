"""Rows that say the same thing: near duplicates, the clusters they form, and prompts with contradicting answers. Pure.

Candidates come from MinHash over sequences of three words (rensa, 128 permutations in 32 bands of 4: two rows with a
Jaccard index of 0.7 become a candidate with a probability of 0.9998); every candidate is confirmed by the exact index.
The outcome does not depend on the order of the rows. Source: Leskovec et al., Mining of Massive Datasets, chapter 3.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.preflight.codes import Problem, found
from trainer.preflight.reading import Row
from trainer.preflight.restated import restated, sayings
from trainer.preflight.text import Words, grams, words

NEAR = 0.7
_SHINGLE_WORDS = 3
_PERMUTATIONS, _BANDS, _SEED = 128, 32, 20
# With 128 permutations the estimate's standard error is 0.04: a pair of 0.7 falls below this once in 30,000.
_WORTH_CONFIRMING = NEAR - 0.16
# Bounds the work where thousands of rows share a band: there each row meets its nearest in the order of the minima
# behind the band, as in an LSH forest (Bawa et al. 2005). `check_near` tells where that may have hidden a copy.
_MOST_NEIGHBOURS, _ORDERED_BY = 10, 24

_Matrix = npt.NDArray[Any]
_Key = tuple[tuple[str, str], ...]
_ORDERING = frozenset("before after from to than over under into vor nach von bis als avant après".split())


class NearPair(NamedTuple):
    """Indices of two rows, first < second, and the exact Jaccard index of their word sequences."""

    first: int
    second: int
    jaccard: float


def near_pairs(rows: Sequence[Row]) -> list[NearPair]:
    """Pairs of rows whose whole texts are nearly the same; within a cluster enough of them to hold it together."""
    if len(rows) < 2:
        return []
    shingles = [_shingles(row) for row in rows]
    clusters = Clusters(len(rows))
    pairs = []
    for first, second in _candidates(rows, shingles).pairs:
        if clusters.of(first) == clusters.of(second):
            continue
        share = _jaccard(shingles[first], shingles[second])
        if share >= NEAR:
            clusters.join(first, second)
            pairs.append(NearPair(first, second, share))
    return pairs


class _Candidates(NamedTuple):
    """Pairs of rows (first < second); `last`: those behind which there may be more."""

    pairs: list[tuple[int, int]]
    last: list[tuple[int, int]]


def _candidates(rows: Sequence[Row], shingles: Sequence[set[str]]) -> _Candidates:
    """Pairs of rows with equal minima in one band and enough of them in all."""
    from rensa import RMinHash

    digests = RMinHash.digest_matrix_from_token_sets([list(one) for one in shingles], _PERMUTATIONS, _SEED).to_rows()
    matrix, n = np.array(digests, dtype=np.uint32), len(rows)
    rank = np.argsort(sorted(range(n), key=lambda index: rows[index].digest))
    found_pairs, last = [], [np.empty(0, dtype=np.int64)]
    for start in range(0, _PERMUTATIONS, _PERMUTATIONS // _BANDS):
        turned = np.roll(matrix, -start, axis=1)[:, :_ORDERED_BY]
        _, band = np.unique(turned[:, : _PERMUTATIONS // _BANDS], axis=0, return_inverse=True)
        order = np.lexsort((rank, *turned.T[::-1], band.ravel()))
        names = band.ravel()[order]
        for step in range(1, min(_MOST_NEIGHBOURS, n - 1) + 1):
            same = names[step:] == names[:-step]
            if not same.any():
                break
            ends = np.stack([order[:-step][same], order[step:][same]])
            found_pairs.append(ends.min(axis=0) * n + ends.max(axis=0))
            if step == _MOST_NEIGHBOURS:
                last.append(found_pairs[-1])
    pairs = np.unique(np.concatenate([*found_pairs, *last]))
    worth = [
        chunk[(matrix[chunk // n] == matrix[chunk % n]).mean(axis=1) >= _WORTH_CONFIRMING]
        for chunk in np.array_split(pairs, len(pairs) // 100_000 + 1)
    ]
    kept = np.concatenate(worth)
    return _Candidates(_unpacked(kept, n), _unpacked(kept[np.isin(kept, np.concatenate(last))], n))


def _unpacked(pairs: _Matrix, n: int) -> list[tuple[int, int]]:
    return [divmod(int(pair), n) for pair in pairs]


class Clusters:
    """Disjoint sets over 0 … n-1; a set is named by its smallest member."""

    def __init__(self, n: int) -> None:
        self._parent = list(range(n))

    def of(self, one: int) -> int:
        while self._parent[one] != one:
            self._parent[one] = self._parent[self._parent[one]]
            one = self._parent[one]
        return one

    def join(self, one: int, other: int) -> None:
        first, second = sorted((self.of(one), self.of(other)))
        self._parent[second] = first


def clusters_of(rows: Sequence[Row], pairs: Sequence[NearPair]) -> Clusters:
    """Rows that must share a split: of one group, nearly the same, or of one group with such a row."""
    clusters = Clusters(len(rows))
    first: dict[str, int] = {}
    for index, row in enumerate(rows):
        clusters.join(index, first.setdefault(row.group, index))
    for pair in pairs:
        clusters.join(pair.first, pair.second)
    return clusters


def split_keys(rows: Sequence[Row], pairs: Sequence[NearPair]) -> list[str]:
    """What decides each row's split: the first group of its cluster by name, which no order of rows changes."""
    clusters = clusters_of(rows, pairs)
    keys: dict[int, str] = {}
    for index, row in enumerate(rows):
        cluster = clusters.of(index)
        keys[cluster] = min(row.group, keys.get(cluster, row.group))
    return [keys[clusters.of(index)] for index in range(len(rows))]


def check_exact(rows: Sequence[Row], duplicates: Sequence[tuple[int, int]]) -> list[Problem]:
    """duplicates: (line, line of the first occurrence)."""
    numbers = {row.line: row.number for row in rows}
    return [
        found("W220", f"the same as line {first}", row=numbers[line], line=line, related=[first])
        for line, first in duplicates
    ]


def restated_pairs(rows: Sequence[Row]) -> list[NearPair]:
    """Pairs of short rows with the same content in another order, with slips of the pen or courtesy."""
    return [
        NearPair(first, second, _jaccard(_shingles(rows[first]), _shingles(rows[second])))
        for first, second in restated(rows)
    ]


def check_near(rows: Sequence[Row], pairs: Sequence[NearPair]) -> list[Problem]:
    """One finding for each row but the first of its cluster, with the nearest row that is known; one for all rows that
    so many others resemble that a copy may have been missed."""
    clusters = Clusters(len(rows))
    nearest: dict[int, tuple[float, int]] = {}
    for pair in pairs:
        clusters.join(pair.first, pair.second)
        for one, other in ((pair.first, pair.second), (pair.second, pair.first)):
            nearest[one] = max(nearest.get(one, (0.0, 0)), (pair.jaccard, other))
    return [
        found(
            "W221",
            f"{share:.0%} of the three-word sequences of this row and line {rows[other].line} are the same"
            + ("" if share >= NEAR else ", and their words of content are, slips of the pen aside"),
            row=rows[index].number,
            line=rows[index].line,
            related=[rows[other].line],
        )
        for index, (share, other) in sorted(nearest.items())
        if clusters.of(index) != index
    ] + _check_crowd(rows, clusters)


def _check_crowd(rows: Sequence[Row], clusters: "Clusters") -> list[Problem]:
    """Rows whose nearest neighbours are all much like them and no copies: the next one may be one."""
    if len(rows) <= _MOST_NEIGHBOURS:
        return []
    last = _candidates(rows, [_shingles(row) for row in rows]).last
    crowd = {index for pair in last if clusters.of(pair[0]) != clusters.of(pair[1]) for index in pair}
    if not crowd:
        return []
    first = rows[min(crowd)].line
    return [
        found("W224", f"{len(crowd)} rows, the first on line {first}, are much alike: copies among them may be missed")
    ]


def contradictions(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Pairs of lines, (earlier, later), that answer the same prompt in different words.

    Case and punctuation aside, and the order and the slips that `restated` overlooks. Two system prompts may ask for
    two answers; a row without any answers under all of them.
    """
    seen: dict[_Key, dict[_Key | None, _Answers]] = {}
    pairs = []
    for index, (row, said) in enumerate(zip(rows, sayings(rows), strict=True)):
        system, asked = _prompt_key(row)
        under = seen.setdefault(asked, {})
        # An answer without any words, such as "!", is compared as it stands.
        in_order = words(row.completion)
        answer = (said.answered + said.numbers if said else in_order) or row.completion.strip()
        if said and not _ORDERING.isdisjoint(in_order):
            answer = in_order  # the same words the other way round are another answer
        others = [under[one] for one in ((system, ()) if system else (None,)) if one in under]
        if others and all(answer not in one.said for one in others):
            pairs.append((rows[min(one.first for one in others)].line, row.line))
        for one in (system, None):
            under.setdefault(one, _Answers(index, set())).said.add(answer)
    return pairs


class _Answers(NamedTuple):
    """The answers to one question under one system prompt, or (None) under whatever prompt; `first`: of those rows."""

    first: int
    said: set[Words | str]


def check_contradictions(rows: Sequence[Row]) -> list[Problem]:
    """Both rows of a pair are suspect: which of the answers is right only a person can say."""
    numbers = {row.line: row.number for row in rows}
    against: dict[int, list[int]] = {}
    for first, second in contradictions(rows):
        against.setdefault(first, []).append(second)
        against.setdefault(second, []).append(first)
    return [
        found(
            "W222",
            f"line {others[0]} answers the same prompt otherwise",
            row=numbers[line],
            line=line,
            related=sorted(others),
        )
        for line, others in against.items()
    ]


def _prompt_key(row: Row) -> tuple[_Key, _Key]:
    """The system prompt, and what was said under it."""
    key = [(one.role, " ".join(words(one.content)) or one.content.strip()) for one in row.prompt]
    return tuple(one for one in key if one[0] == "system"), tuple(one for one in key if one[0] != "system")


def _shingles(row: Row) -> set[str]:
    """Three-word sequences of what the user says and the answer; a system prompt is the same in most rows.

    A text without words, such as "? !", is what it is: its digest is its only shingle.
    """
    said = words("\n".join([one.content for one in row.prompt if one.role != "system"] + [row.completion]))
    return {" ".join(one) for one in grams(said, _SHINGLE_WORDS)} or {row.digest}


def _jaccard(one: set[str], other: set[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
