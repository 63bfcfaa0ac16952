"""What the other records are made of: checked words and numbers, enumerations, pages."""

from enum import StrEnum
from typing import Annotated, Generic, TypeVar

from msgspec import Meta, Struct

Digest = Annotated[str, Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Text = Annotated[str, Meta(max_length=4000)]
Word = Annotated[str, Meta(min_length=1, max_length=200)]
Count = Annotated[int, Meta(ge=0, le=2**53 - 1)]  # what every JSON reader takes exactly
Score = Annotated[int, Meta(ge=1, le=5)]
T = TypeVar("T")


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


Plain = int | float | str | bool | None
