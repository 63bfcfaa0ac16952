"""A version's verdict decided again from its evidence bundle alone, from the per-item rows upwards. Pure.

Nothing that the bundle states is taken on trust where it can be derived: digests are computed, counts and sums come
from the rows, and the report is decided anew. What was approved is held by the signed approval, which names the same
evidence digest and policy digest as the bundle.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import msgspec

from registry.errors import EvidenceRefused, InvalidRequest
from registry.gate.decision import Subject, decide
from registry.gate.policy import check_policy, policy_digest
from registry.gate.rows import contradictions
from registry.gate.summary import summarise
from registry.records import Bundle, Check, Evidence, GateReport, ItemRow, evidence_digest

_RELATIVE_TOLERANCE = 1e-6


class Recomputed(NamedTuple):
    """What the bundle comes to, and where the registry's own report in it says something else."""

    report: GateReport
    differences: list[str]


def recompute(bundle: Bundle, rows: Sequence[ItemRow]) -> Recomputed:
    """The report that the bundle's rows and ratings add up to, beside the one that the registry gave.

    rows: those of the blob that the bundle's evidence names; the caller has checked its sha256.
    Raises EvidenceRefused with every part of the bundle that does not fit another: it is not what was decided on.
    """
    problems = list(_misfits(bundle))
    if bundle.evidence is not None and not (problems and _is_older(bundle.evidence)):
        problems += contradictions(bundle.document, bundle.evidence, rows, bundle.cut_off_limits)
    if problems:
        raise EvidenceRefused(
            f"the bundle of {bundle.ref} contradicts itself: {'; '.join(problems[:5])}; fetch it again with "
            f"`tunegate bundle {bundle.ref} --to DIR`",
            problems,
        )
    evidence = _from_rows(bundle, bundle.evidence, rows) if bundle.evidence is not None else None
    report = decide(subject_of(bundle), evidence, bundle.ratings, bundle.review)
    return Recomputed(report, differences(report, bundle.report))


def subject_of(bundle: Bundle) -> Subject:
    """What the gate knows of the version without measuring."""
    return Subject(
        ref=bundle.ref,
        digest=bundle.digest,
        policy_digest=bundle.policy,
        policy=bundle.document,
        sealed=bundle.sealed,
        has_training_record=bundle.has_training_record,
        suite_sizes=bundle.suite_sizes,
        cut_off_limits=bundle.cut_off_limits,
        chances=bundle.chances,
        warnings=bundle.warnings,
        failure=bundle.failure,
        revoked=bundle.revoked,
        rejected=bundle.rejected,
        waived=bundle.waived,
        reviews=bundle.reviews,
    )


def differences(recomputed: GateReport, stated: GateReport) -> list[str]:
    """Where two reports part, one line each; numbers are the same if they agree to one part in a million."""
    found = [
        f"{name} is {_text(ours)} when recomputed, {_text(theirs)} in the registry's report"
        for name in ("ref", "digest", "policy", "verdict", "evaluated_with")
        if (ours := getattr(recomputed, name)) != (theirs := getattr(stated, name))
    ]
    checks = [{check.name: check for check in report.checks} for report in (recomputed, stated)]
    for name in dict.fromkeys([*checks[0], *checks[1]]):
        found += [f"{name}: {line}" for line in _parting(checks[0].get(name), checks[1].get(name))]
    return found


def _misfits(bundle: Bundle) -> Iterator[str]:
    """A policy that none can be, digests that are not those of what they stand for, and evidence about others."""
    try:
        check_policy(bundle.document)
    except InvalidRequest as error:
        yield str(error)
    if (digest := policy_digest(bundle.document)) != bundle.policy:
        yield f"the policy has digest {digest}, but {bundle.policy} is stated"
    found = bundle.evidence
    digest_found = evidence_digest(found) if found is not None else None
    if digest_found != bundle.evidence_digest and found is not None and _is_older(found):
        yield (
            f"the evidence is of an older form, and its digest {bundle.evidence_digest} was taken over other fields, "
            "so it can not be recomputed: a changed README.md makes a new version, which is measured anew"
        )
    elif digest_found != bundle.evidence_digest:
        yield f"the evidence has digest {digest_found}, but {bundle.evidence_digest} is stated"
    if found is not None and found.manifest != bundle.digest:
        yield f"the evidence is about manifest {found.manifest}, the version is {bundle.digest}"
    if found is not None and found.policy != bundle.policy:
        yield f"the evidence was measured under policy {found.policy}, the version is judged by {bundle.policy}"


def _is_older(evidence: Evidence) -> bool:
    """Whether it lacks what every worker now states: which tokens were scored, how answers ended."""
    parts = (evidence.perplexity, "mask"), (evidence.forgetting, "cut_off"), (evidence.outputs, "cut_off")
    return any(part is not None and getattr(part, name) is None for part, name in parts)


def _from_rows(bundle: Bundle, stated: Evidence, rows: Sequence[ItemRow]) -> Evidence:
    """The evidence with every section made anew from the rows."""
    convention, mask = (stated.perplexity.convention, stated.perplexity.mask) if stated.perplexity else ("", None)
    return msgspec.structs.replace(stated, **summarise(bundle.document, rows, convention, mask)._asdict())


def _parting(ours: Check | None, theirs: Check | None) -> Iterator[str]:
    if ours is None or theirs is None:
        yield f"only in the {'registry’s' if ours is None else 'recomputed'} report"
        return
    for field in Check.__struct_fields__:
        mine, other = (msgspec.to_builtins(getattr(check, field)) for check in (ours, theirs))
        if not _alike(mine, other):
            yield f"{field} is {_text(mine)} when recomputed, {_text(other)} in the registry's report"


def _alike(one: object, other: object) -> bool:
    match one, other:
        case int() | float(), int() | float():
            return math.isclose(one, other, rel_tol=_RELATIVE_TOLERANCE, abs_tol=_RELATIVE_TOLERANCE)
        case dict(), dict():
            return one.keys() == other.keys() and all(_alike(value, other[key]) for key, value in one.items())
        case list(), list():
            return len(one) == len(other) and all(map(_alike, one, other))
    return one == other


def _text(value: object) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
