"""/v1/webhooks: who is told of what, and how telling them went."""

import re
from datetime import UTC, datetime
from functools import partial
from typing import Any

from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, JSONBody

from registry.api.cursor import read_cursor, write_cursor
from registry.api.door import AnyRequest, allowed, ask, in_thread, run
from registry.api.params import Cursor, Limit
from registry.commands import webhooks
from registry.errors import InvalidRequest, NotFound
from registry.records import CreateWebhook, DeliveryInfo, DeliveryState, Page, Role, WebhookInfo
from registry.webhooks.deliveries import Delivery
from registry.webhooks.sender import Sender

_PLACE = re.compile(r"([0-9]{1,15})-([0-9]{1,6})", re.ASCII)


class Webhooks(Controller):
    """Made and looked after by admins, each within the scope of their token."""

    tags = ["webhooks"]

    @post("/v1/webhooks", opt=allowed(Role.ADMIN))
    async def create(self, request: AnyRequest, data: JSONBody[CreateWebhook]) -> Response[Any]:
        sender = _sender(request)
        return await run(
            request, partial(webhooks.create, request=data, allow=sender.allow, secret_of=sender.secret_of)
        )

    @get("/v1/webhooks", opt=allowed(Role.ADMIN))
    async def list_webhooks(self, request: AnyRequest) -> list[WebhookInfo]:
        return await ask(request, webhooks.listed)

    @delete("/v1/webhooks/{webhook_id:str}", opt=allowed(Role.ADMIN), status_code=200)
    async def remove(self, request: AnyRequest, webhook_id: FromPath[str]) -> Response[Any]:
        return await run(request, partial(webhooks.delete, id_=webhook_id))

    @post("/v1/webhooks/{webhook_id:str}/test", opt=allowed(Role.ADMIN))
    async def test(self, request: AnyRequest, webhook_id: FromPath[str]) -> Response[Any]:
        """Send a message of type `webhook.test`; its delivery tells how that went."""
        return await run(request, partial(webhooks.test, id_=webhook_id))

    @get("/v1/webhooks/{webhook_id:str}/deliveries", opt=allowed(Role.ADMIN))
    async def deliveries(
        self, request: AnyRequest, webhook_id: FromPath[str], limit: Limit = 100, cursor: Cursor = None
    ) -> Page[DeliveryInfo]:
        """Newest first: what waits, and the last thousand of what is done."""
        await ask(request, partial(webhooks.find, id_=webhook_id))
        before = _read_place(cursor)
        found = await in_thread(request, lambda: _sender(request).deliveries.page(webhook_id, before, limit + 1))
        more = found[limit - 1] if len(found) > limit else None
        return Page(
            items=[_describe(one) for one in found[:limit]],
            next_cursor=write_cursor(f"{more.seq}-{more.position}") if more else None,
        )

    @post("/v1/webhooks/{webhook_id:str}/deliveries/{delivery:str}/redeliver", opt=allowed(Role.ADMIN))
    async def redeliver(self, request: AnyRequest, webhook_id: FromPath[str], delivery: FromPath[str]) -> Response[Any]:
        """Send a message once more, under the id it had."""
        await ask(request, partial(webhooks.find, id_=webhook_id))
        if not await in_thread(request, lambda: _sender(request).deliveries.has(webhook_id, delivery)):
            raise NotFound(f"webhook {webhook_id} has no delivery {delivery!r}; the last thousand are kept")
        return await run(request, partial(webhooks.redeliver, id_=webhook_id, delivery=delivery))


def _sender(request: AnyRequest) -> Sender:
    sender: Sender = request.app.state.webhooks
    return sender


def _read_place(cursor: str | None) -> tuple[int, int] | None:
    if not (key := read_cursor(cursor)):
        return None
    if not (match := _PLACE.fullmatch(key)):
        raise InvalidRequest("the cursor is not one of ours; begin without one")
    return int(match[1]), int(match[2])


def _describe(one: Delivery) -> DeliveryInfo:
    waits = one.state == DeliveryState.PENDING and one.due > 0
    return DeliveryInfo(
        id=one.id,
        webhook=one.webhook,
        type=one.type,
        sequence=one.seq,
        state=DeliveryState(one.state),
        attempts=one.attempts,
        next_attempt_at=_moment(one.due) if waits else None,
        last_attempt_at=_moment(one.tried_at) if one.tried_at is not None else None,
        status=one.status,
        error=one.error,
    )


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
