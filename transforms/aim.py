"""Aim: the quality whose file is small enough, or like enough to the picture, by a few encodes.

Quality in, bytes out: what encodes is the caller's. The bytes chosen depend on nothing but the
arguments, never on what was encoded before, since a result's ETag is made from its inputs alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from transforms import libvips
from transforms.likeness import Reference, distance, score

MOST_ENCODES: Final = 5
STEP: Final = 4
"""Between neighbours on the grid of qualities: one to three points of the score."""

_CLOSE: Final = 0.95
"""A file that fills this much of its budget is large enough: one more encode would gain little."""
_GROWTH: Final = 0.015
"""How much the logarithm of a file's bytes grows at least, as a rule, with a step of quality."""

_BOLDEST: Final = 0.4
"""How far quality falls at most before a file is seen to fit: bytes fall faster near the end."""

_USUAL: Final[dict[str, tuple[tuple[int, float], ...]]] = {
    "jpeg": (
        (0, 20),
        (30, 50),
        (45, 61),
        (60, 68),
        (70, 73),
        (80, 78),
        (87, 83),
        (92, 89),
        (100, 95),
    ),
    "webp": (
        (0, 30),
        (30, 52),
        (45, 61),
        (60, 66),
        (70, 70),
        (80, 75),
        (87, 81),
        (92, 85),
        (100, 90),
    ),
    "avif": (
        (0, 0),
        (30, 36),
        (40, 53),
        (50, 66),
        (60, 75),
        (70, 81),
        (80, 85),
        (90, 91),
        (100, 95),
    ),
}
"""Qualities and the scores they usually give: medians of what `bench.calibrate` measures. A search
starts from them; its outcome rests on them only where `MOST_ENCODES` are too few to finish."""

Encode = Callable[[int], bytes]
"""The file at a quality of 1 to 100. The same quality always gives the same bytes."""
Decode = Callable[[bytes], libvips.Image]
"""The pixels of such a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aimed:
    """The file that was chosen, its quality, and how many were made to find it.

    `fits` is whether it is within the budget, `met` whether its score reaches the target; each is
    true where nothing was asked of it. `score` is None where it was not measured.
    """

    data: bytes
    quality: int
    encodes: int
    fits: bool = True
    met: bool = True
    score: float | None = None


@dataclass(frozen=True, slots=True)
class _Probe:
    quality: int
    data: bytes
    fits: bool
    score: float | None = None


def fit_bytes(encode: Encode, *, budget: int, best: int, worst: int = 1) -> Aimed:
    """The highest quality found, from `worst` to `best`, whose file has at most `budget` bytes.

    `best` is tried first, then what a straight line in the logarithm of bytes suggests, at most
    `MOST_ENCODES` in all. Where no file tried fits, `worst` was one of them and the smallest is
    given, with `fits` false.
    """
    smallest = over = _probe_bytes(encode, best, budget)
    under: _Probe | None = None
    encodes = 1
    if over.fits:
        return Aimed(data=over.data, quality=best, encodes=encodes)
    while encodes < MOST_ENCODES and over.quality > (under.quality + 1 if under else worst):
        last = encodes + 1 == MOST_ENCODES
        quality = worst if under is None and last else _guess_for_bytes(under, over, budget, worst)
        probe = _probe_bytes(encode, quality, budget)
        encodes += 1
        smallest = min(smallest, probe, key=lambda one: len(one.data))
        if not probe.fits:
            over = probe
            continue
        under = probe
        if len(probe.data) >= _CLOSE * budget:
            break
    chosen = under or smallest
    return Aimed(data=chosen.data, quality=chosen.quality, encodes=encodes, fits=chosen.fits)


def reach_target(
    pixels: libvips.Image,
    encode: Encode,
    decode: Decode,
    *,
    target: float,
    format_name: str,
    budget: int | None = None,
    best: int = 100,
    worst: int = 24,
) -> Aimed:
    """The lowest quality of a grid whose file scores at least `target`, 0..100, beside `pixels`.

    The grid is every `STEP` from `best` down, not below `worst`. A quality that meets the target
    is taken when its neighbour below has been seen to miss it or is not on the grid, or when
    `MOST_ENCODES` files have been made. They are decoded only where they fit the budget. Where none
    meets the target, the best that fits is given, with `met` false; without a budget that is
    `best`. A budget in bytes goes before the target; where nothing fits it, the lowest quality is
    given, with `fits` false.

    `pixels` is uchar in sRGB or grey; `format_name` is one that `likeness.CALIBRATED` has.
    """
    grid = range(best, min(worst, best) - 1, -STEP)[::-1]
    reference = Reference.of(pixels)
    probes: dict[int, _Probe] = {}
    # Below `low` all miss the target; from `high` on, all meet it or are larger than the budget.
    low, high = 0, len(grid)
    while low < high and len(probes) < MOST_ENCODES:
        index = _guess_for_score(
            grid, low, high, probes=probes, target=target, format_name=format_name
        )
        data = encode(grid[index])
        fits = budget is None or len(data) <= budget
        seen = score(distance(reference, decode(data)), format_name) if fits else None
        probes[index] = _Probe(grid[index], data, fits, seen)
        if seen is not None and seen < target:
            low = index + 1
        else:
            high = index
    within = high in probes and probes[high].fits
    chosen = probes[high] if within or low == 0 else probes[low - 1]
    return Aimed(
        data=chosen.data,
        quality=chosen.quality,
        encodes=len(probes),
        fits=chosen.fits,
        met=chosen.score is not None and chosen.score >= target,
        score=chosen.score,
    )


def _probe_bytes(encode: Encode, quality: int, budget: int) -> _Probe:
    data = encode(quality)
    return _Probe(quality, data, len(data) <= budget)


def _guess_for_bytes(under: _Probe | None, over: _Probe, budget: int, worst: int) -> int:
    """The quality to try next, above `under` or from `worst` on, and below `over`."""
    excess = math.log(len(over.data) / budget)
    if under is None:
        guess = max(over.quality - excess / _GROWTH, over.quality * _BOLDEST)
        least = worst
    else:
        growth = math.log(len(over.data) / max(1, len(under.data)))
        guess = over.quality - (over.quality - under.quality) * excess / growth
        least = under.quality + 1
    return min(max(math.floor(guess), least), over.quality - 1)


def _guess_for_score(
    grid: range,
    low: int,
    high: int,
    *,
    probes: dict[int, _Probe],
    target: float,
    format_name: str,
) -> int:
    """The place on the grid to try next: where the usual curve, made to fit, meets the target."""
    last = len(probes) + 1 == MOST_ENCODES
    if high == len(grid) and last:
        return high - 1  # it alone can tell that the target is out of reach
    if high < len(grid) and not probes[high].fits:
        return low if last and low == 0 else (low + high) // 2
    curve = _USUAL[format_name]
    lost = 100 - target
    ends = [probes[place] for place in (low - 1, high) if place in probes]
    seen = [(one.score, one.quality) for one in ends if one.score is not None]
    if seen:
        reached, quality = min(seen, key=lambda one: abs(one[0] - target))
        # A picture that is twice as hard loses about twice as much at every quality.
        lost *= (100 - _interpolate(quality, curve)) / max(0.01, 100 - reached)
    wanted = _interpolate(100 - lost, [(usual, quality) for quality, usual in curve])
    return int(min(max(math.ceil((wanted - grid[0]) / STEP), low), high - 1))


def _interpolate(at: float, points: Sequence[tuple[float, float]]) -> float:
    """The value at a place on a line through points in ascending order, level beyond its ends."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if at <= x1:
            return y0 + (y1 - y0) * max(0.0, at - x0) / (x1 - x0)
    return points[-1][1]
