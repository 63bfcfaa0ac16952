"""From per-item rows to counts and sums: the one place where the numbers of the evidence come from. Pure.

Who measured builds the evidence with it; who judges builds it again from the rows, so that evidence that its own rows
contradict is refused; and anyone who holds the rows can do the same offline.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from registry.gate.statistics import moments
from registry.records import (
    AccuracyEvidence,
    ContaminationEvidence,
    ExtraEvidence,
    ForgettingEvidence,
    ItemRow,
    Moments,
    OutputsEvidence,
    Pairs,
    PerplexityEvidence,
    Policy,
    Slice,
)

T = TypeVar("T")

# How many lost and gained items are named, and how many words that lost items share.
MOST_NAMED, MOST_WORDS = 50, 8
# A word is shared by the lost items if it occurs in this many, and this many times as often as in all items.
_LEAST_WITH_WORD, _LEAST_RATIO = 3, 2.0
_WORD = re.compile(r"[^\W\d_]{3,}")


class Sections(NamedTuple):
    """The sections of `Evidence` that rows determine. None, or no entry: there are no rows to make it from."""

    perplexity: PerplexityEvidence | None
    accuracy: AccuracyEvidence | None
    forgetting: ForgettingEvidence | None
    outputs: OutputsEvidence | None
    contamination: list[ContaminationEvidence] | None
    extra: list[ExtraEvidence]


class Pair(NamedTuple):
    """One item that both answered or scored."""

    candidate: ItemRow
    base: ItemRow


class _Suite(NamedTuple):
    """The rows of one suite by item, in order of the items."""

    candidate: dict[str, ItemRow]
    base: dict[str, ItemRow]

    @property
    def pairs(self) -> list[Pair]:
        return [Pair(row, self.base[item]) for item, row in self.candidate.items() if item in self.base]


def summarise(policy: Policy, rows: Sequence[ItemRow], convention: str, mask: str | None) -> Sections:
    """Every section of the evidence under a policy; the order of the rows does not matter.

    convention, mask: how conversations were tokenised and which tokens counted, which rows do not tell.
    The rows must be free of what `rows.unsound` names: sums over numbers that are not finite raise.
    """
    suites = _by_suite(rows)
    return Sections(
        perplexity=_perplexity(suites, policy.perplexity.suite, convention, mask),
        accuracy=_accuracy(suites, policy.accuracy.suite),
        forgetting=_forgetting(suites, policy.forgetting.suite),
        outputs=_outputs(suites, policy.review.suite),
        contamination=_contamination(suites, suite_refs(policy)),
        extra=[
            ExtraEvidence(
                suite=rule.suite,
                accuracy=accuracy,
                forgetting=_forgetting(suites, rule.suite) if rule.margin is not None else None,
            )
            for rule in policy.extra
            if (accuracy := _accuracy(suites, rule.suite)) is not None
        ],
    )


def suite_refs(policy: Policy) -> list[str]:
    """The suites of a policy, each once: the sections' in their order, then the extra ones."""
    sections = (policy.perplexity, policy.accuracy, policy.forgetting, policy.review)
    return list(dict.fromkeys([rule.suite for rule in sections] + [rule.suite for rule in policy.extra]))


def _by_suite(rows: Iterable[ItemRow]) -> dict[str, _Suite]:
    suites: dict[str, _Suite] = {}
    for row in sorted(rows, key=lambda row: (row.suite, row.item)):
        suite = suites.setdefault(row.suite, _Suite({}, {}))
        subjects = {"candidate": suite.candidate, "base": suite.base}
        subjects.get(row.subject, {})[row.item] = row
    return suites


def _perplexity(suites: dict[str, _Suite], name: str, convention: str, mask: str | None) -> PerplexityEvidence | None:
    pairs = suites[name].pairs if name in suites else []
    if not pairs:
        return None
    ours = [_number(pair.candidate.nll_nats) for pair in pairs]
    theirs = [_number(pair.base.nll_nats) for pair in pairs]
    tokens = [_number(pair.candidate.n_tokens) for pair in pairs]
    size = [_number(pair.candidate.n_bytes) for pair in pairs]
    sized = all(row.n_bytes is not None for pair in pairs for row in pair)
    return PerplexityEvidence(
        suite=name,
        convention=convention,
        candidate=moments(list(zip(ours, tokens, strict=True))),
        base=moments(list(zip(theirs, tokens, strict=True))),
        difference=moments([(c - b, n) for c, b, n in zip(ours, theirs, tokens, strict=True)]),
        mask=mask,
        candidate_bytes=moments(list(zip(ours, size, strict=True))) if sized else None,
        base_bytes=moments(list(zip(theirs, size, strict=True))) if sized else None,
    )


def _accuracy(suites: dict[str, _Suite], name: str) -> AccuracyEvidence | None:
    answered = list(suites[name].candidate.values()) if name in suites else []
    if not answered:
        return None
    clean = [row for row in answered if not row.contaminated]
    return AccuracyEvidence(
        suite=name,
        n=len(answered),
        correct=sum(bool(row.correct) for row in answered),
        clean_n=len(clean),
        clean_correct=sum(bool(row.correct) for row in clean),
        cut_off=cut_off(answered),
        slices=[
            Slice(tag=tag, n=len(tagged), correct=sum(bool(row.correct) for row in tagged))
            for tag, tagged in _by_tag(clean, lambda row: row.tags)
        ],
    )


def _forgetting(suites: dict[str, _Suite], name: str) -> ForgettingEvidence | None:
    pairs = suites[name].pairs if name in suites else []
    if not pairs:
        return None
    suite = suites[name]
    clean = [pair for pair in pairs if not pair.candidate.contaminated]
    everything = count_pairs(pairs)
    lost = [pair.candidate.item for pair in pairs if pair.base.correct and not pair.candidate.correct]
    gained = [pair.candidate.item for pair in pairs if pair.candidate.correct and not pair.base.correct]
    return ForgettingEvidence(
        suite=name,
        n=everything.n,
        base_correct=everything.base_correct,
        candidate_correct=everything.candidate_correct,
        lost=everything.lost,
        gained=everything.gained,
        clean=count_pairs(clean),
        gold=_gold(clean),
        kl=_divergence(suite.candidate.values()),
        slices=_paired_slices(clean),
        lost_items=lost[:MOST_NAMED],
        gained_items=gained[:MOST_NAMED],
        shared_words=shared_words(suite.candidate, lost),
        open_gains=sum(not row.correct for item, row in suite.base.items() if item not in suite.candidate),
        cut_off=cut_off(pair.candidate for pair in pairs),
        base_cut_off=cut_off(pair.base for pair in pairs),
    )


def cut_off(rows: Iterable[ItemRow]) -> int:
    """How many answers did not end by themselves."""
    return sum(row.finish == "length" for row in rows)


def count_pairs(pairs: Sequence[Pair]) -> Pairs:
    """What became of the right and the wrong answers; an answer that nobody judged is not right."""
    outcomes = [(bool(pair.base.correct), bool(pair.candidate.correct)) for pair in pairs]
    return Pairs(
        n=len(pairs),
        base_correct=sum(base for base, _ in outcomes),
        candidate_correct=sum(candidate for _, candidate in outcomes),
        lost=outcomes.count((True, False)),
        gained=outcomes.count((False, True)),
    )


def _paired_slices(clean: Sequence[Pair]) -> list[Slice]:
    slices = []
    for tag, tagged in _by_tag(clean, lambda pair: pair.candidate.tags):
        counted = count_pairs(tagged)
        slices.append(
            Slice(
                tag=tag,
                n=counted.n,
                correct=counted.candidate_correct,
                lost=counted.lost,
                gained=counted.gained,
            )
        )
    return slices


def _by_tag(found: Iterable[T], tags: Callable[[T], list[str]]) -> list[tuple[str, list[T]]]:
    """What carries each tag, in order of the tags; a tag that an item carries twice counts once."""
    groups: dict[str, list[T]] = {}
    for one in found:
        for tag in dict.fromkeys(tags(one)):
            groups.setdefault(tag, []).append(one)
    return sorted(groups.items())


def _gold(clean: Sequence[Pair]) -> Moments | None:
    """By how many nats the candidate finds the right answers' tokens less likely than the base does."""
    scored = [
        (pair.candidate.gold_nll_nats - pair.base.gold_nll_nats, _number(pair.candidate.gold_tokens))
        for pair in clean
        if pair.candidate.gold_nll_nats is not None and pair.base.gold_nll_nats is not None
    ]
    return moments(scored) if scored else None


def _divergence(rows: Iterable[ItemRow]) -> Moments | None:
    sampled = [(row.kl_nats, _number(row.kl_tokens)) for row in rows if row.kl_nats is not None]
    return moments(sampled) if sampled else None


def shared_words(answered: dict[str, ItemRow], lost: Sequence[str]) -> list[str]:
    """Words that occur in at least 3 lost items' questions, at least twice as often as in those of all items.

    How often: (items with the word + 1) / (items + 2), Laplace's rule, so that few items prove little. Words are runs
    of three or more letters in lower case, ordered by that ratio, then alphabetically; at most 8 are given.
    """
    everywhere = _occurrences(row.prompt for row in answered.values())
    among_lost = _occurrences(answered[item].prompt for item in lost)
    found = []
    for word, n in among_lost.items():
        ratio = ((n + 1) / (len(lost) + 2)) / ((everywhere[word] + 1) / (len(answered) + 2))
        if n >= _LEAST_WITH_WORD and ratio >= _LEAST_RATIO:
            found.append((-ratio, word))
    return [word for _, word in sorted(found)[:MOST_WORDS]]


def _occurrences(texts: Iterable[str | None]) -> dict[str, int]:
    """In how many of the texts each word occurs."""
    found: dict[str, int] = {}
    for text in texts:
        for word in set(_WORD.findall((text or "").lower())):
            found[word] = found.get(word, 0) + 1
    return found


def _outputs(suites: dict[str, _Suite], name: str) -> OutputsEvidence | None:
    if name not in suites or not suites[name].candidate:
        return None
    shown = [row for row in suites[name].candidate.values() if row.prompt is not None and row.output is not None]
    return OutputsEvidence(suite=name, n=len(shown), cut_off=cut_off(shown))


def _contamination(suites: dict[str, _Suite], names: Sequence[str]) -> list[ContaminationEvidence] | None:
    """Of the items that were compared with the training data; None where none were."""
    found = []
    for name in names:
        compared = (
            [row for row in suites[name].candidate.values() if row.contaminated is not None] if name in suites else []
        )
        if compared:
            contaminated = sum(bool(row.contaminated) for row in compared)
            found.append(ContaminationEvidence(suite=name, n=len(compared), contaminated=contaminated))
    return found or None


def _number(value: float | None) -> float:
    """A count or score that sound rows have."""
    return float(value or 0.0)
