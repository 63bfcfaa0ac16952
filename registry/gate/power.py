"""How many items a suite needs: what a gate can decide is known before anything is measured. Pure."""

import math
from collections.abc import Iterator
from typing import NamedTuple

from registry.gate.limits import judge_accuracy
from registry.gate.statistics import binomial_at_least, z_quantile
from registry.records import AccuracyRule, Policy, Status, SuiteKind
from registry.review.campaign import drawn

POWER = 0.8
_LEAST_CLUSTERS = 20  # fewer bear no interval, see statistics.clustered_ratio


class AccuracyPower(NamedTuple):
    """`least_right` of n must be right to pass; a model of true accuracy `reaches` gets there in POWER of all runs."""

    least_right: int
    reaches: float


def accuracy_power(n: int, rule: AccuracyRule) -> AccuracyPower | None:
    """What n questions can show under a rule; None where not even all right would pass.

    >>> accuracy_power(200, AccuracyRule(min=0.85))
    AccuracyPower(least_right=179, reaches=0.909)
    >>> accuracy_power(200, AccuracyRule(min=0.85, rule="point"))
    AccuracyPower(least_right=170, reaches=0.867)
    """
    least = next((k for k in range(n + 1) if judge_accuracy(rule, k, n).status is Status.PASS), None)
    if least is None:
        return None
    low, high = 0.0, 1.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if binomial_at_least(least, n, middle) >= POWER else (middle, high)
    return AccuracyPower(least, round(high, 3))


def forgetting_items(margin: float, confidence: float, flips: float) -> int:
    """Items needed so that an adapter which forgets nothing passes a non-inferiority margin in POWER of all runs.

    flips: share of items whose answer changes, as many gained as lost. Normal approximation of the paired difference,
    n = flips * ((z_confidence + z_power) / margin)^2; Lachenbruch & Lynch 1998.

    >>> forgetting_items(0.05, 0.95, 0.10), forgetting_items(0.05, 0.95, 0.25)
    (248, 619)
    """
    return math.ceil(flips * ((z_quantile(confidence) + z_quantile(POWER)) / margin) ** 2)


def perplexity_change(conversations: int, confidence: float, spread_nats: float = 0.1) -> float | None:
    """The smallest change of perplexity against the base, as a share of it, that is found in POWER of all runs.

    spread_nats: standard deviation between conversations of candidate minus base, in nats per token. None for fewer
    conversations than an interval needs. Normal approximation, exp((z_confidence + z_power) * spread / sqrt(n)) - 1.

    >>> perplexity_change(100, 0.95), perplexity_change(19, 0.95)
    (0.0252, None)
    """
    if conversations < _LEAST_CLUSTERS:
        return None
    reach = (z_quantile(confidence) + z_quantile(POWER)) * spread_nats / math.sqrt(conversations)
    return round(math.expm1(reach), 4)


def what_it_shows(name: str, kind: SuiteKind, n: int, policy: Policy) -> list[str]:
    """What n items can show under the policy's rules for a suite, in words; for one it does not name, what they could.

    name: without digest. Suites in a policy may be pinned.
    """
    if kind is SuiteKind.CONVERSATIONS:
        return [_perplexity(n, policy.perplexity.confidence)]
    if kind is SuiteKind.PROMPTS:
        total = drawn(policy.review)
        others = round(policy.review.from_accuracy * total)
        return [f"review: {total} outputs are rated, {total - others} of them drawn from {n} prompts"]
    return list(_judged(name, kind, n, policy))


def _judged(name: str, kind: SuiteKind, n: int, policy: Policy) -> Iterator[str]:
    """For suites whose items are right or wrong."""
    extras = [rule for rule in policy.extra if rule.suite.partition("@")[0] == name]
    named = {getattr(policy, section).suite.partition("@")[0] for section in ("accuracy", "forgetting")}
    if not extras and name not in named and kind is not SuiteKind.QUESTIONS:
        yield "no rule of the policy names it; as an extra suite with the default rules' limits:"
    if not extras:
        yield _accuracy(n, policy.accuracy)
        yield _forgetting(n, policy.forgetting.margin, policy.forgetting.confidence)
    for rule in extras:
        if rule.min is not None:
            yield _accuracy(n, AccuracyRule(min=rule.min, confidence=rule.confidence))
        if rule.margin is not None:
            yield _forgetting(n, rule.margin, rule.confidence)


def _accuracy(n: int, rule: AccuracyRule) -> str:
    found = accuracy_power(n, rule)
    if found is None:
        return f"accuracy: {n} items cannot show {rule.min:.0%}, not even all right"
    return (
        f"accuracy: {found.least_right} of {n} must be right for {rule.min:.0%}; a model that is right "
        f"{found.reaches:.1%} of the time gets there four times out of five"
    )


def _forgetting(n: int, margin: float, confidence: float) -> str:
    if margin <= 0:
        return "forgetting: no number of items shows a loss smaller than nothing; give a margin above 0"
    few, many = (forgetting_items(margin, confidence, flips) for flips in (0.1, 0.25))
    return (
        f"forgetting: a margin of {margin:.0%} needs {few} items where one answer in ten changes, {many} where one in "
        f"four does; there are {n}"
    )


def _perplexity(n: int, confidence: float) -> str:
    change = perplexity_change(n, confidence)
    if change is None:
        return f"perplexity: {n} conversations bear no interval; {_LEAST_CLUSTERS} are needed"
    return (
        f"perplexity: where conversations differ by 0.1 nats a token, a change of {change:.1%} against the base is "
        "found four times out of five"
    )
