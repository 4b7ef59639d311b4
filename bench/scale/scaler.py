"""An autoscaler as Kubernetes has it: HorizontalPodAutoscaler, autoscaling/v2.

The ratio of a metric to its target says how many replicas there should be, unless it is within the
tolerance. A window keeps the number from falling for what passes, and policies bound how fast it
changes. https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

SYNC: Final = 15.0
"""Seconds between two decisions (--horizontal-pod-autoscaler-sync-period)."""
TOLERANCE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Direction:
    """At most `percent` or `pods` more or less, whichever is more, in so many seconds.

    `window` is how long a recommendation is remembered.
    """

    percent: int
    pods: int
    period: float
    window: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a HorizontalPodAutoscaler is told, but for its metric."""

    least: int
    most: int
    up: Direction
    down: Direction


class Autoscaler:
    """Decides how many replicas there should be."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._wanted: deque[tuple[float, int]] = deque()
        self._changes: deque[tuple[float, int]] = deque()

    def decide(self, now: float, *, ratio: float, ready: int, replicas: int) -> int:
        """How many replicas, where the metric is `ratio` times its target.

        `replicas` have been asked for, of which `ready` serve.
        """
        rules = self._rules
        steady = abs(ratio - 1) <= TOLERANCE
        wanted = replicas if steady else math.ceil(ratio * ready - 1e-9)
        self._wanted.append((now, wanted))
        while self._wanted[0][0] < now - max(rules.up.window, rules.down.window):
            self._wanted.popleft()
        lowest = min(w for at, w in self._wanted if at >= now - rules.up.window)
        highest = max(w for at, w in self._wanted if at >= now - rules.down.window)
        settled = max(replicas, lowest) if lowest > replicas else min(replicas, highest)
        if settled > replicas:
            settled = min(settled, self._most_in(rules.up, now, replicas))
        elif settled < replicas:
            settled = max(settled, self._least_in(rules.down, now, replicas))
        settled = min(max(settled, rules.least), rules.most)
        if settled != replicas:
            self._changes.append((now, settled - replicas))
        return settled

    def _most_in(self, up: Direction, now: float, replicas: int) -> int:
        before = replicas - sum(c for at, c in self._changes if c > 0 and at > now - up.period)
        return max(replicas, before + up.pods, math.ceil(before * (1 + up.percent / 100)))

    def _least_in(self, down: Direction, now: float, replicas: int) -> int:
        before = replicas - sum(c for at, c in self._changes if c < 0 and at > now - down.period)
        return min(replicas, before - down.pods, int(before * (1 - down.percent / 100)))
