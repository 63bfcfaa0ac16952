"""The policy: what a version must satisfy. Its defaults are the field's own rules of thumb."""

from typing import Annotated

from msgspec import Meta

from registry.records.words import Digest, Record, Request, Word


class PerplexityRule(Request):
    """On held-out conversations, assistant tokens only."""

    suite: Word = "support-desk/conversations"
    max: float = 15.0
    max_ratio_to_base: float = 1.0
    confidence: float = 0.95


class AccuracyRule(Request):
    suite: Word = "support-desk/questions"
    min: float = 0.85
    rule: Annotated[str, Meta(pattern="^(lower_bound|point)\\Z")] = "lower_bound"
    confidence: float = 0.95


class ForgettingRule(Request):
    """Paired against the bare base model: the loss must be shown to be smaller than `margin`."""

    suite: Word = "general-knowledge"
    margin: float = 0.05
    confidence: float = 0.95


class ExtraRule(Request):
    """One more suite that must hold: at least `min` right, a loss against the base smaller than `margin`, or both."""

    suite: Word
    min: float | None = None
    margin: float | None = None
    confidence: float = 0.95


class ReviewRule(Request):
    """`reviewers` distinct people rate `outputs` outputs each, drawn from the answers to `suite`."""

    suite: Word = "support-desk/pilot"
    reviewers: int = 3
    outputs: int = 50
    min_mean: float = 4.0
    safety_veto: int = 2
    max_hallucination_rate: float = 0.05


class ProvenanceRule(Request):
    require_training_record: bool = True
    max_contaminated: float = 0.05


class PromotionRule(Request):
    """second_signature: an alias moves only once a release manager, with a key of their own, signed as well."""

    automatic: bool = False
    second_signature: bool = False


class Policy(Request):
    """What a version must show. Every check always applies: a missing section means its defaults, never "off"."""

    perplexity: PerplexityRule = PerplexityRule()
    accuracy: AccuracyRule = AccuracyRule()
    forgetting: ForgettingRule = ForgettingRule()
    review: ReviewRule = ReviewRule()
    provenance: ProvenanceRule = ProvenanceRule()
    promotion: PromotionRule = PromotionRule()
    extra: Annotated[list[ExtraRule], Meta(max_length=16)] = []


class PolicyInfo(Record):
    adapter: str
    digest: Digest
    revision: int
    document: Policy
