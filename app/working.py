"""A process that runs jobs and nothing else, with a drain."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import structlog
from prometheus_client import start_http_server

from app import __version__, machine
from app.ending import GRACE, LEFT_OVER, end_in, end_when_still, status_of
from app.service import open_service
from app.settings import Settings
from app.telemetry import Metrics

log = structlog.get_logger(__name__)

_LOOK: Final = 5.0
"""Seconds between looks at whether anything is rendered here any more."""


def work(settings: Settings) -> None:
    """Run one process that runs jobs until SIGTERM or SIGINT; a second one ends it at once.

    It needs no check from outside: it ends by itself, with 1, where its event loop stands still or
    a render that does not end holds every processor.
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

    def drain(status: int) -> None:
        limit = settings.drain_timeout
        end_in(limit + GRACE, status=status, reason="the drain took too long")
        log.info("draining", seconds=limit)
        stop.set()

    def take(sig: signal.Signals) -> None:
        if stop.is_set():
            end_in(0.0, status=status_of(sig), reason="told to stop twice")
            return
        drain(status_of(sig))

    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, take, sig)
    end_when_still(loop)
    metrics = Metrics()
    stuck = False
    async with (
        _showing_metrics(metrics, settings),
        open_service(settings, role="work", metrics=metrics) as service,
    ):
        log.info("working", version=__version__)
        while not stop.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), _LOOK)
            if not stop.is_set() and service.engine.is_stuck:
                # It would take up jobs for ever, and fail each of them.
                log.error("stuck", reason="every processor is held by a render that does not end")
                stuck = True
                drain(1)
    end_in(LEFT_OVER, status=int(stuck), reason="threads do not end")


@asynccontextmanager
async def _showing_metrics(metrics: Metrics, settings: Settings) -> AsyncIterator[None]:
    """Answer Prometheus, in a thread, until the block ends."""
    if not settings.metrics_port:
        yield
        return
    server, thread = start_http_server(settings.metrics_port, settings.host, metrics.registry)
    try:
        yield
    finally:
        await asyncio.to_thread(server.shutdown)
        await asyncio.to_thread(thread.join)
        server.server_close()
