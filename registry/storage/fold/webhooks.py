"""Who is told of what. What was sent to them, and when, is the sender's to remember."""

from registry.events import DeliveryRequested, WebhookCreated, WebhookDeleted, WebhookDisabled, WebhookTested
from registry.storage.fold.target import Target, as_json, fold


@fold.register
def _(event: WebhookCreated, to: Target) -> None:
    to.db.execute(
        "INSERT INTO webhooks VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL)",
        [
            event.id,
            event.url,
            as_json(event.events),
            event.scope,
            event.secret_sha256,
            to.entry.actor.person,
            to.entry.at,
            to.entry.seq,
        ],
    )


@fold.register
def _(event: WebhookDeleted, to: Target) -> None:
    to.db.execute("DELETE FROM webhooks WHERE id = ?", [event.id])


@fold.register
def _(event: WebhookDisabled, to: Target) -> None:
    to.db.execute(
        "UPDATE webhooks SET disabled_at = ?, disabled_reason = ? WHERE id = ?", [to.entry.at, event.reason, event.id]
    )


@fold.register
def _(event: WebhookTested | DeliveryRequested, to: Target) -> None:
    """Nothing: what is sent to whom is the sender's to remember."""
