"""Metrics, logs and Server-Timing. One word for one thing: the names are those of the docs.

Labels are bounded: route templates, lanes, formats and outcomes, never ids or hosts.
"""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from time import perf_counter
from typing import Final, TextIO, cast

import structlog
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

from app.settings import Settings
from transforms import libvips

disable_created_metrics()  # type: ignore[no-untyped-call]  # they double the size of the page and nobody asks for them

_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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


class Metrics:
    """Every metric of the service, in a registry of its own."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.registry = registry
        before = _BeforeCollecting()
        registry.register(before)  # first, so that it is collected first
        self.before_collecting = before.actions
        self.requests = Counter(
            "pixelmill_requests_total", "Requests answered.", ["route", "status"], registry=registry
        )
        self.request_seconds = Histogram(
            "pixelmill_request_seconds",
            "Time from a request to its answer, memory hits left out.",
            ["route"],
            registry=registry,
            buckets=_BUCKETS,
        )
        self.results = Counter(
            "pixelmill_results_total",
            "Results answered, by where they came from.",
            ["tier"],
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
            "Time by stage of a render.",
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
            "Time that processors were taken by renders.",
            registry=registry,
        )
        self.workers = Gauge("pixelmill_workers", "Renders at once.", registry=registry)
        self.running = Gauge(
            "pixelmill_renders_running", "Renders that run now.", registry=registry
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
        self.rendered_bytes = Counter(
            "pixelmill_rendered_original_bytes_total",
            "Bytes of the originals that were rendered.",
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
        self.memory_tier_bytes = Gauge(
            "pixelmill_memory_tier_bytes", "Bytes of results in memory.", registry=registry
        )
        registry.register(_LibvipsCollector())
        ProcessCollector(registry=registry)
        GCCollector(registry=registry)

    def render_text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Timings:
    """How long the stages of one request took, in seconds, and what is to be said of them."""

    __slots__ = ("_descriptions", "_stages")

    def __init__(self) -> None:
        self._stages: dict[str, float] = {}
        self._descriptions: dict[str, str] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Record a stage."""
        self._stages[stage] = self._stages.get(stage, 0.0) + seconds

    def describe(self, stage: str, text: str) -> None:
        """Say something of a stage that is recorded, in ASCII without quotes."""
        self._descriptions[stage] = text

    def take(self, other: Timings) -> None:
        """Add the stages of another, with what is said of them."""
        for stage, seconds in other.items():
            self.add(stage, seconds)
        self._descriptions |= other._descriptions

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Record how long the block takes."""
        began = perf_counter()
        try:
            yield
        finally:
            self.add(stage, perf_counter() - began)

    def items(self) -> list[tuple[str, float]]:
        """Stages in the order in which they were first recorded."""
        return list(self._stages.items())

    def header(self) -> str:
        """The value of a Server-Timing header, in milliseconds."""
        parts = []
        for stage, seconds in self.items():
            text = self._descriptions.get(stage)
            said = f';desc="{text}"' if text else ""
            parts.append(f"{stage};dur={seconds * 1000:.1f}{said}")
        return ", ".join(parts)


_TRACEBACKS: Final = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
)
_CONSOLE: Final = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


class _Unfailing(io.TextIOBase):
    """A stream whose reader may go away: what it was to read is lost, and nothing else."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()


def configure_logs(settings: Settings) -> None:
    """Write structured logs to standard error: JSON, or lines for people on a terminal."""
    as_json = settings.log_format == "json" or (
        settings.log_format == "auto" and not sys.stderr.isatty()
    )
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            # Without local variables: tokens and pictures are among them.
            *([_TRACEBACKS, structlog.processors.JSONRenderer()] if as_json else [_CONSOLE]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Unfailing(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(
        level=max(level, logging.WARNING), format="%(levelname)s %(name)s %(message)s"
    )
