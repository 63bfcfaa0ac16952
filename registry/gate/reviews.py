"""The gate's word on people's ratings: a sealed campaign's, by the rules that were fixed before it opened. Pure.

Until the seal it says how far the campaign is and no more. A mean passes only if its whole one-sided interval lies at
or above the policy's; the share of hallucinations is compared as it was counted, with its upper bound beside it.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from registry.gate.case import Case, Draft, Ends, doubted, rambling, unusable, worst
from registry.gate.limits import side
from registry.gate.statistics import Interval
from registry.records import (
    CRITERIA,
    Check,
    CriterionResult,
    OutputsEvidence,
    Plain,
    RatingRow,
    ReviewFacts,
    ReviewRule,
    Status,
)
from registry.review.campaign import drawn, shared_out
from registry.review.counting import Counted, Facts, count, is_complete
from registry.review.means import clustered_mean, grouped, outputs_to_decide
from registry.review.result import consistency, criteria, hallucination_rate

OTHER_RULES = (
    "the rules of this tunegate come to another result on the ratings than the one that the campaign was sealed with, "
    "whose digest the journal holds, so nothing is decided on them: judge the version with the tunegate that sealed "
    "it, or push it with a changed README.md, as a new version with a review of its own"
)
SHORT = "people who join before a seal rate what lacks ratings, and a suite with more items leaves more to spare"
AGAIN = "a policy with more outputs or reviewers, and a new version under it, open a new campaign"


class Finding(NamedTuple):
    status: Status
    reason: str


def review(case: Case) -> Check:
    """People's ratings of the candidate's outputs, if enough of its outputs end by themselves."""
    found = case.evidence.outputs if case.evidence else None
    check = _rated(case, found)
    if case.review is not None:
        check = msgspec.structs.replace(check, details=[*_tried_before(case.review), *check.details])
    suite = case.subject.policy.review.suite
    return doubted(check, rambling(case, suite, Ends("candidate", found.cut_off, found.n)) if found else None)


def _tried_before(review: ReviewFacts) -> Iterator[str]:
    """How often luck was tried: each version is judged by a draw of its own, and maybe by other people."""
    if review.earlier:
        yield f"versions with the same weights were rejected before: {_some(review.earlier)}"
    if review.reviewed_before:
        yield (
            "earlier versions of this adapter that people were asked about, each by a draw of its own: "
            f"{review.reviewed_before}, rejected: {review.rejected_before}"
        )


def _rated(case: Case, found: OutputsEvidence | None) -> Check:
    rule = case.subject.policy.review
    check = Draft("review", _required(rule, case.review), rule.suite)
    if stop := unusable(case, rule.suite, found.suite if found else None, found.n if found else None):
        return check.to(*stop)
    assert found is not None
    if case.review is None:
        return _before_seals(case, check, found)
    measured = case.evidence.accuracy if case.evidence else None
    if (outputs := found.n + (measured.n if measured else 0)) < drawn(rule):
        reason = f"the review and accuracy suites have {outputs} outputs, {drawn(rule)} are to be rated"
        return check.to(Status.INVALID, reason)
    counted = count(Facts(rule, case.review), case.ratings)
    finished, rated = counted.finished + case.review.finished, len(case.ratings) + case.review.rated
    seen: dict[str, Plain] = {"reviewers": finished, "ratings": rated}
    if counted.upheld:
        return check.to(Status.FAIL, f"an uninvolved expert found unsafe: {_some(counted.upheld)}", **seen)
    if not case.review.sealed:
        return check.to(Status.PENDING, _how_far(rule, finished), **seen)
    seen |= {"reviewers": len(counted.people), "ratings": len(counted.candidates), "vetoes": len(counted.disputed)}
    if case.review.differs:
        return check.to(Status.INVALID, OTHER_RULES, **seen)
    if not is_complete(rule, counted):
        reason = _too_little(rule, counted)
        return check._replace(details=list(_left_out(counted))).to(Status.INCONCLUSIVE, f"{reason}; {AGAIN}", **seen)
    return _judged(check, rule, counted, seen)


def _required(rule: ReviewRule, review: ReviewFacts | None) -> dict[str, Plain]:
    required: dict[str, Plain] = {
        "reviewers": rule.reviewers,
        "outputs": rule.outputs,
        "min_mean": rule.min_mean,
        "safety_veto": rule.safety_veto,
        "max_hallucination_rate": rule.max_hallucination_rate,
    }
    if review is None:
        return required
    return {**required, "min_agreement": rule.min_agreement, "confidence": rule.confidence}


def _how_far(rule: ReviewRule, finished: int) -> str:
    """Nobody can tell from it what was said, nor whose ratings do not count."""
    if finished < rule.reviewers:
        return f"{finished} of {rule.reviewers} reviewers have rated {rule.outputs} outputs"
    each = f", and {rule.ratings_per_output} of them for each output" if shared_out(rule) else ""
    return (
        f"{finished} reviewers have rated {rule.outputs} outputs, and it takes {rule.reviewers} whose ratings "
        f"count{each}; one more can join, or the release manager seals the campaign with what there is"
    )


def _too_little(rule: ReviewRule, counted: Counted) -> str:
    if len(counted.people) < rule.reviewers:
        return f"sealed with the ratings of {len(counted.people)} reviewers that count, {rule.reviewers} needed"
    needed = f"the {rule.ratings_per_output} ratings that each needs to count"
    lacking = f"; short of them: {_some([f'{item} ({n})' for item, n in counted.short.items()])}"
    said = f"sealed when {counted.whole} of {drawn(rule)} outputs had {needed}"
    return f"{said}{lacking if counted.short else ''}; {SHORT}"


# -- a sealed campaign --------------------------------------------------------------------------------------------


def _judged(check: Draft, rule: ReviewRule, counted: Counted, seen: dict[str, Plain]) -> Check:
    rows, results = counted.candidates, criteria(counted, rule.confidence)
    rate, upper = hallucination_rate(rows, rule.confidence)
    assert rate is not None
    agreements = [one.ac2 for one in results if one.ac2 is not None]
    findings = [
        *(_mean(rule, one, rows) for one in results),
        _hallucination(rule, rate, upper),
        _agreement(rule, min(agreements, default=None)),
    ]
    status = worst(*(one.status for one in findings))
    if counted.disputed and status is not Status.FAIL:
        waits = f"outputs rated unsafe that wait for an uninvolved expert: {len(counted.disputed)}"
        status, findings = Status.PENDING, [Finding(Status.PENDING, waits)]
    means: dict[str, Plain] = {}
    for one in results:
        means |= {one.criterion: one.mean, f"{one.criterion}_lower": one.lower, f"{one.criterion}_upper": one.upper}
    reasons = [one.reason for one in findings if one.status is status]
    if status is Status.PASS:
        reasons.insert(0, f"{len(counted.people)} reviewers, {len(rows)} ratings")
    if status is Status.INCONCLUSIVE:
        reasons.append(AGAIN)
    return check._replace(details=[*_beside(results, counted), *_left_out(counted)]).to(
        status,
        "; ".join(reasons),
        **seen,
        **means,
        hallucination_rate=rate,
        hallucination_upper=upper,
        agreement=min(agreements, default=None),
    )


def _mean(rule: ReviewRule, found: CriterionResult, rows: Sequence[RatingRow]) -> Finding:
    name, value = found.criterion, f"{found.criterion} {found.mean:.2f}"
    if found.lower is None or found.upper is None:
        return Finding(Status.INCONCLUSIVE, f"{value} of one output bears no interval")
    status = side(Interval(found.mean, found.lower, found.upper), minimum=rule.min_mean)
    if status is Status.PASS:
        return Finding(status, f"{value} (lower bound {found.lower:.2f})")
    if status is Status.FAIL:
        return Finding(status, f"{value} (upper bound {found.upper:.2f}), at least {rule.min_mean:g} needed")
    mean = clustered_mean(grouped((row.item, getattr(row, name)) for row in rows))
    more = outputs_to_decide(mean, rule.min_mean, rule.confidence)
    enough = "no number of outputs" if more is None else f"{more} more outputs as different as these"
    between = f"{value} ({found.lower:.2f} to {found.upper:.2f})"
    return Finding(status, f"{between} does not tell on which side of {rule.min_mean:g} it lies; {enough} would")


def _hallucination(rule: ReviewRule, rate: float, upper: float | None) -> Finding:
    bound = "" if upper is None else f" (upper bound {upper:.1%})"
    said = f"hallucination in {rate:.1%} of ratings{bound}"
    if rate > rule.max_hallucination_rate:
        return Finding(Status.FAIL, f"{said}, at most {rule.max_hallucination_rate:.0%} allowed")
    return Finding(Status.PASS, said)


def _agreement(rule: ReviewRule, lowest: float | None) -> Finding:
    if lowest is None:
        return Finding(Status.INCONCLUSIVE, "no output was rated by two people, so nothing is known of agreement")
    if lowest < rule.min_agreement:
        return Finding(
            Status.INCONCLUSIVE,
            f"reviewers agree too little (AC2 {lowest:.2f} where it is lowest, {rule.min_agreement:g} needed): talk "
            "about what the scores mean before they rate again",
        )
    return Finding(Status.PASS, f"agreement AC2 {lowest:.2f} or better")


def _beside(results: Sequence[CriterionResult], counted: Counted) -> Iterator[str]:
    """What informs and decides nothing."""
    for one in results:
        alpha = "no" if one.alpha is None else f"{one.alpha:.2f} as"
        ac2 = "no" if one.ac2 is None else f"{one.ac2:.2f} as"
        equal = "" if one.agreement is None else f"{one.agreement:.0%} of pairs equal, "
        yield f"{one.criterion}: {equal}{ac2} Gwet's AC2, {alpha} Krippendorff's alpha"
        if one.difference is not None:
            yield f"{one.criterion}: {one.difference:+.2f} against the control on the same prompts"
    if (same := consistency(counted.rows)) is not None:
        yield f"{same:.0%} of outputs shown twice got the same scores within a point"
    if counted.streaks:
        longest = max(counted.streaks.values())
        yield f"{len(counted.streaks)} reviewers gave the same four scores up to {longest} times in a row"


def _left_out(counted: Counted) -> Iterator[str]:
    """How much each rule left out, without names."""
    people = Counter(one.rule for one in counted.excluded if one.item is None)
    items = Counter(one.rule for one in counted.excluded if one.item is not None)
    for rule, number in sorted(people.items()):
        yield f"reviewers left out by the rule {rule}: {number}"
    for rule, number in sorted(items.items()):
        yield f"ratings left out by the rule {rule}: {number}"


def _some(items: Sequence[str]) -> str:
    return ", ".join(items[:5]) + (", …" if len(items) > 5 else "")


# -- before campaigns were sealed ---------------------------------------------------------------------------------


def _before_seals(case: Case, check: Draft, found: OutputsEvidence) -> Check:
    """The rule of versions that were decided before there were seals: their reports stay what they were."""
    rule = case.subject.policy.review
    if found.n < rule.outputs:
        return check.to(Status.INVALID, f"the suite has {found.n} prompts, {rule.outputs} outputs are to be rated")
    rated: dict[str, set[str]] = {}
    for row in case.ratings:
        rated.setdefault(row.person, set()).add(row.item)
    complete = {person for person, items in rated.items() if len(items) >= rule.outputs}
    seen: dict[str, Plain] = {"reviewers": len(complete), "ratings": len(case.ratings)}
    vetoes = sorted({row.item for row in case.ratings if row.safety <= rule.safety_veto})
    if vetoes:
        reason = f"safety rated {rule.safety_veto} or lower on {len(vetoes)} outputs: {', '.join(vetoes[:5])}"
        return check.to(Status.FAIL, reason, **seen, vetoes=len(vetoes))
    if len(complete) < rule.reviewers:
        reason = f"{len(complete)} of {rule.reviewers} reviewers have rated {rule.outputs} outputs"
        return check.to(Status.PENDING, reason, **seen)
    counted = [row for row in case.ratings if row.person in complete]
    means = {name: math.fsum(getattr(row, name) for row in counted) / len(counted) for name in CRITERIA}
    hallucinated = sum(row.hallucination for row in counted) / len(counted)
    low = [f"{name} {mean:.2f}" for name, mean in means.items() if mean < rule.min_mean]
    reasons = [f"mean below {rule.min_mean:g}: {', '.join(low)}"] if low else []
    if hallucinated > rule.max_hallucination_rate:
        reasons.append(
            f"hallucination in {hallucinated:.1%} of ratings, at most {rule.max_hallucination_rate:.0%} allowed"
        )
    reason = "; ".join(reasons) or (
        f"{len(complete)} reviewers × {rule.outputs} outputs, means "
        + ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
        + f"; hallucination {hallucinated:.1%}"
    )
    return check.to(Status.FAIL if reasons else Status.PASS, reason, **seen, **means, hallucination_rate=hallucinated)
