"""The gate: what the recorded evidence says under a policy. Pure, and closed by default.

Each rule looks at one thing and answers one Check; `decide` runs them all, so that a report shows every reason.
A measured value passes only if its whole one-sided interval lies on the right side of the limit, fails only if the
whole interval lies on the wrong side, and is inconclusive in between. What is missing, not finite, incomplete or
measured by an engine that failed its own canaries never passes.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

from registry.gate.statistics import Interval, clustered_ratio, exponential, tango, wilson
from registry.records import (
    CRITERIA,
    Check,
    ContaminationEvidence,
    Evidence,
    GateReport,
    PerplexityEvidence,
    Plain,
    Policy,
    RatingRow,
    Status,
    Verdict,
)

# Every run must report these; the first says something about the adapter, the others about the engine.
EFFECT_CANARY = "adapter_effect"
ENGINE_CANARIES = ("noise_floor", "base_beside_adapter", "echo", "finite")

# Share of the forgetting suite that the base must know for a loss to show at all.
LEAST_KNOWN = 0.2


class Subject(NamedTuple):
    """What is judged: a sealed version, its pinned policy and what is known without measuring."""

    ref: str
    digest: str
    policy_digest: str
    policy: Policy
    sealed: bool
    has_training_record: bool
    suite_sizes: dict[str, int]  # items in each pinned suite, by `name@digest`
    warnings: Sequence[str] = ()
    failure: str | None = None  # why the last attempt to measure it was given up
    revoked: bool = False


class Case(NamedTuple):
    subject: Subject
    evidence: Evidence | None
    ratings: Sequence[RatingRow]


def decide(subject: Subject, evidence: Evidence | None, ratings: Sequence[RatingRow]) -> GateReport:
    """The whole report: every check, in a fixed order, and the verdict they add up to."""
    case = Case(subject, evidence, ratings)
    checks = [rule(case) for rule in RULES]
    return GateReport(
        ref=subject.ref,
        digest=subject.digest,
        policy=subject.policy_digest,
        verdict=verdict_of(checks),
        checks=checks,
        evaluated_with=evidence.engine if evidence else None,
    )


def verdict_of(checks: Sequence[Check]) -> Verdict:
    """no_go if anything fails; else inconclusive if anything could not be judged; else pending; else go."""
    statuses = {check.status for check in checks}
    if Status.FAIL in statuses:
        return Verdict.NO_GO
    if statuses & {Status.INCONCLUSIVE, Status.INVALID}:
        return Verdict.INCONCLUSIVE
    return Verdict.GO if statuses == {Status.PASS} else Verdict.PENDING


# -- rules --------------------------------------------------------------------------------------------------------


def inspection(case: Case) -> Check:
    check = _Draft("inspection", {"sealed": True})
    if case.subject.revoked:
        return check.to(Status.FAIL, "revoked: it must not be used, whatever was measured")
    if not case.subject.sealed:
        return check.to(Status.PENDING, "the upload is not complete")
    found = f" with {len(case.subject.warnings)} warnings" if case.subject.warnings else ""
    return check.to(Status.PASS, f"files, config and tensor shapes are servable{found}", sealed=True)


def provenance(case: Case) -> Check:
    needed, present = case.subject.policy.provenance.require_training_record, case.subject.has_training_record
    check = _Draft("provenance", {"training_record": needed})
    if needed and not present:
        return check.to(
            Status.FAIL,
            "no training record; push with `--run DIRECTORY` and a changed README.md, as a new version",
            training_record=False,
        )
    reason = "training record present" if present else "no training record, and the policy does not ask for one"
    return check.to(Status.PASS, reason, training_record=present)


def effect(case: Case) -> Check:
    """The adapter must change what is served, measured by an engine that passes its own canaries."""
    check = _Draft("effect", {"canaries": len(ENGINE_CANARIES) + 1})
    if case.evidence is None:
        return check.to(*_unmeasured(case))
    if distrust := _foreign(case, case.evidence) or _distrust(case.evidence):
        return check.to(Status.INVALID, distrust)
    found = [canary for canary in case.evidence.canaries if canary.name == EFFECT_CANARY]
    if len(found) != 1 or not math.isfinite(found[0].observed) or not math.isfinite(found[0].limit):
        return check.to(Status.INVALID, f"canary {EFFECT_CANARY} was not measured")
    canary = found[0]
    seen: dict[str, Plain] = {"change_nats": canary.observed, "noise_nats": canary.limit}
    if not canary.passed or canary.observed <= canary.limit:
        return check.to(
            Status.FAIL, f"the adapter does not change the served log-probabilities: {canary.detail}", **seen
        )
    return check.to(
        Status.PASS, f"served log-probabilities change by {canary.observed:.3g} nats; canaries hold", **seen
    )


def perplexity(case: Case) -> Check:
    rule = case.subject.policy.perplexity
    check = _Draft(
        "perplexity",
        {"max": rule.max, "max_ratio_to_base": rule.max_ratio_to_base, "confidence": rule.confidence},
        rule.suite,
    )
    found = case.evidence.perplexity if case.evidence else None
    if stop := _unusable(case, rule.suite, found.suite if found else None, found.candidate.clusters if found else None):
        return check.to(*stop)
    assert found is not None
    if contradiction := _contradiction(found):
        return check.to(Status.INVALID, contradiction)
    try:
        value = exponential(clustered_ratio(found.candidate, rule.confidence))
        ratio = exponential(clustered_ratio(found.difference, rule.confidence))
    except ValueError as error:
        return check.to(Status.INCONCLUSIVE, str(error))
    status = _worst(_side(value, maximum=rule.max), _side(ratio, maximum=rule.max_ratio_to_base))
    reason = (
        f"perplexity {value.value:.2f} (upper bound {value.upper:.2f}, limit {rule.max:g}); "
        f"{ratio.value:.3f} × base (upper bound {ratio.upper:.3f}, limit {rule.max_ratio_to_base:g})"
    )
    return check.to(
        status,
        reason,
        value=value.value,
        upper=value.upper,
        ratio_to_base=ratio.value,
        ratio_upper=ratio.upper,
        conversations=found.candidate.clusters,
        tokens=int(found.candidate.n),
    )


def accuracy(case: Case) -> Check:
    """On the clean items only: an item found in the training data proves memory, not skill."""
    rule = case.subject.policy.accuracy
    check = _Draft("accuracy", {"min": rule.min, "rule": rule.rule, "confidence": rule.confidence}, rule.suite)
    found = case.evidence.accuracy if case.evidence else None
    if stop := _unusable(case, rule.suite, found.suite if found else None, found.n if found else None):
        return check.to(*stop)
    assert found is not None
    if not 0 <= found.correct - found.clean_correct <= found.n - found.clean_n:
        return check.to(Status.INVALID, "the clean items are not a part of all items")
    try:
        value = wilson(found.clean_correct, found.clean_n, rule.confidence)
    except ValueError as error:
        return check.to(Status.INVALID, str(error))
    if rule.rule == "point":
        status = Status.PASS if value.value >= rule.min else Status.FAIL
    else:
        status = _side(value, minimum=rule.min)
    reason = f"{value.value:.1%} of {found.clean_n}, lower bound {value.lower:.2%}, at least {rule.min:.0%} needed"
    if found.clean_n < found.n:
        reason += f" ({found.n - found.clean_n} contaminated items left out)"
    return check.to(
        status,
        reason,
        correct=found.clean_correct,
        n=found.clean_n,
        value=value.value,
        lower=value.lower,
        upper=value.upper,
    )


def forgetting(case: Case) -> Check:
    """Non-inferiority: the loss must be shown to be smaller than the margin, not merely not shown."""
    rule = case.subject.policy.forgetting
    check = _Draft("forgetting", {"margin": rule.margin, "confidence": rule.confidence}, rule.suite)
    found = case.evidence.forgetting if case.evidence else None
    if stop := _unusable(case, rule.suite, found.suite if found else None, found.n if found else None):
        return check.to(*stop)
    assert found is not None
    if found.candidate_correct - found.base_correct != found.gained - found.lost:
        return check.to(Status.INVALID, "lost and gained items do not add up to the difference")
    try:
        value = tango(found.n, found.lost, found.gained, rule.confidence)
        known = wilson(found.base_correct, found.n, rule.confidence)
    except ValueError as error:
        return check.to(Status.INVALID, str(error))
    if known.lower < LEAST_KNOWN:
        return check.to(
            Status.INCONCLUSIVE,
            f"the base knows {found.base_correct} of {found.n}, lower bound {known.lower:.1%}, {LEAST_KNOWN:.0%} "
            "needed: where little is known, little can be forgotten; take a suite that the base can answer",
            n=found.n,
            base_correct=found.base_correct,
        )
    reason = (
        f"{found.candidate_correct} right, base {found.base_correct}, of {found.n} ({found.lost} lost, {found.gained} "
        f"gained): change {value.value:+.1%}, lower bound {value.lower:+.1%}, must stay above {-rule.margin:+.0%}"
    )
    return check.to(
        _side(value, minimum=-rule.margin, strict=True),
        reason,
        n=found.n,
        base_correct=found.base_correct,
        candidate_correct=found.candidate_correct,
        lost=found.lost,
        gained=found.gained,
        value=value.value,
        lower=value.lower,
        upper=value.upper,
    )


def contamination(case: Case) -> Check:
    """Share of items found in the training data, in each suite that is compared; not knowable without that data."""
    policy = case.subject.policy
    limit, suite = policy.provenance.max_contaminated, policy.accuracy.suite
    check = _Draft("contamination", {"max": limit}, suite)
    listed = case.evidence.contamination if case.evidence else None
    known = case.subject.has_training_record or case.subject.policy.provenance.require_training_record
    if case.evidence is not None and listed is None and not known:
        return check.to(Status.PASS, "no training data to compare with, and the policy does not ask for any")
    worst: tuple[float, ContaminationEvidence] | None = None
    for name in dict.fromkeys((suite, policy.forgetting.suite, policy.perplexity.suite)):
        found = max((one for one in listed or () if one.suite == name), key=lambda one: one.contaminated, default=None)
        if stop := _unusable(case, name, found.suite if found else None, found.n if found else None, measured=False):
            return check.to(*stop)
        assert found is not None
        share = found.contaminated / found.n
        worst = max(worst or (-1.0, found), (share, found), key=lambda pair: pair[0])
    assert worst is not None
    share, found = worst
    where = found.suite.partition("@")[0]
    return check._replace(suite=found.suite).to(
        Status.PASS if share <= limit else Status.FAIL,
        f"{found.contaminated} of {found.n} items found in the training data ({where}, the most of all suites), "
        f"at most {limit:.0%} allowed",
        contaminated=found.contaminated,
        n=found.n,
        value=share,
    )


def review(case: Case) -> Check:
    """Quota of distinct people, safety veto, means of each criterion, hallucination rate."""
    rule = case.subject.policy.review
    required: dict[str, Plain] = {
        "reviewers": rule.reviewers,
        "outputs": rule.outputs,
        "min_mean": rule.min_mean,
        "safety_veto": rule.safety_veto,
        "max_hallucination_rate": rule.max_hallucination_rate,
    }
    check = _Draft("review", required, rule.suite)
    found = case.evidence.outputs if case.evidence else None
    if stop := _unusable(case, rule.suite, found.suite if found else None, found.n if found else None):
        return check.to(*stop)
    assert found is not None
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


Rule = Callable[[Case], Check]
RULES: tuple[Rule, ...] = (inspection, provenance, effect, perplexity, accuracy, forgetting, contamination, review)


# -- shared -------------------------------------------------------------------------------------------------------


class _Draft(NamedTuple):
    """A check without its outcome."""

    kind: str
    required: dict[str, Plain]
    suite: str | None = None

    def to(self, status: Status, reason: str, **observed: Plain) -> Check:
        finite = {key: None if isinstance(x, float) and not math.isfinite(x) else x for key, x in observed.items()}
        return Check(
            name=self.kind,
            kind=self.kind,
            status=status,
            reason=reason,
            observed=finite,
            required=self.required,
            suite=self.suite,
        )


def _distrust(evidence: Evidence) -> str | None:
    """Why no number of this engine may be believed, or None."""
    for name in ENGINE_CANARIES:
        found = [canary for canary in evidence.canaries if canary.name == name]
        if not found:
            return f"canary {name} was not run"
        for canary in found:
            measured = math.isfinite(canary.observed) and math.isfinite(canary.limit)
            if not (canary.passed and measured and canary.observed <= canary.limit):
                return f"canary {name} failed: {canary.detail}"
    return None


def _unmeasured(case: Case) -> tuple[Status, str]:
    if case.subject.failure is None:
        return Status.PENDING, "not evaluated yet"
    return Status.INVALID, f"the evaluation failed: {case.subject.failure}; push the same files to measure them again"


def _foreign(case: Case, evidence: Evidence) -> str | None:
    """Why this evidence says nothing about this version, or None."""
    if evidence.manifest == case.subject.digest:
        return None
    return f"measured on {evidence.manifest}, this version is {case.subject.digest}"


def _contradiction(found: PerplexityEvidence) -> str | None:
    """Why the three sums cannot be of the same conversations, or None."""
    parts = (found.candidate, found.base, found.difference)
    if len({(part.clusters, part.n) for part in parts}) != 1:
        return "candidate, base and difference do not cover the same conversations"
    if not all(math.isfinite(part.x) for part in parts):
        return "a sum of log-likelihoods is not finite"
    if found.candidate.x < 0 or found.base.x < 0:
        return "a negative log-likelihood below zero is that of no model"
    # The sums come from separate roundings of the same scores; one part in a million is rounding.
    if abs(found.candidate.x - found.base.x - found.difference.x) > 1e-6 * (1 + found.candidate.x + found.base.x):
        return "the difference is not candidate minus base"
    return None


def _unusable(
    case: Case, suite: str, measured_on: str | None, n: int | None, *, measured: bool = True
) -> tuple[Status, str] | None:
    """Why this part of the evidence cannot be judged, or None: missing, another suite, incomplete, distrusted."""
    if case.evidence is None:
        return _unmeasured(case)
    if foreign := _foreign(case, case.evidence):
        return Status.INVALID, foreign
    if measured_on is None or n is None:
        return Status.INVALID, "missing from the evidence"
    if measured_on != suite:
        return Status.INVALID, f"measured on {measured_on}, the policy asks for {suite}"
    size = case.subject.suite_sizes.get(suite)
    if not n or n != size:
        return Status.INVALID, f"covers {n} of the suite's {size} items; all are needed"
    if measured and (distrust := _distrust(case.evidence)):
        return Status.INVALID, distrust
    return None


def _side(interval: Interval, *, minimum: float = -math.inf, maximum: float = math.inf, strict: bool = False) -> Status:
    """On which side of the limit the whole interval lies. `strict`: the limit itself does not pass."""
    if not all(map(math.isfinite, interval)):
        return Status.FAIL if interval.value > maximum else Status.INCONCLUSIVE
    inside = minimum < interval.lower if strict else minimum <= interval.lower
    if inside and interval.upper <= maximum:
        return Status.PASS
    if interval.upper < minimum or interval.lower > maximum:
        return Status.FAIL
    return Status.INCONCLUSIVE


def _worst(*statuses: Status) -> Status:
    order = (Status.FAIL, Status.INVALID, Status.INCONCLUSIVE, Status.PENDING, Status.PASS)
    return min(statuses, key=order.index)
