"""What the statistics of a review are worth, by simulation: agreement of honest and other raters, coverage of bounds.

    python -m benchmarks.review [--repetitions 1000]

Every number comes from seeded repetitions of one review (outputs × reviewers), so the same command prints the same.
docs/policy.md says what was concluded from them.
"""

import argparse
import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from registry.records import ReviewRule
from registry.review.agreement import gwet_ac2, krippendorff_alpha, raw_agreement
from registry.review.means import clustered_mean, clustered_share

SEED = 5
CONFIDENCE = 0.95

# How often each score from 1 to 5 is given to an output.
Scores = tuple[float, float, float, float, float]
GUESS: Scores = (0.2, 0.2, 0.2, 0.2, 0.2)


class Adapter(NamedTuple):
    """Kinds of outputs by how often they come, and how honest raters score each kind, independently."""

    name: str
    outputs: Sequence[tuple[float, Scores]]

    @property
    def mean(self) -> float:
        return sum(share * sum(k * p for k, p in enumerate(scores, 1)) for share, scores in self.outputs)


UNIFORMLY_GOOD = Adapter("uniformly good", [(1.0, (0.0, 0.0, 0.02, 0.13, 0.85))])
ADAPTERS = (
    UNIFORMLY_GOOD,
    Adapter("good, some weak", [(0.85, (0.0, 0.0, 0.03, 0.17, 0.80)), (0.15, (0.05, 0.35, 0.45, 0.15, 0.0))]),
    Adapter("good, rarely very bad", [(0.97, (0.0, 0.0, 0.0, 0.1, 0.9)), (0.03, (0.9, 0.1, 0.0, 0.0, 0.0))]),
    Adapter("mixed", [(0.5, (0.0, 0.02, 0.13, 0.35, 0.5)), (0.5, (0.1, 0.3, 0.4, 0.15, 0.05))]),
    Adapter("just at 4", [(0.6, (0.0, 0.0, 0.05, 0.25, 0.70)), (0.4, (0.1, 0.2, 0.35, 0.275, 0.075))]),
    Adapter("at 4, all or nothing", [(0.75, (0.0, 0.0, 0.0, 0.0, 1.0)), (0.25, (1.0, 0.0, 0.0, 0.0, 0.0))]),
)


class Raters(NamedTuple):
    """How each of three people scores an output that honest people would score by `honest`."""

    name: str
    of: Callable[[Scores], Sequence[Scores]]


def _always(score: int) -> Scores:
    return tuple(float(k == score) for k in range(1, 6))  # type: ignore[return-value]  # five of them


RATERS = (
    Raters("all honest", lambda honest: [honest] * 3),
    Raters("one a point harder", lambda honest: [honest, honest, (honest[0] + honest[1], *honest[2:], 0.0)]),
    Raters("one guesses", lambda honest: [honest, honest, GUESS]),
    Raters("two guess", lambda honest: [honest, GUESS, GUESS]),
    Raters("all guess", lambda honest: [GUESS] * 3),
    Raters("always 5, 4 and 2", lambda honest: [_always(5), _always(4), _always(2)]),
    Raters("always 5, 3 and 1", lambda honest: [_always(5), _always(3), _always(1)]),
)


def review(adapter: Adapter, raters: Raters, outputs: int, source: random.Random) -> list[list[int]]:
    """The scores of one review, output by output."""
    kinds = source.choices(
        [scores for _, scores in adapter.outputs], [share for share, _ in adapter.outputs], k=outputs
    )
    return [[source.choices(range(1, 6), one)[0] for one in raters.of(kind)] for kind in kinds]


def agreements(repetitions: int) -> Iterator[str]:
    """Quantiles of alpha and AC2 over reviews of 50 outputs by three people."""
    least = ReviewRule().min_agreement
    yield f"agreement, 3 people x 50 outputs: median (1 % to 99 %); AC2 >= {least:g}: share of reviews"
    for adapter in (ADAPTERS[0], ADAPTERS[1], ADAPTERS[4], ADAPTERS[3]):
        for raters in RATERS:
            source = random.Random(f"{SEED} {adapter.name} {raters.name}")
            found = [review(adapter, raters, 50, source) for _ in range(repetitions)]
            alphas = [alpha for one in found if (alpha := krippendorff_alpha(one)) is not None]
            ac2 = [value for one in found if (value := gwet_ac2(one)) is not None]
            equal = [value for one in found if (value := raw_agreement(one)) is not None]
            enough = sum(value >= least for value in ac2) / len(ac2)
            yield (
                f"  {adapter.name:22} {raters.name:18} equal {_spread(equal)}  alpha {_spread(alphas)}  "
                f"AC2 {_spread(ac2)}  {enough:7.2%}"
            )


def _spread(values: Sequence[float]) -> str:
    ordered = sorted(values)
    low, middle, high = (ordered[int(share * (len(ordered) - 1))] for share in (0.01, 0.5, 0.99))
    return f"{middle:5.2f} ({low:5.2f} to {high:5.2f})"


def mean_coverage(adapter: Adapter, outputs: int, repetitions: int) -> tuple[float, float, float]:
    """How often the true mean is not below the lower bound, not above the upper one, and how often 4 is passed."""
    source = random.Random(f"{SEED} {adapter.name} {outputs}")
    held = [0, 0, 0]
    for _ in range(repetitions):
        interval = clustered_mean(review(adapter, RATERS[0], outputs, source)).interval(CONFIDENCE)
        assert interval is not None
        held[0] += interval.lower <= adapter.mean + 1e-9
        held[1] += interval.upper >= adapter.mean - 1e-9
        held[2] += interval.lower >= 4.0
    return held[0] / repetitions, held[1] / repetitions, held[2] / repetitions


def means(repetitions: int) -> Iterator[str]:
    yield f"bounds of a mean at {CONFIDENCE:.0%}, 3 people: lower bound holds, upper bound holds, passes `min_mean = 4`"
    for adapter in ADAPTERS:
        for outputs in (50, 20, 5):
            lower, upper, passed = mean_coverage(adapter, outputs, repetitions)
            name = f"{adapter.name:22} mean {adapter.mean:.3f} {outputs:3} outputs"
            yield f"  {name} {lower:7.2%} {upper:7.2%} {passed:7.2%}"


def share_coverage(rate: float, together: float, outputs: int, repetitions: int) -> float:
    """How often the true rate of hallucinations is not above its upper bound.

    together: of the outputs in which anyone sees one, how many of three people see it, as a share.
    """
    source = random.Random(f"{SEED} {rate} {together} {outputs}")
    seen = 0
    for _ in range(repetitions):
        clusters = [
            [bad and source.random() < together for _ in range(3)]
            for bad in (source.random() < rate / together for _ in range(outputs))
        ]
        seen += clustered_share(clusters, CONFIDENCE).upper >= rate
    return seen / repetitions


def shares(repetitions: int) -> Iterator[str]:
    yield f"upper bound at {CONFIDENCE:.0%} of a rate of hallucinations, 3 people x 50 outputs: how often it holds"
    for rate in (0.01, 0.05, 0.1, 0.3):
        for together in (1.0, 0.7, 0.4):
            held = share_coverage(rate, together, 50, repetitions)
            yield f"  rate {rate:4.0%}, of three people {together:4.0%} see the same {held:7.2%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repetitions", type=int, default=1000, help="reviews for each line; default %(default)s")
    repetitions = parser.parse_args().repetitions
    for part in (agreements, means, shares):
        for line in part(repetitions):
            print(line, flush=True)


if __name__ == "__main__":
    main()
