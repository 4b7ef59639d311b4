"""uvicorn, with a drain: readiness turns first, the listener closes later."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from types import FrameType
from typing import Any, Final

import structlog
import uvicorn

from app import __version__, machine
from app.ending import GRACE, LEFT_OVER, End, end_in, status_of
from app.main import create_app
from app.settings import Settings

log = structlog.get_logger(__name__)

_LINGER: Final = 1.0
"""Seconds for which connections without a request outlive the listener."""
_GLANCE: Final = 0.02


class DrainingServer(uvicorn.Server):
    """Turns readiness when it is told to stop, and closes its listener `delay` s later.

    uvicorn closes its listener at once, while load balancers still send requests here. They send
    none to one that is still starting: that stops as soon as it has started. Neither does SIGINT
    wait for a balancer: it comes from a terminal.

    Then connections linger a second, and requests in flight have `timeout` s more. When all is
    done, `serve` returns: uvicorn would raise the signal anew, which does nothing to the first
    process of a container. What cannot be done in time, and a second signal, is `end`'s.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        delay: float,
        timeout: float,
        on_drain: Callable[[], None],
        end: End = end_in,
    ) -> None:
        super().__init__(config)
        self._delay = delay
        self._timeout = timeout
        self._on_drain = on_drain
        self._end = end
        self._draining = False
        self._loop: asyncio.AbstractEventLoop | None = None

    async def serve(self, sockets: Any = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().serve(sockets)
        self._end(LEFT_OVER, status=0, reason="threads do not end")

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        machine.keep_what_is_there()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        del frame
        status = status_of(sig)
        if self._draining:
            self._end(0.0, status=status, reason="told to stop twice")
            return
        self._draining = True
        delay = self._delay if self.started and sig == signal.SIGTERM else 0.0
        limit = delay + _LINGER + self._timeout + GRACE
        self._end(limit, status=status, reason="the drain took too long")
        if self._loop is None:
            self.should_exit = True
        else:
            # Not here: the signal may have come in the middle of a log's line.
            self._loop.call_soon_threadsafe(self._drain, self._loop, delay)

    async def shutdown(self, sockets: Any = None) -> None:
        """Close the listener, and connections when they have no request.

        uvicorn closes idle ones at once, and with them requests that are on their way. So they
        stay a little longer: what comes on them is answered, and closes them by itself.
        """
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        until = loop.time() + _LINGER
        while self.server_state.connections and loop.time() < until:  # noqa: ASYNC110 - uvicorn tells nobody
            await asyncio.sleep(_GLANCE)
        await super().shutdown(sockets)

    def _drain(self, loop: asyncio.AbstractEventLoop, delay: float) -> None:
        log.info("draining", seconds=delay)
        self._on_drain()
        loop.call_later(delay, self._exit)

    def _exit(self) -> None:
        self.should_exit = True


def serve(settings: Settings) -> None:
    """Run one process of the service until it is told to stop."""
    machine.tune_allocator()
    app = create_app(settings)
    config = uvicorn.Config(
        app.entry,
        host=settings.host,
        port=settings.port,
        timeout_keep_alive=int(settings.keep_alive),
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout)),
        access_log=False,
        log_level="warning",
        log_config=None,  # its loggers write as all others do
        server_header=False,
        lifespan="on",
        # Whoever speaks for a client is not believed without being asked to.
        proxy_headers=False,
    )
    log.info("serving", url=f"http://{settings.host}:{settings.port}", version=__version__)
    DrainingServer(
        config, delay=settings.drain_delay, timeout=settings.drain_timeout, on_drain=app.drain
    ).run()
