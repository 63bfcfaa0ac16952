"""/healthz and /readyz."""

from typing import Any

from litestar import Controller, get

from registry.api.door import OPEN, AnyRequest, in_thread
from registry.errors import StorageDamaged
from registry.registry import Registry


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
