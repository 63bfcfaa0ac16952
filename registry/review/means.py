"""What ratings of few outputs say of all outputs: means, shares and differences with their bounds. Pure.

Ratings of one output are not independent, outputs are: each is one cluster. All bounds are one-sided. The raters are
taken as they are; what other people would have said is not in the width of any interval.
"""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from registry.gate.statistics import Interval, score_interval, t_quantile

# How far the search for the number of outputs goes that would decide.
MOST_OUTPUTS = 10_000

Clusters = Sequence[Sequence[float]]  # of truth values too, which are 0 and 1


class Mean(NamedTuple):
    """error: standard error of the mean, None for fewer than two clusters, which bear none."""

    value: float
    error: float | None
    clusters: int

    def interval(self, confidence: float) -> Interval | None:
        """The mean with its bounds, by Student's t with one degree of freedom less than there are clusters."""
        if self.error is None:
            return None
        reach = t_quantile(confidence, self.clusters - 1) * self.error
        return Interval(self.value, self.value - reach, self.value + reach)


def clustered_mean(clusters: Clusters) -> Mean:
    """Mean of all values, its error by the spread between clusters.

    SE = sqrt(C/(C-1) * sum_c (sum_{i in c} (x_i - mean))^2) / n. Source: Cochran, Sampling Techniques, 1977, 6.3.
    Raises ValueError where there is no value.

    >>> clustered_mean([[4, 5], [5, 5], [3, 4]]).interval(0.95)
    Interval(value=4.333333333333333, lower=3.045740720414906, upper=5.62092594625176)
    """
    filled = [values for values in clusters if values]
    n = sum(map(len, filled))
    if not n:
        raise ValueError("nothing was rated")
    count, mean = len(filled), math.fsum(value for values in filled for value in values) / n
    if count < 2:
        return Mean(mean, None, count)
    squares = math.fsum(math.fsum(value - mean for value in values) ** 2 for values in filled)
    return Mean(mean, math.sqrt(count / (count - 1) * squares) / n, count)


def clustered_share(clusters: Clusters, confidence: float) -> Interval:
    """Share of all values that are true, with bounds that are honest where few or none are.

    Wilson's interval for as many independent trials as the values are worth: n divided by what clustering does to the
    variance, at least one for each cluster and at most n; t in place of z. Where no value is true the variance says
    nothing, and each cluster counts once. After Korn & Graubard (1998), with Wilson's interval for the exact one.
    Raises ValueError where there is no value, or only one cluster.

    >>> [round(bound, 4) for bound in clustered_share([[False] * 3] * 50, 0.95)]
    [0.0, 0.0, 0.0532]
    """
    mean = clustered_mean(clusters)
    if mean.error is None:
        raise ValueError("one output bears no interval")
    n = sum(map(len, clusters))
    spread = mean.value * (1 - mean.value)
    worth = spread / mean.error**2 if spread and mean.error else float(mean.clusters)
    return score_interval(mean.value, min(max(worth, mean.clusters), n), t_quantile(confidence, mean.clusters - 1))


def outputs_to_decide(mean: Mean, limit: float, confidence: float) -> int | None:
    """How many more outputs would have put a bound on the limit, had they varied as these did.

    None where no number up to MOST_OUTPUTS would: the mean lies on the limit itself, or next to it.
    """
    if mean.error is None or mean.value == limit:
        return None
    deviation = mean.error * math.sqrt(mean.clusters)
    low, high = mean.clusters, MOST_OUTPUTS
    if not _decides(high, deviation, abs(mean.value - limit), confidence):
        return None
    while low < high:
        middle = (low + high) // 2
        if _decides(middle, deviation, abs(mean.value - limit), confidence):
            high = middle
        else:
            low = middle + 1
    return high - mean.clusters


def _decides(outputs: int, deviation: float, gap: float, confidence: float) -> bool:
    return t_quantile(confidence, outputs - 1) * deviation / math.sqrt(outputs) <= gap


def grouped(pairs: Iterable[tuple[str, float]]) -> list[list[float]]:
    """The values of each key, in the order of keys, so that no order of the pairs changes a rounding."""
    groups: dict[str, list[float]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return [sorted(groups[key]) for key in sorted(groups)]
