"""What has happened at the processors within the last seconds, kept without a clock of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_SHARE: Final = 0.95
_WAITS: Final = 1000
"""Waits that are kept of one slice."""


@dataclass(slots=True)
class _Slice:
    """A second of the monotonic clock; a window moves on by as much."""

    began: int
    busy: float = 0.0
    entered: int = 0
    shed: int = 0
    waits: list[float] = field(default_factory=list)


class Window:
    """Sums over the last `seconds`. Moments are of the monotonic clock, and never go back."""

    def __init__(self, *, now: float, seconds: int = 15) -> None:
        self._seconds = seconds
        self._opened = now
        self._slices: deque[_Slice] = deque([_Slice(int(now))])

    def note_entry(self, now: float) -> None:
        """Someone was let in, to a processor or to wait for one."""
        self._at(now).entered += 1

    def note_shed(self, now: float) -> None:
        """Someone was refused."""
        self._at(now).shed += 1

    def note_wait(self, now: float, seconds: float) -> None:
        """Someone who is waited for has waited so long for a processor."""
        waits = self._at(now).waits
        if len(waits) < _WAITS:
            waits.append(seconds)

    def note_busy(self, began: float, now: float) -> None:
        """A processor was taken until now."""
        self._at(now)
        for one in self._slices:
            one.busy += max(0.0, min(now, one.began + 1) - max(began, one.began))

    def utilisation(self, now: float, *, processors: int, running: Iterable[float]) -> float:
        """The share of the processors' time that was taken, 0 to 1.

        `running` are the moments at which those have been taken that still are.
        """
        self._at(now)
        since = max(self._opened, self._slices[0].began)
        busy = sum(one.busy for one in self._slices)
        busy += sum(now - max(began, since) for began in running)
        return min(1.0, busy / (processors * max(now - since, 1.0)))

    def wait(self, now: float) -> float:
        """The 95th percentile of the waits in seconds; 0 where there were none."""
        self._at(now)
        waits = sorted(wait for one in self._slices for wait in one.waits)
        return waits[min(len(waits) - 1, int(len(waits) * _SHARE))] if waits else 0.0

    def shed_share(self, now: float) -> float:
        """The share of arrivals that were refused, 0 to 1."""
        self._at(now)
        shed = sum(one.shed for one in self._slices)
        arrived = shed + sum(one.entered for one in self._slices)
        return shed / arrived if arrived else 0.0

    def _at(self, now: float) -> _Slice:
        """The slice of this moment. Those that are past the window are forgotten."""
        moment = int(now)
        first = moment - self._seconds
        for began in range(max(self._slices[-1].began, first) + 1, moment + 1):
            self._slices.append(_Slice(began))
        while self._slices[0].began < first:
            self._slices.popleft()
        return self._slices[-1]
