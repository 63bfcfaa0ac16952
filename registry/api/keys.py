"""/v1/keys: what approvals are verified with."""

from litestar import Controller, get

from registry.api.door import EVERYONE, AnyRequest, allowed
from registry.records import KeySet
from registry.registry import Registry


class Keys(Controller):
    """The registry's public keys."""

    tags = ["keys"]

    @get("/v1/keys", opt=allowed(*EVERYONE))
    async def keys(self, request: AnyRequest) -> KeySet:
        """The public keys that approvals are signed with; give them to `tunegate verify --keys`."""
        registry: Registry = request.app.state.registry
        return KeySet(keys=[registry.services.signer.public])
