"""How far people who rated the same items agree, beyond chance and in plain shares. Pure; scores may be missing.

Each function takes the scores of one item after another, whoever gave them: raters are exchangeable here. An item that
fewer than two rated says nothing about agreement.

Krippendorff, Computing Krippendorff's Alpha-Reliability, 2011 (alpha); Gwet, Computing inter-rater reliability and its
variance in the presence of high agreement, 2008, and Handbook of Inter-Rater Reliability, 4th edition, 2014 (AC2).
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence

CATEGORIES = (1, 2, 3, 4, 5)

Items = Sequence[Sequence[int]]
Weight = Callable[[int, int], float]


def raw_agreement(items: Items) -> float | None:
    """Share of pairs of scores of one item that are equal, averaged over items; None where no item has a pair.

    >>> raw_agreement([[5, 5], [4, 5, 5], [3]])
    0.6666666666666666
    """
    return _weighted_agreement(items, _identity)


def krippendorff_alpha(items: Items) -> float | None:
    """Krippendorff's alpha for ordinal scores: 1 is agreement, 0 chance, less is worse than chance.

    None where there is no pair, or where every score is the same: what does not vary cannot be told from chance. It is
    1 - D_o / D_e over the coincidences of scores, with the squared number of scores that lie between two as their
    distance.
    """
    pairable = [scores for scores in items if len(scores) > 1]
    totals = Counter(score for scores in pairable for score in scores)
    n = totals.total()
    if len(totals) < 2:
        return None
    distance = {(low, high): _between(totals, low, high) ** 2 for low in totals for high in totals}
    observed = math.fsum(
        distance[one, other] / (len(scores) - 1) for scores in pairable for one in scores for other in scores
    )
    expected = math.fsum(totals[one] * totals[other] * far for (one, other), far in distance.items())
    return 1 - (n - 1) * observed / expected


def gwet_ac2(items: Items) -> float | None:
    """Gwet's AC2 with ordinal weights over the five scores; None where no item was rated twice.

    Chance is how often raters would meet who are unsure and guess, which is little where nearly all scores are the
    same: unlike alpha, AC2 stays high where everyone finds everything good.

    >>> gwet_ac2([[5, 5, 5]] * 50), krippendorff_alpha([[5, 5, 5]] * 50)
    (1.0, None)
    """
    return gwet(items, CATEGORIES, ordinal_weight)


def gwet(items: Items, categories: Sequence[int], weight: Weight) -> float | None:
    """Gwet's coefficient for any scale and weights: AC1 with the weights of identity."""
    agreed = _weighted_agreement(items, weight)
    if agreed is None:
        return None
    rated = [scores for scores in items if scores]
    shares = [math.fsum(scores.count(one) / len(scores) for scores in rated) / len(rated) for one in categories]
    total = math.fsum(weight(one, other) for one in categories for other in categories)
    q = len(categories)
    chance = total / (q * (q - 1)) * math.fsum(share * (1 - share) for share in shares)
    return (agreed - chance) / (1 - chance)


def ordinal_weight(one: int, other: int, categories: int = len(CATEGORIES)) -> float:
    """1 for the same score, less for every step between two; 0 for the ends of the scale.

    >>> [round(ordinal_weight(1, score), 1) for score in CATEGORIES]
    [1.0, 0.9, 0.7, 0.4, 0.0]
    """
    return 1 - math.comb(abs(one - other) + 1, 2) / math.comb(categories, 2)


def _identity(one: int, other: int) -> float:
    return float(one == other)


def _weighted_agreement(items: Items, weight: Weight) -> float | None:
    """Mean over items of the weight that a pair of their scores has."""
    shares = [
        (math.fsum(weight(one, other) for one in scores for other in scores) - len(scores))
        / (len(scores) * (len(scores) - 1))
        for scores in items
        if len(scores) > 1
    ]
    return math.fsum(shares) / len(shares) if shares else None


def _between(totals: Counter[int], one: int, other: int) -> float:
    """How many scores lie from one to the other, with half of those at either end."""
    low, high = sorted((one, other))
    inside = sum(totals[score] for score in totals if low <= score <= high)
    return inside - (totals[low] + totals[high]) / 2
