"""How late the event loop is, is measured."""

from __future__ import annotations

import asyncio
import time

from app.telemetry.lag import measuring_lag


async def test_what_holds_the_loop_makes_it_late():
    lags = []
    async with measuring_lag(lags.append):
        time.sleep(0.7)  # noqa: ASYNC251 - that is what it must not do
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert len(lags) == 1
    assert lags[0] > 0.1
