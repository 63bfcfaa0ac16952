"""/v1/keys: what approvals are verified with, whose they are, and which are not to be believed."""

from functools import partial
from typing import Any

from litestar import Controller, Response, get, post
from litestar.params import FromPath, JSONBody

from registry.api.door import EVERYONE, AnyRequest, allowed, ask, run
from registry.commands import keys
from registry.records import AddKey, KeySet, Revoke, Role


class Keys(Controller):
    """The registry's public keys: the gate's, present and past, and those of release managers."""

    tags = ["keys"]
    path = "/v1/keys"

    @get(opt=allowed(*EVERYONE))
    async def keys(self, request: AnyRequest) -> KeySet:
        """The public keys that approvals are signed with; give them to `tunegate verify --keys`."""
        return await ask(
            request, lambda context: keys.key_set(context.view, context.services.signer, context.principal)
        )

    @post(opt=allowed(Role.ADMIN))
    async def add(self, request: AnyRequest, data: JSONBody[AddKey]) -> Response[Any]:
        """Register a release manager's public key for second signatures."""
        return await run(request, partial(keys.add, request=data))

    @post("/{key_id:str}/revoke", opt=allowed(Role.ADMIN))
    async def revoke(self, request: AnyRequest, data: JSONBody[Revoke], key_id: FromPath[str]) -> Response[Any]:
        """Believe nothing any more that this key signed."""
        return await run(request, partial(keys.revoke, id_=key_id, request=data))
