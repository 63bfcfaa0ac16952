"""What one connection may cost: time and bytes for the head, a least speed for the body and for reading the answer.

uvicorn 0.54 bounds only the pause between two requests. Everything here answers with problem+json where an answer can
still be given, and cuts the connection where it cannot.

One address holds a share of the connections at most, so that nobody alone keeps everyone else out. A trusted proxy is
exempt: its connections carry the requests of many clients, who are not known before a request is.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from registry.api.visitors import Network, client_of, is_in

MAX_CONNECTIONS = 1000
MAX_HEADERS = 100
MAX_HEAD_BYTES = 32 * 1024
HEAD_SECONDS = 10.0
# Slower than this over two looks is no upload but a way to hold a connection.
BODY_BYTES_PER_SECOND = 1024
STALLED_ANSWER_SECONDS = 60.0
LOOK_SECONDS = 5.0

_TITLES = {
    400: "Malformed request",
    408: "Too slow",
    429: "Too many requests",
    431: "Request head too large",
    503: "Unavailable",
}
_RETRY_SECONDS = {429: 5, 503: 5}


class _HeadTooLarge(Exception):
    """Raised inside the parser's callbacks to stop it."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with limits; give it, or what `bounded` makes of it, to `uvicorn.Config(http=...)`."""

    per_address = MAX_CONNECTIONS
    proxies: Sequence[Network] = ()
    address: str | None = None  # whose share this connection is of; None for a trusted proxy's

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head_since: float | None = None
        self._head_bytes = 0
        self._body_open = False
        self._body_bytes = self._body_seen = self._slow_looks = 0
        self._stalled_since: float | None = None
        self._looking: asyncio.TimerHandle | None = None
        self._refusal = (400, "malformed", "this is not an HTTP/1.1 request")

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "unavailable", f"more than {MAX_CONNECTIONS} connections are open; try again in a moment")
            return
        peer = self.client[0] if self.client else ""
        if not is_in(peer, self.proxies):
            self.address = client_of(peer, (), ())
            held = sum(isinstance(one, BoundedProtocol) and one.address == self.address for one in self.connections)
            if held > self.per_address:
                detail = f"this address holds {self.per_address} connections already, its share; close some"
                self._refuse(429, "too_many_requests", detail)
                return
        self._head_since = self.loop.time()
        self._looking = self.loop.call_later(LOOK_SECONDS, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking:
            self._looking.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_since is not None:
            # A header without an end never reaches `on_header`.
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(431, "head_too_large", _head_text())

    def on_message_begin(self) -> None:
        self._head_since, self._head_bytes = self.loop.time(), 0
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        if len(self.headers) > MAX_HEADERS or self._head_bytes + len(self.url) > MAX_HEAD_BYTES:
            self._refusal = (431, "head_too_large", _head_text())
            raise _HeadTooLarge

    def on_headers_complete(self) -> None:
        self._head_since, self._head_bytes = None, 0
        self._body_open, self._body_bytes, self._body_seen, self._slow_looks = True, 0, 0, 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._body_open = False
        super().on_message_complete()

    def pause_writing(self) -> None:
        self._stalled_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._stalled_since = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(*self._refusal)

    def _look(self) -> None:
        """Cut a connection that gives too little for too long; otherwise look again later."""
        now = self.loop.time()
        if self._head_since is not None and now - self._head_since > HEAD_SECONDS:
            self._refuse(408, "too_slow", f"the request's head did not arrive within {HEAD_SECONDS:.0f} s")
        elif self._stalled_since is not None and now - self._stalled_since > STALLED_ANSWER_SECONDS:
            self.transport.abort()
        elif self._is_slow():
            self._refuse(408, "too_slow", f"the body arrives slower than {BODY_BYTES_PER_SECOND} bytes a second")
        else:
            self._looking = self.loop.call_later(LOOK_SECONDS, self._look)

    def _is_slow(self) -> bool:
        """Whether the body was too slow at two looks in a row, while we were ready to read it."""
        arrived = self._body_bytes - self._body_seen
        self._body_seen = self._body_bytes
        slow = self._body_open and not self.flow.read_paused and arrived < BODY_BYTES_PER_SECOND * LOOK_SECONDS
        self._slow_looks = self._slow_looks + 1 if slow else 0
        return self._slow_looks > 1

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer, if nothing has been answered on this connection's request yet, and close."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            document = {
                "type": f"https://tunegate.dev/problems/{code}",
                "title": _TITLES[status],
                "status": status,
                "detail": detail,
                "code": code,
            }
            body = msgspec.json.encode(document)
            head = b"content-type: application/problem+json\r\nconnection: close\r\ncontent-length: %d\r\n" % len(body)
            if status in _RETRY_SECONDS:
                head += b"retry-after: %d\r\n" % _RETRY_SECONDS[status]
            self.transport.write(STATUS_LINE[status] + head + b"\r\n" + body)
        self.transport.close()


def bounded(per_address: int, proxies: Sequence[Network]) -> type[BoundedProtocol]:
    """The protocol of a server where one address, unless it is a proxy's, may have so many connections open."""
    return type("BoundedProtocol", (BoundedProtocol,), {"per_address": per_address, "proxies": proxies})


def _head_text() -> str:
    return f"the request's head has more than {MAX_HEADERS} headers or {MAX_HEAD_BYTES} bytes; send less"
