"""uvicorn, with a drain: readiness turns first, the listener closes later."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any

import structlog
import uvicorn

from app import __version__, machine
from app.main import create_app
from app.settings import Settings

log = structlog.get_logger(__name__)


class DrainingServer(uvicorn.Server):
    """On the first SIGTERM turns readiness, and begins uvicorn's own shutdown `delay` s later.

    uvicorn closes its listener at once, while load balancers still send requests here. They send
    none to one that is still starting: that stops as soon as it has started.
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

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        machine.keep_what_is_there()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        loop = self._loop
        if sig != signal.SIGTERM or self._draining or loop is None:
            super().handle_exit(sig, frame)
            return
        self._draining = True

        delay = self._delay if self.started else 0.0

        def drain() -> None:
            log.info("draining", seconds=delay)
            self._on_drain()
            loop.call_later(delay, lambda: super(DrainingServer, self).handle_exit(sig, None))

        loop.call_soon_threadsafe(drain)


def serve(settings: Settings) -> None:
    """Run one process of the service until it is told to stop."""
    machine.tune_allocator()
    app = create_app(settings)
    config = uvicorn.Config(
        app.entry,
        host=settings.host,
        port=settings.port,
        timeout_keep_alive=int(settings.keep_alive),
        timeout_graceful_shutdown=int(settings.drain_timeout),
        access_log=False,
        log_level="warning",
        log_config=None,  # its loggers write as all others do
        server_header=False,
        lifespan="on",
        # Whoever speaks for a client is not believed without being asked to.
        proxy_headers=False,
    )
    url = f"http://{settings.host}:{settings.port}"
    log.info("serving", url=url, version=__version__)
    DrainingServer(config, delay=settings.drain_delay, on_drain=app.drain).run()
