"""Perplexity's sufficient statistics: sums over conversations, for candidate, base and their difference. Pure."""

import math
from collections.abc import Mapping, Sequence

from evaluator.rendering import CONVENTION
from evaluator.results import Measured
from registry.records import Moments, PerplexityEvidence


def summarise(suite: str, candidate: Mapping[str, Measured], base: Mapping[str, Measured]) -> PerplexityEvidence:
    """Evidence of one suite. Both sides scored the same token ids, so their difference is paired token by token."""
    items = sorted(candidate)
    return PerplexityEvidence(
        suite=suite,
        convention=CONVENTION,
        candidate=_moments([(candidate[item].nll_nats, candidate[item].n_tokens) for item in items]),
        base=_moments([(base[item].nll_nats, base[item].n_tokens) for item in items]),
        difference=_moments(
            [(candidate[item].nll_nats - base[item].nll_nats, candidate[item].n_tokens) for item in items]
        ),
    )


def _moments(pairs: Sequence[tuple[float, int]]) -> Moments:
    nats, tokens = [x for x, _ in pairs], [float(n) for _, n in pairs]
    return Moments(
        clusters=len(pairs),
        x=math.fsum(nats),
        n=math.fsum(tokens),
        xx=math.fsum(x * x for x in nats),
        xn=math.fsum(x * n for x, n in zip(nats, tokens, strict=True)),
        nn=math.fsum(n * n for n in tokens),
    )
