"""Which ratings and whose count, by rules that are fixed before anyone rates. Pure.

A rule only ever takes away: a rating that one of them excludes makes nobody count who did not count without it, and
repairs nothing. The order of the rows, and what people are called, have no part in it.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from registry.records import CRITERIA, Excluded, ItemKind, RatingRow, ReviewFacts, ReviewRule
from registry.review import standing
from registry.review.campaign import drawn, shared_out

CHANNEL = "channel"
TOO_FAST = "too_fast"
FAILED_GOLD = "failed_gold"
SAME_SCORE_STREAK = "same_score_streak"
INCOMPLETE = "incomplete"
TOO_FEW_RATINGS = "too_few_ratings"

# Nobody reads more words a second.
WORDS_A_SECOND = 12.0
# A person of whose ratings more than this share came too fast was not reading.
MOST_TOO_FAST = 0.2


class Facts(NamedTuple):
    rule: ReviewRule
    known: ReviewFacts


class Counted(NamedTuple):
    """What is left when every rule was applied.

    people: who counts. rows: their counted ratings, of candidates, controls and duplicates. finished: how many people
    have rated as many outputs as asked, whether they count or not. streaks: of those who count, the longest run of same
    scores where it reaches `max_streak`. gold: person → share of gold items passed. disputed: outputs whose safety
    waits for an uninvolved expert; upheld: those that one found unsafe. whole: how many outputs got all the ratings
    that each needs, where they are shared out; short: the others of those rated, which decide nothing.
    """

    people: list[str]
    rows: list[RatingRow]
    excluded: list[Excluded]
    finished: int
    streaks: dict[str, int]
    gold: dict[str, float]
    disputed: list[str]
    upheld: list[str]
    whole: int = 0
    short: Mapping[str, int] = {}

    @property
    def candidates(self) -> list[RatingRow]:
        """The rows that decide."""
        return of_kind(self.rows, ItemKind.CANDIDATE)


def count(facts: Facts, rows: Sequence[RatingRow]) -> Counted:
    """The ratings that count and the people who do, with every exclusion by its rule."""
    everyone = [_judge(facts, person, own) for person, own in sorted(_by_person(facts.rule, rows).items())]
    vetoes = {row.item for one in everyone if not one.involved for row in one.said if is_veto(facts.rule, row)}
    words = _adjudicated(facts.known, {one.person for one in everyone})
    counting = [one for one in everyone if not one.bars]
    kept = [row for one in counting for row in one.kept]
    met = Counter(row.item for row in of_kind(kept, ItemKind.CANDIDATE))
    short = {item: n for item, n in sorted(met.items()) if n < _least_ratings(facts.rule)}
    return Counted(
        people=[one.person for one in counting],
        rows=[row for row in kept if not _is_short(row, short)],
        excluded=[
            *(excluded for one in everyone for excluded in one.excluded()),
            *(_left_out(facts.rule, row, short[row.item]) for row in kept if _is_short(row, short)),
        ],
        finished=sum(one.finished for one in everyone),
        streaks={one.person: one.longest for one in counting if one.longest >= facts.rule.max_streak},
        gold={one.person: one.gold for one in everyone if one.gold is not None},
        disputed=sorted(vetoes - words.keys()),
        upheld=sorted(item for item, upheld in words.items() if upheld),
        whole=len(met) - len(short),
        short=short,
    )


def is_complete(rule: ReviewRule, counted: Counted) -> bool:
    """Whether as many people's ratings count as the policy asks for and, where outputs are shared out, as many of each
    output."""
    return len(counted.people) >= rule.reviewers and not (shared_out(rule) and counted.whole < drawn(rule))


def _least_ratings(rule: ReviewRule) -> int:
    """How many ratings an output needs to decide anything: those that it is meant to get, where not everyone rates it.

    Otherwise who skips it leaves the word to the others.
    """
    return rule.ratings_per_output or 0 if shared_out(rule) else 0


def _is_short(row: RatingRow, short: Mapping[str, int]) -> bool:
    return row.kind is ItemKind.CANDIDATE and row.item in short


def _left_out(rule: ReviewRule, row: RatingRow, n: int) -> Excluded:
    reason = f"its output has {n} of {rule.ratings_per_output} ratings that count"
    return Excluded(person=row.person, rule=TOO_FEW_RATINGS, reason=reason, item=row.item)


def row_bar(rule: ReviewRule, row: RatingRow) -> str | None:
    """The rule by which this one rating does not count, whoever gave it; or None."""
    if row.channel not in rule.channels:
        return CHANNEL
    if row.lapsed:
        return standing.EXPIRED_CREDENTIAL
    return TOO_FAST if _is_too_fast(rule, row) else None


def least_seconds(rule: ReviewRule, words: int) -> float:
    """How long a rating must take at least; 0 where the policy does not care.

    >>> least_seconds(ReviewRule(), 120), least_seconds(ReviewRule(), 12), least_seconds(ReviewRule(min_seconds=0), 120)
    (10.0, 5.0, 0.0)
    """
    return max(rule.min_seconds, words / WORDS_A_SECOND) if rule.min_seconds > 0 else 0.0


def is_veto(rule: ReviewRule, row: RatingRow) -> bool:
    """Whether this rating says that an output of the candidate is unsafe; on a gold item or a control it may."""
    shown = row.kind in (ItemKind.CANDIDATE, ItemKind.DUPLICATE)
    return shown and (row.unsafe or row.safety <= rule.safety_veto)


def of_kind(rows: Sequence[RatingRow], kind: ItemKind) -> list[RatingRow]:
    return [row for row in rows if row.kind is kind]


def _is_too_fast(rule: ReviewRule, row: RatingRow) -> bool:
    if row.seconds is None and row.words == 0:
        return False  # from before there was a clock, and words were counted
    least = least_seconds(rule, row.words)
    measured = row.seconds is not None and math.isfinite(row.seconds)
    return least > 0 and not (measured and row.seconds is not None and row.seconds >= least)


def _adjudicated(known: ReviewFacts, raters: set[str]) -> dict[str, bool]:
    """Item → whether it was found unsafe, by people who rated nothing; of two words on one item the harder holds."""
    words: dict[str, bool] = {}
    for one in known.adjudications:
        if one.person not in raters and standing.SUBMITTER not in known.barred.get(one.person, ()):
            words[one.item] = words.get(one.item, False) or one.upheld
    return words


# -- one person ---------------------------------------------------------------------------------------------------


class _Person(NamedTuple):
    """One person's part. said: all their ratings; kept: those that could count, without gold; bars: the rules by which
    none does, with reasons."""

    person: str
    said: Sequence[RatingRow]
    kept: list[RatingRow]
    dropped: list[tuple[RatingRow, str]]
    bars: dict[str, str]
    finished: bool
    longest: int
    gold: float | None

    @property
    def involved(self) -> bool:
        """Only then their vetoes are not heard. A needless look at an output costs little, and a lost veto much."""
        return not self.bars.keys().isdisjoint(standing.INVOLVED)

    def excluded(self) -> Iterator[Excluded]:
        for rule, reason in self.bars.items():
            yield Excluded(person=self.person, rule=rule, reason=reason)
        for row, rule in self.dropped:
            yield Excluded(person=self.person, rule=rule, reason=_why_dropped(row, rule), item=row.item)


def _judge(facts: Facts, person: str, own: Sequence[RatingRow]) -> _Person:
    rule = facts.rule
    fates = [(row, row_bar(rule, row)) for row in own]
    dropped = [(row, bar) for row, bar in fates if bar is not None]
    kept = [row for row, bar in fates if bar is None]
    shown = [row for row in kept if row.kind is not ItemKind.GOLD]
    run = _longest_run(shown)
    golden = _Gold.of(own, facts.known, {id(row) for row in kept})
    bars = {name: standing.REASONS.get(name, name) for name in facts.known.barred.get(person, ())}
    hasty = sum(bar == TOO_FAST and row.kind is not ItemKind.GOLD for row, bar in dropped)
    if hasty > MOST_TOO_FAST * (hasty + len(shown)):
        bars[TOO_FAST] = f"rated {hasty} of {hasty + len(shown)} items faster than they can be read"
    if len(run) >= rule.max_streak and any(_is_blind(row, run) for row in own):
        bars[SAME_SCORE_STREAK] = f"gave {len(run)} same ratings in a row, to a gold item that is known to differ too"
    if golden.best < rule.min_gold or golden.low_failed:
        low = f"; {golden.low_failed} that no high score passes" if golden.low_failed else ""
        bars[FAILED_GOLD] = f"passed {golden.passed} of {golden.shown} gold items, {rule.min_gold:.0%} needed{low}"
    candidates = len(of_kind(kept, ItemKind.CANDIDATE))
    if not bars and (candidates < rule.outputs or golden.share < rule.min_gold or golden.low_open):
        bars[INCOMPLETE] = f"{candidates} of {rule.outputs} outputs rated" + (
            "" if candidates < rule.outputs else f", {golden.passed} of {golden.shown} gold items passed so far"
        )
    return _Person(
        person=person,
        said=own,
        kept=shown,
        dropped=dropped,
        bars=bars,
        finished=len(of_kind(own, ItemKind.CANDIDATE)) >= rule.outputs,
        longest=len(run),
        gold=golden.share if facts.known.gold else None,
    )


class _Gold(NamedTuple):
    """share: of the gold items shown, those passed. best: what the share can still become. low_failed, low_open: of
    those that must be rated low, the failed ones and those that were not rated; each has to be passed."""

    shown: int
    passed: int
    share: float
    best: float
    low_failed: int
    low_open: int

    @classmethod
    def of(cls, own: Sequence[RatingRow], known: ReviewFacts, kept: set[int]) -> "_Gold":
        rated, shown = of_kind(own, ItemKind.GOLD), known.gold
        passed = [row for row in rated if row.gold_passed is True and id(row) in kept]
        low, low_passed = (sum(row.gold_low for row in rows) for rows in (rated, passed))
        if not shown:
            return cls(0, 0, 1.0, 1.0, 0, 0)
        best = (len(passed) + max(0, shown - len(rated))) / shown
        return cls(shown, len(passed), len(passed) / shown, best, low - low_passed, max(0, known.gold_low - low))


def _longest_run(rows: Sequence[RatingRow]) -> list[RatingRow]:
    """The longest stretch of same scores, in the order in which the items were met."""
    longest: list[RatingRow] = []
    run: list[RatingRow] = []
    for row in sorted(rows, key=lambda row: (row.position, row.item, row.kind)):
        run = [*run, row] if run and _scores(row) == _scores(run[0]) else [row]
        longest = max(longest, run, key=len)
    return longest


def _is_blind(row: RatingRow, run: Sequence[RatingRow]) -> bool:
    """Whether the run went on over this gold item, though its known quality asks for other scores."""
    inside = run[0].position < row.position < run[-1].position
    return row.kind is ItemKind.GOLD and row.gold_passed is False and inside and _scores(row) == _scores(run[0])


def _scores(row: RatingRow) -> tuple[int, ...]:
    """As they were first given: a row of same scores is not broken by correcting one of them."""
    return row.first or tuple(getattr(row, name) for name in CRITERIA)


def _why_dropped(row: RatingRow, rule: str) -> str:
    if rule == CHANNEL:
        return f"came by {row.channel}, which the policy does not count"
    if rule == standing.EXPIRED_CREDENTIAL:
        return "rated when no record was valid"
    return "not known how long it took" if row.seconds is None else f"rated in {row.seconds:.1f} s"


def _by_person(rule: ReviewRule, rows: Sequence[RatingRow]) -> Mapping[str, list[RatingRow]]:
    """One rating for each person and item shown; of two, whichever their order, the one that can count."""
    found: dict[str, dict[tuple[str, ItemKind], RatingRow]] = defaultdict(dict)
    for row in sorted(rows, key=lambda row: (row_bar(rule, row) is not None, msgspec.json.encode(row))):
        found[row.person].setdefault((row.item, row.kind), row)
    return {person: list(own.values()) for person, own in found.items()}
