"""What must be done from time to time, in every process that has a ledger.

All of them may do it: each piece of work is taken from the ledger in such a way that only one
process gets it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

log = structlog.get_logger(__name__)

_RANDOM: Final = random.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """Something to be done every `period` seconds."""

    name: str
    period: float
    do: Callable[[], Awaitable[object]]


@asynccontextmanager
async def keeping_house(chores: list[Chore]) -> AsyncIterator[None]:
    """Do every chore again and again until the block ends. One that fails is tried again."""
    tasks = [asyncio.create_task(_repeat(chore), name=chore.name) for chore in chores]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _repeat(chore: Chore) -> None:
    while True:
        try:
            await chore.do()
        except Exception:
            log.exception("chore_failed", chore=chore.name)
        # Spread out, so that replicas started together do not all ask at once.
        await asyncio.sleep(chore.period * _RANDOM.uniform(0.8, 1.2))
