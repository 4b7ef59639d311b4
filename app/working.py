"""A process that runs jobs and nothing else, with a drain."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog
from prometheus_client import start_http_server

from app import __version__, machine
from app.ending import GRACE, LEFT_OVER, end_in, end_when_still, status_of
from app.service import open_service
from app.settings import Settings
from app.telemetry import Metrics

log = structlog.get_logger(__name__)


def work(settings: Settings) -> None:
    """Run one process that runs jobs until SIGTERM or SIGINT; a second one ends it at once.

    It needs no check from outside: it ends by itself where it no longer does anything.
    """
    machine.tune_allocator()
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_work(settings))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is installed: jobs pass through threads often."""
    try:
        import uvloop  # noqa: PLC0415 - an extra brings it
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def drain(sig: signal.Signals) -> None:
        if stop.is_set():
            end_in(0.0, status=status_of(sig), reason="told to stop twice")
            return
        limit = settings.drain_timeout
        end_in(limit + GRACE, status=status_of(sig), reason="the drain took too long")
        log.info("draining", seconds=limit)
        stop.set()

    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, drain, sig)
    end_when_still(loop)
    async with open_service(settings, role="work") as service:
        with _showing_metrics(service.metrics, settings):
            log.info("working", version=__version__)
            await stop.wait()
    end_in(LEFT_OVER, status=0, reason="threads do not end")


@contextmanager
def _showing_metrics(metrics: Metrics, settings: Settings) -> Iterator[None]:
    """Answer Prometheus, in a thread, until the block ends."""
    if not settings.metrics_port:
        yield
        return
    server, thread = start_http_server(settings.metrics_port, settings.host, metrics.registry)
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
