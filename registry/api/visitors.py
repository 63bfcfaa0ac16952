"""Who is at the other end of a connection, and whether they mean us: addresses, proxies, host names, refusals.

What a client says of itself (Host, X-Forwarded-*) is believed only as far as a setting says so: the address of a client
is that of the connection, unless the connection is a named proxy's.
"""

import contextlib
import ipaddress
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from litestar import Request
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from registry.api.limits import Buckets, Rates
from registry.api.problems import on_tunegate_error
from registry.commands.tokens import refused
from registry.errors import InvalidRequest, Refusal, TunegateError, Unauthenticated, WrongHost
from registry.names import sha256_hex
from registry.registry import SYSTEM, Registry

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_TOKEN_IN_ADDRESS = re.compile(rb"tg(?:_|%5[fF])[a-z]+(?:_|%5[fF])[0-9a-f]{12}(?:_|%5[fF])")
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^:\[\]]+)(?::\d{1,5})?", re.ASCII)
_MOST_TOLD = 10_000
_MOST_GOOD_HOSTS = 100


class Trust(NamedTuple):
    """hosts: lower-case names that this service answers to, besides any address and `localhost`.

    proxies: whose X-Forwarded-For and X-Forwarded-Proto are believed.
    """

    hosts: frozenset[str] = frozenset()
    proxies: tuple[Network, ...] = ()


def require_host(value: str, hosts: frozenset[str]) -> None:
    """WrongHost unless the Host header names an address, `localhost` or one of the hosts.

    A page of another site whose name was made to point here (DNS rebinding) sends that name; it cannot send an address.
    """
    match = _HOST.fullmatch(value.strip().lower())
    name = match[1].removesuffix(".") if match else ""
    if name != "localhost" and name not in hosts and not _is_address(name.strip("[]")):
        raise WrongHost(
            f"host {value[:100]!r} is not one that this service answers for; name it in TUNEGATE_HOSTS if it is"
        )


def client_of(peer: str, forwarded_for: Sequence[str], proxies: Sequence[Network]) -> str:
    """The address a request comes from; of IPv6 its /64, which one household or machine has whole.

    X-Forwarded-For is read from its end for as long as who added the entry is a trusted proxy.
    """
    hops = [one.strip() for value in forwarded_for for one in value.split(",")]
    client = peer
    while hops and is_in(client, proxies):
        client = hops.pop()
    if not _is_address(client):
        return "unknown"
    address = _address(client)
    if isinstance(address, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def is_https(scheme: str, peer: str, forwarded_proto: Sequence[str], proxies: Sequence[Network]) -> bool:
    """Whether the client's own connection is encrypted, by the word of a trusted proxy where there is one."""
    if is_in(peer, proxies) and forwarded_proto:
        return forwarded_proto[-1].rpartition(",")[2].strip().lower() == "https"
    return scheme == "https"


class Visitors:
    """What is counted and remembered about who calls; lives as long as the application. For the event loop's thread."""

    def __init__(self, registry: Registry, trust: Trust, rates: Rates) -> None:
        self._registry, self.trust = registry, trust
        self.failures, self.mints = Buckets(rates.failures), Buckets(rates.mints)
        self.creations = Buckets(rates.creations)
        self.requests = Buckets(rates.requests) if rates.requests else None
        self._told: dict[tuple[str, Refusal], datetime] = {}

    def address(self, scope: Mapping[str, Any]) -> str:
        return client_of(_peer(scope), _headers(scope, b"x-forwarded-for"), self.trust.proxies)

    def comes_by_https(self, scope: Mapping[str, Any]) -> bool:
        forwarded = _headers(scope, b"x-forwarded-proto")
        return is_https(scope["scheme"], _peer(scope), forwarded, self.trust.proxies)

    def count_failure(self, scope: Mapping[str, Any], error: Unauthenticated) -> None:
        """A token was refused: counted for its address, and told to the journal if it is one of ours.

        TooManyRequests where this address has failed too often. Good tokens never come here, so they are not held up.
        """
        if error.token is not None and error.reason is not None:
            self.tell(error.token, error.reason)
        self.failures.take(self.address(scope), "refused tokens from this address")

    def tell(self, token: str, reason: Refusal) -> None:
        """Journal that a known token was refused: once an hour for each token and reason, so a flood leaves no trace.

        Whoever asks does not wait for it.
        """
        hour = self._registry.now().replace(minute=0, second=0, microsecond=0)
        if self._told.get((token, reason)) == hour:
            return
        if len(self._told) >= _MOST_TOLD:
            self._told = {key: told for key, told in self._told.items() if told == hour}
            if len(self._told) >= _MOST_TOLD:
                return
        self._told[token, reason] = hour
        with contextlib.suppress(TunegateError):
            self._registry.submit(SYSTEM, partial(refused, token=token, reason=reason))


class Threshold:
    """ASGI middleware before everything that answers: host names, tokens in addresses, and how often one token asks."""

    def __init__(self, app: ASGIApp, visitors: Visitors) -> None:
        self._app, self._visitors = app, visitors
        self._good_hosts: set[bytes] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            try:
                self._check(scope)
            except TunegateError as error:
                await _refuse(error, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _check(self, scope: Any) -> None:
        host, token = b"", None
        for name, value in scope["headers"]:
            if name == b"host":
                host += value  # a second one makes it a name that nobody has
            elif name == b"authorization":
                token = value
        if host not in self._good_hosts:
            require_host(host.decode("latin-1"), self._visitors.trust.hosts)
            if len(self._good_hosts) < _MOST_GOOD_HOSTS:
                self._good_hosts.add(host)
        if b"tg" in scope["query_string"] and _TOKEN_IN_ADDRESS.search(scope["query_string"]):
            raise InvalidRequest(
                "a token stands in the address, where logs and histories keep it: revoke it, and send its successor in "
                "the header `Authorization: Bearer tg_…`"
            )
        if token is not None and self._visitors.requests is not None:
            self._visitors.requests.take(sha256_hex(token), "requests with this token")


async def _refuse(error: TunegateError, scope: Any, receive: Receive, send: Send) -> None:
    request: Request[Any, Any, Any] = Request(scope)
    answer = on_tunegate_error(request, error).to_asgi_response(None, request)
    await answer(scope, receive, send)


def _peer(scope: Mapping[str, Any]) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _headers(scope: Mapping[str, Any], wanted: bytes) -> list[str]:
    return [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An address; what carries an IPv4 address inside IPv6 is that."""
    found = ipaddress.ip_address(text)
    return (found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None) or found


def _is_address(text: str) -> bool:
    try:
        _address(text)
    except ValueError:
        return False
    return True


def is_in(text: str, networks: Sequence[Network]) -> bool:
    """Whether this is an address in one of the networks."""
    return bool(networks) and _is_address(text) and any(_address(text) in network for network in networks)
