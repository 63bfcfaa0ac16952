"""What people write in a review is stored before the command that names it: as a blob, so that it can be erased."""

from collections.abc import Callable

from registry.access import Principal
from registry.api.door import AnyRequest, in_thread
from registry.commands.context import Context
from registry.errors import NotFound
from registry.names import sha256_hex
from registry.registry import Registry


async def store_words(request: AnyRequest, principal: Principal, own: Callable[[Context], None], text: str) -> str:
    """The sha256 of the text, whose bytes are stored unless `own` raises NotFound: a command that has no such subject
    refuses by itself, or it was answered before, and repeats that."""
    registry: Registry = request.app.state.registry
    data = text.encode()

    def store() -> str:
        try:
            registry.ask(principal, own)
        except NotFound:
            return sha256_hex(data)
        return registry.blobs.put(data)

    return await in_thread(request, store)
