"""Trim: find the part of an original that is not border."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from transforms import libvips
from transforms.shapes import Box
from transforms.values import Trim

_MEDIAN_SIDE: Final = 3


def find_content(frames: Iterable[libvips.Image], trim: Trim) -> Box | None:
    """The box round all that is not border, in any of the frames. They must be in memory.

    None where there is nothing else than border: then nothing is cut off.
    """
    edges = []
    for frame in frames:
        left, top, width, height = _find_content(frame, trim)
        if width and height:
            edges.append((left, top, left + width, top + height))
    if not edges:
        return None
    left, top = min(edge[0] for edge in edges), min(edge[1] for edge in edges)
    right, bottom = max(edge[2] for edge in edges), max(edge[3] for edge in edges)
    return Box(left, top, right - left, bottom - top)


def _find_content(image: libvips.Image, trim: Trim) -> tuple[int, int, int, int]:
    if image.interpretation not in ("srgb", "b-w") or image.format != "uchar":
        image = image.colourspace("srgb").cast("uchar")
    if trim.colour is not None:
        background = [trim.colour.red, trim.colour.green, trim.colour.blue]
        if image.bands < 3:
            image = image.colourspace("srgb")
        if image.hasalpha():
            image = image.flatten(background=background)
    elif image.hasalpha():
        alpha = image[image.bands - 1]
        # A border that shines through is told by that, whatever colours it has. Opaque ones are
        # told by their colour, and what is transparent then is no border.
        (corner,) = alpha(0, 0)
        if corner < 255:
            image, background = alpha, [corner]
        else:
            background = image(0, 0)[:-1]
            image = image.flatten(background=[255 - value for value in background])
    else:
        background = image(0, 0)
    return _find_box(image, background, trim.threshold)


def _find_box(
    image: libvips.Image, background: Sequence[float], threshold: int
) -> tuple[int, int, int, int]:
    """Left, top, width and height of what differs from a colour; zeros where nothing does.

    As libvips' `find_trim`, which takes the median of the picture against specks; here it is that
    of the mask, which has one band and says the same in an eighth of the time. Lines of one pixel
    are specks, too: to keep them would keep the ripples that JPEG has before an edge.
    """
    differs = ((image - background).abs() > threshold).bandor()
    if min(image.width, image.height) >= _MEDIAN_SIDE:
        differs = differs.rank(_MEDIAN_SIDE, _MEDIAN_SIDE, _MEDIAN_SIDE**2 // 2)
    columns, rows = differs.project()
    left, right = _ends(columns)
    top, bottom = _ends(rows)
    return left, top, right - left, bottom - top


def _ends(sums: libvips.Image) -> tuple[int, int]:
    """From where and up to where sums of pixels are not 0."""
    found = [at for at, value in enumerate(memoryview(sums.write_to_memory()).cast("I")) if value]
    return (found[0], found[-1] + 1) if found else (0, 0)
