"""Talking to a vLLM server: its answers in our types, its silence and its complaints as our errors."""

import json
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
import msgspec

from evaluator.engine import EngineDied, Unfit
from evaluator.vllm_process import last_words

_CONNECT_SECONDS = 10.0
_HEALTH_SECONDS = 5.0
_MOST_CONNECTIONS = 64

T = TypeVar("T")


class Reply(NamedTuple):
    """What the server said to a request, whatever its status."""

    status: int
    text: str

    @property
    def complaint(self) -> str:
        """The message of an error, in vLLM's words where it has some."""
        try:
            found = json.loads(self.text)
            error = found.get("error", found)
            words = error if isinstance(error, str) else error.get("message") or error.get("detail") or self.text
        except (ValueError, AttributeError):
            words = self.text
        return f"HTTP {self.status}: {str(words)[:500] or 'nothing'}"


class Wire:
    """A connection to `address`: http://host:port, or unix:/path/to.sock. Safe to use from several threads.

    Raises Unfit for an address that is none, EngineDied where nobody answers, or not for `silent_seconds`, with what is
    known of the server: its health and the end of its `log`, if that is at hand.
    """

    def __init__(self, address: str, silent_seconds: float, log: Path | None = None) -> None:
        self.address, self._silent_seconds, self._log = address, silent_seconds, log
        timeout = httpx.Timeout(silent_seconds, connect=min(silent_seconds, _CONNECT_SECONDS))
        limits = httpx.Limits(max_connections=_MOST_CONNECTIONS)
        none = f"{address!r} is no server's address; give http://host:port or unix:/path/to.sock"
        if address.startswith("unix:/"):
            transport = httpx.HTTPTransport(uds=address.removeprefix("unix:"), limits=limits)
            self._http = httpx.Client(base_url="http://server", transport=transport, timeout=timeout)
        elif address.startswith(("http://", "https://")):
            try:
                self._http = httpx.Client(base_url=address, limits=limits, timeout=timeout)
            except httpx.InvalidURL as error:
                raise Unfit(f"{none} ({error})") from None
        else:
            raise Unfit(none)

    def get(self, path: str) -> Reply:
        return self._ask("GET", path, None, None)

    def post(self, path: str, body: dict[str, Any], seconds: float | None = None) -> Reply:
        """`seconds`: how long to wait for an answer, if not `silent_seconds`."""
        return self._ask("POST", path, body, seconds)

    def read(self, reply: Reply, kind: type[T]) -> T:
        """An answer as a value of this type. Numbers may be NaN, as Python writes them, or null."""
        try:
            return msgspec.convert(json.loads(reply.text), kind)
        except (ValueError, msgspec.ValidationError) as error:
            raise EngineDied(
                f"{self.address} answered {reply.text[:300]!r}, which is not what vLLM says: {error}"
            ) from None

    def died(self, what: str) -> EngineDied:
        """An error that tells what happened and how the server is."""
        return EngineDied(f"{self.address} {what}; {self._health()}")

    def close(self) -> None:
        self._http.close()

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, seconds: float | None) -> Reply:
        timeout = httpx.USE_CLIENT_DEFAULT if seconds is None else seconds
        try:
            answer = self._http.request(method, path, json=body, timeout=timeout)
        except httpx.ConnectTimeout:
            raise self.died("does not let anybody in") from None
        except httpx.TimeoutException:
            raise self.died(f"was silent for {seconds or self._silent_seconds:g} s") from None
        except (httpx.TransportError, RuntimeError) as error:  # RuntimeError: closed meanwhile
            raise self.died(f"does not answer ({type(error).__name__}: {error})") from None
        return Reply(answer.status_code, answer.text)

    def _health(self) -> str:
        try:
            found = f"its /health says {self._http.get('/health', timeout=_HEALTH_SECONDS).status_code}"
        except (httpx.TransportError, RuntimeError):
            found = "nor does its /health"
        return found if self._log is None else f"{found}; its last words: {last_words(self._log)}"
