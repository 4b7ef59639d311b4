"""What an autoscaler may go by, as it is seen from outside: a mean over a window, and late."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What all replicas did in a step of time."""

    seconds: float
    workers: int
    """Processors of replicas that are ready."""
    replicas: int
    requests: float
    busy: float
    """Seconds that processors were held by renders."""
    processor: float
    """Seconds of processors that were used, by whatever."""
    offered: int
    """Renders that came to a replica, each time they did."""
    refused: int
    """Of these, those that it refused."""
    sojourn: float
    """Seconds that renders spend here in all: fetching the original, waiting and running."""
    waits: np.ndarray
    each: list[float]
    """Busy seconds of each replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A metric, and how the number of replicas follows from it.

    A `mean` over replicas that are ready is compared with its target, and their number multiplied
    by the ratio (`Value` of an external metric, `Utilization` of a resource). Of a sum over all
    replicas, each is to have its part (`AverageValue`).
    """

    measure: Callable[[Sequence[Measured]], float]
    mean: bool
    unit: str
    targets: tuple[float, ...]


def _worker_seconds(steps: Sequence[Measured]) -> float:
    return sum(step.workers * step.seconds for step in steps) or 1.0


def utilisation(steps: Sequence[Measured]) -> float:
    """Share of the time that workers are busy."""
    return sum(step.busy for step in steps) / _worker_seconds(steps)


def demand(steps: Sequence[Measured]) -> float:
    """Utilisation as it would be had nothing been refused: it has no ceiling."""
    offered = sum(step.offered for step in steps)
    refused = sum(step.refused for step in steps)
    return utilisation(steps) / (1 - min(0.95, refused / offered if offered else 0.0))


def processor(steps: Sequence[Measured]) -> float:
    """Share of the processors that is used, as the container's accounts have it."""
    return sum(step.processor for step in steps) / _worker_seconds(steps)


def _seconds(steps: Sequence[Measured]) -> float:
    return sum(step.seconds for step in steps)


def _mean_replicas(steps: Sequence[Measured]) -> float:
    return sum(step.replicas * step.seconds for step in steps) / _seconds(steps)


def all_busy(steps: Sequence[Measured]) -> float:
    """Replicas that would do, were all of their workers busy."""
    return utilisation(steps) * _mean_replicas(steps)


def all_demand(steps: Sequence[Measured]) -> float:
    """The same, had nothing been refused."""
    return demand(steps) * _mean_replicas(steps)


def in_flight(steps: Sequence[Measured]) -> float:
    """Renders under way: by Little's law, their time here by the time that passed."""
    return sum(step.sojourn for step in steps) / _seconds(steps)


def queue_wait(steps: Sequence[Measured]) -> float:
    """95th percentile of the waits of what was accepted, in seconds."""
    waits = np.concatenate([step.waits for step in steps])
    return float(np.percentile(waits, 95)) if len(waits) else 0.0


def request_rate(steps: Sequence[Measured]) -> float:
    """Requests per second, hits included."""
    return sum(step.requests for step in steps) / _seconds(steps)


def one_utilisation(steps: Sequence[Measured]) -> float:
    """Utilisation of the one replica that a balancer chose to ask."""
    last = steps[-1]
    place = int(last.requests) % last.replicas  # as good as by chance, and the same every time
    known = [step.each for step in steps if len(step.each) > place]
    return (
        sum(each[place] for each in known)
        / (len(known) * last.seconds * last.workers)
        * (last.replicas)
    )


SIGNALS: Final[dict[str, Signal]] = {
    "CPU": Signal(
        measure=processor,
        mean=True,
        unit="of the processors used",
        targets=(0.40, 0.50, 0.60, 0.75),
    ),
    "requests": Signal(
        measure=request_rate,
        mean=False,
        unit="requests/s for each replica",
        targets=(100.0, 125.0, 150.0, 200.0),
    ),
    "in flight": Signal(
        measure=in_flight,
        mean=False,
        unit="renders for each replica",
        targets=(1.1, 1.4, 1.8, 2.6),
    ),
    "queue wait": Signal(
        measure=queue_wait,
        mean=True,
        unit="s of the 95th percentile",
        targets=(0.05, 0.10, 0.20, 0.30),
    ),
    "utilisation": Signal(
        measure=utilisation,
        mean=True,
        unit="of the workers busy",
        targets=(0.40, 0.50, 0.55, 0.60, 0.65, 0.75),
    ),
    "demand": Signal(
        measure=all_demand,
        mean=False,
        unit="of the workers, had nothing been refused",
        targets=(0.40, 0.50, 0.55, 0.60, 0.65, 0.75),
    ),
}
ONE_REPLICA: Final = Signal(
    measure=one_utilisation, mean=True, unit="of its workers busy", targets=()
)
MEAN_DEMAND: Final = Signal(measure=demand, mean=True, unit="of the workers in demand", targets=())
BUSY: Final = Signal(measure=all_busy, mean=False, unit="of the workers busy", targets=())
