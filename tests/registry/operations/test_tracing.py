"""Spans reach a collector as OpenTelemetry's own exporter sends them, and nothing is imported without one."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from site_under_test import running

from registry.operations.tracing import configured
from registry.settings import Home


class Collector(HTTPServer):
    spans: list[Span]
    services: set[str]


class Handler(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in sent.resource_spans:
            self.server.services |= {
                one.value.string_value for one in resource.resource.attributes if one.key == "service.name"
            }
            self.server.spans += [span for scope in resource.scope_spans for span in scope.spans]
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    server = Collector(("127.0.0.1", 0), Handler)
    server.spans, server.services = [], set()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield server
    server.shutdown()
    server.server_close()
    thread.join(timeout=10)


def test_each_request_is_a_span_below_its_caller_s(collector: Collector, tmp_path: Path) -> None:
    parent = "0af7651916cd43dd8448eb211c80319c"
    with running(Home(tmp_path / "home")) as site:
        headers = {"traceparent": f"00-{parent}-b7ad6b7169203331-01"}
        site.http("GET", "/v1/adapters/secret-name?token=hunter2", headers=headers)
    [span] = [one for one in collector.spans if one.trace_id.hex() == parent]
    attributes = {one.key: one.value for one in span.attributes}
    assert span.name == "GET /v1/adapters/{name}" and span.parent_span_id.hex() == "b7ad6b7169203331"
    assert attributes["http.response.status_code"].int_value == 404
    assert "secret-name" not in str(span) and "hunter2" not in str(span)
    assert collector.services == {"tunegate"}


def test_without_an_exporter_there_is_no_tracing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_EXPORTER_OTLP_ENDPOINT", raising=False)
    assert configured() is None
    code = "import sys, registry.api.app; assert not [one for one in sys.modules if one.startswith('opentelemetry')]"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
