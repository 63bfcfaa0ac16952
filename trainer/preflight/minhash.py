"""Which rows may be nearly the same, without comparing each with each. Pure.

Candidates come from MinHash over sequences of three words (rensa, 128 permutations in 32 bands of 4: two rows with a
Jaccard index of 0.7 become a candidate with a probability of 0.9998); who asks confirms each by the exact index. The
outcome does not depend on the order of the rows. Source: Leskovec et al., Mining of Massive Datasets, chapter 3.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from trainer.preflight.reading import Row
from trainer.preflight.text import grams, words

NEAR = 0.7
_SHINGLE_WORDS = 3
_PERMUTATIONS, _BANDS, _SEED = 128, 32, 20
# With 128 permutations the estimate's standard error is 0.04: a pair of 0.7 falls below this once in 30,000.
_WORTH_CONFIRMING = NEAR - 0.16
# Bounds the work where thousands of rows share a band: there each row meets its nearest in the order of the minima
# behind the band, as in an LSH forest (Bawa et al. 2005). `Candidates.last` tells where that may have hidden a copy.
_MOST_NEIGHBOURS, _ORDERED_BY = 10, 24

_Matrix = npt.NDArray[Any]


class Candidates(NamedTuple):
    """Pairs of rows (first < second); `last`: those behind which there may be more."""

    pairs: list[tuple[int, int]]
    last: list[tuple[int, int]]


def candidates(rows: Sequence[Row], shingled: Sequence[set[str]]) -> Candidates:
    """Pairs of rows with equal minima in one band and enough of them in all."""
    matrix, n = _minima(shingled), len(rows)
    found_pairs, last = [], [np.empty(0, dtype=np.int64)]
    for order, names in _bands(matrix, rows):
        for step in range(1, min(_MOST_NEIGHBOURS, n - 1) + 1):
            same = names[step:] == names[:-step]
            if not same.any():
                break
            ends = np.stack([order[:-step][same], order[step:][same]])
            found_pairs.append(ends.min(axis=0) * n + ends.max(axis=0))
            if step == _MOST_NEIGHBOURS:
                last.append(found_pairs[-1])
    kept = _worth_confirming(np.concatenate([*found_pairs, *last]), matrix)
    return Candidates(_unpacked(kept, n), _unpacked(kept[np.isin(kept, np.concatenate(last))], n))


def candidates_across(n_firsts: int, rows: Sequence[Row], shingled: Sequence[set[str]]) -> list[tuple[int, int]]:
    """The same of one of the first rows and one of the others, where each of these meets its nearest among those."""
    matrix, n = _minima(shingled), len(rows)
    found_pairs = [np.empty(0, dtype=np.int64)]
    for order, names in _bands(matrix, rows):
        firsts, others = np.flatnonzero(order < n_firsts), np.flatnonzero(order >= n_firsts)
        behind = np.searchsorted(firsts, others)
        for step in range(-_MOST_NEIGHBOURS, _MOST_NEIGHBOURS):
            there = (behind + step >= 0) & (behind + step < len(firsts))
            one, other = firsts[(behind + step)[there]], others[there]
            same = names[one] == names[other]
            found_pairs.append(order[one[same]] * n + order[other[same]])
    return _unpacked(_worth_confirming(np.concatenate(found_pairs), matrix), n)


def _minima(shingled: Sequence[set[str]]) -> _Matrix:
    from rensa import RMinHash

    digests = RMinHash.digest_matrix_from_token_sets([list(one) for one in shingled], _PERMUTATIONS, _SEED).to_rows()
    return np.array(digests, dtype=np.uint32)


def _bands(matrix: _Matrix, rows: Sequence[Row]) -> Iterator[tuple[_Matrix, _Matrix]]:
    """Of every band: the rows in the order of their minima from it on, and numbers that are equal where the band is."""
    rank = np.argsort(sorted(range(len(rows)), key=lambda index: rows[index].digest))
    for start in range(0, _PERMUTATIONS, _PERMUTATIONS // _BANDS):
        turned = np.roll(matrix, -start, axis=1)[:, :_ORDERED_BY]
        _, band = np.unique(turned[:, : _PERMUTATIONS // _BANDS], axis=0, return_inverse=True)
        order = np.lexsort((rank, *turned.T[::-1], band.ravel()))
        yield order, band.ravel()[order]


def _worth_confirming(found_pairs: _Matrix, matrix: _Matrix) -> _Matrix:
    pairs, n = np.unique(found_pairs), len(matrix)
    chunks = np.array_split(pairs, len(pairs) // 100_000 + 1)
    alike = [(matrix[chunk // n] == matrix[chunk % n]).mean(axis=1) for chunk in chunks]
    kept: _Matrix = pairs[np.concatenate(alike) >= _WORTH_CONFIRMING]
    return kept


def _unpacked(pairs: _Matrix, n: int) -> list[tuple[int, int]]:
    return [divmod(int(pair), n) for pair in pairs]


def shingles(row: Row) -> set[str]:
    """Three-word sequences of what the user says and the answer; a system prompt is the same in most rows.

    A text without words, such as "? !", is what it is: its digest is its only shingle.
    """
    said = words("\n".join([one.content for one in row.prompt if one.role != "system"] + [row.completion]))
    return {" ".join(one) for one in grams(said, _SHINGLE_WORDS)} or {row.digest}


def jaccard(one: set[str], other: set[str]) -> float:
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
