"""One replica under a steady load: how much of its capacity are answers in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from bench.scale.replica import REFUSED, Replica, serve


@dataclass(frozen=True, slots=True)
class Loaded:
    """Answers within `limit` by the capacity, the share refused, and how long the rest waited."""

    load: float
    goodput: float
    refused: float
    mean_wait: float
    p99_wait: float


def load_replica(
    costs: np.ndarray,
    *,
    load: float,
    budget: float,
    processors: int = 2,
    limit: float = 1.0,
    seconds: float = 600.0,
    seed: int = 1,
) -> Loaded:
    """Poisson arrivals of `load` times the capacity, with costs drawn from `costs`."""
    random = np.random.default_rng(seed)
    capacity = processors / costs.mean()
    count = random.poisson(load * capacity * seconds)
    times = np.sort(random.random(count) * seconds)
    chosen = costs[random.integers(0, len(costs), count)]
    replica = Replica(processors=processors, budget=budget)
    zeros = [0] * count
    waits = np.array(
        serve([replica], zip(times.tolist(), chosen.tolist(), zeros, zeros, strict=True))
    )
    accepted = waits != REFUSED
    good = accepted & (waits <= limit)
    # By the work in the answers: else what refuses the dear would look best.
    return Loaded(
        load,
        float(chosen[good].sum() / (processors * seconds)),
        float(1 - accepted.mean()),
        float(waits[accepted].mean()),
        float(np.percentile(waits[accepted], 99)),
    )


def erlang_c(processors: int, load: float) -> float:
    """Probability that an arrival waits in M/M/c, at `load` of the capacity (Erlang, 1917)."""
    offered = processors * load
    last = offered**processors / math.factorial(processors) / (1 - load)
    return last / (sum(offered**k / math.factorial(k) for k in range(processors)) + last)
