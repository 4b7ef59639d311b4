"""Mosaic: several originals joined to one picture, in rows and columns.

What ImageMagick calls `+append` and `-append`: pieces of a row stand side by side, aligned at their
top, and rows below each other, aligned at their left. With cells, what it calls a montage.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from transforms import libvips
from transforms.canvas import lay_on
from transforms.geometry import scale_size
from transforms.shapes import Box, Size
from transforms.transform import Transform
from transforms.values import WHITE, Colour


@dataclass(frozen=True, slots=True)
class Mosaic:
    """The size of the joined picture and the box of each piece in it, in pixels."""

    size: Size
    boxes: tuple[Box, ...]


def plan_mosaic(pieces: Sequence[Size], transform: Transform) -> Mosaic:
    """Where each piece goes. Sizes are of the upright pictures, in the order of the ids."""
    across = transform.across or math.ceil(math.sqrt(len(pieces)))
    gap, cell = transform.gap, transform.cell
    sizes = [_fit(piece, Size(cell.width, cell.height)) if cell else piece for piece in pieces]
    boxes = []
    top = right = 0
    for start in range(0, len(sizes), across):
        row = sizes[start : start + across]
        height = cell.height if cell else max(size.height for size in row)
        left = 0
        for size in row:
            width = cell.width if cell else size.width
            inset = Size(width - size.width, height - size.height) if cell else Size(0, 0)
            boxes.append(Box(left + inset.width // 2, top + inset.height // 2, *_sides(size)))
            left += width + gap
        right = max(right, left - gap)
        top += height + gap
    return Mosaic(Size(right, top - gap), tuple(boxes))


def join(
    pieces: Sequence[libvips.Image], boxes: Sequence[Box], size: Size, colour: Colour | None
) -> libvips.Image:
    """The joined picture, in memory. Each piece has the size of its box, and is grey or sRGB.

    What is transparent is laid on the colour, as on any canvas: white where there is none.
    """
    colour = colour or WHITE
    alpha = not colour.opaque
    ink = [colour.red, colour.green, colour.blue, *([colour.alpha] if alpha else [])]
    picture = libvips.Image.black(size.width, size.height, bands=len(ink)) + ink
    picture = picture.cast("uchar").copy(interpretation="srgb")
    for piece, box in zip(pieces, boxes, strict=True):
        image = lay_on(piece.colourspace("srgb"), colour)
        picture = picture.insert(image.cast("uchar"), box.left, box.top)
    return picture.copy_memory()


def _fit(piece: Size, cell: Size) -> Size:
    """The largest size within a cell, never larger than the piece."""
    scale = min(Fraction(1), Fraction(cell.width, piece.width), Fraction(cell.height, piece.height))
    return scale_size(piece, scale)


def _sides(size: Size) -> tuple[int, int]:
    return size.width, size.height
