"""Erasing texts: the entry that says so is written first, then the bytes are deleted. Sent again, it does the rest."""

from functools import partial
from typing import Any

import msgspec
from litestar import Controller, Response, post
from litestar.params import JSONBody

from registry.api.door import AnyRequest, allowed, ask, in_thread, principal_of, run
from registry.api.params import Adapter, Number, paths
from registry.commands import erasure
from registry.records import Erased, EraseOutput, EraseWords, Role
from registry.registry import Registry


class Erasures(Controller):
    """What a person or a law wants gone."""

    tags = ["review"]

    @post("/v1/review/erasures", opt=allowed(Role.ADMIN), status_code=200)
    async def erase_words(self, request: AnyRequest, data: JSONBody[EraseWords]) -> Response[Any]:
        """Comments, and reasons of skips and rulings. Scores and rulings stay."""
        return await _deleted(request, await run(request, partial(erasure.erase_words, request=data)))

    @post(paths("/versions/{number:int}/erasures"), opt=allowed(Role.ADMIN), status_code=200)
    async def erase_output(
        self, request: AnyRequest, adapter: Adapter, number: Number, data: JSONBody[EraseOutput]
    ) -> Response[Any]:
        """Prompt and outputs of one item; what was measured of it stays."""
        place = await ask(request, partial(erasure.place_of, adapter=adapter, number=number, request=data))
        registry: Registry = request.app.state.registry

        def rewritten() -> str:
            if place.erased:
                return place.rows
            without = registry.services.rows_without(place.rows, place.suite, place.item)
            return registry.blobs.put(without)

        kept = await in_thread(request, rewritten)
        command = partial(erasure.erase_output, adapter=adapter, number=number, request=data, place=place, kept=kept)
        return await _deleted(request, await run(request, command))


async def _deleted(request: AnyRequest, answer: Response[Any]) -> Response[Any]:
    """Delete the blobs that the answer names, none of which any entry needs from now on."""
    registry: Registry = request.app.state.registry
    told = msgspec.json.decode(answer.content, type=Erased)

    def delete() -> None:
        current = registry.ask(principal_of(request), partial(erasure.still_unneeded, blobs=told.blobs))
        for sha256 in current:
            registry.blobs.discard(sha256)

    await in_thread(request, delete)
    return answer
