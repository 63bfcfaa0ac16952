"""The keys with which issuers sign, fetched from where a publisher says they are, and kept for a while.

However many tokens arrive, an address is asked at most once a minute, and by one request at a time: an unknown `kid`,
which anyone can make up, must not become a stream of calls to somebody else's server.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from registry.errors import OutboundFailed, TunegateError, Unavailable
from registry.outbound import Answer
from registry.records import Jwk

_log = logging.getLogger("tunegate")
_KEEP_SECONDS = 600.0  # how long keys that the issuer withdrew are still believed
_AGAIN_SECONDS = 60.0
_MOST_KEYS = 50


class _Document(msgspec.Struct):
    """RFC 7517: what else is in it is not for us."""

    keys: list[Jwk]


class _Asked(NamedTuple):
    """The last answer, and when there was one; when the address was last asked, with or without success."""

    keys: Sequence[Jwk]
    answered: float | None
    asked: float


class KeySets:
    """Keys by address. fetch: as `registry.outbound.fetch`; called on a thread. For the event loop's thread only."""

    def __init__(self, fetch: Callable[[str], Answer], clock: Callable[[], float] = time.monotonic) -> None:
        self._fetch, self._clock = fetch, clock
        self._known: dict[str, _Asked] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def keys(self, url: str, key_id: str) -> Sequence[Jwk]:
        """What the address says, asked again where `key_id` is not among it. Raises Unavailable if nothing is known."""
        running = self._running.get(url)
        if running is None and self._should_ask(url, key_id):
            running = self._running[url] = asyncio.create_task(self._ask(url))
        if running is not None:
            # Shielded: others wait for the same answer.
            await asyncio.shield(running)
        kept = self.kept(url)
        if kept is None:
            raise Unavailable("the keys of this issuer cannot be fetched now; try again in a minute")
        return kept

    def kept(self, url: str) -> Sequence[Jwk] | None:
        """What the address said a while ago, without asking it; None where nothing that is recent enough is known."""
        known = self._known.get(url)
        if known is None or known.answered is None or self._clock() - known.answered > _KEEP_SECONDS + _AGAIN_SECONDS:
            return None
        return known.keys

    def _should_ask(self, url: str, key_id: str) -> bool:
        known = self._known.get(url)
        if known is None:
            return True
        now = self._clock()
        stale = known.answered is None or now - known.answered > _KEEP_SECONDS
        return (stale or all(key.kid != key_id for key in known.keys)) and now - known.asked >= _AGAIN_SECONDS

    async def _ask(self, url: str) -> None:
        try:
            before = self._known.get(url, _Asked((), None, 0.0))
            self._known[url] = before._replace(asked=self._clock())
            try:
                answer = await asyncio.to_thread(self._fetch, url)
                found = _keys_of(answer)
            except TunegateError as error:
                _log.warning("keys at %s: %s", url, error)
                return
            now = self._clock()
            self._known[url] = _Asked(found, now, now)
        finally:
            del self._running[url]


def _keys_of(answer: Answer) -> Sequence[Jwk]:
    if answer.status != 200:
        raise OutboundFailed(f"the answer has status {answer.status}, not 200")
    try:
        found = msgspec.json.decode(answer.body, type=_Document).keys
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise OutboundFailed("the answer is no JSON Web Key Set") from None
    if len(found) > _MOST_KEYS:
        raise OutboundFailed(f"the answer has more than {_MOST_KEYS} keys")
    return found
