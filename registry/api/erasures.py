"""Erasing what people wrote in reviews: the writer journals it and deletes the bytes in one step."""

from functools import partial
from typing import Any

import msgspec
from litestar import Controller, Response, post
from litestar.params import JSONBody

from registry.api.door import AnyRequest, allowed, run
from registry.commands import erasure
from registry.records import Erased, EraseWords, Role


class Erasures(Controller):
    """What a person or a law wants gone."""

    tags = ["review"]

    @post("/v1/review/erasures", opt=allowed(Role.ADMIN), status_code=200)
    async def erase_words(self, request: AnyRequest, data: JSONBody[EraseWords]) -> Response[Any]:
        """Comments, and reasons of skips and rulings. Scores and rulings stay."""
        answer = await run(request, partial(erasure.erase_words, request=data))
        if "Idempotency-Replayed" in answer.headers:
            # The first answer may be lost because the service died, and then before the bytes were deleted.
            told = msgspec.json.decode(answer.content, type=Erased)
            await run(request, partial(erasure.discard_unneeded, blobs=told.blobs), remember=False)
        return answer
