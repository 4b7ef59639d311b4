"""Admission: who may have a processor, and when.

The queue is bounded in seconds of estimated work, not in requests: past the bound the answer is at
once that it is too busy, while it is still of use. Lanes go before each other in their order.
Memory is admitted too: what runs at once stays within a number of bytes.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from app.errors import Overloaded
from transforms.cost import Cost

_LEARNING: Final = 0.1
"""Weight of the latest render in the running mean by which estimates are corrected."""
_CORRECTION: Final = (0.1, 10.0)
_MAX_RETRY_AFTER: Final = 30


class Lane(IntEnum):
    """Classes of work; the lower goes first."""

    INTERACTIVE = 0
    API = 1
    JOBS = 2


@dataclass(slots=True, order=True)
class _Waiting:
    lane: Lane
    number: int
    seconds: float = field(compare=False)
    memory: int = field(compare=False)
    turn: asyncio.Future[None] = field(compare=False)
    gone: bool = field(default=False, compare=False)


class Ticket:
    """A processor that has been granted. Release it when the thread has ended, not before."""

    __slots__ = ("_admission", "_kind", "_raw_seconds", "lane", "memory", "seconds", "started")

    def __init__(self, admission: Admission, lane: Lane, cost: Cost, seconds: float) -> None:
        self._admission = admission
        self._kind = cost.kind
        self._raw_seconds = cost.seconds
        self.lane = lane
        self.memory = cost.memory
        self.seconds = seconds
        self.started = time.monotonic()

    def release(self, *, learn: bool) -> None:
        """Give the processor back. `learn` from the time it took, where it ran to its end."""
        self._admission._release(self)  # noqa: SLF001 - a ticket is a part of its admission
        if learn:
            took = time.monotonic() - self.started
            self._admission._learn(self._kind, took / self._raw_seconds)  # noqa: SLF001 - the same


class Admission:
    """A queue before `processors` slots and `memory` bytes, with a budget in seconds per lane.

    Jobs leave `kept_from_jobs` processors to others; one of them always finds one.
    """

    def __init__(
        self,
        *,
        processors: int,
        memory: int,
        budgets: Mapping[Lane, float],
        kept_from_jobs: int = 1,
        on_wait: Callable[[Lane, float], None],
    ) -> None:
        self._processors = processors
        self._memory = memory
        self._budgets = budgets
        self._kept_from_jobs = kept_from_jobs
        self._on_wait = on_wait
        self._running: set[Ticket] = set()
        self._queue: list[_Waiting] = []
        self._numbers = itertools.count()
        self._corrections: dict[tuple[str, str], float] = {}
        # Between a grant and the moment the waiter wakes, its slot is reserved.
        self._reserved = 0
        self._reserved_memory = 0

    @property
    def running(self) -> int:
        """Processors in use."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Renders that wait for one."""
        return sum(not waiting.gone for waiting in self._queue)

    def estimated_wait(self, lane: Lane) -> float:
        """Seconds until a render that arrives now would begin."""
        before = [w.seconds for w in self._queue if w.lane <= lane and not w.gone]
        if not before and len(self._running) + self._reserved < self._processors:
            return 0.0
        now = time.monotonic()
        left = sum(max(0.0, t.seconds - (now - t.started)) for t in self._running)
        return (left + sum(before)) / self._processors

    def check(self, lane: Lane) -> None:
        """Raise Overloaded where a render would not be admitted now, before anything is fetched."""
        wait = self.estimated_wait(lane)
        budget = self._budgets[lane]
        if wait > budget:
            # Spread out, so that all who were refused do not return at the same moment.
            after = min(_MAX_RETRY_AFTER, math.ceil(wait) + random.randrange(2))  # noqa: S311 - no secret
            raise Overloaded(
                f"The estimated wait of {wait:.2f} s exceeds the {budget:g} s of this class",
                retry_after=after,
            )

    async def enter(self, lane: Lane, cost: Cost) -> Ticket:
        """Wait for a processor. Raises Overloaded at once where that would take too long."""
        seconds = cost.seconds * self._corrections.get(cost.kind, 1.0)
        waits = any(w.lane <= lane and not w.gone for w in self._queue)
        if not waits and self._fits(lane, cost.memory):
            self._on_wait(lane, 0.0)
            return self._start(lane, cost, seconds)
        self.check(lane)
        waiting = _Waiting(
            lane,
            next(self._numbers),
            seconds,
            cost.memory,
            asyncio.get_running_loop().create_future(),
        )
        heapq.heappush(self._queue, waiting)
        began = time.monotonic()
        self._grant()
        try:
            await waiting.turn
        except asyncio.CancelledError:
            if waiting.turn.done() and not waiting.turn.cancelled():
                self._reserved -= 1  # granted in the same moment
                self._reserved_memory -= waiting.memory
            waiting.gone = True
            self._grant()
            raise
        self._reserved -= 1
        self._reserved_memory -= waiting.memory
        self._on_wait(lane, time.monotonic() - began)
        return self._start(lane, cost, seconds)

    def _start(self, lane: Lane, cost: Cost, seconds: float) -> Ticket:
        ticket = Ticket(self, lane, cost, seconds)
        self._running.add(ticket)
        return ticket

    def _fits(self, lane: Lane, memory: int) -> bool:
        busy = len(self._running) + self._reserved
        if busy >= self._processors:
            return False
        if lane is Lane.JOBS and busy and busy >= self._processors - self._kept_from_jobs:
            return False  # the rest is kept for whoever waits for an answer
        held = sum(ticket.memory for ticket in self._running) + self._reserved_memory
        return not busy or held + memory <= self._memory

    def _grant(self) -> None:
        while self._queue:
            first = self._queue[0]
            if first.gone or first.turn.done():
                heapq.heappop(self._queue)
            elif self._fits(first.lane, first.memory):
                heapq.heappop(self._queue)
                self._reserved += 1
                self._reserved_memory += first.memory
                first.turn.set_result(None)
            else:
                return

    def _release(self, ticket: Ticket) -> None:
        self._running.discard(ticket)
        self._grant()

    def _learn(self, kind: tuple[str, str], ratio: float) -> None:
        low, high = _CORRECTION
        known = self._corrections.get(kind, 1.0)
        learnt = known + _LEARNING * (min(max(ratio, low), high) - known)
        self._corrections[kind] = learnt
