"""How many replicas a number of requests needs, and what renders cost: plain arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

from bench.scale import mix
from bench.scale.fleet import AROUND_SECONDS, HIT_SECONDS, IN_MEMORY, STORED_SECONDS
from bench.scale.recommended import PROCESSORS, RULES, TARGET

RESULT_KB: Final = 30.0
"""Kilobytes of a result, on average."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Dollars, as an example: put in your own."""

    processor_hour: float = 0.04
    million_puts: float = 5.00
    million_gets: float = 0.40
    gigabyte_month: float = 0.023


@cache
def render_seconds() -> float:
    """Processor seconds of a render of the mixture, with all around it."""
    return float(mix.sample(1 << 18, seed=1).mean()) + AROUND_SECONDS


def hit_seconds() -> float:
    """Processor seconds of a hit, in memory or stored."""
    return IN_MEMORY * HIT_SECONDS + (1 - IN_MEMORY) * STORED_SECONDS


def busy_processors(requests: float, hits: float) -> float:
    """Processors in use for so many requests per second, of which `hits` is the share of hits."""
    return requests * ((1 - hits) * render_seconds() + hits * hit_seconds())


def replicas(requests: float, hits: float) -> int:
    """Replicas for so many requests per second, with one more than are needed."""
    needed = math.ceil(busy_processors(requests, hits) / (PROCESSORS * TARGET))
    return max(RULES.least, needed + 1)


def million(seconds: float, prices: Prices) -> float:
    """Dollars for a million renders of so many processor seconds, on replicas at the target."""
    return seconds * 1e6 / 3600 / TARGET * prices.processor_hour


def storing(prices: Prices, months: float = 1.0) -> float:
    """Dollars to store a million results for so long."""
    return prices.million_puts + RESULT_KB * prices.gigabyte_month * months


def worthwhile(seconds: float, prices: Prices) -> float:
    """How often a result must be asked for again, within a month, for storing it to pay.

    Infinite where a GET costs more than another render.
    """
    saved = million(seconds, prices) - prices.million_gets - million(STORED_SECONDS, prices)
    return storing(prices) / saved if saved > 0 else math.inf
