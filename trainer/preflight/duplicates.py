"""Rows that say the same thing: near duplicates, the clusters they form, and prompts with contradicting answers. Pure.

Which rows may be nearly the same is `trainer.preflight.minhash`'s; here every candidate is confirmed by the exact
Jaccard index. The outcome does not depend on the order of the rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

from trainer.preflight.codes import Problem, found
from trainer.preflight.minhash import NEAR, candidates, candidates_across, jaccard, shingles
from trainer.preflight.reading import Row
from trainer.preflight.restated import restated, sayings
from trainer.preflight.text import Words, words

_Key = tuple[tuple[str, str], ...]
_ORDERING = frozenset("before after from to than over under into vor nach von bis als avant après".split())


class NearPair(NamedTuple):
    """Indices of two rows, first < second, and the exact Jaccard index of their word sequences."""

    first: int
    second: int
    jaccard: float


class Near(NamedTuple):
    """Of some rows: enough pairs of near duplicates to hold every cluster together; and the crowd, pairs of rows much
    alike and no copies that are the last of so many that a copy may have been missed behind them."""

    pairs: list[NearPair]
    crowd: list[tuple[int, int]]


def alike(rows: Sequence[Row]) -> Near:
    """Rows that nearly repeat each other, in their order of words or (short ones) in another."""
    near = near_pairs(rows)
    return Near([*near.pairs, *restated_pairs(rows)], near.crowd)


def near_pairs(rows: Sequence[Row]) -> Near:
    """Rows whose whole texts are nearly the same."""
    if len(rows) < 2:
        return Near([], [])
    shingled = [shingles(row) for row in rows]
    clusters = Clusters(len(rows))
    pairs = []
    met = candidates(rows, shingled)
    for first, second in met.pairs:
        if clusters.of(first) == clusters.of(second):
            continue
        share = jaccard(shingled[first], shingled[second])
        if share >= NEAR:
            clusters.join(first, second)
            pairs.append(NearPair(first, second, share))
    return Near(pairs, [pair for pair in met.last if clusters.of(pair[0]) != clusters.of(pair[1])])


def restated_pairs(rows: Sequence[Row]) -> list[NearPair]:
    """Pairs of short rows with the same content in another order, with slips of the pen or courtesy."""
    return [
        NearPair(first, second, jaccard(shingles(rows[first]), shingles(rows[second])))
        for first, second in restated(rows)
    ]


def repeating(firsts: Sequence[Row], rows: Sequence[Row]) -> dict[int, int]:
    """Rows, by index, that nearly repeat one of the first; with the index of that one.

    Each is compared with the very row that is named: a chain of near duplicates leads to rows that share nothing.
    """
    if not firsts or not rows:
        return {}
    both, n = [*firsts, *rows], len(firsts)
    shingled = [shingles(row) for row in both]
    named: dict[int, int] = {}
    for first, other in candidates_across(n, both, shingled):
        if other not in named and jaccard(shingled[first], shingled[other]) >= NEAR:
            named[other] = first
    for first, other in restated(both):
        if first < n <= other:
            named.setdefault(other, first)
    return {other - n: first for other, first in named.items()}


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


def check_near(rows: Sequence[Row], near: Near) -> list[Problem]:
    """One finding for each row but the first of its cluster, with the nearest row that is known; one for all rows that
    so many others resemble that a copy may have been missed."""
    clusters = Clusters(len(rows))
    nearest: dict[int, tuple[float, int]] = {}
    for pair in near.pairs:
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
    ] + _check_crowd(rows, near, clusters)


def _check_crowd(rows: Sequence[Row], near: Near, clusters: Clusters) -> list[Problem]:
    """Rows whose nearest neighbours are all much like them and no copies: the next one may be one."""
    crowd = {index for pair in near.crowd if clusters.of(pair[0]) != clusters.of(pair[1]) for index in pair}
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
