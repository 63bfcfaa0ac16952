"""The tags of a suite one by one: which kind of question is weak, corrected for looking at many. Pure.

An alarm informs and never changes a status: the gate decides on the whole suite, whose size was planned for it.
"""

from collections.abc import Sequence

from registry.gate.statistics import binomial_at_least
from registry.records import Slice, SliceReport


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p-value corrected for their number after Holm (1979), in the order given.

    The chance that any of the true hypotheses falls below a level is at most that level, whatever depends on what.

    >>> [round(p, 2) for p in holm([0.01, 0.04, 0.03, 0.005])]
    [0.03, 0.06, 0.06, 0.02]
    """
    corrected = [1.0] * len(p_values)
    worst = 0.0
    for rank, position in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[position]))
        corrected[position] = worst
    return corrected


def below(correct: int, n: int, minimum: float) -> float:
    """Exact p-value of "the true accuracy is at least `minimum`": the chance of so few right answers, or fewer.

    >>> round(below(correct=1, n=10, minimum=0.5) * 2**10, 9)
    11.0
    """
    return binomial_at_least(n - correct, n, 1 - minimum)


def more_lost(lost: int, gained: int) -> float:
    """Exact one-sided McNemar p-value of "no more is lost than gained".

    7 and 1 flips (Bentur 2009): two-sided 0.070 in Fagerland, Lydersen & Laake 2013.

    >>> round(2 * more_lost(lost=7, gained=1), 4)
    0.0703
    """
    return binomial_at_least(lost, lost + gained, 0.5)


def accuracy_slices(slices: Sequence[Slice], minimum: float, confidence: float) -> list[SliceReport]:
    """`value` is the share of right answers."""
    p_values = holm([below(one.correct, one.n, minimum) for one in slices])
    return [
        SliceReport(tag=one.tag, n=one.n, value=one.correct / one.n, p_value=p, alarm=p < 1 - confidence)
        for one, p in zip(slices, p_values, strict=True)
        if one.n
    ]


def forgetting_slices(slices: Sequence[Slice], confidence: float) -> list[SliceReport]:
    """`value` is (gained - lost) / n, as for the whole suite."""
    p_values = holm([more_lost(one.lost or 0, one.gained or 0) for one in slices])
    return [
        SliceReport(tag=one.tag, n=one.n, value=_change(one) / one.n, p_value=p, alarm=p < 1 - confidence)
        for one, p in zip(slices, p_values, strict=True)
        if one.n
    ]


def weakest(slices: Sequence[Slice]) -> str | None:
    """In words, the tag with the smallest share of right answers; None where tags do not tell items apart."""
    counted = [one for one in slices if one.n]
    if len(counted) < 2:
        return None
    low = min(counted, key=lambda one: (one.correct / one.n, one.tag))
    return f"weakest tag: {low.tag}, {low.correct} of {low.n} right"


def driver(slices: Sequence[Slice]) -> str | None:
    """In words, the tag where most was lost on balance; None where nothing was."""
    worst = min(slices, key=lambda one: (_change(one), one.tag), default=None)
    if worst is None or _change(worst) >= 0:
        return None
    return f"most was lost under the tag {worst.tag}: {worst.lost} lost, {worst.gained} gained of {worst.n}"


def _change(one: Slice) -> int:
    return (one.gained or 0) - (one.lost or 0)
