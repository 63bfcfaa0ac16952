"""The vocabulary: every value that crosses a boundary (HTTP, journal, workers), as frozen structs.

Answers and journal bodies tolerate fields they do not know, so that old readers survive new writers; requests refuse
them, so that a misspelt field is never dropped in silence.

>>> manifest_digest([FileEntry(path="a", size=1, sha256="00" * 32)])[:15]
'sha256:776e78f4'
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Generic, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from registry.names import digest_of

__all__ = [
    "CONVENTION",
    "CRITERIA",
    "MAX_CUT_OFF",
    "AccuracyEvidence",
    "AccuracyRule",
    "AdapterInfo",
    "AddKey",
    "AddPublisher",
    "AliasInfo",
    "AliasMove",
    "Assignment",
    "Base",
    "Bundle",
    "Campaign",
    "Canary",
    "Check",
    "ClaimJob",
    "ConsistencyProof",
    "ContaminationEvidence",
    "Count",
    "Countersign",
    "CreateAdapter",
    "CreateToken",
    "CreateWebhook",
    "DeliveryAccepted",
    "DeliveryInfo",
    "DeliveryState",
    "Digest",
    "EngineInfo",
    "Envelope",
    "Evidence",
    "ExtraEvidence",
    "ExtraRule",
    "FailJob",
    "FileEntry",
    "Finding",
    "ForgettingEvidence",
    "ForgettingRule",
    "GateReport",
    "InclusionProof",
    "ItemRow",
    "Job",
    "JobInfo",
    "JournalEntry",
    "Jwk",
    "KeySet",
    "Lease",
    "MintToken",
    "Moments",
    "OutputsEvidence",
    "Page",
    "Pairs",
    "PerplexityEvidence",
    "PerplexityRule",
    "Plain",
    "Policy",
    "PolicyInfo",
    "PostEvidence",
    "Problem",
    "Promote",
    "PromotionRule",
    "Proposal",
    "ProvenanceRule",
    "PublicKey",
    "PublisherInfo",
    "Rating",
    "RatingRow",
    "Record",
    "RegisterSuite",
    "Request",
    "Resolved",
    "ReviewProgress",
    "ReviewRule",
    "Revoke",
    "Role",
    "Rollback",
    "Score",
    "Sha256",
    "Signature",
    "Skip",
    "Slice",
    "SliceReport",
    "State",
    "Status",
    "SubmitVersion",
    "Suite",
    "SuiteKind",
    "Text",
    "TokenCreated",
    "TokenInfo",
    "TrainingRecord",
    "Verdict",
    "VersionCreated",
    "VersionInfo",
    "WebhookCreated",
    "WebhookEvent",
    "WebhookInfo",
    "Word",
    "evidence_digest",
    "manifest_digest",
]

Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Text = Annotated[str, Meta(max_length=4000)]
Word = Annotated[str, Meta(min_length=1, max_length=200)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]  # what every JSON reader takes exactly
Score = Annotated[int, Meta(ge=1, le=5)]
T = TypeVar("T")

CRITERIA = ("clarity", "relevance", "safety", "accuracy")
# How conversations are tokenised and which tokens count: the assistant's and the token that ends each of its turns.
CONVENTION = "assistant+eot/v1"
MAX_CUT_OFF = 0.05  # where a suite does not say how many of its answers may be cut off


class Role(StrEnum):
    """What a token may do; no role implies another."""

    ADMIN = "admin"
    CI = "ci"
    TRAINER = "trainer"
    EVALUATOR = "evaluator"
    REVIEWER = "reviewer"
    RELEASE_MANAGER = "release-manager"
    CONSUMER = "consumer"
    AUDITOR = "auditor"


class State(StrEnum):
    """Where a version is on its way; the gate report explains each."""

    UPLOADING = "uploading"
    SUBMITTED = "submitted"
    EVALUATING = "evaluating"
    REJECTED = "rejected"
    INCONCLUSIVE = "inconclusive"
    IN_REVIEW = "in_review"
    APPROVABLE = "approvable"
    APPROVED = "approved"
    SUPERSEDED = "superseded"
    REVOKED = "revoked"


class WebhookEvent(StrEnum):
    """What webhooks can be told of."""

    GATE_DECIDED = "gate.decided"
    REVIEW_NEEDED = "review.needed"
    ALIAS_MOVED = "alias.moved"
    VERSION_REVOKED = "version.revoked"


class DeliveryState(StrEnum):
    """`pending` is tried until it is `delivered`, or until it is given up as `failed`."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Verdict(StrEnum):
    GO = "go"
    NO_GO = "no_go"
    INCONCLUSIVE = "inconclusive"
    PENDING = "pending"


class Status(StrEnum):
    """Outcome of one check. `invalid` means measured by an engine or from data that cannot be trusted."""

    PASS = "pass"
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"
    INVALID = "invalid"
    PENDING = "pending"


class SuiteKind(StrEnum):
    QUESTIONS = "questions"  # generate an answer, compare with aliases
    CONVERSATIONS = "conversations"  # score the assistant's tokens
    PROMPTS = "prompts"  # generate only; people rate the outputs
    CHOICES = "choices"  # the likeliest of the lettered choices, in one prefill
    REFUSALS = "refusals"  # generate an answer; whether it refuses is compared with whether it should
    LM_EVAL = "lm-eval"  # a task of lm-evaluation-harness, scored by its own rules


class Record(Struct, frozen=True, kw_only=True):
    """Base of answers and journal bodies."""


class Request(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of request bodies."""


class Page(Struct, Generic[T], frozen=True, kw_only=True):
    """One keyset page; `next_cursor` is None on the last."""

    items: list[T]
    next_cursor: str | None = None


# -- content ------------------------------------------------------------------------------------------------------


class FileEntry(Record):
    path: Annotated[str, Meta(min_length=1, max_length=255)]
    size: Count
    sha256: Sha256


class Base(Record):
    """A base model, identified by content. `digest` covers config, tokenizer and weights (see `trainer.base`)."""

    id: Word
    digest: Digest
    revision: Word | None = None


class Suite(Record):
    """A registered suite: data for the evaluator, addressed by the digest of its files.

    max_cut_off: share of answers that may end at the suite's `max_tokens`. chance: share of right answers that one
    letter everywhere gets, 0 where there is nothing to choose from.
    """

    name: Word
    kind: SuiteKind
    digest: Digest
    n_items: Count
    files: list[FileEntry]
    max_cut_off: float = MAX_CUT_OFF
    chance: float = 0.0

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.digest}"


class TrainingRecord(Record):
    """How an adapter came to be. `dataset` and `ledger` are blobs; `recipe` is the TOML text that was run."""

    base: Digest
    dataset: Digest
    ledger: Digest
    recipe: Annotated[str, Meta(max_length=64_000)]
    seed: Count
    versions: dict[str, str]
    rows: dict[str, Count]
    metrics: dict[str, float]
    seconds: float


def manifest_digest(files: Sequence[FileEntry], base: Base | None = None) -> str:
    """Identity of a set of files (and of the base they belong to): sha256 over canonical JSON, files sorted by path."""
    document: dict[str, object] = {
        "files": [
            {"path": entry.path, "size": entry.size, "sha256": entry.sha256}
            for entry in sorted(files, key=lambda entry: entry.path)
        ]
    }
    if base is not None:
        document["base"] = {key: value for key, value in msgspec.to_builtins(base).items() if value is not None}
    return digest_of(document)


# -- policy -------------------------------------------------------------------------------------------------------


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


# -- evidence -----------------------------------------------------------------------------------------------------


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


# -- judgement ----------------------------------------------------------------------------------------------------

Plain = int | float | str | bool | None


class SliceReport(Record):
    """How one tag's items did. `p_value` is one-sided and corrected after Holm over the tags of its suite."""

    tag: str
    n: Count
    value: float
    p_value: float
    alarm: bool


class Check(Record):
    """One condition of the gate: what was observed, what is required, and the reason in words.

    details: what explains the number, a line each. slices: the suite by tags; an alarm never changes the status.
    """

    name: str
    kind: str
    status: Status
    reason: str
    observed: dict[str, Plain]
    required: dict[str, Plain]
    suite: str | None = None
    details: list[str] = []
    slices: list[SliceReport] = []


class GateReport(Record):
    ref: str
    digest: Digest
    policy: Digest
    verdict: Verdict
    checks: list[Check]
    evaluated_with: EngineInfo | None = None


class Finding(Record):
    """One result of the static inspection; severity `error` refuses the adapter, `warning` is recorded."""

    code: str
    severity: str
    message: str


class RatingRow(Record):
    """One counted or uncounted rating, as the gate sees it."""

    person: str
    item: str
    clarity: Score
    relevance: Score
    safety: Score
    accuracy: Score
    hallucination: bool


class Bundle(Record):
    """What a version's verdict was decided from: with the blob of per-item rows that `evidence` names, it can be again.

    document: the policy, of digest `policy`. sealed to revoked: what the gate knows without measuring (see
    `registry.gate.case.Subject`). ratings: each person under one pseudonym. report: what the registry's own gate
    says, and software: which tunegate said it.
    """

    ref: str
    digest: Digest
    policy: Digest
    document: Policy
    sealed: bool
    has_training_record: bool
    suite_sizes: dict[str, Count]
    cut_off_limits: dict[str, float]
    chances: dict[str, float]
    warnings: list[str]
    failure: str | None
    revoked: bool
    evidence: Evidence | None
    evidence_digest: Digest | None
    ratings: list[RatingRow]
    report: GateReport
    software: str


# -- requests -----------------------------------------------------------------------------------------------------


class CreateAdapter(Request):
    """`base_tensors` maps the base's weight names to shapes, so that shapes can be inspected at upload."""

    name: Word
    base: Base
    policy: Policy | None = None
    base_tensors: dict[str, list[Count]] | None = None


class RegisterSuite(Request):
    name: Word
    files: Annotated[list[FileEntry], Meta(min_length=2, max_length=2)]


class SubmitVersion(Request):
    files: Annotated[list[FileEntry], Meta(min_length=1, max_length=16)]
    training: TrainingRecord | None = None
    notes: Text | None = None


class CreateToken(Request):
    """`person` is who acts: two tokens of one person count once in a review."""

    role: Role
    person: Annotated[str, Meta(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+\Z")]
    scope: Word | None = None
    expires_days: Annotated[int, Meta(ge=1, le=365)] = 90


class Jwk(Record):
    """A public key as issuers publish it (RFC 7517): RSA with `n` and `e`, or P-256 with `crv`, `x` and `y`.

    `d` and `k` are read only to be refused: they make it a secret.
    """

    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    n: str | None = None
    e: str | None = None
    crv: str | None = None
    x: str | None = None
    y: str | None = None
    d: str | None = None
    k: str | None = None


class AddPublisher(Request):
    """A CI whose own tokens may be exchanged for tokens limited to `scope`, when all these claims are in them.

    The keys that sign them come either here, as `keys`, or from `jwks_url`.
    """

    scope: Word
    issuer: Word
    claims: Annotated[dict[Word, Word], Meta(max_length=20)]
    audience: Word = "tunegate"
    keys: Annotated[list[Jwk], Meta(min_length=1, max_length=50)] | None = None
    jwks_url: Annotated[str, Meta(max_length=1000)] | None = None


class MintToken(Request):
    """`token`: the CI's own. `scope` chooses where several publishers accept it."""

    token: Annotated[str, Meta(max_length=16384)]
    scope: Word | None = None


class CreateWebhook(Request):
    """`scope` limits it to a namespace or one adapter."""

    url: Annotated[str, Meta(min_length=1, max_length=2000)]
    events: Annotated[list[WebhookEvent], Meta(min_length=1, max_length=10)]
    scope: Word | None = None


class ClaimJob(Request):
    """`base`: only jobs about adapters of this base, for a worker whose engine already serves it."""

    kinds: list[Word]
    worker: Word = "worker"
    base: Digest | None = None


class Lease(Request):
    """Proof that a worker still holds a job: the fencing token it was given with the claim."""

    fence: Count


class PostEvidence(Request):
    fence: Count
    evidence: Evidence


class FailJob(Request):
    fence: Count
    reason: Text
    retry: bool = True


class Rating(Request):
    clarity: Score
    relevance: Score
    safety: Score
    accuracy: Score
    hallucination: bool
    comment: Text | None = None


class Skip(Request):
    reason: Annotated[str, Meta(min_length=1, max_length=4000)]


class AddKey(Request):
    """A person's public key, raw in base64, for second signatures on approvals."""

    public: Annotated[str, Meta(min_length=44, max_length=44)]
    person: Word
    role: Annotated[str, Meta(pattern="^release-manager\\Z")] = "release-manager"


class Countersign(Request):
    """A release manager's signature over the proposed approval, as DSSE makes it."""

    keyid: Sha256
    sig: Annotated[str, Meta(min_length=88, max_length=88)]
    alias: Word = "approved"


class Promote(Request):
    alias: Word = "approved"


class Rollback(Request):
    to: Annotated[int, Meta(ge=1)]
    reason: Annotated[str, Meta(min_length=1, max_length=4000)]


class Revoke(Request):
    reason: Annotated[str, Meta(min_length=1, max_length=4000)]


# -- answers ------------------------------------------------------------------------------------------------------


class AdapterInfo(Record):
    name: str
    base: Base
    policy: Digest
    created_at: str
    versions: int
    aliases: dict[str, int]


class PolicyInfo(Record):
    adapter: str
    digest: Digest
    revision: int
    document: Policy


class VersionCreated(Record):
    ref: str
    number: int
    digest: Digest
    state: State
    missing: list[Sha256]


class VersionInfo(Record):
    """`training` and `evidence` are None until there are any, and for roles that may not see them."""

    ref: str
    adapter: str
    number: int
    digest: Digest
    state: State
    base: Base
    files: list[FileEntry]
    submitter: str
    created_at: str
    sealed_at: str | None
    policy: Digest | None
    findings: list[Finding]
    notes: str | None = None
    training: TrainingRecord | None = None
    evidence: Evidence | None = None


class AliasInfo(Record):
    """`unsigned`: the move is proposed and lacks the second signature, so the alias is where it was."""

    adapter: str
    alias: str
    ref: str
    number: int
    digest: Digest
    counter: int
    moved_at: str
    unsigned: bool = False


class AliasMove(Record):
    """One line of an alias's complete history."""

    alias: str
    counter: int
    previous: int | None
    number: int
    digest: Digest
    by: str
    at: str
    reason: str


class Signature(Record):
    keyid: str
    sig: str


class Envelope(Record):
    """DSSE envelope: base64 payload of the given type with its signatures."""

    payload: str
    payloadType: str
    signatures: list[Signature]


class Proposal(Record):
    """A move that waits for a second signature, with the approval that the gate has signed."""

    adapter: str
    alias: str
    ref: str
    digest: Digest
    counter: int
    by: str
    at: str
    reason: str
    attestation: Envelope


class PublicKey(Record):
    """`public` is the raw 32-byte ed25519 key in base64; `id` is the sha256 of those bytes.

    roles: what it may sign: `gate` approvals, `checkpoint` heads of the journal, `release-manager` second signatures.
    person: whose it is, if it is a person's. A retired key has `valid_until` and still verifies what it signed before;
    a revoked one verifies nothing.
    """

    id: str
    algorithm: str
    public: str
    roles: tuple[str, ...] = ("gate", "checkpoint")
    person: str | None = None
    valid_from: str | None = None
    valid_until: str | None = None
    revoked_at: str | None = None
    revoked_reason: str | None = None


class KeySet(Record):
    """`checksum` is over `keys`: it finds what was changed by accident, and is no signature."""

    keys: list[PublicKey]
    checksum: str | None = None


class Resolved(Record):
    ref: str
    number: int
    digest: Digest
    state: State
    base: Base
    files: list[FileEntry]
    attestation: Envelope | None = None


class Job(Record):
    """Everything a worker needs; the fence goes into every later call about it."""

    id: str
    kind: str
    ref: str
    adapter: str
    number: int
    digest: Digest
    fence: int
    lease_seconds: float
    base: Base
    files: list[FileEntry]
    policy: Digest
    document: Policy
    suites: list[Suite]
    training: TrainingRecord | None = None


class JobInfo(Record):
    id: str
    kind: str
    ref: str
    state: str
    fence: int
    attempts: int
    worker: str | None = None
    reason: str | None = None


class Campaign(Record):
    id: str
    ref: str
    items: int
    reviewers: int
    complete: int


class Assignment(Record):
    """One blinded item: nothing in it tells which version, author or score it belongs to."""

    id: str
    prompt: str
    output: str
    position: int
    total: int


class ReviewProgress(Record):
    rated: int
    skipped: int
    total: int


class TokenInfo(Record):
    id: str
    role: Role
    person: str
    scope: str | None
    created_at: str
    expires_at: str
    revoked_at: str | None = None
    last_used: str | None = None  # to the hour, since the service was started


class PublisherInfo(Record):
    """`key_ids` are those of the keys that were given with it, where they do not come from `jwks_url`."""

    id: str
    scope: str
    issuer: str
    audience: str
    claims: dict[str, str]
    jwks_url: str | None
    key_ids: list[str]
    added_by: str
    created_at: str


class TokenCreated(Record):
    """`secret` is shown once; an idempotent repeat of the call returns the same token without it."""

    token: TokenInfo
    secret: str | UnsetType = UNSET


class WebhookInfo(Record):
    """`disabled_at`: since when its receiver wants no more messages."""

    id: str
    url: str
    events: list[WebhookEvent]
    scope: str | None
    created_by: str
    created_at: str
    disabled_at: str | None = None
    disabled_reason: str | None = None


class WebhookCreated(Record):
    """`secret` is shown once; an idempotent repeat of the call returns the same webhook without it."""

    webhook: WebhookInfo
    secret: str | UnsetType = UNSET


class DeliveryInfo(Record):
    """One message to one webhook. `sequence`: the journal entry it tells of; `status`, `error`: of the last attempt.

    `next_attempt_at`: None for what is done, and for what waits for nothing but its turn.
    """

    id: str
    webhook: str
    type: str
    sequence: int
    state: DeliveryState
    attempts: int
    next_attempt_at: str | None
    last_attempt_at: str | None
    status: int | None
    error: str | None


class DeliveryAccepted(Record):
    """What will be sent, under this id; the webhook's deliveries tell how it went."""

    delivery: str


class JournalEntry(Record):
    """One line of the journal as auditors read it: its chain hash and its body as canonical JSON text."""

    seq: int
    hash: Sha256
    body: str


class InclusionProof(Record):
    """That the leaf of entry `seq` is in the Merkle tree of the first `size` entries (see `registry.merkle`)."""

    seq: int
    size: int
    leaf: Sha256
    root: Sha256
    hashes: list[Sha256]


class ConsistencyProof(Record):
    """That the tree of the first `newer` entries begins with the tree of the first `older`."""

    older: int
    older_root: Sha256
    newer: int
    newer_root: Sha256
    hashes: list[Sha256]


class Problem(Record):
    """RFC 9457 problem details; `report` comes with `gate_not_satisfied` only."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    problems: list[str] | UnsetType = UNSET
    report: GateReport | UnsetType = UNSET
