"""Allowed sizes: ladders of widths and heights, so that no more can be made up than these."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, TypeVar

from transforms.errors import InvalidOption
from transforms.options import MAX_SIDE
from transforms.transform import Transform
from transforms.values import Extent

RATIOS: Final = tuple(Decimal(ratio) for ratio in ("1", "1.5", "2", "3", "4"))
"""The usual pixel ratios: a preset's own size at one of these was not made up by anybody."""

_WIDTHS: Final = ("w", "min_w", "max_w")
_HEIGHTS: Final = ("h", "min_h", "max_h")
_AREAS: Final = ("extent", "cell")

_N = TypeVar("_N", int, Decimal)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Allowed widths and heights in pixels, and pixel ratios of originals in their own size."""

    widths: frozenset[int] = frozenset()
    heights: frozenset[int] = frozenset()
    ratios: frozenset[Decimal] = frozenset()


NO_SIZES: Final = Sizes()


def guard_size(
    transform: Transform,
    *,
    widths: Collection[int],
    heights: Collection[int],
    snap: bool,
    own: Sizes = NO_SIZES,
) -> Transform:
    """Hold a transform to the allowed widths and heights in pixels; where empty, all are allowed.

    Held are w and h, the bounds (min-w, max-w and so on), extent and cell, all times dpr; the sizes
    of the request's preset, `own`, are allowed too. Padding, crop and the original's own size are
    free; a dpr without w and h, which multiplies that size, must be one of `RATIOS`.

    Without `snap` whatever else is asked for is an InvalidOption. With it, a side takes the next
    larger step of its ladder, or the largest. When w does so, all other lengths grow as it does,
    h included; where w is free or absent, h leads. Where both have ladders, h then takes a step
    of its own: the number of sizes goes before their proportions. Raises InvalidOption where a
    length would grow beyond what a request can ask for.
    """
    if not widths and not heights:
        return transform
    allowed = Sizes(
        widths=own.widths.union(widths) if widths else frozenset(),
        heights=own.heights.union(heights) if heights else frozenset(),
        ratios=own.ratios.union(RATIOS),
    )
    if snap:
        return _snap(transform, allowed)
    for name, side, is_width in sides_of(transform):
        ladder = allowed.widths if is_width else allowed.heights
        if ladder and side not in ladder:
            raise _not_allowed(f"{name} times dpr", name, side, ladder)
    if transform.dpr not in allowed.ratios:
        raise _not_allowed("dpr without w and h", "dpr", transform.dpr, allowed.ratios)
    return transform


def sides_of(transform: Transform) -> Iterator[tuple[str, int, bool]]:
    """The parameter, the pixels, and whether it is a width, of every side that is asked for."""
    for name in (*_WIDTHS, *_HEIGHTS):
        if (side := getattr(transform, name)) is not None:
            yield name.replace("_", "-"), side, name in _WIDTHS
    for name in _AREAS:
        if (area := getattr(transform, name)) is not None:
            yield name, area.width, True
            yield name, area.height, False


def _not_allowed(what: str, param: str, size: _N, ladder: Collection[_N]) -> InvalidOption:
    below = max((step for step in ladder if step < size), default=None)
    above = min((step for step in ladder if step > size), default=None)
    near = " or ".join(str(step) for step in (below, above) if step is not None)
    return InvalidOption(param, f"{what} must be an allowed size, got {size}; the nearest: {near}")


def _snap(transform: Transform, allowed: Sizes) -> Transform:
    w, h, growth = _snap_box(("w", "h"), transform.w, transform.h, allowed)
    grown = _grow(transform, growth)
    snapped: dict[str, Any] = {"w": w, "h": h, "dpr": _step(grown.dpr, allowed.ratios)}
    for names, ladder in ((_WIDTHS, allowed.widths), (_HEIGHTS, allowed.heights)):
        for name in names[1:]:
            side = getattr(grown, name)
            snapped[name] = _step(side, ladder) if side is not None and ladder else side
    for name in _AREAS:
        if (area := getattr(grown, name)) is not None:
            width, height, _ = _snap_box((name, name), area.width, area.height, allowed)
            snapped[name] = Extent(width or 1, height or 1)
    return replace(grown, **snapped)


def _snap_box(
    names: tuple[str, str], width: int | None, height: int | None, allowed: Sizes
) -> tuple[int | None, int | None, Fraction]:
    """The sides after their steps, and by how much the side that leads has grown."""
    growth = Fraction(1)
    if width is not None and allowed.widths:
        growth = Fraction(_step(width, allowed.widths), width)
    elif height is not None and allowed.heights:
        growth = Fraction(_step(height, allowed.heights), height)
    width, height = _times(width, growth), _times(height, growth)
    if height is not None and allowed.heights:
        height = _step(height, allowed.heights)
    for name, side in zip(names, (width, height), strict=True):
        if side is not None and side > MAX_SIDE:
            raise _too_large(name)
    return width, height, growth


def _times(side: int | None, growth: Fraction) -> int | None:
    return None if side is None else max(1, math.floor(side * growth + Fraction(1, 2)))


def _grow(transform: Transform, growth: Fraction) -> Transform:
    """Multiply all lengths, as a pixel ratio does."""
    ratio = Decimal(growth.numerator) / Decimal(growth.denominator)
    try:
        return replace(transform, dpr=ratio).fold_dpr() if growth != 1 else transform
    except InvalidOption as error:
        raise _too_large(error.param) from None


def _too_large(name: str) -> InvalidOption:
    return InvalidOption(
        name, f"{name} would be too large beside a width or height that is allowed"
    )


def _step(size: _N, ladder: Collection[_N]) -> _N:
    return min((step for step in ladder if step >= size), default=max(ladder))
