"""Interval estimates of the gate, as pure functions of counts and sums.

All bounds are one-sided: `confidence` 0.95 means that the true value lies beyond the bound in 5 % of repetitions.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import NamedTuple

from registry.records import Moments

# What cancellation may leave of a sum of squares that is zero, relative to its terms.
_ROUNDING = 1e-9


class Interval(NamedTuple):
    """A point estimate with its one-sided lower and upper bound."""

    value: float
    lower: float
    upper: float


def z_quantile(confidence: float) -> float:
    return NormalDist().inv_cdf(confidence)


def t_quantile(confidence: float, degrees: int) -> float:
    """One-sided Student t quantile, for a confidence of at least 0.5.

    From 19 degrees of freedom on by the expansion 26.7.5 of Abramowitz & Stegun (1964): its error is below 2e-5 up to
    confidence 0.975, and below 0.003 at 0.9999, the highest that a policy may ask for. For fewer the distribution
    function is inverted, which is a finite sum for whole degrees (26.7.3 and 26.7.4 there).

    >>> round(t_quantile(0.95, 29), 4), round(t_quantile(0.975, 99), 4)
    (1.6991, 1.9842)
    >>> round(t_quantile(0.95, 1), 4), round(t_quantile(0.95, 4), 4)
    (6.3138, 2.1318)
    """
    if degrees < 19:
        angle = _bisect(lambda angle: _t_between(angle, degrees) < 2 * confidence - 1, 0.0, math.pi / 2)
        return math.sqrt(degrees) * math.tan(angle)
    z, v = z_quantile(confidence), float(degrees)
    return (
        z
        + (z**3 + z) / (4 * v)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * v**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * v**3)
    )


def _t_between(angle: float, degrees: int) -> float:
    """P(-t < T < t) for Student's T with whole degrees of freedom and t = sqrt(degrees) * tan(angle)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term = total = cosine if odd else 1.0
    for k in range(2 + odd, degrees, 2):
        term *= (k - 1) / k * cosine**2
        total += term
    if not odd:
        return sine * total
    return 2 / math.pi * (angle + (sine * total if degrees > 1 else 0.0))


def wilson(successes: int, n: int, confidence: float) -> Interval:
    """Wilson (1927) score interval of a proportion; honest at 0 and at n, unlike the normal approximation.

    >>> wilson(179, 200, 0.95).lower > 0.85 > wilson(178, 200, 0.95).lower
    True
    """
    if not 0 <= successes <= n or n < 1:
        raise ValueError(f"{successes} successes of {n} is not a proportion")
    return score_interval(successes / n, n, z_quantile(confidence))


def score_interval(p: float, n: float, z: float) -> Interval:
    """Wilson's bounds of a share p that was seen in n independent trials, `z` standard errors away."""
    centre = p + z * z / (2 * n)
    spread = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # p itself bounds the bounds: at 0 and at n rounding would put them a hair beyond it.
    return Interval(p, max(0.0, min(p, (centre - spread) / scale)), min(1.0, max(p, (centre + spread) / scale)))


def moments(pairs: Sequence[tuple[float, float]]) -> Moments:
    """Sufficient statistics of pairs (sum, size), one for each cluster: nats and tokens of a conversation, say."""
    return Moments(
        clusters=len(pairs),
        x=math.fsum(x for x, _ in pairs),
        n=math.fsum(n for _, n in pairs),
        xx=math.fsum(x * x for x, _ in pairs),
        xn=math.fsum(x * n for x, n in pairs),
        nn=math.fsum(n * n for _, n in pairs),
    )


def clustered_ratio(moments: Moments, confidence: float) -> Interval:
    """Ratio sum(x)/sum(n) over clusters, with the linearised (delta-method) standard error and t quantile.

    SE = sqrt(C/(C-1) * sum_i (x_i - r*n_i)^2) / sum(n): tokens of one conversation are not independent, conversations
    are. Perplexity is exp of this ratio, and so are its bounds. Source: Cochran, Sampling Techniques, 1977, 6.3.
    Raises ValueError for fewer than 20 clusters, no tokens, anything not finite, and for sums of squares that no data
    can have: taken at their word, they would make an interval of no width.
    """
    values = (moments.x, moments.n, moments.xx, moments.xn, moments.nn)
    if moments.clusters < 20 or moments.n <= 0 or not all(map(math.isfinite, values)):
        raise ValueError(f"{moments.clusters} clusters with {moments.n} tokens cannot bear an interval (20 are needed)")
    ratio = moments.x / moments.n
    squares = moments.xx - 2 * ratio * moments.xn + ratio * ratio * moments.nn
    scale = moments.xx + ratio * ratio * moments.nn
    if not (math.isfinite(squares) and moments.nn > 0 and squares >= -_ROUNDING * scale):
        raise ValueError("the sums of squares are not those of any data")
    error = math.sqrt(moments.clusters / (moments.clusters - 1) * max(0.0, squares)) / moments.n
    reach = t_quantile(confidence, moments.clusters - 1) * error
    return Interval(ratio, ratio - reach, ratio + reach)


def exponential(interval: Interval) -> Interval:
    """exp of an interval in nats; beyond what a float can hold it is infinity, which no limit admits."""
    return Interval(*(math.exp(bound) if bound < 700 else math.inf for bound in interval))


def tango(n: int, lost: int, gained: int, confidence: float) -> Interval:
    """Score interval of a paired difference in proportions, (gained - lost)/n, after Tango (1998).

    Inverts the score statistic with the constrained maximum-likelihood estimate; valid down to no flips at all.

    >>> [round(tango(n, b, c, 0.95).lower, 4) for n, b, c in ((100, 0, 0), (200, 6, 4))]
    [-0.0263, -0.0397]
    """
    if min(lost, gained) < 0 or lost + gained > n or n < 1:
        raise ValueError(f"{lost} lost and {gained} gained of {n} is not a paired count")
    z = z_quantile(confidence)
    value = (gained - lost) / n
    lower = _bisect(lambda d: _tango_score(n, lost, gained, d) > z, -1.0, value)
    upper = -_bisect(lambda d: _tango_score(n, gained, lost, d) > z, -1.0, -value)
    return Interval(value, lower, upper)


def _tango_score(n: int, lost: int, gained: int, difference: float) -> float:
    b = -gained - lost + (2 * n - gained + lost) * difference
    c = -lost * difference * (1 - difference)
    q = (math.sqrt(max(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
    variance = n * (2 * q + difference * (1 - difference))
    distance = gained - lost - n * difference
    return distance / math.sqrt(variance) if variance > 0 else math.inf if distance > 0 else 0.0


def _bisect(beyond: Callable[[float], bool], low: float, high: float) -> float:
    """The border below which `beyond` holds, in [low, high]."""
    for _ in range(60):
        middle = (low + high) / 2
        if beyond(middle):
            low = middle
        else:
            high = middle
    return low


def binomial_at_least(least: int, n: int, p: float) -> float:
    """P(X >= least) for a binomial X of n trials with chance p.

    >>> round(binomial_at_least(9, 10, 0.5) * 2**10, 9)
    11.0
    """
    if least <= 0 or p >= 1.0:
        return 1.0 if least <= n else 0.0
    if p <= 0.0:
        return 0.0
    logs = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(least, n + 1)
    )
    return min(1.0, math.fsum(map(math.exp, logs)))
