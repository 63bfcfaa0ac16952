"""Forgetting, item by item: what the base knew and the candidate does not, and the other way round. Pure."""

from collections.abc import Mapping

from registry.records import ForgettingEvidence


def summarise(suite: str, candidate: Mapping[str, bool], base: Mapping[str, bool]) -> ForgettingEvidence:
    """Paired counts over the same items."""
    pairs = [(base[item], candidate[item]) for item in candidate]
    return ForgettingEvidence(
        suite=suite,
        n=len(pairs),
        base_correct=sum(before for before, _ in pairs),
        candidate_correct=sum(after for _, after in pairs),
        lost=sum(before and not after for before, after in pairs),
        gained=sum(after and not before for before, after in pairs),
    )
