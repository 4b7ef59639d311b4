"""What balancing does to memory tiers: by chance, by a hash of the id, and by a bounded hash.

The tiers are least recently used ones, as `app.cache` keeps them, counted in results of one size.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import numpy as np

from bench.scale.day import popularity

RESULT_BYTES: Final = 20_000
TIER: Final = (64 << 20) // RESULT_BYTES
"""Results that a memory tier of the default size holds."""
_OF_ONE: Final = 8
"""Results of one original, which are as popular as each other."""
_FACTOR: Final = 1.5
_RECENT: Final = 2000
"""Requests over which a bounded hash looks at the load, and the most by the mean of it."""
WAYS: Final = ("by chance", "by id", "by id, bounded")


@dataclass(frozen=True, slots=True)
class Balanced:
    """Share of requests that were hits in memory, and the busiest replica's load by the mean."""

    way: str
    replicas: int
    hits: float
    busiest: float


def balance(way: str, replicas: int, *, seed: int, requests: int = 300_000) -> Balanced:
    """Send Zipf-popular requests to replicas. The first half of them only fills the tiers."""
    random = np.random.default_rng(seed)
    shares = popularity()
    results = random.choice(len(shares), size=requests, p=shares).tolist()
    homes = np.random.default_rng(99).integers(0, 1 << 30, len(shares) // _OF_ONE + 1).tolist()
    chance = random.integers(0, replicas, requests).tolist()
    tiers: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(replicas)]
    recent, loads = [0] * replicas, [0] * replicas
    hits = 0
    for number, result in enumerate(results):
        if number % _RECENT == 0:
            recent = [0] * replicas
        if way == "by chance":
            place = chance[number]
        else:
            place = homes[result // _OF_ONE] % replicas
            if way == "by id, bounded":
                most = _FACTOR * (number % _RECENT + 2 * replicas) / replicas
                while recent[place] > most:
                    place = (place + 1) % replicas
        recent[place] += 1
        tier = tiers[place]
        if result in tier:
            tier.move_to_end(result)
            hits += number >= requests // 2
        else:
            tier[result] = None
            if len(tier) > TIER:
                tier.popitem(last=False)
        loads[place] += number >= requests // 2
    half = requests - requests // 2
    return Balanced(way, replicas, hits / half, max(loads) * replicas / half)
