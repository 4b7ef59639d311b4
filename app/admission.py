"""Admission: who may have a processor, and when.

The queue is bounded in seconds of estimated work, not in requests: past the bound the answer is at
once that it is too busy, while it is still of use. Lanes go before each other in their order.
Memory is admitted too: what runs at once stays within a number of bytes.

What goes before others never shuts them out. A lane that waits for longer than it was promised gets
a tenth of the processors' time, so that jobs get on under any load; on a single processor, too,
where a job then has it to itself for as long as it takes.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Final

from app.corrections import Corrections
from app.errors import Overloaded
from app.waiting import Lane, Load, Waiting, WaitingLine
from app.window import Window
from transforms.cost import Cost

__all__ = ["Admission", "Lane", "Reason", "Ticket"]

_MAX_RETRY_AFTER: Final = 30
_LEAST_PATIENCE: Final = 1.0
_MOST_PATIENCE: Final = 30.0
"""Seconds after which whoever waits is overdue: the budget of the lane, within these bounds."""
_LATE: Final = 2.0
"""Who has waited so many times the budget is refused after all: nobody expects an answer now."""
_LAG: Final = 0.1
"""Seconds by which whoever is late is looked for later: a timer may be early by a little."""
_OVERDUE_SHARE: Final = 0.1
"""Of the processors' time, for what is overdue."""


class Reason(StrEnum):
    """Why someone is refused: what there is too little of."""

    QUEUE = "queue"
    MEMORY = "memory"
    DEADLINE = "deadline"
    DOCUMENTS = "documents"


class Ticket:
    """A processor that has been granted. Release it when the thread has ended, not before."""

    __slots__ = ("_admission", "cost", "lane", "started")

    def __init__(self, admission: Admission, lane: Lane, cost: Cost, now: float) -> None:
        self._admission = admission
        self.lane = lane
        self.cost = cost
        self.started = now

    def release(self, *, learn: bool) -> None:
        """Give the processor back. `learn` from the time it took, where it ran to its end."""
        self._admission._release(self, learn=learn)  # noqa: SLF001 - a ticket is a part of its admission


class Admission:
    """A queue before `processors` slots and `memory` bytes, with a budget in seconds per lane.

    Originals of GET requests that wait take `waiting_bytes` at most, unless no more wait than there
    are processors. Jobs leave `kept_from_jobs` processors free for others; one of them always finds
    one. `on_wait` is told of every wait in seconds, `on_shed` of everyone who is refused and why,
    `on_busy` for how many seconds a processor was taken, when it is given back.
    """

    def __init__(
        self,
        *,
        processors: int,
        memory: int,
        budgets: Mapping[Lane, float],
        waiting_bytes: float = math.inf,
        kept_from_jobs: int = 1,
        on_wait: Callable[[Lane, float], None],
        on_shed: Callable[[Lane, Reason], None],
        on_busy: Callable[[float], None],
    ) -> None:
        self._processors = processors
        self._memory = memory
        self._budgets = budgets
        self._waiting_bytes = waiting_bytes
        self._for_jobs = max(1, processors - kept_from_jobs)
        self._on_wait = on_wait
        self._on_shed = on_shed
        self._on_busy = on_busy
        self._running: set[Ticket] = set()
        self._line: WaitingLine[Ticket] = WaitingLine()
        self._corrections = Corrections()
        self._window = Window(now=time.monotonic())
        self._overdue_from = dict.fromkeys(Lane, 0.0)

    @property
    def processors(self) -> int:
        """Renders at once."""
        return self._processors

    @property
    def running(self) -> int:
        """Processors in use."""
        return len(self._running)

    @property
    def queued(self) -> int:
        """Renders that wait for one."""
        return len(self._line)

    @property
    def queued_seconds(self) -> float:
        """Seconds that what waits will take all processors, as it is estimated."""
        return self._seconds(self._line.load(self._corrections))

    @property
    def utilisation(self) -> float:
        """The share of the processors' time that was taken of late, 0 to 1."""
        return self._window.utilisation(
            time.monotonic(),
            processors=self._processors,
            running=[ticket.started for ticket in self._running],
        )

    @property
    def recent_wait(self) -> float:
        """The 95th percentile of interactive waits of late, in seconds."""
        return self._window.wait(time.monotonic())

    @property
    def shed_share(self) -> float:
        """The share of those who came of late that were refused, 0 to 1."""
        return self._window.shed_share(time.monotonic())

    def estimate(self, cost: Cost) -> float:
        """Seconds that a render will take, as such renders have taken."""
        return cost.seconds * self._corrections.of(cost.kind)

    def estimated_wait(self, lane: Lane) -> float:
        """Seconds until a render that arrives now would begin."""
        return self._seconds(self._before(lane))

    def is_pressed(self, lane: Lane, *, share: float) -> bool:
        """Whether a render that arrives now would wait for more than a share of the budget."""
        return self.estimated_wait(lane) > share * self._budgets[lane]

    def check(self, lane: Lane) -> None:
        """Raise Overloaded where a render would not be admitted now, before anything is fetched."""
        before = self._before(lane)
        wait, budget = self._seconds(before), self._budgets[lane]
        if wait > budget:
            by_processors = before.seconds / self._processors
            raise self._refusal(
                lane,
                Reason.QUEUE if wait <= by_processors else Reason.MEMORY,
                f"The estimated wait of {wait:.2f} s exceeds the {budget:g} s of this class",
            )
        if (
            lane is Lane.INTERACTIVE
            and self._line.held(lane) >= self._waiting_bytes
            and self._line.count(lane) >= self._processors
        ):
            raise self._refusal(
                lane,
                Reason.MEMORY,
                "Originals that wait take all the memory that there is for them",
            )

    def note_shed(self, lane: Lane, reason: Reason) -> None:
        """Count someone who was refused elsewhere for want of what the reason names."""
        self._window.note_shed(time.monotonic())
        self._on_shed(lane, reason)

    async def enter(self, lane: Lane, cost: Cost, *, held: int = 0) -> Ticket:
        """Wait for a processor, with so many bytes of originals.

        Raises Overloaded at once where that would take too long, and later where it does so against
        all estimates.
        """
        now = time.monotonic()
        # What exceeds all memory by itself runs alone.
        cost = replace(cost, memory=min(cost.memory, self._memory))
        if not self._goes_before(lane, now) and self._fits(lane, cost.memory):
            self._note_wait(lane, now, 0.0)
            return self._start(lane, cost, now)
        self.check(lane)
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[Ticket] = loop.create_future()
        waiting = Waiting(lane, cost, now, turn, held)
        self._line.join(waiting)
        self._grant()  # time has passed: what was kept from a job may be an overdue one's now
        late = self._longest_wait(lane)
        # Behind renders that do not end nothing else happens that would look for who is late.
        timer = loop.call_later(late + _LAG, self._grant) if math.isfinite(late) else None
        try:
            ticket = await turn
        except asyncio.CancelledError:
            self._line.leave(waiting)
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().release(learn=False)  # granted in the same moment
            else:
                self._grant()  # it may have been in the way of others
            raise
        finally:
            if timer is not None:
                timer.cancel()
        self._note_wait(lane, ticket.started, ticket.started - now)
        return ticket

    def _start(self, lane: Lane, cost: Cost, now: float) -> Ticket:
        ticket = Ticket(self, lane, cost, now)
        self._running.add(ticket)
        self._window.note_entry(now)
        return ticket

    def _release(self, ticket: Ticket, *, learn: bool) -> None:
        if ticket not in self._running:
            return
        now = time.monotonic()
        self._running.discard(ticket)
        self._window.note_busy(ticket.started, now)
        took = now - ticket.started
        self._on_busy(took)
        if learn:
            self._corrections.learn(ticket.cost.kind, took / ticket.cost.seconds)
        self._grant()

    def _grant(self) -> None:
        now = time.monotonic()
        self._drop_late(now)
        while (first := self._first(now)) is not None:
            overdue = self._is_overdue(first, now)
            if not self._fits(first.lane, first.cost.memory, overdue=overdue):
                return
            self._line.leave(first)
            if overdue:
                share = _OVERDUE_SHARE * self._processors
                self._overdue_from[first.lane] = now + self.estimate(first.cost) / share
            first.turn.set_result(self._start(first.lane, first.cost, now))

    def _first(self, now: float) -> Waiting[Ticket] | None:
        """Who goes next. It is waited for until it fits: nothing small overtakes it."""
        firsts = [one for lane in Lane if (one := self._line.first(lane))]
        overdue = [one for one in firsts if self._is_overdue(one, now)]
        return min(overdue, key=lambda one: one.since) if overdue else next(iter(firsts), None)

    def _goes_before(self, lane: Lane, now: float) -> bool:
        """Whether someone who waits goes before those who arrive in this lane now."""
        first = self._first(now)
        return first is not None and (first.lane <= lane or self._is_overdue(first, now))

    def _is_overdue(self, waiting: Waiting[Ticket], now: float) -> bool:
        """Whether it goes before others, for it has waited long, and the last such one has paid."""
        lane = waiting.lane
        if lane is Lane.INTERACTIVE or now < self._overdue_from[lane]:
            return False
        if lane is Lane.JOBS:
            at_work = sum(ticket.lane is Lane.JOBS for ticket in self._running)
            if at_work >= self._for_jobs:
                return False
        patience = min(_MOST_PATIENCE, max(_LEAST_PATIENCE, self._budgets[lane]))
        return now - waiting.since > patience

    def _fits(self, lane: Lane, memory: int, *, overdue: bool = False) -> bool:
        busy = len(self._running)
        if busy >= self._processors:
            return False
        if lane is Lane.JOBS and busy >= self._for_jobs and not overdue:
            return False  # the rest is kept for whoever waits for an answer
        held = sum(ticket.cost.memory for ticket in self._running)
        return not busy or held + memory <= self._memory

    def _longest_wait(self, lane: Lane) -> float:
        """Seconds after which whoever waits is refused."""
        return _LATE * max(_LEAST_PATIENCE, self._budgets[lane])

    def _drop_late(self, now: float) -> None:
        """Refuse those whose answer would come too late."""
        for lane in self._budgets:
            late = now - self._longest_wait(lane)
            while (one := self._line.first(lane)) is not None and one.since < late:
                self._line.leave(one)
                detail = f"The wait of {now - one.since:.2f} s was longer than was estimated"
                one.turn.set_exception(self._refusal(lane, Reason.DEADLINE, detail))

    def _before(self, lane: Lane) -> Load:
        """The work before a render that arrives now: none, where there is a processor free."""
        waits = self._line.load(self._corrections, up_to=lane)
        if not waits.seconds and len(self._running) < self._processors:
            return waits
        return waits + self._left()

    def _left(self) -> Load:
        """What is left of what runs."""
        now = time.monotonic()
        left = Load()
        for ticket in self._running:
            seconds = max(0.0, self.estimate(ticket.cost) - (now - ticket.started))
            left += Load(seconds, seconds * ticket.cost.memory)
        return left

    def _seconds(self, load: Load) -> float:
        """How long the processors take for it, or the memory, whichever there is less of."""
        return max(load.seconds / self._processors, load.byte_seconds / self._memory)

    def _refusal(self, lane: Lane, reason: Reason, detail: str) -> Overloaded:
        self.note_shed(lane, reason)
        # Spread out, the longer it takes the wider, so that those who were refused do not all
        # return at the same moment.
        seconds = math.ceil(self.estimated_wait(lane))
        spread = random.randrange(1 + max(1, seconds // 2))  # noqa: S311 - no secret
        return Overloaded(detail, retry_after=min(_MAX_RETRY_AFTER, max(1, seconds + spread)))

    def _note_wait(self, lane: Lane, now: float, seconds: float) -> None:
        if lane is Lane.INTERACTIVE:
            self._window.note_wait(now, seconds)
        self._on_wait(lane, seconds)
