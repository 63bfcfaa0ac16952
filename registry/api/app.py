"""The ASGI application over an open registry. One process serves one home."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from litestar import Litestar, Router
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.openapi import OpenAPIConfig

from registry import __version__, settings
from registry.api import problems
from registry.api.adapters import Adapters, Versions
from registry.api.approvals import Approvals
from registry.api.audit import Audit
from registry.api.blobs import Blobs
from registry.api.door import OPEN, guard
from registry.api.erasures import Erasures
from registry.api.health import Health
from registry.api.issuers import KeySets
from registry.api.jobs import Jobs
from registry.api.keys import Keys
from registry.api.limits import Rates, set_rates
from registry.api.observe import Observe
from registry.api.openapi import SchemaPlugin, answer_unknown
from registry.api.params import adapter_name
from registry.api.publishers import Publishers
from registry.api.recall import Answers, Recall
from registry.api.reviewers import Reviewers
from registry.api.reviews import Campaigns, Reviews
from registry.api.streams import Streams
from registry.api.tokens import Tokens
from registry.api.trainings import Trainings
from registry.api.transfers import Transfers
from registry.api.visitors import Threshold, Trust, Visitors
from registry.api.webhooks import Webhooks
from registry.audit.log import AuditLog
from registry.errors import TunegateError
from registry.operations import tracing
from registry.operations.metrics import Metrics
from registry.outbound import fetch
from registry.registry import Registry
from registry.web.desk import Desk
from registry.web.pages import Pages
from registry.web.reviewing import ReviewPages
from registry.web.trainings import TrainingPages
from registry.webhooks.sender import Sender

_READERS = 16
CONTROLLERS = (
    Adapters,
    Versions,
    Blobs,
    Jobs,
    Trainings,
    Reviews,
    Campaigns,
    Erasures,
    Reviewers,
    Approvals,
    Tokens,
    Publishers,
    Webhooks,
    Keys,
    Audit,
    Health,
    Pages,
    Desk,
    ReviewPages,
    TrainingPages,
)


def create_app(registry: Registry, *, host: str = "localhost", rates: Rates | None = None) -> Litestar:
    """The application; it uses the registry and closes it when it shuts down.

    host: the name or address that it listens on. rates: default, those of the settings.
    """
    visitors = Visitors(registry, Trust(settings.hosts() | {host.lower()}, settings.proxies()), rates or set_rates())
    key_sets = KeySets(partial(fetch, allow=settings.outbound_allow()))
    readers = ThreadPoolExecutor(_READERS, thread_name_prefix="tunegate-reader")
    answers = Answers(registry.changes)
    transfers = Transfers()
    webhooks = Sender(registry, registry.home, allow=settings.outbound_allow(), sends=settings.webhooks_are_sent())
    metrics, traces = Metrics(registry, webhooks.counts), tracing.configured()

    @contextlib.asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        try:
            webhooks.start()
            yield
        finally:
            await asyncio.to_thread(webhooks.stop)
            registry.close()
            readers.shutdown(wait=False, cancel_futures=True)
            transfers.close()
            if traces:
                await asyncio.to_thread(traces.close)

    handlers: dict[Any, Any] = {
        TunegateError: problems.on_tunegate_error,
        HTTPException: problems.on_http_exception,
        Exception: problems.on_exception,
    }
    logging.getLogger("httpx").setLevel(logging.WARNING)
    app = Litestar(
        route_handlers=list(CONTROLLERS),
        guards=[guard],
        dependencies={"adapter": Provide(adapter_name, sync_to_thread=False)},
        exception_handlers=handlers,
        lifespan=[lifespan],
        state=State(
            {
                "registry": registry,
                "visitors": visitors,
                "key_sets": key_sets,
                "form_key": secrets.token_bytes(32),
                "readers": readers,
                "answers": answers,
                "transfers": transfers,
                "streams": Streams(),
                "webhooks": webhooks,
                "log": AuditLog(registry.journal),
                "metrics": metrics,
            }
        ),
        logging_config=None,
        openapi_config=OpenAPIConfig(
            title="tunegate",
            version=__version__,
            path="/schema",
            render_plugins=[SchemaPlugin(path="/openapi.json")],
            openapi_router=Router(path="/schema", route_handlers=[], opt=OPEN, after_request=answer_unknown),
        ),
    )
    app.asgi_handler = Observe(Threshold(Recall(app.asgi_handler, registry, answers), visitors), metrics, traces)
    return app
