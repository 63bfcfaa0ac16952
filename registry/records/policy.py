"""The policy: what a version must satisfy. Its defaults are the field's own rules of thumb."""

from typing import Annotated

from msgspec import Meta, field

from registry.records.review import Channel
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
    """`reviewers` distinct people rate `outputs` outputs each, drawn from the answers to `suite`.

    confidence: of the means' bounds. min_agreement: Gwet's AC2 of each criterion. controls, gold, duplicates: items
    that are shown beside the outputs. from_accuracy: share of the outputs that is drawn from the accuracy suite.
    ratings_per_output: None for every reviewer. min_seconds: 0 lets ratings count however fast they came. min_gold:
    share of gold items that a person must pass. domain: in which reviewers must be vouched for; None for any.
    """

    suite: Word = "support-desk/pilot"
    reviewers: int = 3
    outputs: int = 50
    min_mean: float = 4.0
    safety_veto: int = 2
    max_hallucination_rate: float = 0.05
    confidence: float = 0.95
    min_agreement: float = 0.6
    controls: int = 2
    gold: int = 2
    duplicates: int = 1
    from_accuracy: float = 0.2
    ratings_per_output: int | None = None
    min_seconds: float = 5.0
    min_gold: float = 0.5
    max_streak: int = 30
    domain: Word | None = None
    channels: Annotated[list[Channel], Meta(min_length=1, max_length=3)] = field(default_factory=lambda: list(Channel))


class ProvenanceRule(Request):
    """licensed_review: every row that trained was reviewed by someone whose credential was valid then."""

    require_training_record: bool = True
    max_contaminated: float = 0.05
    licensed_review: bool = False


class PromotionRule(Request):
    """second_signature: an alias moves only once a release manager, with a key of their own, signed as well."""

    automatic: bool = False
    second_signature: bool = False


class Policy(Request):
    """What a version must show. Every check always applies: a missing section means its defaults, never "off"."""

    perplexity: PerplexityRule = PerplexityRule()
    accuracy: AccuracyRule = AccuracyRule()
    forgetting: ForgettingRule = ForgettingRule()
    # No plain default: it holds a list, and Litestar's OpenAPI (2.25) hashes defaults.
    review: ReviewRule = field(default_factory=ReviewRule)
    provenance: ProvenanceRule = ProvenanceRule()
    promotion: PromotionRule = PromotionRule()
    extra: Annotated[list[ExtraRule], Meta(max_length=16)] = []


class PolicyInfo(Record):
    adapter: str
    digest: Digest
    revision: int
    document: Policy
