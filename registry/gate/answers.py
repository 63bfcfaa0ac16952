"""What right and wrong answers come to: accuracy, forgetting, and the same for a policy's extra suites. Pure.

Items found in the training data are left out: a right answer to one proves memory, not skill.
"""

from collections.abc import Iterator

from registry.gate.case import Case, Draft, Ends, doubted, rambling, unusable
from registry.gate.curtail import accuracy_is_lost, forgetting_is_lost
from registry.gate.limits import LEAST_KNOWN, judge_accuracy, judge_forgetting
from registry.gate.slices import accuracy_slices, driver, forgetting_slices, weakest
from registry.gate.statistics import clustered_ratio, wilson
from registry.records import (
    AccuracyEvidence,
    AccuracyRule,
    Check,
    ForgettingEvidence,
    ForgettingRule,
    Moments,
    Pairs,
    Plain,
    Status,
)

# How many flipped items a detail names; the evidence holds more.
_NAMED = 5


def accuracy(case: Case) -> Check:
    """On the clean items only."""
    return _accuracy(case, case.subject.policy.accuracy, case.evidence.accuracy if case.evidence else None)


def forgetting(case: Case) -> Check:
    """Non-inferiority: the loss must be shown to be smaller than the margin, not merely not shown."""
    return _forgetting(case, case.subject.policy.forgetting, case.evidence.forgetting if case.evidence else None)


def extras(case: Case) -> Iterator[Check]:
    """One check for each bound of each extra suite, judged as the sections of those names are."""
    measured = {one.suite: one for one in case.evidence.extra} if case.evidence else {}
    for rule in case.subject.policy.extra:
        found, about = measured.get(rule.suite), rule.suite.partition("@")[0]
        if rule.min is not None:
            least = AccuracyRule(suite=rule.suite, min=rule.min, confidence=rule.confidence)
            yield _accuracy(case, least, found.accuracy if found else None, about)
        if rule.margin is not None:
            most = ForgettingRule(suite=rule.suite, margin=rule.margin, confidence=rule.confidence)
            yield _forgetting(case, most, found.forgetting if found else None, about)


# -- accuracy -----------------------------------------------------------------------------------------------------


def _accuracy(case: Case, rule: AccuracyRule, found: AccuracyEvidence | None, about: str | None = None) -> Check:
    check = _by_share(case, rule, found, about)
    return doubted(check, rambling(case, rule.suite, Ends("candidate", found.cut_off, found.n)) if found else None)


def _by_share(case: Case, rule: AccuracyRule, found: AccuracyEvidence | None, about: str | None) -> Check:
    required: dict[str, Plain] = {"min": rule.min, "rule": rule.rule, "confidence": rule.confidence}
    check = Draft("accuracy", required, rule.suite, about)
    size = case.subject.suite_sizes.get(rule.suite, 0)
    hopeless = found is not None and _is_lost(rule, found, size)
    if stop := unusable(
        case, rule.suite, found.suite if found else None, found.n if found else None, hopeless=hopeless
    ):
        return check.to(*stop)
    assert found is not None
    if not _adds_up(found):
        return check.to(Status.INVALID, "the clean items are not a part of all items")
    try:
        value, status = judge_accuracy(rule, found.clean_correct, found.clean_n)
    except ValueError as error:
        return check.to(Status.INVALID, str(error))
    if hopeless:
        status = Status.FAIL
        reason = (
            f"stopped after {found.n} of {size} items with {found.clean_correct} of {found.clean_n} right: with all "
            f"others right too, {_best_accuracy(rule, found, size)}; {rule.min:.0%} needed"
        )
    else:
        reason = f"{value.value:.1%} of {found.clean_n}, lower bound {value.lower:.2%}, at least {rule.min:.0%} needed"
    if (dirty := found.n - found.clean_n) > 0:
        right = found.correct - found.clean_correct
        reason += f" ({dirty} items found in the training data left out, {right} of them right: {right / dirty:.1%})"
    low = weakest(found.slices)
    return check._replace(
        details=[low] if low else [], slices=accuracy_slices(found.slices, rule.min, rule.confidence)
    ).to(
        status,
        reason,
        correct=found.clean_correct,
        n=found.clean_n,
        left_out=dirty,
        value=value.value,
        lower=value.lower,
        upper=value.upper,
    )


def _adds_up(found: AccuracyEvidence) -> bool:
    """Whether the clean items can be a part of all items."""
    return 0 <= found.correct - found.clean_correct <= found.n - found.clean_n and found.clean_correct <= found.clean_n


def _is_lost(rule: AccuracyRule, found: AccuracyEvidence, size: int) -> bool:
    """Whether the run stopped early because no answer to the rest could help, the rest counted as clean."""
    if not (found.n < size and _adds_up(found)):
        return False
    return accuracy_is_lost(
        rule, found.clean_n + size - found.n, found.clean_correct, found.clean_n - found.clean_correct
    )


def _best_accuracy(rule: AccuracyRule, found: AccuracyEvidence, size: int) -> str:
    rest = size - found.n
    best = wilson(found.clean_correct + rest, found.clean_n + rest, rule.confidence)
    return f"it would be {best.value:.1%}, upper bound {best.upper:.2%}"


# -- forgetting ---------------------------------------------------------------------------------------------------


def _forgetting(case: Case, rule: ForgettingRule, found: ForgettingEvidence | None, about: str | None = None) -> Check:
    check = _by_pairs(case, rule, found, about)
    if found is None:
        return check
    ends = Ends("candidate", found.cut_off, found.n), Ends("base", found.base_cut_off, found.n)
    return doubted(check, rambling(case, rule.suite, *ends))


def _by_pairs(case: Case, rule: ForgettingRule, found: ForgettingEvidence | None, about: str | None) -> Check:
    check = Draft("forgetting", {"margin": rule.margin, "confidence": rule.confidence}, rule.suite, about)
    size = case.subject.suite_sizes.get(rule.suite, 0)
    least = least_right(case.subject.chances.get(rule.suite, 0.0))
    hopeless = found is not None and _is_forgotten(rule, found, size, least)
    if stop := unusable(
        case, rule.suite, found.suite if found else None, found.n if found else None, hopeless=hopeless
    ):
        return check.to(*stop)
    assert found is not None
    clean, rest = _judged(found), size - found.n
    if problem := _contradiction(found, rest):
        return check.to(Status.INVALID, problem)
    # The base answered the rest too: what it knows of the suite is known before the candidate is asked.
    base_n, base_correct = clean.n + rest, clean.base_correct + rest - found.open_gains
    try:
        value, status = judge_forgetting(rule, clean.n, clean.lost, clean.gained)
        known = wilson(base_correct, base_n, rule.confidence)
    except ValueError as error:
        return check.to(Status.INVALID, str(error))
    if known.lower < least:
        return check.to(
            Status.INCONCLUSIVE,
            f"the base knows {base_correct} of {base_n}, lower bound {known.lower:.1%}, {least:.0%} "
            "needed: where little is known, little can be forgotten; take a suite that the base can answer",
            n=base_n,
            base_correct=base_correct,
        )
    flips = f"{clean.lost} lost, {clean.gained} gained"
    if hopeless:
        status = Status.FAIL
        best = judge_forgetting(rule, base_n, clean.lost, clean.gained + found.open_gains).value
        reason = (
            f"stopped after {found.n} of {size} items ({flips}): with nothing more lost and all {found.open_gains} "
            f"others gained that the base gets wrong, the change would be {best.value:+.1%}, upper bound "
            f"{best.upper:+.1%}, must stay above {-rule.margin:+.0%}"
        )
    else:
        reason = (
            f"{clean.candidate_correct} right, base {clean.base_correct}, of {clean.n} ({flips}): change "
            f"{value.value:+.1%}, lower bound {value.lower:+.1%}, must stay above {-rule.margin:+.0%}"
        )
    if (dirty := found.n - clean.n) > 0:
        reason += f" ({dirty} items found in the training data left out)"
    gold, divergence = _nats("gold", found.gold, rule.confidence), _nats("kl", found.kl, rule.confidence)
    details = [*_flips(found), *_gold(gold), *_divergence(divergence), *_common(found)]
    return check._replace(details=details, slices=forgetting_slices(found.slices, rule.confidence)).to(
        status,
        reason,
        n=clean.n,
        left_out=dirty,
        base_correct=clean.base_correct,
        candidate_correct=clean.candidate_correct,
        lost=clean.lost,
        gained=clean.gained,
        value=value.value,
        lower=value.lower,
        upper=value.upper,
        **gold,
        **divergence,
    )


def least_right(chance: float) -> float:
    """The share that a base gets right which knows LEAST_KNOWN of a suite and guesses the rest.

    >>> least_right(0.0), least_right(0.25)
    (0.2, 0.4)
    """
    return chance + LEAST_KNOWN * (1 - chance)


def _judged(found: ForgettingEvidence) -> Pairs:
    """The pairs that are judged: the clean ones, or all where the evidence is older than that distinction."""
    return found.clean or _all_pairs(found)


def _all_pairs(found: ForgettingEvidence) -> Pairs:
    return Pairs(
        n=found.n,
        base_correct=found.base_correct,
        candidate_correct=found.candidate_correct,
        lost=found.lost,
        gained=found.gained,
    )


def _contradiction(found: ForgettingEvidence, rest: int) -> str | None:
    """Why these counts are those of no run that left out `rest` items, or None."""
    everything, clean = _all_pairs(found), _judged(found)
    dirty = Pairs(**{name: getattr(everything, name) - getattr(clean, name) for name in Pairs.__struct_fields__})
    if not all(map(_is_whole, (everything, clean, dirty))):
        return "lost and gained items do not add up to the difference"
    if not 0 <= found.open_gains <= rest:
        return f"{found.open_gains} items could still be gained, of {rest} that were not asked"
    return None


def _is_whole(pairs: Pairs) -> bool:
    """Whether n items can have been right in both, in one only, or in none, as often as these counts say."""
    kept = pairs.base_correct - pairs.lost
    return (
        kept == pairs.candidate_correct - pairs.gained
        and min(kept, pairs.lost, pairs.gained) >= 0
        and kept + pairs.lost + pairs.gained <= pairs.n
    )


def _is_forgotten(rule: ForgettingRule, found: ForgettingEvidence, size: int, least: float) -> bool:
    """Whether the run stopped early because no answer to the rest could help, the rest counted as clean."""
    rest, clean = size - found.n, _judged(found)
    if rest <= 0 or _contradiction(found, rest):
        return False
    base_correct = clean.base_correct + rest - found.open_gains
    return forgetting_is_lost(rule, clean.n + rest, clean.lost, clean.gained, found.open_gains, base_correct, least)


# -- what informs -------------------------------------------------------------------------------------------------


def _flips(found: ForgettingEvidence) -> Iterator[str]:
    for n, items, way in (
        (found.lost, found.lost_items, "right to wrong"),
        (found.gained, found.gained_items, "wrong to right"),
    ):
        if n:
            named = ", ".join(items[:_NAMED]) + (", …" if n > _NAMED else "")
            yield f"{n} answers went from {way}" + (f": {named}" if items else "")


def _nats(name: str, moments: Moments | None, confidence: float) -> dict[str, float]:
    """`<name>_nats` per token with its bounds, which too few items do not have."""
    if moments is None or moments.n <= 0:
        return {}
    try:
        found = clustered_ratio(moments, confidence)
    except ValueError:
        return {f"{name}_nats": moments.x / moments.n}
    return {f"{name}_nats": found.value, f"{name}_lower": found.lower, f"{name}_upper": found.upper}


def _gold(seen: dict[str, float]) -> Iterator[str]:
    if seen:
        value, *bounds = seen.values()
        sign, way = (-1, "more") if value < 0 else (1, "less")
        between = _between([sign * bound for bound in bounds])
        yield f"right answers became {abs(value):.3g} nats per token {way} likely{between}"


def _divergence(seen: dict[str, float]) -> Iterator[str]:
    if seen:
        value, *bounds = seen.values()
        yield f"on texts of the base, KL(base || adapter) is {value:.3g} nats per token{_between(bounds)}"


def _between(bounds: list[float]) -> str:
    return f" ({min(bounds):.3g} to {max(bounds):.3g})" if bounds else ", on too few for an interval"


def _common(found: ForgettingEvidence) -> Iterator[str]:
    """What the lost items share."""
    if found.shared_words:
        yield f"questions of lost items have in common: {', '.join(found.shared_words)}"
    if worst := driver(found.slices):
        yield worst
