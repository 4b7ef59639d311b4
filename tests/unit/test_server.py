"""The server: how it stops before it has started."""

from __future__ import annotations

import asyncio
import signal
import threading
from typing import Any

import uvicorn

from app.main import create_app
from app.server import DrainingServer
from app.settings import Settings


async def test_a_server_that_is_told_to_stop_while_it_starts_stops_at_once(tmp_path) -> None:
    settings = Settings(
        _env_file=None,
        originals=f"file:{tmp_path / 'originals'}",
        results="off",
        database="off",
    )
    app = create_app(settings)
    starting, told = threading.Event(), threading.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        starting.set()
        await asyncio.to_thread(told.wait, 20)
        await app(scope, receive, send)

    config = uvicorn.Config(slow, port=0, lifespan="on", log_level="warning")
    server = DrainingServer(config, delay=3600.0, on_drain=app.drain)
    # In another thread, where uvicorn leaves the signals of this process alone.
    serving = asyncio.create_task(asyncio.to_thread(asyncio.run, server.serve()))
    await asyncio.to_thread(starting.wait, 20)
    server.handle_exit(signal.SIGTERM, None)
    told.set()
    await asyncio.wait_for(serving, 20)
