"""What workers measured: counts, sums and per-item rows, never a verdict."""

import msgspec

from registry.names import digest_of
from registry.records.words import Count, Digest, Record, Request, Sha256, Text, Word

# How conversations are tokenised and which tokens count: the assistant's and the token that ends each of its turns.
CONVENTION = "assistant+eot/v1"


class EngineInfo(Record):
    """What measured. `fingerprint` digests everything that may change a number."""

    engine: Word
    distribution: Word
    version: Word
    torch: Word
    device: Word
    dtype: Word
    serving: Word
    lora_ops: Word
    fingerprint: Digest


class Canary(Record):
    """One self-test of the engine. `observed` and `limit` are in the unit that `detail` names."""

    name: Word
    passed: bool
    observed: float
    limit: float
    detail: Text


class Moments(Record):
    """Sufficient statistics of a ratio sum(x)/sum(n) over clusters (conversations); x in nats, n in tokens."""

    clusters: Count
    x: float
    n: float
    xx: float
    xn: float
    nn: float


class PerplexityEvidence(Record):
    """`difference` holds candidate minus base, token by token on the same ids.

    mask: digest of which tokens of which ids count. `candidate_bytes` and `base_bytes` are over UTF-8 bytes of the
    scored text instead of tokens: what they give does not depend on a tokenizer.
    """

    suite: Word
    convention: Word
    candidate: Moments
    base: Moments
    difference: Moments
    mask: Digest | None = None
    candidate_bytes: Moments | None = None
    base_bytes: Moments | None = None


class Slice(Record):
    """The clean items of a suite that carry one tag; `lost` and `gained` where they were compared with the base."""

    tag: str
    n: Count
    correct: Count
    lost: Count | None = None
    gained: Count | None = None


class AccuracyEvidence(Record):
    """`clean_*` leave out the items found in the training data. `n` below the suite's size: curtailed.

    cut_off: answers that ended at the suite's `max_tokens`.
    """

    suite: Word
    n: Count
    correct: Count
    clean_n: Count
    clean_correct: Count
    cut_off: Count
    slices: list[Slice] = []


class Pairs(Record):
    """Base and candidate on the same items: `lost` were right in the base only, `gained` in the candidate only."""

    n: Count
    base_correct: Count
    candidate_correct: Count
    lost: Count
    gained: Count


class ForgettingEvidence(Record):
    """Paired item by item: `lost` were right in the base only, `gained` in the candidate only.

    clean: the same without the items found in the training data. gold: nats by which the candidate finds the right
    answers' tokens less likely than the base, over those tokens; items are the clusters. kl: log p_base minus log
    p_candidate of texts sampled from the base, over their tokens: estimates KL(base || candidate) in nats per token.
    lost_items, gained_items: the first of them by id. shared_words: what the questions of lost items have in common.
    open_gains: where the candidate was not asked every item, how many of the rest the base gets wrong.
    cut_off, base_cut_off: answers of the pairs that ended at the suite's `max_tokens`; None in older evidence.
    """

    suite: Word
    n: Count
    base_correct: Count
    candidate_correct: Count
    lost: Count
    gained: Count
    clean: Pairs | None = None
    gold: Moments | None = None
    kl: Moments | None = None
    slices: list[Slice] = []
    lost_items: list[str] = []
    gained_items: list[str] = []
    shared_words: list[str] = []
    open_gains: Count = 0
    cut_off: Count | None = None
    base_cut_off: Count | None = None


class ExtraEvidence(Record):
    """One of the policy's extra suites; `forgetting` where its rule compares with the base."""

    suite: Word
    accuracy: AccuracyEvidence
    forgetting: ForgettingEvidence | None = None


class OutputsEvidence(Record):
    """What people are to rate. cut_off: how many ended at the suite's `max_tokens`; None in older evidence."""

    suite: Word
    n: Count
    cut_off: Count | None = None


class ContaminationEvidence(Record):
    """How many of a suite's items were found in the training data (see `evaluator.contamination`)."""

    suite: Word
    n: Count
    contaminated: Count


class Evidence(Request):
    """What a worker measured: counts and sums, never a verdict. `rows` is the Parquet blob of per-item results."""

    manifest: Digest
    policy: Digest
    engine: EngineInfo
    canaries: list[Canary]
    rows: Sha256
    seconds: float
    perplexity: PerplexityEvidence | None = None
    accuracy: AccuracyEvidence | None = None
    forgetting: ForgettingEvidence | None = None
    outputs: OutputsEvidence | None = None
    contamination: list[ContaminationEvidence] | None = None
    extra: list[ExtraEvidence] = []


class ItemRow(Record):
    """One item of one suite, for candidate or base. Unused columns are None.

    n_bytes: UTF-8 bytes of the scored text. gold_*: the right answer's negative log-likelihood as the reply.
    kl_*: on the candidate's row, log p_base - log p_candidate summed over a text sampled from the base, and its tokens.
    """

    suite: str
    item: str
    subject: str  # "candidate" or "base"
    prompt: str | None
    output: str | None
    correct: bool | None
    nll_nats: float | None
    n_tokens: int | None
    finish: str | None
    contaminated: bool | None
    tags: list[str] = []
    n_bytes: int | None = None
    gold_nll_nats: float | None = None
    gold_tokens: int | None = None
    kl_nats: float | None = None
    kl_tokens: int | None = None


def evidence_digest(evidence: Evidence) -> str:
    """Identity of what was measured: sha256 over canonical JSON without `seconds`, so that a repeat has the same."""
    document: dict[str, object] = msgspec.to_builtins(evidence)
    return digest_of({key: value for key, value in document.items() if key != "seconds"})
