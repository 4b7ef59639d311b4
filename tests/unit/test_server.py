"""How processes that serve or work end, as seen from inside."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from app import main
from app.ending import end_when_still
from app.main import create_app
from app.server import DrainingServer
from app.service import Service, open_service
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
    server = DrainingServer(
        config, delay=3600.0, timeout=20.0, on_drain=app.drain, end=lambda *_, **__: None
    )
    # In another thread, where uvicorn leaves the signals of this process alone.
    serving = asyncio.create_task(asyncio.to_thread(asyncio.run, server.serve()))
    await asyncio.to_thread(starting.wait, 20)
    server.handle_exit(signal.SIGTERM, None)
    told.set()
    await asyncio.wait_for(serving, 20)


async def test_a_process_whose_loop_stands_still_ends_and_one_that_is_idle_does_not() -> None:
    ended: list[tuple[int, str]] = []
    told = threading.Event()

    def end(seconds: float, *, status: int, reason: str) -> None:
        ended.append((status, reason))
        told.set()

    end_when_still(asyncio.get_running_loop(), end=end, every=0.02)
    await asyncio.sleep(0.3)
    assert not ended
    assert told.wait(20)  # the loop waits too
    assert ended == [(1, "the event loop stands still")]


async def test_spans_are_sent_last_so_that_a_slow_collector_holds_up_nothing(tmp_path, monkeypatch):
    done: list[str] = []

    class Tracer:
        def close(self) -> None:
            done.append("spans are sent")

    @asynccontextmanager
    async def opening(*arguments: Any, **options: Any) -> AsyncIterator[Service]:
        async with open_service(*arguments, **options) as service:
            yield service
        done.append("the service is closed")

    monkeypatch.setattr(main, "open_tracer", lambda environ: Tracer())
    monkeypatch.setattr(main, "open_service", opening)
    settings = Settings(_env_file=None, originals=f"file:{tmp_path}", results="off", database="off")
    api = create_app(settings).api
    async with api.router.lifespan_context(api):
        assert not done
    assert done == ["the service is closed", "spans are sent"]
