"""Who waits for a processor, in lanes, and how much work that is."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, TypeVar

from app.corrections import Corrections, Kind
from transforms.cost import Cost

T = TypeVar("T")


class Lane(IntEnum):
    """Classes of work; the lower goes first."""

    INTERACTIVE = 0
    API = 1
    JOBS = 2


@dataclass(slots=True, eq=False)
class Waiting(Generic[T]):
    """One who waits: for what, since when by the monotonic clock, and for whose turn.

    `held` are the bytes of originals that wait along.
    """

    lane: Lane
    cost: Cost
    since: float
    turn: asyncio.Future[T]
    held: int = 0


@dataclass(frozen=True, slots=True)
class Load:
    """Estimated work: seconds of a processor, and those times the bytes held meanwhile."""

    seconds: float = 0.0
    byte_seconds: float = 0.0

    def __add__(self, other: Load) -> Load:
        return Load(self.seconds + other.seconds, self.byte_seconds + other.byte_seconds)

    def __mul__(self, factor: float) -> Load:
        return Load(self.seconds * factor, self.byte_seconds * factor)

    @classmethod
    def of(cls, cost: Cost) -> Load:
        """That of a render, uncorrected."""
        return cls(cost.seconds, cost.seconds * cost.memory)


class WaitingLine(Generic[T]):
    """A first-come line for each lane. Joining, leaving and adding up cost the same however long.

    Work is kept as it was estimated, by kind, and corrected when it is asked for: what waits
    follows what is learnt meanwhile.
    """

    def __init__(self) -> None:
        # In order of arrival, and anyone can leave at once: a dictionary is such a queue.
        self._lanes: dict[Lane, dict[Waiting[T], None]] = {lane: {} for lane in Lane}
        self._loads: dict[tuple[Lane, Kind], tuple[int, Load]] = {}
        self._held = dict.fromkeys(Lane, 0)

    def __len__(self) -> int:
        return sum(map(len, self._lanes.values()))

    def join(self, waiting: Waiting[T]) -> None:
        """Stand last in the lane."""
        self._lanes[waiting.lane][waiting] = None
        self._count(waiting, 1)

    def leave(self, waiting: Waiting[T]) -> None:
        """Go, from wherever in the lane. Harmless where that has been done."""
        if self._lanes[waiting.lane].pop(waiting, waiting) is None:
            self._count(waiting, -1)

    def first(self, lane: Lane) -> Waiting[T] | None:
        """Who has been longest in a lane. Whoever was cancelled a moment ago is not in it."""
        while one := next(iter(self._lanes[lane]), None):
            if not one.turn.done():
                return one
            self.leave(one)
        return None

    def count(self, lane: Lane) -> int:
        """How many wait in a lane."""
        return len(self._lanes[lane])

    def held(self, lane: Lane) -> int:
        """Bytes of originals that wait in a lane."""
        return self._held[lane]

    def load(self, corrections: Corrections, *, up_to: Lane = Lane.JOBS) -> Load:
        """The work of all lanes up to one."""
        total = Load()
        # Of a copy: a worker's metrics are read in a thread of their own.
        for (lane, kind), (_, load) in self._loads.copy().items():
            if lane <= up_to:
                total += load * corrections.of(kind)
        return total

    def _count(self, waiting: Waiting[T], number: int) -> None:
        self._held[waiting.lane] += number * waiting.held
        key = (waiting.lane, waiting.cost.kind)
        count, load = self._loads.get(key, (0, Load()))
        if count + number:
            self._loads[key] = (count + number, load + Load.of(waiting.cost) * number)
        else:
            del self._loads[key]  # and with it what rounding has left
