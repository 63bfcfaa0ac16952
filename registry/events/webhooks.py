"""Who is told of what, and which messages are to be sent beside those that events cause."""

from registry.events.event import Event
from registry.records import Sha256, WebhookEvent


class WebhookCreated(Event, frozen=True, tag="webhook.created"):
    """The receiver at `url` is told of these events inside `scope`; the secret itself is in no journal."""

    id: str
    url: str
    events: list[WebhookEvent]
    secret_sha256: Sha256
    scope: str | None = None


class WebhookDeleted(Event, frozen=True, tag="webhook.deleted"):
    id: str


class WebhookDisabled(Event, frozen=True, tag="webhook.disabled"):
    """Its receiver wants no more messages."""

    id: str
    reason: str


class WebhookTested(Event, frozen=True, tag="webhook.tested"):
    """A message that says nothing is to be sent to this webhook; `test` is in its id."""

    id: str
    test: str


class DeliveryRequested(Event, frozen=True, tag="delivery.requested"):
    """A message is to be sent to its webhook once more."""

    webhook: str
    delivery: str
