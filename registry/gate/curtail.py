"""Whether a suite is lost before its last item: True only where every possible rest would still end in FAIL. Pure.

A run may stop there, and the gate comes to the same status as if it had gone on. Only failure is certain early: a
pass always takes the whole suite. Both bounds rise with every item that turns out well, so the best rest decides.
All counts are of items that were not found in the training data, which are the ones that are judged.
"""

from registry.gate.limits import LEAST_KNOWN, judge_accuracy, judge_forgetting
from registry.gate.statistics import wilson
from registry.records import AccuracyRule, ForgettingRule, Status


def accuracy_is_lost(rule: AccuracyRule, size: int, right: int, wrong: int) -> bool:
    """Whether a suite of `size` items fails even if all that were not asked yet are answered right.

    >>> accuracy_is_lost(AccuracyRule(min=0.85), size=200, right=10, wrong=43)
    True
    >>> accuracy_is_lost(AccuracyRule(min=0.85), size=200, right=10, wrong=38)
    False
    """
    if right + wrong > size:
        raise ValueError(f"{right} right and {wrong} wrong are more than the {size} items of the suite")
    return size > 0 and judge_accuracy(rule, size - wrong, size).status is Status.FAIL


def forgetting_is_lost(
    rule: ForgettingRule,
    size: int,
    lost: int,
    gained: int,
    open_gains: int,
    base_correct: int,
    least: float = LEAST_KNOWN,
) -> bool:
    """Whether a suite of `size` pairs fails even if nothing more is lost and all that can be gained is.

    open_gains: items that the base gets wrong and the candidate was not asked yet. base_correct: what the base gets
    right of all `size`. least: the share of it that a base must be shown to get right, below which nothing fails,
    because a suite that the base hardly knows shows no loss (the gate's INCONCLUSIVE).

    >>> forgetting_is_lost(ForgettingRule(margin=0.05), size=600, lost=80, gained=2, open_gains=10, base_correct=300)
    True
    >>> forgetting_is_lost(ForgettingRule(margin=0.05), size=600, lost=80, gained=2, open_gains=60, base_correct=300)
    False
    >>> forgetting_is_lost(ForgettingRule(margin=0.05), size=600, lost=80, gained=2, open_gains=10, base_correct=100)
    False
    """
    if lost + gained + open_gains > size or not lost <= base_correct <= size - gained - open_gains:
        raise ValueError(
            f"{lost} lost, {gained} gained, {open_gains} open and {base_correct} right before cannot be true of the "
            f"suite's {size} items"
        )
    if not size or wilson(base_correct, size, rule.confidence).lower < least:
        return False
    return judge_forgetting(rule, size, lost, gained + open_gains).status is Status.FAIL
