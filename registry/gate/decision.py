"""The gate: what the recorded evidence says under a policy. Pure, and closed by default.

Each rule looks at one thing and answers one Check; `decide` runs them all, so that a report shows every reason.
A measured value passes only if its whole one-sided interval lies on the right side of the limit, fails only if the
whole interval lies on the wrong side, and is inconclusive in between. What is missing, not finite, incomplete or
measured by an engine that failed its own canaries never passes.
"""

import math
from collections.abc import Callable, Sequence

from registry.gate.answers import accuracy, extras, forgetting
from registry.gate.case import (
    EFFECT_CANARY,
    ENGINE_CANARIES,
    Case,
    Draft,
    Subject,
    distrust,
    foreign,
    unmeasured,
    unusable,
    worst,
)
from registry.gate.licensed import licensed_review
from registry.gate.limits import side
from registry.gate.reviews import review
from registry.gate.statistics import Interval, clustered_ratio, exponential
from registry.records import (
    CONVENTION,
    Check,
    ContaminationEvidence,
    Evidence,
    GateReport,
    PerplexityEvidence,
    Plain,
    RatingRow,
    ReviewFacts,
    Status,
    Verdict,
)

__all__ = ["RULES", "Case", "Subject", "decide", "verdict_of"]


def decide(
    subject: Subject, evidence: Evidence | None, ratings: Sequence[RatingRow], review: ReviewFacts | None
) -> GateReport:
    """The whole report: every check, in a fixed order, and the verdict they add up to.

    review: what the ratings are counted by; None for a version that was decided before campaigns were sealed.
    """
    case = Case(subject, evidence, ratings, review)
    checks = [*(rule(case) for rule in RULES), *licensed_review(case), *extras(case)]
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
    check = Draft("inspection", {"sealed": True})
    if case.subject.revoked:
        return check.to(Status.FAIL, "revoked: it must not be used, whatever was measured")
    if case.subject.rejected is not None:
        return check.to(Status.FAIL, f"rejected by a release manager: {case.subject.rejected}")
    if not case.subject.sealed:
        return check.to(Status.PENDING, "the upload is not complete")
    found = f" with {len(case.subject.warnings)} warnings" if case.subject.warnings else ""
    return check.to(Status.PASS, f"files, config and tensor shapes are servable{found}", sealed=True)


def provenance(case: Case) -> Check:
    needed, present = case.subject.policy.provenance.require_training_record, case.subject.has_training_record
    check = Draft("provenance", {"training_record": needed})
    if needed and not present:
        return check.to(
            Status.FAIL,
            "no training record; push with `--run DIRECTORY` and a changed README.md, as a new version",
            training_record=False,
        )
    reason = "training record present" if present else "no training record, and the policy does not ask for one"
    if waived := [f"{code} ({text[:200]})" for code, text in sorted(case.subject.waived.items())]:
        reason += f"; waived when it was trained: {', '.join(waived)}"
    return check.to(Status.PASS, reason, training_record=present)


def effect(case: Case) -> Check:
    """The adapter must change what is served, measured by an engine that passes its own canaries."""
    check = Draft("effect", {"canaries": len(ENGINE_CANARIES) + 1})
    if case.evidence is None:
        return check.to(*unmeasured(case))
    if doubt := foreign(case, case.evidence) or distrust(case.evidence):
        return check.to(Status.INVALID, doubt)
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
    check = Draft(
        "perplexity",
        {"max": rule.max, "max_ratio_to_base": rule.max_ratio_to_base, "confidence": rule.confidence},
        rule.suite,
    )
    found = case.evidence.perplexity if case.evidence else None
    if stop := unusable(case, rule.suite, found.suite if found else None, found.candidate.clusters if found else None):
        return check.to(*stop)
    assert found is not None
    if contradiction := _contradiction(found):
        return check.to(Status.INVALID, contradiction)
    try:
        value = exponential(clustered_ratio(found.candidate, rule.confidence))
        ratio = exponential(clustered_ratio(found.difference, rule.confidence))
        per_byte = _bits_per_byte(found, rule.confidence)
    except ValueError as error:
        return check.to(Status.INCONCLUSIVE, str(error))
    status = worst(side(value, maximum=rule.max), side(ratio, maximum=rule.max_ratio_to_base))
    reason = (
        f"perplexity {value.value:.2f} (upper bound {value.upper:.2f}, limit {rule.max:g}); "
        f"{ratio.value:.3f} × base (upper bound {ratio.upper:.3f}, limit {rule.max_ratio_to_base:g})"
    )
    seen: dict[str, Plain] = {"mask": found.mask} if found.mask is not None else {}
    if per_byte is not None:
        ours, theirs = per_byte
        seen |= {"bits_per_byte": ours.value, "bits_per_byte_upper": ours.upper, "bits_per_byte_base": theirs.value}
        line = f"{ours.value:.3f} bits per byte (upper bound {ours.upper:.3f}), base {theirs.value:.3f}"
        check = check._replace(details=[f"{line}: the same scores over bytes, which no tokenizer changes"])
    return check.to(
        status,
        reason,
        value=value.value,
        upper=value.upper,
        ratio_to_base=ratio.value,
        ratio_upper=ratio.upper,
        conversations=found.candidate.clusters,
        tokens=int(found.candidate.n),
        **seen,
    )


def _bits_per_byte(found: PerplexityEvidence, confidence: float) -> tuple[Interval, Interval] | None:
    """Candidate's and base's negative log-likelihood in bits over the UTF-8 bytes that were scored."""
    if found.candidate_bytes is None or found.base_bytes is None:
        return None
    ours, theirs = (clustered_ratio(part, confidence) for part in (found.candidate_bytes, found.base_bytes))
    return _in_bits(ours), _in_bits(theirs)


def _in_bits(nats: Interval) -> Interval:
    return Interval(*(bound / math.log(2) for bound in nats))


def contamination(case: Case) -> Check:
    """Share of items found in the training data, in each suite that is compared; not knowable without that data."""
    policy = case.subject.policy
    limit, suite = policy.provenance.max_contaminated, policy.accuracy.suite
    check = Draft("contamination", {"max": limit}, suite)
    listed = case.evidence.contamination if case.evidence else None
    known = case.subject.has_training_record or case.subject.policy.provenance.require_training_record
    if case.evidence is not None and listed is None and not known:
        return check.to(Status.PASS, "no training data to compare with, and the policy does not ask for any")
    worst: tuple[float, ContaminationEvidence] | None = None
    extra = [rule.suite for rule in policy.extra]
    for name in dict.fromkeys((suite, policy.forgetting.suite, policy.perplexity.suite, *extra)):
        found = max((one for one in listed or () if one.suite == name), key=lambda one: one.contaminated, default=None)
        if stop := unusable(case, name, found.suite if found else None, found.n if found else None, measured=False):
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


Rule = Callable[[Case], Check]
RULES: tuple[Rule, ...] = (inspection, provenance, effect, perplexity, accuracy, forgetting, contamination, review)


def _contradiction(found: PerplexityEvidence) -> str | None:
    """Why the sums are not those that the policy means, or cannot be of the same conversations; or None."""
    if found.convention != CONVENTION:
        return (
            f"scored by the convention {found.convention!r}, which the limits are not made for; {CONVENTION!r} is "
            "needed: measure it with an evaluator of this version"
        )
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
    for part, by_bytes in ((found.candidate, found.candidate_bytes), (found.base, found.base_bytes)):
        if by_bytes is None:
            continue
        if by_bytes.clusters != part.clusters or not math.isclose(by_bytes.x, part.x, rel_tol=1e-6, abs_tol=1e-6):
            return "the sums over bytes are not of the same scores"
    return None
