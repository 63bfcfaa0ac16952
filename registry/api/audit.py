"""/v1/audit: the journal, for whoever checks it."""

from typing import Annotated

from litestar import Controller, get
from litestar.params import QueryParameter

from registry.api.door import AnyRequest, allowed, in_thread, principal_of
from registry.errors import Forbidden
from registry.records import JournalEntry, Role
from registry.registry import Registry

_AUDIT_PAGE = 1000


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
