"""/v1/tokens, /v1/keys, /v1/audit, /healthz, /readyz."""

from functools import partial
from typing import Annotated, Any

from litestar import Controller, Response, delete, get, post
from litestar.params import FromPath, JSONBody, QueryParameter

from registry.api.door import EVERYONE, OPEN, AnyRequest, allowed, ask, in_thread, principal_of, run
from registry.commands import tokens
from registry.errors import Forbidden, StorageDamaged
from registry.records import CreateToken, JournalEntry, KeySet, Role, TokenInfo
from registry.registry import Registry

_AUDIT_PAGE = 1000


class Tokens(Controller):
    """Made by admins; anyone may list and revoke their own."""

    tags = ["tokens"]

    @post("/v1/tokens", opt=allowed(Role.ADMIN))
    async def create(self, request: AnyRequest, data: JSONBody[CreateToken]) -> Response[Any]:
        return await run(request, partial(tokens.create, request=data))

    @get("/v1/tokens", opt=allowed(*EVERYONE))
    async def list_tokens(self, request: AnyRequest) -> list[TokenInfo]:
        return await ask(request, tokens.listed)

    @delete("/v1/tokens/{token_id:str}", opt=allowed(*EVERYONE), status_code=200)
    async def revoke(self, request: AnyRequest, token_id: FromPath[str]) -> Response[Any]:
        return await run(request, partial(tokens.revoke, id_=token_id))

    @get("/v1/keys", opt=allowed(*EVERYONE))
    async def keys(self, request: AnyRequest) -> KeySet:
        """The public keys that approvals are signed with; give them to `tunegate verify --keys`."""
        registry: Registry = request.app.state.registry
        return KeySet(keys=[registry.services.signer.public])


class Audit(Controller):
    """The journal itself."""

    tags = ["audit"]

    @get("/v1/audit/events", opt=allowed(Role.AUDITOR, Role.ADMIN))
    async def events(self, request: AnyRequest, after: Annotated[int, QueryParameter(ge=0)] = 0) -> list[JournalEntry]:
        """Entries above `after`, at most a thousand: ask again after the last one."""
        if (scope := principal_of(request).scope) is not None:
            raise Forbidden(f"the journal tells of every adapter, not only of {scope!r}; use a token without a scope")
        registry: Registry = request.app.state.registry

        def read() -> list[JournalEntry]:
            found = []
            for line in registry.journal.read(after=after):
                found.append(JournalEntry(seq=line.entry.seq, hash=line.hash, body=line.body.decode()))
                if len(found) == _AUDIT_PAGE:
                    break
            return found

        return await in_thread(request, read)


class Health(Controller):
    """For load balancers and people in a hurry."""

    tags = ["health"]

    @get("/healthz", opt=OPEN)
    async def healthz(self) -> dict[str, str]:
        return {"status": "alive"}

    @get("/readyz", opt=OPEN)
    async def readyz(self, request: AnyRequest) -> dict[str, Any]:
        """Ready only while journal and catalog can be trusted and agree."""
        registry: Registry = request.app.state.registry
        if registry.damage:
            raise StorageDamaged(registry.damage)
        applied = await in_thread(request, lambda: registry.view().applied().seq)
        return {"status": "ready", "applied": applied}
