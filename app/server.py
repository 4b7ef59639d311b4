"""uvicorn, with a drain: readiness turns first, the listener closes later."""

from __future__ import annotations

import asyncio
import ctypes
import signal
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn

from app.main import create_app
from app.service import open_service
from app.settings import Settings

_M_ARENA_MAX: Final = -8  # malloc.h

log = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """On the first SIGTERM turns readiness, and begins uvicorn's own shutdown `delay` s later.

    uvicorn closes its listener at once, while load balancers still send requests here.
    """

    def __init__(
        self, config: uvicorn.Config, *, delay: float, on_drain: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._delay = delay
        self._on_drain = on_drain
        self._draining = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        loop = self._loop
        if sig != signal.SIGTERM or self._draining or loop is None:
            super().handle_exit(sig, frame)
            return
        self._draining = True

        def drain() -> None:
            log.info("draining", seconds=self._delay)
            self._on_drain()
            loop.call_later(self._delay, lambda: super(DrainingServer, self).handle_exit(sig, None))

        loop.call_soon_threadsafe(drain)


def _bound_arenas() -> None:
    """Have glibc's malloc use two arenas: with one for each thread, freed pixels pile up in them.

    Another allocator, or another libc, has no such knob and needs none.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def serve(settings: Settings) -> None:
    """Run one process of the service until it is told to stop."""
    _bound_arenas()
    app = create_app(settings)
    config = uvicorn.Config(
        app.hit_path,
        host=settings.host,
        port=settings.port,
        timeout_keep_alive=int(settings.keep_alive),
        timeout_graceful_shutdown=int(settings.drain_timeout),
        access_log=False,
        log_level="warning",
        server_header=False,
        lifespan="on",
        # Whoever speaks for a client is not believed without being asked to.
        proxy_headers=False,
    )
    DrainingServer(config, delay=settings.drain_delay, on_drain=app.drain).run()


def work(settings: Settings) -> None:
    """Run one process that runs jobs until SIGTERM or SIGINT; a second one ends it at once."""
    _bound_arenas()
    asyncio.run(_work(settings))


async def _work(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def drain(sig: signal.Signals) -> None:
        log.info("draining", seconds=settings.drain_timeout)
        stop.set()
        loop.remove_signal_handler(sig)

    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, drain, sig)
    async with open_service(settings, role="work"):
        log.info("working")
        await stop.wait()
