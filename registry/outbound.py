"""Calls to other servers at addresses that a person gave us: the only door through which this service calls out.

A call goes by https to a public address or not at all. The name is resolved once, every address found must be public,
and the connection goes to exactly what was checked, so a name that changes its answer gains nothing. Redirects are
answers like any other; proxies, cookies and environment play no part. Each call has one budget of seconds and bytes,
whatever the other side does: a slow drip is cut.

    answer = fetch("https://ci.example/keys.json")
    answer = post("https://hooks.example/tunegate", body, {"content-type": "application/json"})

`allow` names places as `host:port` that are exempt: called by plain http too, and at any address. It is for tests and
for receivers inside one's own network, and it is unsafe: whoever answers for such a name decides what is called.
"""

import functools
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpcore
import httpx

from registry import __version__
from registry.errors import AddressRefused, OutboundFailed

MOST_SECONDS = 5.0
MOST_BYTES = 64 * 1024
_MOST_URL = 2000
_MOST_ADDRESSES = 4  # of one name that are tried; all of them are checked
_LOOKUPS = threading.BoundedSemaphore(64)  # bounds the threads that wait for a name server that does not answer
_TEXT = re.compile(r"[\x21-\x5b\x5d-\x7e]+", re.ASCII)  # visible ASCII without the backslash
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9.])?", re.ASCII)
_IPV6 = re.compile(r"[0-9a-f:.]{2,45}", re.ASCII)
_PORTS = {"https": 443, "http": 80}

# IANA's special-purpose registries (RFC 6890 and its updates); `ipaddress.is_global` differs between Python versions.
_SPECIAL_V4 = [
    ipaddress.IPv4Network(one)
    for one in (
        "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24 "
        "192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4"
    ).split()
]
# Global unicast is all inside 2000::/3: mapped, NAT64, unique local, link-local and multicast lie outside of it.
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = [
    ipaddress.IPv6Network(one)
    for one in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")  # Teredo and others, examples, 6to4, examples
]


class Answer(NamedTuple):
    """What the other side said; header names in lower case, `body` empty where it was not asked for."""

    status: int
    headers: dict[str, str]
    body: bytes


class Target(NamedTuple):
    """A checked URL, in parts; `path` has the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def place(self) -> str:
        """`host:port` as an allow-list writes it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Wires(NamedTuple):
    """What touches the network: how a name is looked up and a connection made, whom TLS trusts, and for how long."""

    resolve: Callable[[str], Sequence[str]]
    dial: Callable[[str, int, float], socket.socket]
    tls: Callable[[], ssl.SSLContext]
    seconds: float


def addresses_of(host: str) -> list[str]:
    """Every address of a name, or of a number in any of its forms (`127.1`, `0x7f000001`); raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(one[4][0]) for one in found))


def _dial(address: str, port: int, seconds: float) -> socket.socket:
    return socket.create_connection((address, port), timeout=seconds)


# Once: loading the trusted certificates takes tens of milliseconds. SSL_CERT_FILE names others.
WIRES = Wires(addresses_of, _dial, functools.cache(httpx.create_ssl_context), MOST_SECONDS)


def fetch(url: str, *, allow: frozenset[str] = frozenset(), wires: Wires = WIRES) -> Answer:
    """GET a small document. Whatever its status: the caller judges that.

    Raises AddressRefused for an address that must not be called, OutboundFailed when there is no whole answer of at
    most 64 KiB within 5 seconds.
    """
    return _call("GET", check_url(url, allow), {}, None, allow, wires)


def post(
    url: str, body: bytes, headers: Mapping[str, str], *, allow: frozenset[str] = frozenset(), wires: Wires = WIRES
) -> Answer:
    """POST a body and return status and headers; the answer's body is not read.

    Raises as `fetch`.
    """
    return _call("POST", check_url(url, allow), headers, body, allow, wires)


def check_url(url: str, allow: frozenset[str] = frozenset()) -> Target:
    """The parts of a URL that may be called, as far as that can be said without asking a name server.

    >>> check_url("https://hooks.example/tunegate?team=a").place
    'hooks.example:443'
    """
    if len(url) > _MOST_URL or not _TEXT.fullmatch(url):
        raise AddressRefused(f"a URL has 1 to {_MOST_URL} visible ASCII characters and no backslash; write it so")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressRefused(f"the URL {url!r} cannot be read: {error}") from None
    host = parts.hostname or ""
    written_right = (_IPV6 if "[" in parts.netloc else _NAME).fullmatch(host) and parts.scheme in _PORTS and port != 0
    if not written_right or "@" in parts.netloc or "#" in url:
        raise AddressRefused(
            f"the URL {url!r} is not of the form https://host/path, without user, password or fragment"
        )
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    target = Target(parts.scheme, host, port or _PORTS[parts.scheme], path)
    if target.place not in allow:
        if target.scheme != "https":
            raise AddressRefused(f"{url!r} is not https; what is sent could be read on its way. Use https")
        _check_public(target.host, _written_addresses(target.host))
    return target


def is_public(address: str) -> bool:
    """Whether an address is one of the public internet.

    Refused, besides what is private, local, multicast or reserved: every IPv6 form that carries an IPv4 address.

    >>> [is_public(one) for one in ("93.184.215.14", "10.0.0.1", "::ffff:93.184.215.14", "2606:2800:21f::1")]
    [True, False, False, True]
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, ipaddress.IPv4Address):
        return not any(found in one for one in _SPECIAL_V4)
    return found in _GLOBAL_V6 and not any(found in one for one in _SPECIAL_V6)


def _written_addresses(host: str) -> list[str]:
    """The address that a host spells out in numbers, in any form the system reads; nothing for a name."""
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return []
    return [str(one[4][0]) for one in found]


def _check_public(host: str, addresses: Iterable[str]) -> None:
    # Without the address: what a private name server answers is no business of whoever may name a host.
    if not all(is_public(address) for address in addresses):
        raise AddressRefused(
            f"{host!r} is not at a public address; such hosts are called only where TUNEGATE_OUTBOUND_ALLOW names them"
        )


def _call(
    method: str, target: Target, headers: Mapping[str, str], body: bytes | None, allow: frozenset[str], wires: Wires
) -> Answer:
    budget = _Budget(wires.seconds)
    sent = {"host": _host_header(target), "connection": "close", "user-agent": f"tunegate/{__version__}", **headers}
    url = httpcore.URL(
        scheme=target.scheme.encode(), host=target.host.encode(), port=target.port, target=target.path.encode()
    )
    backend = _CheckedBackend(target.place in allow, wires, budget)
    try:
        with (
            httpcore.ConnectionPool(ssl_context=wires.tls(), network_backend=backend) as pool,
            pool.stream(method, url, headers=list(sent.items()), content=body) as response,
        ):
            whole = response.read() if method == "GET" else b""
    except TimeoutError:
        raise OutboundFailed(f"{target.place} took longer than {wires.seconds:g} s") from None
    except (OSError, httpcore.NetworkError) as error:
        raise OutboundFailed(f"{target.place} cannot be reached: {error}") from None
    except httpcore.ProtocolError as error:
        raise OutboundFailed(f"{target.place} did not answer in HTTP/1.1: {error}") from None
    found = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in response.headers}
    return Answer(response.status, found, whole)


def _host_header(target: Target) -> str:
    return target.place.removesuffix(f":{_PORTS[target.scheme]}")


class _Budget:
    """What a call may still cost, across every step of it."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        self._bytes_left = MOST_BYTES

    def seconds(self) -> float:
        """The time left; TimeoutError where there is none."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def receive(self, read: Callable[[int], bytes], wanted: int) -> bytes:
        """Read, one byte beyond what is left at most; OutboundFailed if the answer goes on beyond that."""
        data = read(min(wanted, self._bytes_left + 1))
        self._bytes_left -= len(data)
        if self._bytes_left < 0:
            raise OutboundFailed(f"the answer has more than {MOST_BYTES} bytes; nothing of it is used")
        return data


class _CheckedBackend(httpcore.NetworkBackend):
    """Resolves once, checks every address, and connects to one of those."""

    def __init__(self, exempt: bool, wires: Wires, budget: _Budget) -> None:
        self._exempt, self._wires, self._budget = exempt, wires, budget

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        addresses = _in_time(self._wires.resolve, host, self._budget)
        if not self._exempt:
            _check_public(host, addresses)
        failure, tried = OSError("it has no address"), addresses[:_MOST_ADDRESSES]
        for left, address in zip(range(len(tried), 0, -1), tried, strict=True):
            try:
                # Its share of the time, so that one that does not answer leaves some to the others.
                connection = self._wires.dial(address, port, self._budget.seconds() / left)
                return _BudgetedStream(connection, self._budget)
            except OSError as error:
                failure = error
        raise failure


class _BudgetedStream(httpcore.NetworkStream):
    """A socket whose every step takes from the one budget; httpcore's own would give each step its time anew."""

    def __init__(self, connection: socket.socket, budget: _Budget) -> None:
        self._socket, self._budget = connection, budget

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._socket.settimeout(self._budget.seconds())
        return self._budget.receive(self._socket.recv, max_bytes)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        view = memoryview(buffer)
        while view:
            self._socket.settimeout(self._budget.seconds())
            try:
                view = view[self._socket.send(view) :]
            except TimeoutError:
                raise
            except OSError as error:
                # httpcore then still reads an answer that came before the connection was closed.
                raise httpcore.WriteError(str(error)) from error

    def close(self) -> None:
        self._socket.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        self._socket.settimeout(self._budget.seconds())
        try:
            # Since Python 3.5 the whole handshake shares this timeout.
            return _BudgetedStream(ssl_context.wrap_socket(self._socket, server_hostname=server_hostname), self._budget)
        except BaseException:
            self._socket.close()
            raise

    def get_extra_info(self, info: str) -> Any:
        """Nothing: httpcore asks for what HTTP/2 and kept connections need."""
        return None


def _in_time(resolve: Callable[[str], Sequence[str]], host: str, budget: _Budget) -> Sequence[str]:
    """Look a name up on a thread of its own: the system's resolver knows no timeout."""
    answer: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()
    lookups = _LOOKUPS

    def look_up() -> None:
        try:
            answer.put(resolve(host))
        except (OSError, UnicodeError) as error:
            answer.put(OSError(f"its name cannot be resolved ({error})"))
        finally:
            lookups.release()

    if not lookups.acquire(timeout=budget.seconds()):
        raise TimeoutError
    threading.Thread(target=look_up, name="tunegate-resolver", daemon=True).start()
    try:
        found = answer.get(timeout=budget.seconds())
    except queue.Empty:
        raise TimeoutError from None
    if isinstance(found, Exception):
        raise found
    return found
