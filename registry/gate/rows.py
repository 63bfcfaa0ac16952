"""Per-item rows against the numbers of the evidence: evidence that contradicts its own rows is refused. Pure."""

import math
from collections.abc import Iterator, Sequence

from registry.records import (
    AccuracyEvidence,
    ContaminationEvidence,
    Evidence,
    ForgettingEvidence,
    ItemRow,
    Moments,
    OutputsEvidence,
    PerplexityEvidence,
)

_RELATIVE_TOLERANCE = 1e-6
_MOST_NATS = 1e9  # for one conversation; larger ones, infinity and NaN cannot be added up


def contradictions(evidence: Evidence, rows: Sequence[ItemRow]) -> list[str]:
    """Every number of the evidence that the rows do not add up to."""
    by_suite: dict[tuple[str, str], dict[str, ItemRow]] = {}
    found = list(_finite(evidence))
    for row in rows:
        listed = by_suite.setdefault((row.suite, row.subject), {})
        if row.item in listed:
            found.append(f"{row.suite}: item {row.item!r} has two rows for the {row.subject}")
        listed[row.item] = row
    for part in (evidence.perplexity, evidence.accuracy, evidence.forgetting, evidence.outputs):
        if part is not None:
            candidate = by_suite.get((part.suite, "candidate"), {})
            base = by_suite.get((part.suite, "base"), {})
            found += [f"{part.suite}: {problem}" for problem in _compare(part, candidate, base)]
    for contamination in evidence.contamination or ():
        candidate = by_suite.get((contamination.suite, "candidate"), {})
        found += [f"{contamination.suite}: {problem}" for problem in _compare(contamination, candidate, {})]
    return found


def outputs(rows: Sequence[ItemRow], suite: str) -> dict[str, tuple[str, str]]:
    """Prompt and output of the candidate for each item of a suite that has both."""
    return {
        row.item: (row.prompt, row.output)
        for row in rows
        if row.suite == suite and row.subject == "candidate" and row.prompt is not None and row.output is not None
    }


Rows = dict[str, ItemRow]
Part = PerplexityEvidence | AccuracyEvidence | ForgettingEvidence | OutputsEvidence | ContaminationEvidence


def _compare(part: Part, candidate: Rows, base: Rows) -> Iterator[str]:
    match part:
        case PerplexityEvidence():
            yield from _same("candidate sums", part.candidate, _moments(candidate))
            yield from _same("base sums", part.base, _moments(base))
            yield from _same("difference sums", part.difference, _moments(candidate, minus=base))
        case AccuracyEvidence():
            clean = [row for row in candidate.values() if not row.contaminated]
            yield from _unjudged(candidate)
            yield from _count("n", part.n, len(candidate))
            yield from _count("correct", part.correct, _right(candidate))
            yield from _count("clean_n", part.clean_n, len(clean))
            yield from _count("clean_correct", part.clean_correct, sum(bool(row.correct) for row in clean))
        case ForgettingEvidence():
            if candidate.keys() != base.keys():
                yield "base and candidate answered different items"
                return
            yield from _unjudged(candidate)
            yield from _unjudged(base)
            pairs = [(bool(base[item].correct), bool(row.correct)) for item, row in candidate.items()]
            yield from _count("n", part.n, len(candidate))
            yield from _count("base_correct", part.base_correct, _right(base))
            yield from _count("candidate_correct", part.candidate_correct, _right(candidate))
            yield from _count("lost", part.lost, pairs.count((True, False)))
            yield from _count("gained", part.gained, pairs.count((False, True)))
        case OutputsEvidence():
            shown = [row for row in candidate.values() if row.prompt is not None and row.output is not None]
            yield from _count("n", part.n, len(shown))
        case ContaminationEvidence():
            yield from _count("n", part.n, len(candidate))
            yield from _count(
                "contaminated", part.contaminated, sum(bool(row.contaminated) for row in candidate.values())
            )


def _moments(rows: Rows, minus: Rows | None = None) -> Moments | str:
    pairs = []
    for item, row in rows.items():
        other = minus.get(item) if minus is not None else None
        if (
            row.nll_nats is None
            or row.n_tokens is None
            or (minus is not None and (other is None or other.nll_nats is None))
        ):
            return f"item {item!r} has no score"
        if other is not None and other.n_tokens != row.n_tokens:
            return f"item {item!r} has {row.n_tokens} tokens for the candidate and {other.n_tokens} for the base"
        nats = row.nll_nats - (other.nll_nats or 0.0 if other else 0.0)
        if not abs(nats) < _MOST_NATS:
            return f"item {item!r} has a score of {row.nll_nats} nats, which is that of no model"
        pairs.append((nats, float(row.n_tokens)))
    return moments(pairs)


def moments(pairs: Sequence[tuple[float, float]]) -> Moments:
    """Sufficient statistics of (sum of nats, number of tokens) pairs, one for each conversation."""
    return Moments(
        clusters=len(pairs),
        x=math.fsum(x for x, _ in pairs),
        n=math.fsum(n for _, n in pairs),
        xx=math.fsum(x * x for x, _ in pairs),
        xn=math.fsum(x * n for x, n in pairs),
        nn=math.fsum(n * n for _, n in pairs),
    )


def _same(what: str, stated: Moments, found: Moments | str) -> Iterator[str]:
    if isinstance(found, str):
        yield found
        return
    for name in ("clusters", "x", "n", "xx", "xn", "nn"):
        ours, theirs = getattr(found, name), getattr(stated, name)
        if not math.isclose(ours, theirs, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-6):
            yield f"{what}: {name} is stated as {theirs:g}, the rows give {ours:g}"


def _count(what: str, stated: int, found: int) -> Iterator[str]:
    if stated != found:
        yield f"{what} is stated as {stated}, the rows give {found}"


def _unjudged(rows: Rows) -> Iterator[str]:
    """An answer that nobody compared counts as wrong; in the base, that would make the adapter look better."""
    for item, row in rows.items():
        if row.correct is None:
            yield f"item {item!r} of the {row.subject} says neither right nor wrong"


def _right(rows: Rows) -> int:
    return sum(bool(row.correct) for row in rows.values())


def _finite(evidence: Evidence) -> Iterator[str]:
    for canary in evidence.canaries:
        if not math.isfinite(canary.observed) or not math.isfinite(canary.limit):
            yield f"canary {canary.name} is not finite"
    if not math.isfinite(evidence.seconds) or evidence.seconds < 0:
        yield "seconds is not a duration"
