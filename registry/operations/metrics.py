"""Numbers for Prometheus: what requests cost, and what the registry holds when it is asked.

No label names an adapter, a person or a path with values in it: labels are bounded, and metrics are open by default.
"""

from collections.abc import Callable, Iterator
from shutil import disk_usage

from prometheus_client import CollectorRegistry, Gauge, Histogram, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from registry.commands.context import Context
from registry.errors import TunegateError
from registry.registry import SYSTEM, Registry
from registry.webhooks.sender import Counts

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Metrics:
    """All metrics of one service."""

    def __init__(self, registry: Registry, webhooks: Callable[[], Counts]) -> None:
        self._all = CollectorRegistry()
        ProcessCollector(registry=self._all)
        PlatformCollector(registry=self._all)
        self._requests = Histogram(
            "tunegate_http_request_seconds",
            "Seconds from a request's head to the end of its answer.",
            ("method", "route", "status"),
            buckets=_SECONDS,
            registry=self._all,
        )
        self._children: dict[tuple[str, str, int], Histogram] = {}
        self.in_flight = Gauge(
            "tunegate_http_requests_in_flight", "Requests that are being answered.", registry=self._all
        )
        self._all.register(_Held(registry, webhooks))

    def answered(self, method: str, route: str, status: int, seconds: float) -> None:
        """One answered request. route: the template with its parameters' names, never a path."""
        key = (method, route, status)
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._requests.labels(method, route, str(status))
        child.observe(seconds)

    def exposition(self) -> bytes:
        """Everything in Prometheus' text format."""
        return generate_latest(self._all)


class _Held(Collector):
    """What the registry holds, read when it is asked for."""

    def __init__(self, registry: Registry, webhooks: Callable[[], Counts]) -> None:
        self._registry, self._webhooks = registry, webhooks

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Nothing: otherwise `collect` would be asked while the registry is still opening."""
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        registry = self._registry
        yield _gauge("tunegate_damaged", "1 when nothing can be served any more.", float(registry.damage is not None))
        yield _gauge("tunegate_commands_waiting", "Commands that wait for the writer.", registry.waiting)
        yield _gauge("tunegate_journal_entries", "Number of the journal's last entry.", registry.journal.head.seq)
        if registry.home:
            free = disk_usage(registry.home.root).free
            damaged = len(registry.blobs.quarantined())
        yield _gauge("tunegate_blobs_quarantined", "Blobs that rotted and were not sent again.", damaged)
        yield _gauge("tunegate_disk_free_bytes", "Free bytes where the home lies.", free)
        try:
            applied, versions, jobs = registry.ask(SYSTEM, _counted)
        except TunegateError:
            return
        lag = registry.journal.head.seq - applied
        yield _gauge("tunegate_journal_lag_entries", "Entries that the catalog has not applied.", max(0, lag))
        held = GaugeMetricFamily("tunegate_versions", "Versions by state.", labels=["state"])
        for state, count in versions.items():
            held.add_metric([state], count)
        yield held
        sent = GaugeMetricFamily("tunegate_webhook_messages", "Messages to webhooks by outcome.", labels=["outcome"])
        for outcome, count in self._webhooks()._asdict().items():
            sent.add_metric([outcome], count)
        yield sent
        queued = GaugeMetricFamily("tunegate_jobs", "Jobs by kind and state.", labels=["kind", "state"])
        for (kind, state), count in jobs.items():
            queued.add_metric([kind, state], count)
        yield queued


def _counted(context: Context) -> tuple[int, dict[str, int], dict[tuple[str, str], int]]:
    view = context.view
    return view.applied().seq, view.version_counts(), view.job_counts()


def _gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, help_text, value=value)
