"""tunegate webhook: who is told of what, and how telling them went."""

import itertools
import time

import click
from msgspec import UNSET
from rich.markup import escape

from registry.cli.console import GO, NO_GO, UNDECIDED, connected, leave, show
from registry.client import Client
from registry.errors import InvalidRequest
from registry.records import CreateWebhook, DeliveryInfo, DeliveryState, WebhookEvent

EVENTS = click.Choice([event.value for event in WebhookEvent])
_EXIT_CODES = {DeliveryState.DELIVERED: GO, DeliveryState.FAILED: NO_GO, DeliveryState.PENDING: UNDECIDED}
_WAIT_SECONDS, _NEWEST = 15.0, 100


@click.group()
def webhook() -> None:
    """Tell other services of verdicts, reviews, approvals and revocations."""


@webhook.command(name="create")
@click.argument("address")
@click.option("--event", "events", type=EVENTS, multiple=True, help="Repeat for several. Default: all of them.")
@click.option("--scope", help="Limit it to a namespace or one adapter.")
def create_webhook(address: str, events: tuple[str, ...], scope: str | None) -> None:
    """Have messages sent to an https address; the secret that signs them is shown once."""
    wanted = [WebhookEvent(one) for one in events] or list(WebhookEvent)
    with connected() as client:
        made = client.create_webhook(CreateWebhook(url=address, events=wanted, scope=scope))
    if made.secret is UNSET:
        raise InvalidRequest(
            f"webhook {made.webhook.id} was made, but its secret was lost with the connection; delete it "
            f"(`tunegate webhook delete {made.webhook.id}`) and make another"
        )
    show(made, f"{made.webhook.id}\n{made.secret}")


@webhook.command(name="list")
def list_webhooks() -> None:
    """All webhooks in the scope of your token."""
    with connected() as client:
        found = client.webhooks()
    lines = [
        f"{one.id}  {escape(one.url)}  {escape(one.scope or 'all adapters')}  {', '.join(one.events)}"
        + (f"  [red]disabled {one.disabled_at}[/]: {escape(one.disabled_reason or '')}" if one.disabled_at else "")
        for one in found
    ]
    show(found, "\n".join(lines))


@webhook.command(name="delete")
@click.argument("webhook_id")
def delete_webhook(webhook_id: str) -> None:
    """Send nothing more to it; what waits is dropped."""
    with connected() as client:
        client.delete_webhook(webhook_id)
    show({"deleted": webhook_id}, f"webhook {webhook_id} is deleted")


@webhook.command(name="test")
@click.argument("webhook_id")
def test_webhook(webhook_id: str) -> None:
    """Send a message that tells of nothing, and say how its first attempt went."""
    with connected() as client:
        _follow(client, webhook_id, client.test_webhook(webhook_id).delivery)


@webhook.command(name="deliveries")
@click.argument("webhook_id")
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, newest first.")
def list_deliveries(webhook_id: str, limit: int) -> None:
    """What was sent to it, what waits, and what was given up."""
    with connected() as client:
        found = list(itertools.islice(client.deliveries(webhook_id), limit))
    show(found, "\n".join(_line(one) for one in found))


@webhook.command(name="redeliver")
@click.argument("webhook_id")
@click.argument("delivery_id")
def redeliver(webhook_id: str, delivery_id: str) -> None:
    """Send a message once more, under the id it had."""
    with connected() as client:
        client.redeliver(webhook_id, delivery_id)
    show({"delivery": delivery_id}, f"{delivery_id} is sent once more; `tunegate webhook deliveries` tells how it went")


def _follow(client: Client, webhook_id: str, delivery: str) -> None:
    """Wait for the first attempt of a delivery and exit by what came of it."""
    deadline = time.monotonic() + _WAIT_SECONDS
    found: DeliveryInfo | None = None
    while time.monotonic() < deadline and (found is None or not found.attempts):
        time.sleep(0.2)
        newest = itertools.islice(client.deliveries(webhook_id), _NEWEST)
        found = next((one for one in newest if one.id == delivery), None)
    if found is None:
        raise InvalidRequest(f"{delivery} is not sent yet; `tunegate webhook deliveries {webhook_id}` tells when it is")
    show(found, _line(found))
    leave(_EXIT_CODES[found.state])


def _line(one: DeliveryInfo) -> str:
    times = "1 attempt" if one.attempts == 1 else f"{one.attempts} attempts"
    tried = f"{times}, the last {one.last_attempt_at}" if one.last_attempt_at else "not tried yet"
    colour = {DeliveryState.DELIVERED: "green", DeliveryState.FAILED: "red", DeliveryState.PENDING: "yellow"}[one.state]
    later = f"; next {one.next_attempt_at}" if one.next_attempt_at and one.attempts else ""
    more = f": {escape(one.error)}" if one.error else ""
    return f"[{colour}]{one.state:<9}[/]  {one.id}  {one.type}  {tried}{later}{more}"


COMMANDS = (webhook,)
