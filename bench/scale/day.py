"""A day: requests by the hour, and four things that happen in it.

Requests are those that reach the service, behind browsers' caches and a CDN's. Most are hits. The
rest are renders, of which a cold cache has more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

HOUR: Final = 3600.0
DAY: Final = 24 * HOUR


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """From `begin` on for so long, in seconds."""

    begin: float
    seconds: float

    def at(self, now: float) -> bool:
        return self.begin <= now < self.begin + self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Day:
    """What happens when. A quiet day has no events."""

    peak: float = 600.0
    """Requests per second in the busiest hour."""
    trough: float = 0.3
    """Requests at night, as a share of that."""
    misses: float = 0.10
    """Share of requests that are renders while the store is warm."""
    cold: Event | None = Event(begin=4 * HOUR, seconds=2 * HOUR)
    """All stored results are void: a new engine epoch, or a lost bucket."""
    slow_store: Event | None = Event(begin=9 * HOUR, seconds=900.0)
    """The object store takes `slow_fetch` for every original."""
    crowd: Event | None = Event(begin=13 * HOUR, seconds=1200.0)
    """Five times the requests within a minute, for pictures that nobody had asked for."""
    neighbours: Event | None = Event(begin=17 * HOUR, seconds=HOUR)
    """Others on the machines, or a quota, leave `speed` of each processor."""
    crowd_factor: float = 5.0
    fetch: float = 0.03
    slow_fetch: float = 1.5
    slow_speed: float = 0.7

    def requests(self, now: float) -> float:
        """Requests per second."""
        tide = (1 - np.cos((now / DAY - 4 / 24) * 2 * np.pi)) / 2  # lowest at 4, highest at 16
        rate = self.peak * (self.trough + (1 - self.trough) * tide)
        if self.crowd and self.crowd.at(now):
            since = now - self.crowd.begin
            left = self.crowd.begin + self.crowd.seconds - now
            rate *= 1 + (self.crowd_factor - 1) * min(1.0, since / 60, left / 300)
        return float(rate)

    def fetch_seconds(self, now: float) -> float:
        slow = self.slow_store is not None and self.slow_store.at(now)
        return self.slow_fetch if slow else self.fetch

    def speed(self, now: float) -> float:
        slow = self.neighbours is not None and self.neighbours.at(now)
        return self.slow_speed if slow else 1.0

    def named(self, now: float) -> str:
        """The event that is on, or the hours between."""
        for name in ("cold", "slow_store", "crowd", "neighbours"):
            event = getattr(self, name)
            if event is not None and event.at(now):
                return str(name)
        return "ordinary"


QUIET: Final = Day(cold=None, slow_store=None, crowd=None, neighbours=None)

RESULTS: Final = 300_000
EXPONENT: Final = 0.9
"""Results that are asked for, and the exponent of their popularity (Zipf's law)."""


@cache
def popularity(count: int = RESULTS, exponent: float = EXPONENT) -> np.ndarray:
    """The share of requests that each result has, the most popular first."""
    weights = np.arange(1, count + 1, dtype=float) ** -exponent
    return weights / weights.sum()


@cache
def _warming() -> tuple[np.ndarray, np.ndarray]:
    asked = np.concatenate([[0.0], np.geomspace(100, 1e8, 60)])
    shares = popularity()
    return asked, np.array([float((shares * np.exp(-n * shares)).sum()) for n in asked])


def unseen(asked: float) -> float:
    """Share of requests for what has not been asked for since the cache was emptied.

    Poisson arrivals: a result of share p is new to the store with exp(-n p) after n requests.
    """
    return float(np.interp(asked, *_warming()))
