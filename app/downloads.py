"""Bounds of what is downloaded at once: how many originals, and how many bytes of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from time import perf_counter

from app.errors import ServiceError
from app.telemetry import Metrics, note
from transforms.errors import TransformError


class ByteBudget:
    """Grants bytes in the order in which they are asked for; who does not fit waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def held(self) -> int:
        """Bytes that are granted now."""
        return self._held

    @asynccontextmanager
    async def hold(self, size: int) -> AsyncIterator[None]:
        """Hold `size` bytes, at most the whole budget, for the duration of the block."""
        size = min(size, self._limit)
        if self._waiting or self._held + size > self._limit:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._held -= size  # granted in the same moment
                else:
                    self._waiting = deque(w for w in self._waiting if w[1] is not turn)
                self._grant()
                raise
        else:
            self._held += size
        try:
            yield
        finally:
            self._held -= size
            self._grant()

    def _grant(self) -> None:
        while self._waiting and self._held + self._waiting[0][0] <= self._limit:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self._held += size
                turn.set_result(None)


class Downloads:
    """Slots for downloads. Who finds none waits, within its own deadline."""

    def __init__(self, *, slots: int, memory: int, metrics: Metrics) -> None:
        self._slots = asyncio.Semaphore(slots)
        self._budget = ByteBudget(memory)
        self._metrics = metrics

    @asynccontextmanager
    async def slot(self, size: int) -> AsyncIterator[None]:
        """Take a slot for a body of at most `size` bytes."""
        async with self._slots, self._budget.hold(size):
            yield

    @asynccontextmanager
    async def room(self, size: int) -> AsyncIterator[None]:
        """Take room for a body whose size shows only within a slot."""
        async with self._budget.hold(size):
            yield

    @contextmanager
    def counted(self, kind: str) -> Iterator[None]:
        """Count how asking a kind of source ends, and how long that took."""
        began = perf_counter()
        outcome = "failed"
        try:
            yield
            outcome = "complete"
        except (ServiceError, TransformError) as error:
            self._metrics.downloads.labels(kind, error.code).inc()
            raise
        finally:
            seconds = perf_counter() - began
            self._metrics.fetch_seconds.labels(kind, outcome).observe(seconds)
        self._metrics.downloads.labels(kind, "complete").inc()

    def count_bytes(self, kind: str, size: int) -> None:
        """Count the bytes of an original that has arrived."""
        self._metrics.received_bytes.labels(kind).inc(size)
        note(original_bytes=size)
