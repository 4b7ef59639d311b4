"""What is told of a foreign document before it is drawn, and the pixels that are drawn of it."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any, Final

from transforms import libvips
from transforms.shapes import Size

_PROFILE: Final = "icc-profile-data"
_STRIP: Final = 1 << 16
_SHORT, _LONG = 3, 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One page of a foreign document, as its header tells it.

    `size` is upright and in pixels, at 96 to the inch for SVG and 72 for PDF. A `scalable` page is
    drawn sharp at any scale; any other at 1 or less.
    """

    size: Size
    pages: int
    alpha: bool
    scalable: bool
    bands: int

    def drawn(self, scale: float) -> Size:
        """The size in pixels of this page drawn at a scale."""
        return drawn(self.size, scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Raster:
    """Drawn pixels: rows of 8-bit sRGB or grey, the transparency last, not premultiplied."""

    size: Size
    bands: int
    pixels: bytes


def drawn(size: Size, scale: float) -> Size:
    """A size times a scale: a half is rounded up, and no side is less than 1."""
    return Size(_side(size.width, scale), _side(size.height, scale))


def tiff_head(size: Size, bands: int) -> bytes:
    """The bytes that make a TIFF of the pixels of a `Raster` that follow them.

    It is uncompressed, so that writing it costs nothing and reading it next to nothing, and it is
    made by the process that reads it: a decoder that has been taken over chooses pixels and no
    more. TIFF 6.0, sections 2 to 4 and 18.
    """
    row = size.width * bands
    rows = max(1, _STRIP // row)
    strips = -(-size.height // rows)
    last = size.height - rows * (strips - 1)
    alpha = bands in (2, 4)
    entries: list[tuple[int, int, list[int]]] = [
        (256, _LONG, [size.width]),
        (257, _LONG, [size.height]),
        (258, _SHORT, [8] * bands),
        (259, _SHORT, [1]),
        (262, _SHORT, [1 if bands < 3 else 2]),
        (273, _LONG, [0] * strips),
        (277, _SHORT, [bands]),
        (278, _LONG, [rows]),
        (279, _LONG, [row * rows] * (strips - 1) + [row * last]),
        (284, _SHORT, [1]),
        *([(338, _SHORT, [2])] if alpha else []),
    ]
    free = 8 + 2 + 12 * len(entries) + 4
    total = free + sum(_room(kind, values) for _, kind, values in entries)
    entries[5] = (273, _LONG, [total + row * rows * strip for strip in range(strips)])

    directory, values_of_all = bytearray(struct.pack("<H", len(entries))), bytearray()
    for tag, kind, values in entries:
        packed = struct.pack(f"<{len(values)}{'H' if kind == _SHORT else 'I'}", *values)
        if len(packed) > 4:
            at = struct.pack("<I", free + len(values_of_all))
            values_of_all += packed.ljust(_room(kind, values), b"\0")
            packed = at
        directory += struct.pack("<HHI4s", tag, kind, len(values), packed)
    return struct.pack("<2sHI", b"II", 42, 8) + directory + b"\0\0\0\0" + values_of_all


def raster_of(image: libvips.Image) -> Raster:
    """Compute an image of any kind of pixels, in sRGB or grey. Raises `libvips.Error`."""
    if image.get_typeof(_PROFILE):
        try:
            image = image.icc_transform("srgb", embedded=True, intent="relative")
        except libvips.Error:
            image = image.copy()
            image.remove(_PROFILE)  # a profile that is broken is ignored
    if image.interpretation not in ("srgb", "b-w"):
        image = image.colourspace("b-w" if image.interpretation == "grey16" else "srgb")
    if image.format != "uchar":
        image = image.cast("uchar")
    return Raster(
        size=Size(image.width, image.height), bands=image.bands, pixels=image.write_to_memory()
    )


def pixels_of(data: Any, size: Size, *, bands: int, stride: int | None = None) -> libvips.Image:
    """An image of 8-bit pixels in memory. `stride` is the length of a row in bytes."""
    row = size.width * bands
    if stride is None or stride == row:
        image = libvips.Image.new_from_memory(data, size.width, size.height, bands, "uchar")
    else:
        # Rows are cut to their length as long rows of one band, then folded into pixels.
        rows = libvips.Image.new_from_memory(data, stride, size.height, 1, "uchar")
        image = rows.crop(0, 0, row, size.height).bandfold(factor=bands)
    return image.copy(interpretation="srgb" if bands > 2 else "b-w")


def fit(image: libvips.Image, size: Size) -> libvips.Image:
    """Resize to exactly this size, transparency respected."""
    if (image.width, image.height) == (size.width, size.height):
        return image
    return image.thumbnail_image(size.width, height=size.height, size="force")


def with_profile(image: libvips.Image, profile: bytes | None) -> libvips.Image:
    """The image with an ICC profile that says what its colours mean."""
    if not profile:
        return image
    image = image.copy()
    image.set_type(libvips.MetadataType.BYTES, _PROFILE, profile)
    return image


def _side(length: int, scale: float) -> int:
    return max(1, int(length * scale + 0.5))


def _room(kind: int, values: list[int]) -> int:
    length = len(values) * (2 if kind == _SHORT else 4)
    return 0 if length <= 4 else length + length % 2
