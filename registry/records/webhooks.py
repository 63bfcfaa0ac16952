"""Webhooks and their deliveries."""

from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from registry.records.words import DeliveryState, Record, Request, WebhookEvent, Word


class CreateWebhook(Request):
    """`scope` limits it to a namespace or one adapter."""

    url: Annotated[str, Meta(min_length=1, max_length=2000)]
    events: Annotated[list[WebhookEvent], Meta(min_length=1, max_length=10)]
    scope: Word | None = None


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
