"""Every metric of the service. One word for one thing: the names are those of the docs.

Labels are bounded: methods, route templates, lanes, formats and outcomes, never ids or hosts.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from app import __version__
from transforms import libvips

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the size of the page and nobody asks for them

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LAGS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_METHODS: Final = frozenset(("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"))


def bounded_method(method: str) -> str:
    """A method as a label: clients may send any word."""
    return method if method in _METHODS else "other"


class _LibvipsCollector(Collector):
    """What libvips holds, read when it is asked for."""

    def collect(self) -> Iterator[Metric]:
        tracked = libvips.tracked()
        for name, text, value in (
            ("memory_bytes", "Pixel memory that libvips holds.", tracked.memory),
            ("memory_peak_bytes", "The most pixel memory so far.", tracked.memory_peak),
            ("allocations", "Blocks of pixel memory that libvips holds.", tracked.allocations),
            ("files", "Files that libvips holds open.", tracked.files),
        ):
            yield GaugeMetricFamily(f"pixelmill_libvips_{name}", text, value=value)


class _BeforeCollecting(Collector):
    """Lets others bring their counters up to date when the metrics are asked for."""

    def __init__(self) -> None:
        self.actions: list[Callable[[], None]] = []

    def collect(self) -> Iterator[Metric]:
        for action in self.actions:
            action()
        return iter(())


class Asked(Protocol):
    """What counts how often it had what it was asked for, and how often not."""

    hits: int
    misses: int


class Metrics:
    """Every metric of the service, in a registry of its own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        before = _BeforeCollecting()
        registry.register(before)  # first, so that it is collected first
        self.before_collecting = before.actions
        Gauge(
            "pixelmill_build_info",
            "What runs here; always 1.",
            ["version", "libvips", "python"],
            registry=registry,
        ).labels(__version__, "{}.{}.{}".format(*libvips.VERSION), platform.python_version()).set(1)
        self.requests = Counter(
            "pixelmill_requests_total",
            "Requests answered; 499 are those whose client left.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "pixelmill_request_seconds",
            "Time from a request to the end of its answer, hits of the hit path left out.",
            ["method", "route"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self.results = Counter(
            "pixelmill_results_total",
            "Results answered, by where they came from.",
            ["tier"],
            registry=registry,
        )
        self.tier_requests = Counter(
            "pixelmill_tier_requests_total",
            "Times that a tier was asked for what it may have kept, by outcome: hit or miss, or "
            "failed where it could not tell.",
            ["tier", "outcome"],
            registry=registry,
        )
        self.renders = Counter(
            "pixelmill_renders_total",
            "Renders run to their end, by format of original and result.",
            ["original", "result"],
            registry=registry,
        )
        self.render_failures = Counter(
            "pixelmill_render_failures_total",
            "Renders that ended without a result, by error code.",
            ["code"],
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "pixelmill_stage_seconds",
            "Time by stage of a render; decode goes with the transform, which libvips does as it "
            "decodes.",
            ["stage"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self.queue_wait_seconds = Histogram(
            "pixelmill_queue_wait_seconds",
            "Time that a render waited for a processor.",
            ["lane"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self.sheds = Counter(
            "pixelmill_sheds_total",
            "Renders refused because it was too busy, by lane and by what there was too little of.",
            ["lane", "reason"],
            registry=registry,
        )
        self.queue_seconds = Gauge(
            "pixelmill_queue_seconds",
            "How long what waits for a processor will take them all, as it is estimated.",
            registry=registry,
        )
        self.busy_seconds = Counter(
            "pixelmill_workers_busy_seconds_total",
            "Time that processors were taken by renders, and by what was drawn for them.",
            registry=registry,
        )
        self.workers = Gauge("pixelmill_workers", "Renders at once.", registry=registry)
        self.running = Gauge(
            "pixelmill_renders_running", "Renders that run now.", registry=registry
        )
        self.overdue = Gauge(
            "pixelmill_renders_overdue",
            "Renders that hold a processor beyond their time: told to stop, they have not.",
            registry=registry,
        )
        self.queued = Gauge(
            "pixelmill_renders_queued", "Renders that wait for a processor.", registry=registry
        )
        self.attempts = Counter(
            "pixelmill_job_attempts_total",
            "Attempts at jobs that have ended, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.jobs = Gauge(
            "pixelmill_jobs", "Jobs in the ledger, by state.", ["state"], registry=registry
        )
        self.job_queue_depth = Gauge(
            "pixelmill_job_queue_depth",
            "Jobs that are due and wait for a worker.",
            registry=registry,
        )
        self.job_queue_age_seconds = Gauge(
            "pixelmill_job_queue_age_seconds",
            "How long the job has been due that waits longest.",
            registry=registry,
        )
        self.job_backlog_seconds = Gauge(
            "pixelmill_job_backlog_seconds",
            "How long the jobs that wait take the workers there are.",
            registry=registry,
        )
        self.webhook_deliveries = Counter(
            "pixelmill_webhook_deliveries_total",
            "Attempts at telling a webhook, by what followed: delivered, retried or failed.",
            ["outcome"],
            registry=registry,
        )
        self.cdn_purges = Counter(
            "pixelmill_cdn_purges_total",
            "Calls that tell the CDN of purges, by what followed: done, retried or failed.",
            ["outcome"],
            registry=registry,
        )
        self.downloads = Counter(
            "pixelmill_downloads_total",
            "Originals asked for, by kind of source and outcome.",
            ["source", "outcome"],
            registry=registry,
        )
        self.origin_breakers_open = Gauge(
            "pixelmill_origin_breakers_open",
            "Origins of URLs that are left alone for now, as they have failed.",
            registry=registry,
        )
        self.fetch_seconds = Histogram(
            "pixelmill_fetch_seconds",
            "Time that an original took to arrive, by kind of source: complete or failed.",
            ["source", "outcome"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self.received_bytes = Counter(
            "pixelmill_received_bytes_total",
            "Bytes of originals received, by kind of source.",
            ["source"],
            registry=registry,
        )
        self.rendered_bytes = Counter(
            "pixelmill_rendered_original_bytes_total",
            "Bytes of the originals that were rendered.",
            registry=registry,
        )
        self.saved_bytes = Counter(
            "pixelmill_saved_bytes_total",
            "Bytes by which results came to less than the originals that they were rendered of.",
            registry=registry,
        )
        self.sent_bytes = Counter(
            "pixelmill_sent_bytes_total", "Bytes of results answered.", registry=registry
        )
        self.stored = Counter(
            "pixelmill_results_stored_total",
            "Results for the stored tier, by outcome.",
            ["outcome"],
            registry=registry,
        )
        self.purges = Counter(
            "pixelmill_purges_total",
            "Purges done, by what they name, and whether this replica was asked for them.",
            ["subject", "origin"],
            registry=registry,
        )
        self.pending_bytes = Gauge(
            "pixelmill_results_pending_bytes",
            "Bytes of results that wait to be written to the stored tier.",
            registry=registry,
        )
        self.child_starts = Counter(
            "pixelmill_child_starts_total",
            "Starts of the process that forks for each foreign document.",
            registry=registry,
        )
        self.child_deaths = Counter(
            "pixelmill_child_deaths_total",
            "Processes that ended before their work: of documents by timeout or crash; fork is the "
            "one that forks for them, and start where it did not come up.",
            ["cause"],
            registry=registry,
        )
        self.loop_lag_seconds = Histogram(
            "pixelmill_loop_lag_seconds",
            "How much later than it should the event loop came to a timer.",
            registry=registry,
            buckets=_LAGS,
        )
        self.memory_tier_bytes = Gauge(
            "pixelmill_memory_tier_bytes", "Bytes of results in memory.", registry=registry
        )
        # What is watched for its first increase must be there before it.
        for counter, labels in (
            (self.stored, ("stored", "failed", "dropped")),
            (self.attempts, ("succeeded", "failed", "retried")),
            (self.webhook_deliveries, ("delivered", "retried", "failed")),
            (self.child_deaths, ("timeout", "crash", "fork", "start")),
        ):
            for label in labels:
                counter.labels(label)
        registry.register(_LibvipsCollector())
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

    def count_memory_tier(self, tier: Asked) -> None:
        """Have a tier that counts for itself counted: a lock is a tenth of what a hit costs."""
        told = {"hit": 0, "miss": 0}

        def count() -> None:
            for outcome, now in (("hit", tier.hits), ("miss", tier.misses)):
                self.tier_requests.labels("memory", outcome).inc(now - told[outcome])
                told[outcome] = now

        self.before_collecting.append(count)

    def render_text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
