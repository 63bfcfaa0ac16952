"""/v1/publishers: which CI is trusted; /v1/oidc/mint: its tokens exchanged for ours."""

import asyncio
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Any

from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, JSONBody

from registry import settings
from registry.api.door import OPEN, AnyRequest, allowed, ask, in_thread, run
from registry.api.issuers import KeySets
from registry.api.visitors import Visitors
from registry.commands import publishers
from registry.errors import TunegateError, Unauthenticated
from registry.oidc import Shown, read_token
from registry.outbound import check_url
from registry.records import AddPublisher, Jwk, MintToken, PublisherInfo, Role
from registry.registry import SYSTEM, Registry
from registry.storage.views import StoredPublisher

# A CI's token has some 2 KiB.
_MINT_BYTES = 32 * 1024


class Publishers(Controller):
    """Added by admins; whoever holds a CI's token with the right claims exchanges it."""

    tags = ["tokens"]

    @post("/v1/publishers", opt=allowed(Role.ADMIN))
    async def add(self, request: AnyRequest, data: JSONBody[AddPublisher]) -> Response[Any]:
        if data.jwks_url is not None:
            check_url(data.jwks_url, settings.outbound_allow())
        return await run(request, partial(publishers.add, request=data))

    @get("/v1/publishers", opt=allowed(Role.ADMIN, Role.AUDITOR))
    async def list_publishers(self, request: AnyRequest) -> list[PublisherInfo]:
        return await ask(request, publishers.listed)

    @delete("/v1/publishers/{publisher_id:str}", opt=allowed(Role.ADMIN), status_code=200)
    async def remove(self, request: AnyRequest, publisher_id: FromPath[str]) -> Response[Any]:
        """Its tokens end with it."""
        return await run(request, partial(publishers.remove, id_=publisher_id))

    # Anyone may send one: what is read before it is judged stays small.
    @post("/v1/oidc/mint", opt=OPEN, request_max_body_size=_MINT_BYTES)
    async def mint(self, request: AnyRequest, data: JSONBody[MintToken]) -> Response[Any]:
        """A token of 15 minutes for a CI's own token, which is what says who asks. Each is exchanged once."""
        visitors: Visitors = request.app.state.visitors
        visitors.mints.take(visitors.address(request.scope), "exchanges from this address")
        registry: Registry = request.app.state.registry
        shown = read_token(data.token)
        question = partial(publishers.meant, issuer=shown.issuer, scope=data.scope)
        known, now = await in_thread(request, lambda: registry.ask(SYSTEM, question)), registry.now()
        # Together: one issuer's server that hangs must not hold up those that answer.
        found = await asyncio.gather(*(_keys_of(request, publisher, shown, now) for publisher in known))
        failure = next((keys for keys in found if isinstance(keys, TunegateError)), None)
        candidates = [
            (publisher, keys)
            for publisher, keys in zip(known, found, strict=True)
            if not isinstance(keys, TunegateError)
        ]
        accept = partial(publishers.accept, shown, candidates, now)
        try:
            accepted = await in_thread(request, accept)
        except Unauthenticated as refusal:
            # The publisher that would have accepted it may be one whose keys could not be fetched.
            raise failure or refusal from None
        request.state.principal = accepted.principal
        return await run(request, partial(publishers.mint, accepted=accepted))


async def _keys_of(
    request: AnyRequest, publisher: StoredPublisher, shown: Shown, now: datetime
) -> Sequence[Jwk] | TunegateError | None:
    """The publisher's keys, or why they could not be fetched; None where nobody has asked and nobody will.

    Keys that are here anyway serve to tell whoever holds a true token what is wrong with it.
    """
    if publisher.jwks_url is None:
        return publisher.keys or []
    key_sets: KeySets = request.app.state.key_sets
    if not publishers.may_accept(publisher, shown, now):
        return key_sets.kept(publisher.jwks_url)
    try:
        return await key_sets.keys(publisher.jwks_url, shown.key_id)
    except TunegateError as error:
        return error
