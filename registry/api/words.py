"""What people write in a review lies in a blob, so that it can be erased, and in none before a command would take it.

So a refusal, and an answer that is repeated, store nothing: above all not what was erased since it was first sent.
"""

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from registry.access import Principal
from registry.api.door import AnyRequest, in_thread
from registry.commands.context import Command, Context, Outcome
from registry.commands.erasure import discard_unneeded
from registry.errors import TunegateError, Unavailable
from registry.names import sha256_hex
from registry.registry import Registry

T = TypeVar("T")
_MOST_STORED = 3


async def run_with_words(
    request: AnyRequest,
    principal: Principal,
    text: str,
    command: Callable[[str], Command],
    execute: Callable[[Command], Awaitable[T]],
) -> T:
    """Execute the command that names the text, given its sha256; the bytes are stored once it was found to be taken.

    Where it is not taken after all, because the state moved meanwhile, they are deleted again unless others need them.
    """
    registry: Registry = request.app.state.registry
    data = text.encode()
    sha256 = sha256_hex(data)
    naming = _Naming(command(sha256), sha256)
    stored = 0
    try:
        while True:
            try:
                return await execute(naming)
            except Unavailable:
                if not naming.is_missing or stored == _MOST_STORED:
                    raise
            stored += 1
            await in_thread(request, partial(registry.blobs.put, data))
    finally:
        if stored:
            discard = partial(discard_unneeded, blobs=[sha256])
            # The command's own answer is what counts; what stays is left over, and a scrub collects it.
            with contextlib.suppress(TunegateError):
                await in_thread(request, partial(registry.execute, principal, discard))


class _Naming:
    """A command that names a blob, and is refused where that is all that is missing."""

    def __init__(self, command: Command, sha256: str) -> None:
        self._command, self._sha256 = command, sha256
        self.is_missing = False

    def __call__(self, context: Context) -> Outcome:
        self.is_missing = False
        outcome = self._command(context)
        # Asked where blobs are deleted too, so what is there now stays.
        self.is_missing = bool(outcome.events) and not context.services.blobs.has(self._sha256)
        if self.is_missing:
            raise Unavailable("what you wrote was deleted at this moment, as the same words were erased; send it again")
        return outcome
