"""Webhooks: made, listed, ended, tried. Nothing here calls out: the sender does, from what the journal says."""

import secrets
from collections.abc import Callable

from registry.access import Principal
from registry.commands.context import Context, Outcome
from registry.errors import Conflict, Forbidden, NotFound
from registry.events import DeliveryRequested, WebhookCreated, WebhookDeleted, WebhookDisabled, WebhookTested
from registry.names import check_adapter_name
from registry.outbound import check_url
from registry.records import CreateWebhook, DeliveryAccepted, WebhookInfo
from registry.records import WebhookCreated as WebhookAnswer
from registry.storage.views import StoredWebhook
from registry.webhooks.messages import key_of_test, message_id
from registry.webhooks.signing import fingerprint

MOST_IN_A_NAMESPACE = 20


def create(context: Context, request: CreateWebhook, allow: frozenset[str], secret_of: Callable[[str], str]) -> Outcome:
    """A new webhook; its secret is in this answer only, so a repeated call returns the webhook without it.

    allow: places exempt from the rules for outgoing calls. secret_of: the secret of a webhook, by its id.
    """
    if request.scope is not None:
        check_adapter_name(request.scope)
    if not _within(context.principal, request.scope):
        raise Forbidden(
            f"this token is limited to {context.principal.scope!r} and makes webhooks for that scope only; "
            f"ask for scope {context.principal.scope!r} or an adapter in it"
        )
    check_url(request.url, allow)
    _check_room(context, request.scope)
    id_ = f"wh_{secrets.token_hex(6)}"
    secret, events = secret_of(id_), sorted(set(request.events))
    event = WebhookCreated(
        id=id_, url=request.url, events=events, scope=request.scope, secret_sha256=fingerprint(secret)
    )
    info = WebhookInfo(
        id=id_,
        url=request.url,
        events=events,
        scope=request.scope,
        created_by=context.principal.person,
        created_at=context.now,
    )
    answer = WebhookAnswer(webhook=info, secret=secret)
    return Outcome(answer, [event], 201, remembered=WebhookAnswer(webhook=info))


def listed(context: Context) -> list[WebhookInfo]:
    """All webhooks in the principal's scope, oldest first."""
    return [describe(one) for one in context.view.webhooks() if _within(context.principal, one.scope)]


def find(context: Context, id_: str) -> StoredWebhook:
    """NotFound for a webhook that is unknown or reaches beyond the principal's scope."""
    stored = context.view.webhook(id_)
    if stored is None or not _within(context.principal, stored.scope):
        raise NotFound(f"webhook {id_!r} does not exist or is not visible to this token")
    return stored


def delete(context: Context, id_: str) -> Outcome:
    """End a webhook. What waits to be sent to it is dropped, with the log of its deliveries."""
    find(context, id_)
    return Outcome(None, [WebhookDeleted(id=id_)], 204)


def disable(context: Context, id_: str, reason: str) -> Outcome:
    """Send no more to a webhook, for good; nothing happens to one that is deleted or disabled already."""
    stored = context.view.webhook(id_)
    if stored is None or stored.disabled_at is not None:
        return Outcome(None)
    return Outcome(None, [WebhookDisabled(id=id_, reason=reason)])


def test(context: Context, id_: str) -> Outcome:
    """Have a message sent that tells of nothing, on the same way as every other."""
    _require_enabled(find(context, id_))
    nonce = secrets.token_hex(6)
    answer = DeliveryAccepted(delivery=message_id(id_, key_of_test(nonce)))
    return Outcome(answer, [WebhookTested(id=id_, test=nonce)], 202)


def redeliver(context: Context, id_: str, delivery: str) -> Outcome:
    """Have a message sent once more, under the id it had. The caller has seen that there is such a delivery."""
    _require_enabled(find(context, id_))
    return Outcome(DeliveryAccepted(delivery=delivery), [DeliveryRequested(webhook=id_, delivery=delivery)], 202)


def describe(stored: StoredWebhook) -> WebhookInfo:
    return WebhookInfo(
        id=stored.id,
        url=stored.url,
        events=stored.events,
        scope=stored.scope,
        created_by=stored.created_by,
        created_at=stored.created_at,
        disabled_at=stored.disabled_at,
        disabled_reason=stored.disabled_reason,
    )


def _require_enabled(stored: StoredWebhook) -> None:
    if stored.disabled_at is not None:
        raise Conflict(
            f"webhook {stored.id} is disabled since {stored.disabled_at}: {stored.disabled_reason}; make another"
        )


def _check_room(context: Context, scope: str | None) -> None:
    """A namespace has room for so many, so that nobody fills the sender with receivers that hang."""
    room = _namespace(scope)
    if sum(_namespace(one.scope) == room for one in context.view.webhooks()) >= MOST_IN_A_NAMESPACE:
        where = f"namespace {room!r}" if room else "the whole registry"
        raise Conflict(f"{where} has {MOST_IN_A_NAMESPACE} webhooks already; delete one with `tunegate webhook delete`")


def _namespace(scope: str | None) -> str | None:
    return scope.partition("/")[0] if scope is not None else None


def _within(principal: Principal, scope: str | None) -> bool:
    """Whether a scope is no wider than the principal's own."""
    return principal.scope is None or (scope is not None and principal.may_see(scope))
