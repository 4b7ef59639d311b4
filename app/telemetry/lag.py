"""How late the event loop is: whatever holds it makes every request wait, hits first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

_PERIOD: Final = 0.5


@asynccontextmanager
async def measuring_lag(observe: Callable[[float], None]) -> AsyncIterator[None]:
    """Tell every half second how many seconds late a timer came, until the block ends."""
    loop = asyncio.get_running_loop()
    due = 0.0
    timer: asyncio.TimerHandle

    def tick() -> None:
        observe(max(0.0, loop.time() - due))
        begin()

    def begin() -> None:
        nonlocal due, timer
        due = loop.time() + _PERIOD
        timer = loop.call_at(due, tick)

    begin()
    try:
        yield
    finally:
        timer.cancel()
