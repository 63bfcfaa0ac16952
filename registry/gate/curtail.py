"""Whether a suite is lost before its last item: True only where every possible rest would still end in FAIL. Pure.

A run may stop there, and the gate comes to the same status as if it had gone on. Only failure is certain early: a
pass always takes the whole suite. Both bounds rise with every item that turns out well, so the best rest decides.
All counts are of items that were not found in the training data, which are the ones that are judged.
"""

from registry.gate.limits import judge_accuracy, judge_forgetting
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


def forgetting_is_lost(rule: ForgettingRule, size: int, lost: int, gained: int, open_gains: int) -> bool:
    """Whether a suite of `size` pairs fails even if nothing more is lost and all that can be gained is.

    open_gains: items that the base gets wrong and the candidate was not asked yet.

    >>> forgetting_is_lost(ForgettingRule(margin=0.05), size=600, lost=80, gained=2, open_gains=10)
    True
    >>> forgetting_is_lost(ForgettingRule(margin=0.05), size=600, lost=80, gained=2, open_gains=60)
    False
    """
    if lost + gained + open_gains > size:
        raise ValueError(f"{lost} lost, {gained} gained and {open_gains} open are more than the suite's {size} items")
    return size > 0 and judge_forgetting(rule, size, lost, gained + open_gains).status is Status.FAIL
