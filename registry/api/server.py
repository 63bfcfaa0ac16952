"""The HTTP server around the application: bounded connections, draining before the end, an end when storage failed."""

import signal
import time
from types import FrameType
from typing import Any

import uvicorn

from registry import settings
from registry.api.connections import bounded
from registry.registry import Registry

_GRACE_SECONDS = 10


class Server(uvicorn.Server):
    """Serves one registry.

    drain_seconds: how long, after the first signal, requests are still accepted while /readyz already says no, so that
    a load balancer can look away first.
    """

    def __init__(self, app: Any, registry: Registry, *, drain_seconds: float = 0.0) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=bounded(settings.address_connections(), settings.proxies()),
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                proxy_headers=False,  # registry/api/visitors.py decides whom to believe
                server_header=False,
                timeout_graceful_shutdown=_GRACE_SECONDS,
            )
        )
        self._registry, self._drain_seconds = registry, drain_seconds
        self._exit_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM:
            super().handle_exit(sig, frame)
        elif self._exit_at is None:
            # uvicorn would end the process by the signal; for a supervisor, having done what it asked is success.
            self._registry.drain()
            self._exit_at = time.monotonic() + self._drain_seconds

    async def on_tick(self, counter: int) -> bool:
        """Ends the service when it was asked to long enough ago, or when it can only answer that it cannot."""
        if self._exit_at is not None and time.monotonic() >= self._exit_at:
            self.should_exit = True
        if self._registry.damage:
            # Opening the home again recovers what can be recovered; a supervisor starts the process anew.
            self.should_exit = True
        return await super().on_tick(counter)
