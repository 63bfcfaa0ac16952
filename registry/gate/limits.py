"""On which side of a limit a measured value lies: what turns an interval into a status. Pure."""

import math
from typing import NamedTuple

from registry.gate.statistics import Interval, tango, wilson
from registry.records import AccuracyRule, ForgettingRule, Status

# Share of a forgetting suite that the base must know, beyond what guessing gets right, for a loss to show at all.
LEAST_KNOWN = 0.2


class Judged(NamedTuple):
    value: Interval
    status: Status


def side(interval: Interval, *, minimum: float = -math.inf, maximum: float = math.inf, strict: bool = False) -> Status:
    """On which side of the limit the whole interval lies. `strict`: the limit itself does not pass."""
    if not all(map(math.isfinite, interval)):
        return Status.FAIL if interval.value > maximum else Status.INCONCLUSIVE
    inside = minimum < interval.lower if strict else minimum <= interval.lower
    if inside and interval.upper <= maximum:
        return Status.PASS
    if interval.upper < minimum or interval.lower > maximum:
        return Status.FAIL
    return Status.INCONCLUSIVE


def judge_accuracy(rule: AccuracyRule, right: int, n: int) -> Judged:
    """`right` of `n` items against the minimum; raises ValueError for what is no proportion."""
    value = wilson(right, n, rule.confidence)
    if rule.rule == "point":
        return Judged(value, Status.PASS if value.value >= rule.min else Status.FAIL)
    return Judged(value, side(value, minimum=rule.min))


def judge_forgetting(rule: ForgettingRule, n: int, lost: int, gained: int) -> Judged:
    """Non-inferiority: the loss must be shown to be below the margin. Raises ValueError for impossible counts."""
    value = tango(n, lost, gained, rule.confidence)
    return Judged(value, side(value, minimum=-rule.margin, strict=True))
