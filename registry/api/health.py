"""/healthz, /readyz, /metrics."""

from typing import Any

from litestar import Controller, Response, get

from registry import settings
from registry.access import require_role
from registry.api.door import OPEN, AnyRequest, bearer, in_thread
from registry.errors import StorageDamaged, Unavailable
from registry.operations.metrics import CONTENT_TYPE, Metrics
from registry.records import Role
from registry.registry import SYSTEM, Registry

_METRICS_READERS = frozenset({Role.ADMIN, Role.AUDITOR})


class Health(Controller):
    """For load balancers, monitors and people in a hurry."""

    tags = ["health"]

    @get("/healthz", opt=OPEN)
    async def healthz(self) -> dict[str, str]:
        return {"status": "alive"}

    @get("/readyz", opt=OPEN)
    async def readyz(self, request: AnyRequest) -> dict[str, Any]:
        """Ready only while journal and catalog can be trusted, commands are run, and the service means to stay."""
        registry: Registry = request.app.state.registry
        if registry.damage:
            raise StorageDamaged(registry.damage)
        if registry.draining:
            raise Unavailable("the registry is about to stop; ask another replica, or again in a moment")
        applied = await in_thread(request, lambda: registry.ask(SYSTEM, lambda context: context.view.applied().seq))
        return {"status": "ready", "applied": applied}

    @get("/metrics", opt=OPEN, include_in_schema=False)
    async def metrics(self, request: AnyRequest) -> Response[bytes]:
        """Prometheus' text format; TUNEGATE_METRICS=token asks for a token of an auditor or admin."""
        registry: Registry = request.app.state.registry
        if settings.metrics_need_token():
            token = bearer(request.headers.getall("Authorization", []))
            principal = await in_thread(request, lambda: registry.authenticate(token))
            require_role(principal, _METRICS_READERS)
        found: Metrics = request.app.state.metrics
        return Response(await in_thread(request, found.exposition), headers={"Content-Type": CONTENT_TYPE})
