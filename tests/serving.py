"""The service as its clients see it: a real uvicorn on a loopback port, in a thread."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import httpx
import uvicorn

from app.main import Application, create_app
from app.settings import Settings
from app.sources.guard import Resolver, resolve
from tests.template import lay_ledger

# Authorities take a while to read, and no client here speaks TLS.
_NO_TLS: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
_POLL: Final = 0.005


class PromptServer(uvicorn.Server):
    """Ends when it is told to, as uvicorn does, without its sleeps: tests end it hundreds of times.

    By then clients have closed their connections. What goes on has as long as uvicorn gives it.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending = asyncio.Event()

    def end(self) -> None:
        """Tell it to end, from another thread."""
        self.should_exit = True
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._ending.set)

    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # which keeps the date of answers
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ending.wait(), 1)

    async def shutdown(self, sockets: Any = None) -> None:
        for server in self.servers:
            server.close()
        state = self.server_state
        for connection in list(state.connections):
            connection.shutdown()
        deadline = time.monotonic() + (self.config.timeout_graceful_shutdown or 0)
        while (state.connections or state.tasks) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL)
        for task in state.tasks:
            task.cancel()
        await self.lifespan.shutdown()


@dataclass
class Served:
    """A service that runs: where it is, a client for it, and its application for looking inside."""

    url: str
    client: httpx.Client
    app: Application

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(path, **options)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all label sets that hold these; 0 where there is none."""
        total = 0.0
        for family in self.app.api.state.service.metrics.registry.collect():
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    total += sample.value
        return total


@contextmanager
def serving(*, resolver: Resolver = resolve, **options: Any) -> Iterator[Served]:
    """Run a service with these settings until the block ends."""
    lay_ledger(options.get("database", "off"))
    settings = Settings(_env_file=None, **{"log_level": "error", "database": "off", **options})
    app = create_app(settings, resolver=resolver)
    config = uvicorn.Config(
        app, host="127.0.0.1", port=0, log_level="error", timeout_graceful_shutdown=5, lifespan="on"
    )
    server = PromptServer(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise RuntimeError("the service did not start")
        time.sleep(_POLL)
    port = server.servers[0].sockets[0].getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    try:
        with httpx.Client(base_url=url, timeout=30, trust_env=False, verify=_NO_TLS) as client:
            yield Served(url=url, client=client, app=app)
    finally:
        server.end()
        thread.join(20)
