"""Around every request: its time into the metrics, a line into the log, an id into the answer, a span where traced.

Answers that succeed without changing anything are counted, not logged: pollers would drown what matters.
"""

import logging
import secrets
import time
from typing import Any

from litestar.enums import ScopeType
from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

from registry.operations.metrics import Metrics
from registry.operations.tracing import Tracing, untraced

_log = logging.getLogger("tunegate.access")
_QUIET = frozenset({"GET", "HEAD", "OPTIONS"})
_METHODS = frozenset({*_QUIET, "POST", "PUT", "DELETE", "PATCH"})


class Observe:
    """ASGI middleware; the outermost one."""

    def __init__(self, app: ASGIApp, metrics: Metrics, tracing: Tracing | None) -> None:
        self._app, self._metrics = app, metrics
        self._span = tracing.span if tracing else untraced

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == ScopeType.HTTP:
            await self._observed(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _observed(self, scope: HTTPScope, receive: Receive, send: Send) -> None:
        began, status = time.perf_counter(), 500
        request_id = secrets.token_hex(8)
        method = scope["method"] if scope["method"] in _METHODS else "other"

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        self._metrics.in_flight.inc()
        with self._span(method, scope["headers"]) as answered:
            try:
                await self._app(scope, receive, noted)
            finally:
                self._metrics.in_flight.dec()
                route = scope.get("path_template") or "none"
                self._metrics.answered(method, route, status, time.perf_counter() - began)
                answered(route, status)
                if method not in _QUIET or status >= 400:
                    _note(scope, method, status, time.perf_counter() - began, request_id)


def _note(scope: Any, method: str, status: int, seconds: float, request_id: str) -> None:
    principal = scope.get("state", {}).get("principal")
    _log.info(
        "request",
        extra={
            "method": method,
            "path": scope.get("raw_path", b"").partition(b"?")[0].decode("ascii", "backslashreplace"),
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
            "token": principal.token if principal else None,
            "request": request_id,
        },
    )
