"""Sizes, boxes and turns: the whole-pixel geometry that plans are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def turned(self) -> Size:
        """The size after a quarter turn."""
        return Size(self.height, self.width)

    @property
    def pixels(self) -> int:
        """The area."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle: its left and top edge, its width and height, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> Size:
        """Its width and height."""
        return Size(self.width, self.height)


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight ways to lay a picture down: mirrored left-right first, then turned.

    `quarters` counts quarter turns clockwise, 0 to 3.
    """

    quarters: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.quarters % 2 == 1

    def apply(self, size: Size) -> Size:
        """The size of a picture after the turn."""
        return size.turned if self.swaps_sides else size

    def then(self, after: Turn) -> Turn:
        """This turn and, after it, another, as one."""
        # Mirroring reverses the sense in which what came before it had turned.
        own = -self.quarters if after.mirrored else self.quarters
        return Turn((own + after.quarters) % 4, self.mirrored != after.mirrored)

    def undo(self, box: Box, size: Size) -> Box:
        """Where a box of the turned picture lies in the picture before. `size` is of the latter."""
        left, top, width, height = box.left, box.top, box.width, box.height
        # One quarter clockwise takes (x, y) of a picture of height H to (H - y, x).
        for turned in range(self.quarters, 0, -1):
            # Before this quarter the picture had been turned `turned - 1` times.
            before = size.turned if (turned - 1) % 2 else size
            left, top = top, before.height - left - width
            width, height = height, width
        if self.mirrored:
            left = size.width - left - width
        return Box(left, top, width, height)


# EXIF 2.32, tag 0x0112: how stored pixels must be laid to stand upright.
EXIF_TURNS: Final = {
    1: Turn(0),
    2: Turn(0, mirrored=True),
    3: Turn(2),
    4: Turn(2, mirrored=True),
    5: Turn(3, mirrored=True),
    6: Turn(1),
    7: Turn(1, mirrored=True),
    8: Turn(3),
}
