"""Calls about adapters and their versions: submitting one, what the gate says of it, and what is approved."""

from collections.abc import Iterator
from urllib.parse import quote

from registry.client.calls import Call, adapter_path, alias_call, gate_call, match_header, resolve_call, version_path
from registry.client.sender import Sender
from registry.records import (
    AdapterInfo,
    AliasInfo,
    AliasMove,
    Bundle,
    Countersign,
    CreateAdapter,
    Envelope,
    GateReport,
    ItemRow,
    Page,
    Policy,
    PolicyInfo,
    Promote,
    Proposal,
    RegisterSuite,
    Reject,
    Resolved,
    Revoke,
    Rollback,
    SubmitVersion,
    Suite,
    VersionCreated,
    VersionInfo,
)


class Adapters(Sender):
    """Adapters, policies, suites, versions and aliases."""

    def create_adapter(self, request: CreateAdapter) -> AdapterInfo:
        return self._send(Call("POST", "/v1/adapters", AdapterInfo, request))

    def adapter(self, adapter: str) -> AdapterInfo:
        return self._send(Call("GET", adapter_path(adapter), AdapterInfo))

    def adapters(self) -> Iterator[AdapterInfo]:
        return self._pages("/v1/adapters", Page[AdapterInfo], {})

    def policy(self, adapter: str) -> PolicyInfo:
        return self._send(Call("GET", f"{adapter_path(adapter)}/policy", PolicyInfo))

    def set_policy(self, adapter: str, policy: Policy, *, if_match: str | None = None) -> PolicyInfo:
        call = Call("PUT", f"{adapter_path(adapter)}/policy", PolicyInfo, policy, headers=match_header(if_match))
        return self._send(call)

    def register_suite(self, request: RegisterSuite) -> Suite:
        return self._send(Call("POST", "/v1/suites", Suite, request))

    def suites(self) -> list[Suite]:
        return self._send(Call("GET", "/v1/suites", list[Suite]))

    def submit(self, adapter: str, request: SubmitVersion) -> VersionCreated:
        return self._send(Call("POST", f"{adapter_path(adapter)}/versions", VersionCreated, request))

    def complete(self, ref: str) -> VersionCreated:
        return self._send(Call("POST", f"{version_path(ref)}/complete", VersionCreated))

    def version(self, ref: str) -> VersionInfo:
        return self._send(Call("GET", version_path(ref), VersionInfo))

    def versions(
        self, adapter: str, states: list[str] | None = None, where: str | None = None
    ) -> Iterator[VersionInfo]:
        """Newest first. where: conditions on what the gate observed, as `accuracy >= 0.85 and perplexity < 6`."""
        wanted = {"state": states or []} | ({"where": where} if where is not None else {})
        return self._pages(f"{adapter_path(adapter)}/versions", Page[VersionInfo], wanted)

    def gate(self, ref: str) -> GateReport:
        return self._send(gate_call(ref))

    def bundle(self, ref: str) -> Bundle:
        """What the verdict was decided from; `evidence.rows` names the blob that belongs to it."""
        return self._send(Call("GET", f"{version_path(ref)}/bundle", Bundle))

    def items(self, ref: str, suite: str) -> Iterator[ItemRow]:
        return self._pages(f"{version_path(ref)}/items", Page[ItemRow], {"suite": suite})

    def resolve(self, ref: str) -> Resolved:
        return self._send(resolve_call(ref))

    def promote(
        self, ref: str, alias: str = "approved", *, if_match: str | None = None, reason: str | None = None
    ) -> AliasInfo:
        body = Promote(alias=alias, reason=reason)
        call = Call("POST", f"{version_path(ref)}/promote", AliasInfo, body, headers=match_header(if_match))
        return self._send(call)

    def rollback(self, adapter: str, to: int, reason: str, alias: str = "approved") -> AliasInfo:
        path = f"{adapter_path(adapter)}/aliases/{quote(alias, safe='')}/rollback"
        return self._send(Call("POST", path, AliasInfo, Rollback(to=to, reason=reason)))

    def revoke(self, ref: str, reason: str) -> VersionInfo:
        return self._send(Call("POST", f"{version_path(ref)}/revoke", VersionInfo, Revoke(reason=reason)))

    def reject(self, ref: str, reason: str) -> VersionInfo:
        """Refuse a version that was not approved yet, for good."""
        return self._send(Call("POST", f"{version_path(ref)}/reject", VersionInfo, Reject(reason=reason)))

    def alias(self, adapter: str, alias: str = "approved") -> AliasInfo:
        return self._send(alias_call(adapter, alias))

    def freshness(self, adapter: str, alias: str = "approved") -> Envelope:
        """The registry's signed word, good for a day, on what the alias names now."""
        return self._send(Call("GET", f"{adapter_path(adapter)}/aliases/{quote(alias, safe='')}/freshness", Envelope))

    def proposal(self, adapter: str, alias: str = "approved") -> Proposal:
        """The move of the alias that waits for a second signature."""
        return self._send(Call("GET", f"{adapter_path(adapter)}/aliases/{quote(alias, safe='')}/proposal", Proposal))

    def countersign(self, ref: str, request: Countersign) -> AliasInfo:
        return self._send(Call("POST", f"{version_path(ref)}/countersign", AliasInfo, request))

    def history(self, adapter: str, alias: str = "approved") -> list[AliasMove]:
        path = f"{adapter_path(adapter)}/aliases/{quote(alias, safe='')}/history"
        return self._send(Call("GET", path, list[AliasMove]))
