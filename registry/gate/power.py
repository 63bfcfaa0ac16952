"""How many items a suite needs: what a gate can decide is known before anything is measured. Pure."""

import math
from typing import NamedTuple

from registry.gate.statistics import wilson, z_quantile

POWER = 0.8


class AccuracyPower(NamedTuple):
    """`least_right` of n must be right to pass; a model of true accuracy `reaches` gets there in POWER of all runs."""

    least_right: int
    reaches: float


def accuracy_power(n: int, minimum: float, confidence: float) -> AccuracyPower | None:
    """What n questions can show under a lower-bound rule; None where not even all right would pass.

    >>> accuracy_power(200, 0.85, 0.95)
    AccuracyPower(least_right=179, reaches=0.909)
    """
    least = next((k for k in range(n + 1) if wilson(k, n, confidence).lower >= minimum), None)
    if least is None:
        return None
    low, high = least / n if least < n else minimum, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _at_least(least, n, middle) >= POWER else (middle, high)
    return AccuracyPower(least, round(high, 3))


def forgetting_items(margin: float, confidence: float, flips: float) -> int:
    """Items needed so that an adapter which forgets nothing passes a non-inferiority margin in POWER of all runs.

    flips: share of items whose answer changes, as many gained as lost. Normal approximation of the paired difference,
    n = flips * ((z_confidence + z_power) / margin)^2; Lachenbruch & Lynch 1998.

    >>> forgetting_items(0.05, 0.95, 0.10), forgetting_items(0.05, 0.95, 0.25)
    (248, 619)
    """
    return math.ceil(flips * ((z_quantile(confidence) + z_quantile(POWER)) / margin) ** 2)


def _at_least(least: int, n: int, p: float) -> float:
    """P(X >= least) for a binomial X."""
    if p >= 1.0:
        return 1.0
    logs = (
        math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + k * math.log(p) + (n - k) * math.log1p(-p)
        for k in range(least, n + 1)
    )
    return math.fsum(map(math.exp, logs))
