"""SVG, by librsvg within libvips. References to files and to the network are never followed.

librsvg resolves references against the document's own address, and a document in memory has none.
"""

from __future__ import annotations

import zlib
from typing import Final

from transforms import libvips
from transforms.errors import BrokenImage, SourceTooLarge, UnsupportedFormat
from transforms.foreign_raster import Leaf, Raster, fit, raster_of
from transforms.shapes import Size

INFLATED_BYTES: Final = 32 << 20
"""The most that a compressed SVG may inflate to."""

# CSS Values 4, section 6.2: an inch is 96 pixels. libvips takes the pixel for a point, so that at
# 96 to the inch everything comes out larger by this.
_DPI: Final = 96
_POINT: Final = 72 / 96


def measure(data: bytes, page: int) -> Leaf:
    """Read the intrinsic size in CSS pixels. Raises SourceTooLarge, UnsupportedFormat."""
    del page  # it has one; the caller compares
    return _measure(_inflate(data))


def draw(data: bytes, page: int, scale: float) -> Raster:
    """Draw at a scale of the intrinsic size."""
    del page
    text = _inflate(data)
    leaf = _measure(text)
    # A picture thinner than half a pixel is refused, so it is drawn larger and then made smaller.
    least = 1 / min(leaf.size.width, leaf.size.height)
    return raster_of(fit(_load(text, max(scale, least)), leaf.drawn(scale)))


def _measure(text: bytes) -> Leaf:
    try:
        image = _load(text, 1)
    except libvips.Error as error:
        if "<svg> root" in str(error):
            raise UnsupportedFormat("The original is XML other than SVG: not supported") from None
        raise
    size = Size(image.width, image.height)
    if min(size.width, size.height) == 1:
        _check_not_huge(text, size)
    return Leaf(size=size, pages=1, alpha=True, scalable=True, bands=4)


def _load(text: bytes, scale: float) -> libvips.Image:
    return libvips.Image.svgload_buffer(text, dpi=_DPI, scale=scale * _POINT)


def _check_not_huge(text: bytes, size: Size) -> None:
    """Raise SourceTooLarge where a side is 1 only because libvips cannot express it."""
    times = 1024
    try:
        image = _load(text, times)
    except libvips.Error:
        raise SourceTooLarge("The SVG is too large to be drawn") from None
    for side, finer in ((size.width, image.width), (size.height, image.height)):
        if side == 1 and finer < times / 2:
            raise SourceTooLarge("The SVG is too large to be drawn")


def _inflate(data: bytes) -> bytes:
    if not data.startswith(b"\x1f\x8b"):
        return data
    inflater = zlib.decompressobj(wbits=31)
    try:
        text = inflater.decompress(data, INFLATED_BYTES)
    except zlib.error as error:
        raise BrokenImage(f"The SVG cannot be decompressed: {error}") from None
    if inflater.unconsumed_tail:
        raise SourceTooLarge(f"The SVG is larger than {INFLATED_BYTES} bytes when decompressed")
    if not inflater.eof:
        raise BrokenImage("The compressed SVG is cut short")
    return text
