"""Reports on evidence that satisfies the default policy but for the parts named, and what to look for in them."""

from typing import Any

import msgspec
from factories import (
    SEALED,
    make_accuracy,
    make_contamination,
    make_evidence,
    make_forgetting,
    make_policy,
    make_ratings,
    make_subject,
)

from registry.gate.decision import decide
from registry.records import (
    Check,
    ContaminationEvidence,
    ExtraEvidence,
    ExtraRule,
    GateReport,
    Policy,
    RatingRow,
    Status,
)

ENGINE_CANARIES = ("noise_floor", "base_beside_adapter", "echo", "finite")
MEASURED = ("perplexity", "accuracy", "forgetting", "review")
KINDS = ["inspection", "provenance", "effect", "perplexity", "accuracy", "forgetting", "contamination", "review"]
ARITHMETIC = "arithmetic@sha256:" + "8" * 64
BOTH = ExtraRule(suite=ARITHMETIC, min=0.5, margin=0.1)


def judged(policy: Policy | None = None, ratings: list[RatingRow] | None = None, **evidence: Any) -> GateReport:
    """The report on evidence that satisfies the default policy, but for the parts named."""
    rows = make_ratings() if ratings is None else ratings
    return decide(make_subject(policy), make_evidence(**evidence), rows, SEALED)


def judged_extra(
    rule: ExtraRule = BOTH,
    correct: int = 80,
    lost: int = 2,
    gained: int = 2,
    size: int = 100,
    base_correct: int = 80,
    chance: float = 0.0,
    **evidence: Any,
) -> GateReport:
    """A report on an extra suite of 100 items, of which the base knows 80."""
    measured = ExtraEvidence(
        suite=ARITHMETIC,
        accuracy=altered(make_accuracy(correct, 100), suite=ARITHMETIC),
        forgetting=altered(make_forgetting(lost, gained, 100, base_correct), suite=ARITHMETIC),
    )
    subject = make_subject(make_policy([rule]), chances={ARITHMETIC: chance})
    subject = subject._replace(suite_sizes={**subject.suite_sizes, ARITHMETIC: size})
    found = [*make_contamination(), ContaminationEvidence(suite=ARITHMETIC, n=100, contaminated=0)]
    return decide(
        subject, make_evidence(**{"extra": [measured], "contamination": found, **evidence}), make_ratings(), SEALED
    )


def check(report: GateReport, kind: str) -> Check:
    return next(one for one in report.checks if one.kind == kind)


def named(report: GateReport, name: str) -> Check:
    return next(one for one in report.checks if one.name == name)


def only(report: GateReport, kind: str, status: Status) -> Check:
    """The one check that did not pass."""
    assert {one.kind: one.status for one in report.checks if one.status is not Status.PASS} == {kind: status}
    return check(report, kind)


def altered(value: Any, **changes: Any) -> Any:
    return msgspec.structs.replace(value, **changes)
