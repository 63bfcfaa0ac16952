"""/v1/audit: the journal, for whoever checks it."""

import base64
from typing import Annotated

from litestar import Controller, MediaType, get
from litestar.params import QueryParameter

from registry.api.door import AnyRequest, allowed, in_thread, principal_of
from registry.audit.checkpoint import sign_checkpoint
from registry.audit.log import AuditLog
from registry.errors import Forbidden
from registry.records import ConsistencyProof, InclusionProof, JournalEntry, Role
from registry.registry import Registry

_AUDIT_PAGE = 1000
Entry = Annotated[int, QueryParameter(ge=1, le=2**53 - 1)]
Size = Annotated[int | None, QueryParameter(ge=1, le=2**53 - 1)]


class Audit(Controller):
    """The journal itself."""

    tags = ["audit"]

    @get("/v1/audit/events", opt=allowed(Role.AUDITOR, Role.ADMIN))
    async def events(self, request: AnyRequest, after: Annotated[int, QueryParameter(ge=0)] = 0) -> list[JournalEntry]:
        """Entries above `after`, at most a thousand: ask again after the last one."""
        _require_whole(request)
        registry: Registry = request.app.state.registry

        def read() -> list[JournalEntry]:
            found = []
            for line in registry.journal.read(after=after):
                found.append(JournalEntry(seq=line.entry.seq, hash=line.hash, body=line.body.decode()))
                if len(found) == _AUDIT_PAGE:
                    break
            return found

        return await in_thread(request, read)

    @get("/v1/audit/checkpoint", opt=allowed(Role.AUDITOR, Role.ADMIN), media_type=MediaType.TEXT)
    async def checkpoint(self, request: AnyRequest) -> str:
        """How many entries there are and the root of the tree over them, as a signed note (C2SP tlog-checkpoint).

        Keep it: whoever rewrites the journal cannot make the next one consistent with it.
        """
        _require_whole(request)
        log: AuditLog = request.app.state.log
        signer = request.app.state.registry.services.signer
        checkpoint = await in_thread(request, log.checkpoint)
        return sign_checkpoint(checkpoint, base64.b64decode(signer.public.public), signer.sign_bytes)

    @get("/v1/audit/proof", opt=allowed(Role.AUDITOR, Role.ADMIN))
    async def proof(self, request: AnyRequest, seq: Entry, size: Size = None) -> InclusionProof:
        """That entry `seq` is in the tree of the first `size` entries, by default of all (RFC 6962)."""
        _require_whole(request)
        log: AuditLog = request.app.state.log
        return await in_thread(request, lambda: log.inclusion(seq, size))

    @get("/v1/audit/consistency", opt=allowed(Role.AUDITOR, Role.ADMIN))
    async def consistency(
        self,
        request: AnyRequest,
        older: Annotated[int, QueryParameter(name="from", ge=1, le=2**53 - 1)],
        newer: Annotated[int | None, QueryParameter(name="to", ge=1, le=2**53 - 1)] = None,
    ) -> ConsistencyProof:
        """That the tree of the first `to` entries, by default of all, begins with that of the first `from`."""
        _require_whole(request)
        log: AuditLog = request.app.state.log
        return await in_thread(request, lambda: log.consistency(older, newer))


def _require_whole(request: AnyRequest) -> None:
    """The journal cannot be shown in part."""
    if (scope := principal_of(request).scope) is not None:
        raise Forbidden(f"the journal tells of every adapter, not only of {scope!r}; use a token without a scope")
