"""Ladders: one picture at several widths, all alike, as far as its original has the pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Final

from transforms import geometry
from transforms.inspect import Header
from transforms.shapes import Size
from transforms.transform import Transform

_SIX_PLACES: Final = Decimal("0.000001")
_WITHIN: Final = ("contain", "inside")
"""Ways to meet a box that use all pixels of the original only when both its sides are reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ladder:
    """A transform at any width. `natural` is the size of what it takes of the original, turned.

    What is `endless` is as sharp at any size, or was asked for whether or not it is.
    """

    transform: Transform
    natural: Size
    endless: bool

    @property
    def asked(self) -> int | None:
        """The width of the box in pixels that the transform names, if it does."""
        transform = self.transform
        if transform.w is not None:
            return max(1, round(transform.w * transform.dpr))
        if transform.h is not None:
            return max(
                1, round(transform.h * transform.dpr / self.natural.height * self.natural.width)
            )
        return None

    @property
    def reach(self) -> int | None:
        """The width of the box at which every pixel of the original is used; None where none is."""
        if self.endless:
            return None
        across = Decimal(self.natural.width)
        if (ratio := self._ratio) is not None:
            most = max if self.transform.fit in _WITHIN else min
            across = most(across, self.natural.height / ratio)
        return max(1, int(across))

    @property
    def top(self) -> int | None:
        """The widest box that makes sense: what is asked for, where the original reaches it."""
        bounds = (self.asked, self.reach, *self._bounds())
        return min((n for n in bounds if n is not None), default=None)

    @property
    def stays(self) -> bool:
        """Whether a box that is larger than the original gives no more than the original."""
        return self._ratio is None or self.transform.fit == "inside"

    def steps(self, widths: Iterable[int]) -> tuple[list[int], int]:
        """The widths as far as the top, and the widest of these, which lengths are meant for.

        Where the original is what ends them, one more may follow: it gives no more than the top,
        but may be asked for where that may not.
        """
        widths, top = sorted(widths), self.top
        steps = sorted({width if top is None else min(width, top) for width in widths})
        widest = steps[-1]
        beyond = [width for width in widths if width > widest]
        if beyond and self.stays and widest == self.reach:
            steps.append(beyond[0])
        return steps, widest

    def at(self, width: int, *, widest: int) -> Transform:
        """The transform for a box of a width, where its lengths in pixels are meant for `widest`.

        All lengths shrink as the width does, so that every width shows the same picture. Raises
        InvalidOption where one would be larger than can be asked for.
        """
        transform = self.transform
        dpr = round_to_six(transform.dpr * min(width, widest) / widest)
        at = replace(
            transform,
            w=max(1, round(width / dpr)),
            h=self._height(width / dpr),
            fit="inside" if self._ratio is None else transform.fit,
            dpr=dpr,
        ).fold_dpr()
        return replace(at, w=width, h=self._height(Decimal(width))) if at.dpr == 1 else at

    def scaled(self, factor: Decimal) -> Transform:
        """The transform with every length multiplied. Raises InvalidOption as `at` does."""
        return replace(self.transform, dpr=round_to_six(self.transform.dpr * factor)).fold_dpr()

    def _bounds(self) -> Iterator[int]:
        """How wide max-w and max-h let the box be."""
        transform = self.transform
        if transform.max_w is not None:
            yield max(1, round(transform.max_w * transform.dpr))
        if transform.max_h is not None:
            ratio = self._ratio or Decimal(self.natural.height) / self.natural.width
            yield max(1, round(transform.max_h * transform.dpr / ratio))

    @property
    def _ratio(self) -> Decimal | None:
        transform = self.transform
        if transform.w is None or transform.h is None:
            return None
        return Decimal(transform.h) / Decimal(transform.w)

    def _height(self, width: Decimal) -> int | None:
        return None if self._ratio is None else max(1, round(width * self._ratio))


def round_to_six(value: Decimal) -> Decimal:
    """With at most six places, as a request can say it, and never 0."""
    return max(_SIX_PLACES, value.quantize(_SIX_PLACES)).normalize()


def ladder_of(header: Header, transform: Transform) -> Ladder:
    """The ladder of a transform of an original. Raises InvalidOption for a crop outside of it."""
    bare = replace(
        transform,
        w=None,
        h=None,
        fit=None,
        dpr=Decimal(1),
        min_w=None,
        min_h=None,
        max_w=None,
        max_h=None,
        tile=None,
    )
    natural = geometry.plan(header.size, bare, orientation=header.orientation).scaled
    if transform.fit == "fill":
        # A side that is not named keeps its length, and so it is part of what all widths share.
        dpr = Fraction(transform.dpr)
        transform = replace(
            transform,
            w=transform.w or max(1, round(natural.width / dpr)),
            h=transform.h or max(1, round(natural.height / dpr)),
        )
    return Ladder(
        transform=transform, natural=natural, endless=header.scalable or transform.enlarge
    )
