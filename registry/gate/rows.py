"""Per-item rows against the numbers of the evidence: evidence that contradicts its own rows is refused. Pure."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from registry.gate.summary import Sections, summarise
from registry.records import Evidence, ItemRow, Policy

_RELATIVE_TOLERANCE = 1e-6
_ROUNDING_NATS = 1e-3  # by which one token may seem likelier than certain
_MOST_NATS = 1e9  # for one item; larger ones, infinity and NaN cannot be added up

END_CANARY = "finish_by_length"

# What the rows of a pair must agree on where both have it: they scored the same text. What is summed over what.
_SHARED = ("n_tokens", "n_bytes", "gold_tokens")
_SCORES = (("nll_nats", "n_tokens"), ("gold_nll_nats", "gold_tokens"), ("kl_nats", "kl_tokens"))


def contradictions(
    policy: Policy, evidence: Evidence, rows: Sequence[ItemRow], cut_off_limits: Mapping[str, float]
) -> list[str]:
    """Every number of the evidence that the rows do not add up to under the policy it was measured for.

    Where rows cannot be added up at all, what is wrong with them instead. cut_off_limits: of each suite of the policy.
    """
    if problems := [*_unfinished(evidence), *unsound(policy, rows)]:
        return problems
    measured = evidence.perplexity
    found = summarise(policy, rows, measured.convention if measured else "", measured.mask if measured else None)
    problems = [
        problem
        for section in Sections._fields
        for problem in _differences(section, getattr(evidence, section), getattr(found, section))
    ]
    if measured and measured.mask is None:
        problems.append("perplexity.mask is missing: which tokens were scored cannot be known")
    return [*problems, *_ends(evidence, rows, cut_off_limits)]


def outputs(rows: Sequence[ItemRow], suite: str) -> dict[str, tuple[str, str]]:
    """Prompt and output of the candidate for each item of a suite that has both."""
    return {
        row.item: (row.prompt, row.output)
        for row in rows
        if row.suite == suite and row.subject == "candidate" and row.prompt is not None and row.output is not None
    }


def unsound(policy: Policy, rows: Sequence[ItemRow]) -> list[str]:
    """Why these rows cannot be added up: double, unjudged, unpaired, or with numbers that no measurement has."""
    by_side: dict[tuple[str, str], dict[str, ItemRow]] = {}
    problems = []
    for row in rows:
        listed = by_side.setdefault((row.suite, row.subject), {})
        if row.item in listed:
            problems.append(f"{row.suite}: item {row.item!r} has two rows for the {row.subject}")
        listed[row.item] = row
        problems += [f"{row.suite}: {problem}" for problem in _impossible(row)]
    compared = {policy.forgetting.suite, *(rule.suite for rule in policy.extra if rule.margin is not None)}
    judged = {policy.accuracy.suite, *compared, *(rule.suite for rule in policy.extra)}
    for name in sorted(judged):
        for subject in ("candidate", "base"):
            problems += [f"{name}: {problem}" for problem in _unjudged(by_side.get((name, subject), {}))]
    for name in sorted({*compared, policy.perplexity.suite}):
        candidate, base = (by_side.get((name, subject), {}) for subject in ("candidate", "base"))
        problems += [f"{name}: {problem}" for problem in _unpaired(candidate, base)]
        if name == policy.perplexity.suite:
            problems += [f"{name}: {problem}" for side in (candidate, base) for problem in _unscored(side)]
    return problems


Rows = dict[str, ItemRow]


def _impossible(row: ItemRow) -> Iterator[str]:
    for nats_name, size_name in _SCORES:
        nats, size = getattr(row, nats_name), getattr(row, size_name)
        # The estimate of a divergence may lie below zero; a negative log-likelihood only by rounding.
        least = -_MOST_NATS if nats_name == "kl_nats" else -_ROUNDING_NATS * (size or 0)
        if nats is not None and not least <= nats < _MOST_NATS:
            yield f"item {row.item!r} has {nats_name} {nats}, which is that of no model"
        if nats is not None and (size is None or size < 1):
            yield f"item {row.item!r} has {nats_name} over {size} tokens"
    if row.n_bytes is not None and row.n_bytes < 1:
        yield f"item {row.item!r} has a scored text of {row.n_bytes} bytes"


def _unpaired(candidate: Rows, base: Rows) -> Iterator[str]:
    """The base answers everything that the candidate does; the candidate may have stopped early."""
    if candidate and (strangers := sorted(candidate.keys() - base.keys())):
        yield f"base and candidate answered different items: {strangers[0]!r} has no row for the base"
    for item, row in candidate.items():
        for name in _SHARED if item in base else ():
            ours, theirs = getattr(row, name), getattr(base[item], name)
            # Answers have as many tokens as they have, and a run that stopped early scores on one side only.
            if None not in (ours, theirs) and ours != theirs and not (name == "n_tokens" and row.nll_nats is None):
                yield f"item {item!r} has {name} {ours} for the candidate and {theirs} for the base"


def _unscored(rows: Rows) -> Iterator[str]:
    for item, row in rows.items():
        if row.nll_nats is None:
            yield f"item {item!r} has no score for the {row.subject}"


def _unjudged(rows: Rows) -> Iterator[str]:
    """An answer that nobody compared counts as wrong; in the base, that would make the adapter look better."""
    for item, row in rows.items():
        if row.correct is None:
            yield f"item {item!r} of the {row.subject} says neither right nor wrong"


def _differences(path: str, stated: object, found: object) -> Iterator[str]:
    """Where two values of one type part, to the last field; numbers with a fraction may differ by rounding."""
    if isinstance(stated, Struct) and isinstance(found, Struct):
        for name in stated.__struct_fields__:
            yield from _differences(f"{path}.{name}", getattr(stated, name), getattr(found, name))
    elif isinstance(stated, list) and isinstance(found, list) and len(stated) == len(found):
        for position, (theirs, ours) in enumerate(zip(stated, found, strict=True)):
            yield from _differences(f"{path}[{position}]", theirs, ours)
    elif isinstance(stated, float) and isinstance(found, float):
        if not math.isclose(found, stated, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-6):
            yield f"{path} is stated as {stated:g}, the rows give {found:g}"
    elif stated != found:
        yield f"{path} is stated as {_brief(stated)}, the rows give {_brief(found)}"


def _brief(value: object) -> str:
    if isinstance(value, Struct):
        return "measured"
    if isinstance(value, list):
        return f"{len(value)} entries"
    return "not measured" if value is None else str(value)


def _unfinished(evidence: Evidence) -> Iterator[str]:
    for canary in evidence.canaries:
        if not math.isfinite(canary.observed) or not math.isfinite(canary.limit):
            yield f"canary {canary.name} is not finite"
    if not math.isfinite(evidence.seconds) or evidence.seconds < 0:
        yield "seconds is not a duration"


def _ends(evidence: Evidence, rows: Sequence[ItemRow], limits: Mapping[str, float]) -> Iterator[str]:
    """The worker's own statement of how many answers were cut off, against the rows; the gate counts for itself.

    It is about the suite and subject whose share is furthest above the suite's limit; where several are, any of them.
    """
    answers: Counter[tuple[str, str]] = Counter()
    cut_off: Counter[tuple[str, str]] = Counter()
    for row in rows:
        if row.finish is not None:
            answers[row.suite, row.subject] += 1
            cut_off[row.suite, row.subject] += row.finish == "length"
    found = [(cut_off[where] / n, limits.get(where[0], 0.0)) for where, n in answers.items()]
    worst = max((share - limit for share, limit in found), default=None)
    for canary in evidence.canaries:
        if canary.name != END_CANARY:
            continue
        if worst is None:
            yield f"canary {END_CANARY} is stated, the rows have no answers that end"
            continue
        fits = [
            (share, limit)
            for share, limit in found
            if _close(share - limit, worst) and _close(share, canary.observed) and _close(limit, canary.limit)
        ]
        if not fits:
            share, limit = max(found, key=lambda one: one[0] - one[1])
            yield (
                f"canary {END_CANARY} is stated as {canary.observed:g} with limit {canary.limit:g}, the rows give "
                f"{share:g} with limit {limit:g} for the worst suite"
            )
        elif canary.passed != (worst <= 0):
            yield f"canary {END_CANARY} is stated as {'passed' if canary.passed else 'failed'}, the rows say otherwise"


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=_RELATIVE_TOLERANCE, abs_tol=1e-9)
