"""A fleet over a day: clients, replicas that start and stop, and what measures and scales them.

SimPy keeps the time. Renders are handed to replicas a step of five seconds at a time, each at its
own moment; replicas come and go between steps.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

import numpy as np
import simpy

from bench.scale import mix
from bench.scale.day import DAY, Day, unseen
from bench.scale.replica import REFUSED, Replica, serve
from bench.scale.scaler import SYNC, Autoscaler, Rules
from bench.scale.signals import Measured, Signal

STEP: Final = 5.0
_LAST: Final = 60.0
"""No render takes so long, so what is unfinished in the end came within it."""
SLOW: Final = 0.25
"""Seconds of waiting beyond which an answer is counted as bad, beside the refused."""

HIT_SECONDS: Final = 0.00007  # `python -m bench hits`: processor time of a hit in memory
STORED_SECONDS: Final = 0.0013  # a GET of 30 to 100 KB from S3, and the answer
AROUND_SECONDS: Final = 0.0027  # of a render: GET of the original, PUT of the result, the answer
IN_MEMORY: Final = 0.6
"""Share of hits that the memory tier has; `balance` tells how balancing changes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """What replicas are and how they are made and watched."""

    processors: int = 2
    budget: float = 0.5
    start: tuple[float, float] = (25.0, 65.0)
    """Seconds from the decision to readiness: scheduling, pull, 5 s of start. Between the two."""
    window: float = 60.0
    """Seconds that the metric is a mean over."""
    late: float = 15.0
    """Seconds that it is old."""


@dataclass(slots=True)
class Outcome:
    """What came of a day."""

    renders: int = 0
    answered: int = 0
    refused: int = 0
    slow: int = 0
    unfinished: int = 0
    replica_hours: float = 0.0
    most: int = 0
    changes: int = 0
    minutes: dict[int, list[int]] = field(default_factory=dict)
    """Renders, bad ones and refused ones of each minute."""
    events: dict[str, list[int]] = field(default_factory=dict)
    """The same of each event."""
    history: list[tuple[float, int, int, float]] = field(default_factory=list)
    """Time, replicas asked for, replicas ready, and renders per second, by the minute."""

    @property
    def bad(self) -> float:
        """Share of renders that were refused, or waited too long."""
        return (self.refused + self.slow) / max(1, self.renders)

    @property
    def bad_minutes(self) -> int:
        """Minutes whose 95th percentile is bad, where a refusal is an endless wait."""
        return sum(bad > 0.05 * renders for renders, bad, _ in self.minutes.values())

    def between(self, begin: float, end: float) -> tuple[float, float]:
        """Shares of bad and of refused renders in the minutes between two times."""
        rows = [row for minute, row in self.minutes.items() if begin <= minute * 60 < end]
        renders, bad, refused = (sum(column) for column in zip(*rows, strict=True))
        return bad / max(1, renders), refused / max(1, renders)

    def bad_in(self, event: str) -> float:
        renders, bad, _ = self.events.get(event, (0, 0, 0))
        return bad / max(1, renders)


@cache
def _costs(seed: int) -> np.ndarray:
    return mix.sample(1 << 17, seed=seed)


class Fleet:
    """Replicas, and all that goes on around them."""

    def __init__(
        self,
        day: Day,
        site: Site,
        *,
        seed: int,
        replicas: int,
        signal: Signal | None = None,
        target: float = 1.0,
        rules: Rules | None = None,
        lost: tuple[float, float] | None = None,
    ) -> None:
        """Without a signal the number of replicas stays.

        `lost` is the time at which a share of the replicas goes, and that share.
        """
        self._env = simpy.Environment()
        self._day, self._site = day, site
        self._random = np.random.default_rng(seed)
        self._costs = _costs(seed)
        self._signal, self._target = signal, target
        self._scaler = Autoscaler(rules) if rules else None
        self._asked = replicas
        self._starting: list[simpy.Process] = []
        self._ready = [self._new() for _ in range(replicas)]
        self._steps: deque[Measured] = deque(maxlen=64)
        self._seen = 0.0
        self._chilled = False
        self._until = DAY
        self._ends: list[np.ndarray] = []
        self.outcome = Outcome(most=replicas)
        self._env.process(self._serve())
        if self._scaler is not None:
            self._env.process(self._scale())
        if lost is not None:
            self._env.process(self._lose(*lost))

    def run(self, *, seconds: float = DAY) -> Outcome:
        self._until = seconds
        self._env.run(until=seconds)
        outcome = self.outcome
        outcome.unfinished = sum(int((ends > seconds).sum()) for ends in self._ends)
        outcome.answered = outcome.renders - outcome.refused - outcome.unfinished
        return outcome

    def _new(self) -> Replica:
        return Replica(
            processors=self._site.processors, budget=self._site.budget, now=self._env.now
        )

    # Clients.

    def _serve(self) -> Generator[Any, Any, None]:
        while True:
            self._step(self._env.now)
            yield self._env.timeout(STEP)

    def _step(self, now: float) -> None:
        day, ready = self._day, self._ready
        rate = day.requests(now)
        misses = self._misses(now)
        count = int(self._random.poisson(rate * misses * STEP))
        requests = rate * STEP
        hits = max(0.0, requests - count)
        beside = (
            hits * (IN_MEMORY * HIT_SECONDS + (1 - IN_MEMORY) * STORED_SECONDS)
            + count * AROUND_SECONDS
        )
        speed = day.speed(now)
        # Hits and what surrounds renders take from the same processors, and hold no worker.
        workers = len(ready) * self._site.processors
        left = max(0.2, speed - beside / STEP / max(1, workers))
        costs = self._costs[self._random.integers(0, len(self._costs), count)] / left
        times = np.sort(now + self._random.random(count) * STEP)
        before = [(replica.busy_seconds(now), replica.refusals) for replica in ready]
        waits = self._hand_out(times, costs)
        each = [
            replica.busy_seconds(now + STEP) - busy
            for replica, (busy, _) in zip(ready, before, strict=True)
        ]
        refusals = sum(r.refusals - was for r, (_, was) in zip(ready, before, strict=True))
        busy = sum(each)
        accepted = waits != REFUSED
        refused = int(count - accepted.sum())
        if now + _LAST > self._until:
            self._ends.append((times + waits + costs)[accepted])
        sojourn = float((waits + costs + day.fetch_seconds(now))[accepted].sum())
        self._seen += requests * (1 - refused / count if count else 1.0)
        measured = Measured(
            seconds=STEP,
            workers=workers,
            replicas=len(ready),
            requests=requests,
            busy=busy,
            processor=min(busy * left + beside, workers * STEP * speed),
            offered=count + refusals - refused,  # what one has refused another is offered
            refused=refusals,
            sojourn=sojourn,
            waits=waits[accepted],
            each=each,
        )
        self._steps.append(measured)
        self._book(now, count, refused, int((waits > SLOW).sum()))

    def _misses(self, now: float) -> float:
        cold = self._day.cold
        if cold is None or now < cold.begin:
            return self._day.misses
        if not self._chilled:
            self._chilled, self._seen = True, 0.0
        return max(self._day.misses, unseen(self._seen))

    def _hand_out(self, times: np.ndarray, costs: np.ndarray) -> np.ndarray:
        count, ready = len(times), len(self._ready)
        if not ready:
            return np.full(count, REFUSED)
        first = self._random.integers(0, ready, count)
        second = (first + self._random.integers(1, ready, count)) % ready if ready > 1 else first
        arrivals = zip(times.tolist(), costs.tolist(), first.tolist(), second.tolist(), strict=True)
        return np.array(serve(self._ready, arrivals))

    def _book(self, now: float, count: int, refused: int, slow: int) -> None:
        outcome = self.outcome
        outcome.renders += count
        outcome.refused += refused
        outcome.slow += slow
        # Whoever is asked for is paid for, also while it starts.
        outcome.replica_hours += self._asked * STEP / 3600
        for booked in (
            outcome.minutes.setdefault(int(now // 60), [0, 0, 0]),
            outcome.events.setdefault(self._day.named(now), [0, 0, 0]),
        ):
            booked[0] += count
            booked[1] += refused + slow
            booked[2] += refused
        if now % 60 == 0:
            outcome.history.append((now, self._asked, len(self._ready), count / STEP))

    # Replicas.

    def _scale(self) -> Generator[Any, Any, None]:
        assert self._scaler is not None
        assert self._signal is not None
        while True:
            yield self._env.timeout(SYNC)
            seen = self._visible()
            if not seen:
                continue
            ready, value = len(self._ready), self._signal.measure(seen) / self._target
            if not self._signal.mean:  # what each replica that is asked for would have of the sum
                ready, value = self._asked, value / self._asked
            self._resize(
                self._scaler.decide(self._env.now, ratio=value, ready=ready, replicas=self._asked)
            )

    def _visible(self) -> list[Measured]:
        """The steps that the metric is a mean of, by now."""
        late, window = (round(s / STEP) for s in (self._site.late, self._site.window))
        steps = list(self._steps)
        return steps[: len(steps) - late][-window:]

    def _resize(self, wanted: int) -> None:
        if wanted == self._asked:
            return
        self.outcome.changes += 1
        self.outcome.most = max(self.outcome.most, wanted)
        for _ in range(wanted - self._asked):
            self._starting.append(self._env.process(self._start()))
        for _ in range(self._asked - wanted):
            if self._starting:
                self._starting.pop().interrupt()
            else:
                self._ready.pop()  # it finishes what it has
        self._asked = wanted

    def _start(self) -> Generator[Any, Any, None]:
        process = self._env.active_process
        try:
            yield self._env.timeout(self._random.uniform(*self._site.start))
        except simpy.Interrupt:
            return
        self._starting.remove(process)
        self._ready.append(self._new())

    def _lose(self, at: float, share: float) -> Generator[Any, Any, None]:
        yield self._env.timeout(at)
        gone = round(len(self._ready) * share)
        del self._ready[:gone]
        for _ in range(gone):  # they are asked for anew
            self._starting.append(self._env.process(self._start()))
