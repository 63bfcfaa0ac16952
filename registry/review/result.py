"""What a sealed campaign came to, from the ratings that count. Pure: the journal alone gives the same bytes again."""

from collections.abc import Sequence

from registry.records import CRITERIA, CriterionResult, ItemKind, RatingRow, ReviewResult
from registry.review.agreement import gwet_ac2, krippendorff_alpha, raw_agreement
from registry.review.counting import Counted, Facts, count, of_kind
from registry.review.means import clustered_mean, clustered_share, grouped

SCORES = (1, 2, 3, 4, 5)


def review_result(facts: Facts, rows: Sequence[RatingRow], root: str) -> ReviewResult:
    """The whole result. rows: every rating, counted or not; root: the digest over them that the seal names."""
    counted = count(facts, rows)
    decisive = counted.candidates
    hallucination = hallucination_rate(decisive, facts.rule.confidence)
    return ReviewResult(
        counted=counted.people,
        ratings=len(decisive),
        criteria=criteria(counted, facts.rule.confidence),
        hallucination_rate=hallucination[0],
        hallucination_upper=hallucination[1],
        excluded=counted.excluded,
        vetoes=sorted({*counted.disputed, *counted.upheld}),
        gold=counted.gold,
        consistency=consistency(counted.rows),
        root=root,
    )


def criteria(counted: Counted, confidence: float) -> list[CriterionResult]:
    """One result for each criterion; none where nothing counts."""
    return [_criterion(name, counted, confidence) for name in CRITERIA] if counted.candidates else []


def hallucination_rate(rows: Sequence[RatingRow], confidence: float) -> tuple[float | None, float | None]:
    """Share of ratings that say so, and its upper bound; None where there are too few."""
    clusters = grouped((row.item, row.hallucination) for row in rows)
    if len(clusters) < 2:
        return (clustered_mean(clusters).value if clusters else None), None
    found = clustered_share(clusters, confidence)
    return found.value, found.upper


def consistency(rows: Sequence[RatingRow]) -> float | None:
    """Share of duplicates that got within one point of what the same person first gave, on every criterion."""
    first = {(row.person, row.item): row for row in of_kind(rows, ItemKind.CANDIDATE)}
    pairs = [
        (first[key], again)
        for again in of_kind(rows, ItemKind.DUPLICATE)
        if (key := (again.person, again.item)) in first
    ]
    near = [all(abs(getattr(one, name) - getattr(again, name)) <= 1 for name in CRITERIA) for one, again in pairs]
    return sum(near) / len(near) if near else None


def _criterion(name: str, counted: Counted, confidence: float) -> CriterionResult:
    scores = grouped((row.item, getattr(row, name)) for row in counted.candidates)
    found = clustered_mean(scores)
    bounds = found.interval(confidence)
    listed = [int(score) for item in scores for score in item]
    difference = _difference(name, counted.rows)
    apart = clustered_mean(difference) if difference else None
    reach = apart.interval(confidence) if apart else None
    rated = [[int(score) for score in item] for item in scores]
    return CriterionResult(
        criterion=name,
        mean=found.value,
        lower=bounds.lower if bounds else None,
        upper=bounds.upper if bounds else None,
        histogram=[listed.count(score) for score in SCORES],
        agreement=raw_agreement(rated),
        alpha=krippendorff_alpha(rated),
        ac2=gwet_ac2(rated),
        difference=apart.value if apart else None,
        difference_lower=reach.lower if reach else None,
        difference_upper=reach.upper if reach else None,
    )


def _difference(name: str, rows: Sequence[RatingRow]) -> list[list[float]]:
    """Candidate minus control, of each person who rated both answers to a prompt, by prompt."""
    control = {(row.person, row.item): row for row in of_kind(rows, ItemKind.CONTROL)}
    return grouped(
        (row.item, getattr(row, name) - getattr(control[key], name))
        for row in of_kind(rows, ItemKind.CANDIDATE)
        if (key := (row.person, row.item)) in control
    )
