"""Calls of whoever looks after a registry: who may come in and sign, who is told of what, and the audit log."""

from collections.abc import Iterator
from urllib.parse import quote

from registry.client.calls import Call
from registry.client.sender import Sender
from registry.records import (
    AddKey,
    AddPublisher,
    ConsistencyProof,
    CreateToken,
    CreateWebhook,
    DeliveryAccepted,
    DeliveryInfo,
    InclusionProof,
    JournalEntry,
    KeySet,
    MintToken,
    Page,
    PublicKey,
    PublisherInfo,
    Revoke,
    TokenCreated,
    TokenInfo,
    WebhookCreated,
    WebhookInfo,
)


class Administration(Sender):
    """Tokens, CI publishers, signing keys, webhooks and the journal."""

    def create_token(self, request: CreateToken) -> TokenCreated:
        return self._send(Call("POST", "/v1/tokens", TokenCreated, request))

    def tokens(self) -> list[TokenInfo]:
        return self._send(Call("GET", "/v1/tokens", list[TokenInfo]))

    def revoke_token(self, token_id: str) -> None:
        self._send(Call("DELETE", f"/v1/tokens/{quote(token_id, safe='')}", type(None)))

    def mint(self, request: MintToken) -> TokenCreated:
        """Exchange a CI's own token for one of ours; the client needs none for it."""
        return self._send(Call("POST", "/v1/oidc/mint", TokenCreated, request))

    def add_publisher(self, request: AddPublisher) -> PublisherInfo:
        return self._send(Call("POST", "/v1/publishers", PublisherInfo, request))

    def publishers(self) -> list[PublisherInfo]:
        return self._send(Call("GET", "/v1/publishers", list[PublisherInfo]))

    def remove_publisher(self, publisher_id: str) -> None:
        self._send(Call("DELETE", f"/v1/publishers/{quote(publisher_id, safe='')}", type(None)))

    def keys(self) -> KeySet:
        return self._send(Call("GET", "/v1/keys", KeySet))

    def add_key(self, request: AddKey) -> PublicKey:
        return self._send(Call("POST", "/v1/keys", PublicKey, request))

    def revoke_key(self, key_id: str, reason: str) -> PublicKey:
        path = f"/v1/keys/{quote(key_id, safe='')}/revoke"
        return self._send(Call("POST", path, PublicKey, Revoke(reason=reason)))

    def create_webhook(self, request: CreateWebhook) -> WebhookCreated:
        return self._send(Call("POST", "/v1/webhooks", WebhookCreated, request))

    def webhooks(self) -> list[WebhookInfo]:
        return self._send(Call("GET", "/v1/webhooks", list[WebhookInfo]))

    def delete_webhook(self, webhook_id: str) -> None:
        self._send(Call("DELETE", _webhook_path(webhook_id), type(None)))

    def test_webhook(self, webhook_id: str) -> DeliveryAccepted:
        return self._send(Call("POST", f"{_webhook_path(webhook_id)}/test", DeliveryAccepted))

    def deliveries(self, webhook_id: str) -> Iterator[DeliveryInfo]:
        """Newest first."""
        return self._pages(f"{_webhook_path(webhook_id)}/deliveries", Page[DeliveryInfo], {})

    def redeliver(self, webhook_id: str, delivery: str) -> DeliveryAccepted:
        path = f"{_webhook_path(webhook_id)}/deliveries/{quote(delivery, safe='')}/redeliver"
        return self._send(Call("POST", path, DeliveryAccepted))

    def audit_events(self, after: int = 0) -> Iterator[JournalEntry]:
        while page := self._send(Call("GET", "/v1/audit/events", list[JournalEntry], params={"after": after})):
            yield from page
            after = page[-1].seq

    def checkpoint(self) -> str:
        """A signed note of how far the journal is and of what is in it; `registry.audit.checkpoint` reads it."""
        return self._exchange("GET", "/v1/audit/checkpoint").text

    def inclusion(self, seq: int, size: int) -> InclusionProof:
        """That entry `seq` is in the tree of a checkpoint of this size."""
        return self._send(Call("GET", "/v1/audit/proof", InclusionProof, params={"seq": seq, "size": size}))

    def consistency(self, older: int, newer: int) -> ConsistencyProof:
        """That the tree of a checkpoint of size `newer` begins with that of one of size `older`."""
        sizes = {"from": older, "to": newer}
        return self._send(Call("GET", "/v1/audit/consistency", ConsistencyProof, params=sizes))


def _webhook_path(webhook_id: str) -> str:
    return f"/v1/webhooks/{quote(webhook_id, safe='')}"
