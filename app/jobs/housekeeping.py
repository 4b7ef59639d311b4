"""What must be done from time to time, in every process that has a ledger.

All of them may do it: each piece of work is taken from the ledger in such a way that only one
process gets it.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import structlog

from app.jobs.database import Connection, Database

log = structlog.get_logger(__name__)

_RANDOM: Final = random.SystemRandom()
_LOOK: Final = 1.0
"""Seconds between looks for what is due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chore:
    """Something to be done every `period` seconds, where it is due.

    Whether it is shows in the ledger. That is read for all chores together: mostly none is.
    """

    name: str
    period: float
    do: Callable[[], Awaitable[object]]
    is_due: Callable[[Connection], bool]


@asynccontextmanager
async def keeping_house(database: Database, chores: Sequence[Chore]) -> AsyncIterator[None]:
    """Do every chore again and again until the block ends. One that fails is tried again."""
    keeping = asyncio.create_task(_House(database, chores).keep(), name="housekeeping")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


class _House:
    """Which chores are being done, and when each comes next, by the monotonic clock."""

    def __init__(self, database: Database, chores: Sequence[Chore]) -> None:
        self._database = database
        self._next_at = dict.fromkeys(chores, 0.0)
        self._doing: dict[Chore, asyncio.Task[None]] = {}

    async def keep(self) -> None:
        try:
            while True:
                await self._look()
                # Spread out, so that replicas started together do not all ask at once.
                await asyncio.sleep(_spread(_LOOK))
        finally:
            for task in self._doing.values():
                task.cancel()
            await asyncio.gather(*self._doing.values(), return_exceptions=True)

    async def _look(self) -> None:
        now = time.monotonic()
        free = [
            chore for chore, at in self._next_at.items() if at <= now and chore not in self._doing
        ]
        try:
            due = await self._database.read(lambda tx: [one for one in free if one.is_due(tx)])
        except Exception:
            log.exception("chores_not_looked_up")
            return
        for chore in due:
            self._doing[chore] = asyncio.create_task(self._do(chore), name=chore.name)

    async def _do(self, chore: Chore) -> None:
        try:
            await chore.do()
        except Exception:
            log.exception("chore_failed", chore=chore.name)
        finally:
            self._next_at[chore] = time.monotonic() + _spread(chore.period)
            del self._doing[chore]


def _spread(seconds: float) -> float:
    return seconds * _RANDOM.uniform(0.8, 1.2)
