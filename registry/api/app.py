"""The ASGI application over an open registry. One process serves one home."""

import contextlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin

from registry import __version__
from registry.api import problems
from registry.api.adapters import Adapters, Versions
from registry.api.approvals import Approvals
from registry.api.audit import Audit
from registry.api.blobs import Blobs
from registry.api.door import OPEN, guard
from registry.api.health import Health
from registry.api.jobs import Jobs
from registry.api.keys import Keys
from registry.api.params import adapter_name
from registry.api.reviews import Reviews
from registry.api.tokens import Tokens
from registry.errors import TunegateError
from registry.registry import Registry
from registry.web.pages import Pages

_READERS = 16
CONTROLLERS = (Adapters, Versions, Blobs, Jobs, Reviews, Approvals, Tokens, Keys, Audit, Health, Pages)


def create_app(registry: Registry) -> Litestar:
    """The application; it uses the registry and closes it when it shuts down."""
    readers = ThreadPoolExecutor(_READERS, thread_name_prefix="tunegate-reader")

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        try:
            yield
        finally:
            registry.close()
            readers.shutdown(wait=False, cancel_futures=True)

    handlers: dict[Any, Any] = {
        TunegateError: problems.on_tunegate_error,
        HTTPException: problems.on_http_exception,
        Exception: problems.on_exception,
    }
    logging.getLogger("httpx").setLevel(logging.WARNING)
    return Litestar(
        route_handlers=list(CONTROLLERS),
        guards=[guard],
        dependencies={"adapter": Provide(adapter_name, sync_to_thread=False)},
        exception_handlers=handlers,
        lifespan=[lifespan],
        state=State({"registry": registry, "readers": readers}),
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="tunegate",
            version=__version__,
            path="/schema",
            render_plugins=[JsonRenderPlugin(path="/openapi.json")],
            openapi_router=Router(path="/schema", route_handlers=[], opt=OPEN),
        ),
    )
