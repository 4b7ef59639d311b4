"""Workers that follow a backlog: what a target in seconds costs, and how long jobs take.

Jobs are a stream and two batches. They flow: a step's work is a number of seconds, done in order.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import simpy

from bench.scale.recommended import PROCESSORS, WORKERS
from bench.scale.scaler import SYNC, Autoscaler

_STEP: Final = 5.0
HOURS: Final = 6
SECONDS_EACH: Final = 0.25  # a job of three results of a photograph, from one decode
STREAM: Final = 4.0
_MOST: Final = 100
BATCHES: Final = {3600.0: 40_000, 10800.0: 10_000}


@dataclass(frozen=True, slots=True)
class Worked:
    """What came of six hours of jobs."""

    target: float
    replica_hours: float
    busy: float
    """Share of the paid processor time that jobs took."""
    most: int
    minutes: tuple[float, ...]
    """Until the last job of each batch had ended."""


def work(target: float, *, seed: int) -> Worked:
    """Keep so many workers that what is due takes them `target` seconds."""
    return _Shift(target, seed=seed).run()


class _Shift:
    def __init__(self, target: float, *, seed: int) -> None:
        self._env = simpy.Environment()
        self._random = np.random.default_rng(seed)
        self._target = target
        self._scaler = Autoscaler(replace(WORKERS, most=_MOST))
        self._asked = self._ready = WORKERS.least
        self._most = self._asked
        self._hours = 0.0
        self._came = [0.0]  # seconds of work, summed up, at each step's end
        self._done = [0.0]
        self._starting: list[simpy.Process] = []
        self._env.process(self._flow())
        self._env.process(self._scale())

    def run(self) -> Worked:
        self._env.run(until=HOURS * 3600)
        done = np.array(self._done)
        came = np.array(self._came[: len(done)])
        times = np.arange(len(done)) * _STEP
        minutes = tuple(
            float(np.interp(came[int(begin / _STEP) + 1], done, times) - begin) / 60
            for begin in BATCHES
        )
        paid = self._hours * 3600 * PROCESSORS
        return Worked(
            self._target,
            self._hours,
            float(done[-1] / paid),
            self._most,
            minutes,
        )

    def _flow(self) -> Generator[Any, Any, None]:
        while True:
            jobs = self._random.poisson(STREAM * _STEP) + BATCHES.get(self._env.now, 0)
            self._came.append(self._came[-1] + jobs * SECONDS_EACH)
            self._hours += self._asked * _STEP / 3600
            yield self._env.timeout(_STEP)
            able = self._ready * PROCESSORS * _STEP
            self._done.append(min(self._came[-1], self._done[-1] + able))

    def _scale(self) -> Generator[Any, Any, None]:
        while True:
            yield self._env.timeout(SYNC)
            due = self._came[-1] - self._done[-1]
            backlog = due / (self._ready * PROCESSORS)  # how long it takes those there are
            wanted = self._scaler.decide(
                self._env.now,
                ratio=backlog / self._target,
                ready=self._ready,
                replicas=self._asked,
            )
            for _ in range(wanted - self._asked):
                self._starting.append(self._env.process(self._start()))
            for _ in range(self._asked - wanted):
                if self._starting:
                    self._starting.pop().interrupt()
                else:
                    self._ready -= 1
            self._asked = wanted
            self._most = max(self._most, wanted)

    def _start(self) -> Generator[Any, Any, None]:
        process = self._env.active_process
        try:
            yield self._env.timeout(self._random.uniform(25.0, 65.0))
        except simpy.Interrupt:
            return
        self._starting.remove(process)
        self._ready += 1
