"""Spans of OpenTelemetry around requests, where an exporter is configured; without it nothing of this is imported.

Configured as OpenTelemetry's own specification says: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and so on.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from registry.errors import InvalidRequest

Headers = Iterable[tuple[bytes, bytes]]


class Tracing:
    """Makes one span a request, as a child of the caller's where it sent a `traceparent`."""

    def __init__(self) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        named = {} if os.environ.get("OTEL_SERVICE_NAME") else {"service.name": "tunegate"}
        self._provider = TracerProvider(resource=Resource.create(named))
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self._provider.get_tracer("tunegate")

    @contextlib.contextmanager
    def span(self, method: str, headers: Headers) -> Iterator[Callable[[str, int], None]]:
        """A span for a request; what it yields is told the route's template and the status when they are known."""
        from opentelemetry.propagate import extract
        from opentelemetry.trace import SpanKind, StatusCode

        carried = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers if name in _CARRIED}
        with self._tracer.start_as_current_span(method, context=extract(carried), kind=SpanKind.SERVER) as span:

            def answered(route: str, status: int) -> None:
                span.update_name(f"{method} {route}")
                span.set_attribute("http.request.method", method)
                span.set_attribute("http.route", route)
                span.set_attribute("http.response.status_code", status)
                if status >= 500:
                    span.set_status(StatusCode.ERROR)

            yield answered

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()


_CARRIED = (b"traceparent", b"tracestate")


def configured() -> Tracing | None:
    """Tracing if the environment names an exporter; InvalidRequest if it does and the packages are missing."""
    if not (os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")):
        return None
    try:
        return Tracing()
    except ImportError as error:
        raise InvalidRequest(
            f"OTEL_EXPORTER_OTLP_ENDPOINT is set, but {error.name} is missing: pip install 'tunegate[otel]'"
        ) from None


def untraced(method: str, headers: Headers) -> "contextlib.nullcontext[Callable[[str, int], Any]]":
    """In the place of `Tracing.span` where there is none."""
    return contextlib.nullcontext(_nothing)


def _nothing(route: str, status: int) -> None:
    pass
