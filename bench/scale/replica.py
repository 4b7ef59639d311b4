"""A replica's processors and the queue before them, as `app.admission` keeps it, in one lane.

Who waits is served in order, so what is to come is known at arrival: when a render will begin is
when the first processor is free. Hence there is no event for it, and a day of renders is cheap.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from heapq import heapreplace

REFUSED = -1.0


class Replica:
    """So many processors, and a queue bounded by `budget` seconds of work before them."""

    __slots__ = ("_assigned", "_budget", "_free", "_total", "processors", "refusals")

    def __init__(self, *, processors: int, budget: float, now: float = 0.0) -> None:
        self.processors = processors
        self.refusals = 0
        self._budget = budget
        self._free = [now] * processors
        """When each processor will be free, as a heap."""
        self._total = now * processors
        self._assigned = 0.0

    def offer(self, now: float, seconds: float) -> float:
        """The wait of a render that arrives now, or REFUSED."""
        free = self._free
        first = free[0]
        if first <= now:
            heapreplace(free, now + seconds)
            self._total += now + seconds - first
            self._assigned += seconds
            return 0.0
        # All are busy: what is left of those that run, and all that wait, by processor.
        if self._total / self.processors - now > self._budget:
            self.refusals += 1
            return REFUSED
        heapreplace(free, first + seconds)
        self._total += seconds
        self._assigned += seconds
        return first - now

    def busy_seconds(self, now: float) -> float:
        """Seconds that processors have been held until now, together."""
        return self._assigned - sum(free - now for free in self._free if free > now)


def serve(
    replicas: Sequence[Replica],
    arrivals: Iterable[tuple[float, float, int, int]],
) -> list[float]:
    """Waits of renders, each given as time, seconds and the places of two replicas.

    What the first replica refuses, the balancer offers to the second, once.
    """
    waits = []
    for now, seconds, first, second in arrivals:
        wait = replicas[first].offer(now, seconds)
        if wait == REFUSED and second != first:
            wait = replicas[second].offer(now, seconds)
        waits.append(wait)
    return waits
