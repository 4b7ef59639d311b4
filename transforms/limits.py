"""The bounds within which an original is decoded and a result is made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transforms.errors import InvalidOption, SourceTooLarge, no_such_page
from transforms.geometry import Plan
from transforms.inspect import Header
from transforms.shapes import Size
from transforms.transform import Transform


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Pixels of one original (of all decoded frames together), pixels and side of one result."""

    source_pixels: int = 100_000_000
    result_pixels: int = 40_000_000
    result_side: int = 8192
    frames: int = 1000

    def check_size(self, size: Size, *, frames: int = 1) -> None:
        """Raise SourceTooLarge where `frames` pictures of this size exceed the limit."""
        if size.pixels * frames > self.source_pixels:
            times = f" x {frames} frames" if frames > 1 else ""
            raise SourceTooLarge(
                f"The original has {size.width}x{size.height}{times} pixels; at most "
                f"{self.source_pixels} are decoded"
            )

    def check_original(self, header: Header, *, page: int, frames: int) -> None:
        """Raise SourceTooLarge, or InvalidOption for a page that the original does not have.

        `frames` is how many are used, from `page` on.
        """
        if page >= header.pages:
            raise no_such_page(page, header.pages)
        # A frame of an animation is made of those before it, so they are decoded too.
        decoded = page + frames if header.animated else 1
        if decoded > self.frames:
            raise SourceTooLarge(
                f"Of this animation {decoded} frames would be decoded; at most {self.frames} are: "
                "ask for fewer frames"
            )
        if not header.scalable:
            self.check_size(header.size, frames=decoded)

    def check_merged(self, pieces: Sequence[Size], whole: Size) -> None:
        """Raise SourceTooLarge where merged originals, or what they are merged to, are too many.

        All of them are decoded for one result, so they have the limit of one original together.
        """
        pixels = sum(piece.pixels for piece in pieces)
        if pixels > self.source_pixels:
            raise SourceTooLarge(
                f"merge: the originals have {pixels} pixels together; at most "
                f"{self.source_pixels} are decoded",
                param="merge",
            )
        if whole.pixels > self.source_pixels:
            raise SourceTooLarge(
                f"merge: the originals would make a picture of {whole.width}x{whole.height} "
                f"pixels; at most {self.source_pixels} are made: ask for a smaller cell or gap",
                param="merge",
            )

    def check_result(self, plan: Plan, transform: Transform, *, frames: int = 1) -> None:
        """Raise InvalidOption where the result would be larger than the limit.

        It names the parameter that makes it so.
        """
        # What is cut off again is computed all the same: `scaled` counts as well.
        for size in (plan.whole, plan.scaled):
            if max(size.width, size.height) > self.result_side:
                wide = size.width > self.result_side
                param = _cause(
                    plan,
                    transform,
                    lambda one: max(one.width, one.height) > self.result_side,
                    side="w" if wide else "h",
                )
                raise InvalidOption(
                    param,
                    f"the picture would be {size.width}x{size.height}; at most "
                    f"{self.result_side} pixels a side are made: ask for a smaller {param}",
                )
            if size.pixels * frames > self.result_pixels:
                times = f" x {frames} frames" if frames > 1 else ""
                param = _cause(
                    plan,
                    transform,
                    lambda one: one.pixels * frames > self.result_pixels,
                    side="w",
                )
                what = "w or h" if param == "w" else param
                raise InvalidOption(
                    param,
                    f"the picture would be {size.width}x{size.height}{times}; at most "
                    f"{self.result_pixels} pixels are made: ask for a smaller {what}",
                )


def _cause(plan: Plan, transform: Transform, exceeds: Callable[[Size], bool], *, side: str) -> str:
    """The parameter by which the picture becomes too large, the first in the order of steps."""
    if exceeds(plan.scaled):
        return _cause_of_scale(plan, transform, side)
    grown = (
        (plan.canvas, side if transform.extent is None else "extent"),
        (plan.padded, "padding"),
        (plan.bordered, "border"),
    )
    return next((param for size, param in grown if exceeds(size)), "shadow")


def _cause_of_scale(plan: Plan, transform: Transform, side: str) -> str:
    least = {"min-w": transform.min_w, "min-h": transform.min_h}
    reached = {"min-w": plan.scaled.width, "min-h": plan.scaled.height}
    for param, length in least.items():
        if length and round(length * transform.dpr) == reached[param]:
            return param
    if transform.w is None and transform.h is None:
        return "w" if transform.dpr == 1 else "dpr"
    if transform.h is None:
        return "w"
    return "h" if transform.w is None else side
