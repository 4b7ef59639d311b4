"""The bounds within which an original is decoded and a result is made."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.errors import InvalidOption, SourceTooLarge
from transforms.geometry import Plan, Size
from transforms.inspect import Header


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

    def check_original(self, header: Header, *, page: int) -> None:
        """Raise SourceTooLarge, or InvalidOption for a page that the original does not have."""
        if page >= header.pages:
            raise InvalidOption(
                "page", f"page must be less than {header.pages}, got {page}: so many pages it has"
            )
        # A frame of an animation is made of those before it, so they are decoded too.
        frames = page + 1 if header.format.name in ("gif", "webp") else 1
        if frames > self.frames:
            raise SourceTooLarge(
                f"Frame {page} needs {frames} frames; at most {self.frames} are decoded"
            )
        self.check_size(header.size, frames=frames)

    def check_result(self, plan: Plan) -> None:
        """Raise InvalidOption where the result would be larger than the limit."""
        result = plan.result
        # What is cut off again is computed all the same: `scaled` counts as well.
        for size in (result, plan.scaled):
            if max(size.width, size.height) > self.result_side:
                side = "w" if size.width > self.result_side else "h"
                raise InvalidOption(
                    side,
                    f"the picture would be {size.width}x{size.height}; at most "
                    f"{self.result_side} pixels a side are made: ask for a smaller {side}",
                )
            if size.pixels > self.result_pixels:
                raise InvalidOption(
                    "w",
                    f"the picture would be {size.width}x{size.height}; at most "
                    f"{self.result_pixels} pixels are made: ask for a smaller w or h",
                )
