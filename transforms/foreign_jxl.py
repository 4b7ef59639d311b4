"""JPEG XL, by libjxl within the optional package pillow-jxl-plugin.

The package knows only how to decode everything, so the header is read here: a file of a few bytes
may promise a picture of 2^60 pixels.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any, Final

from transforms import libvips
from transforms.errors import BrokenImage
from transforms.foreign_raster import Leaf, Raster, drawn, fit, raster_of, with_profile
from transforms.shapes import EXIF_TURNS, Size

PACKAGE: Final = "pillow_jxl"

_ERRORS: Final = (ValueError, RuntimeError, OSError, TypeError)
# ISO/IEC 18181-1, D.2: width by height for the ratios 1 to 7.
_RATIOS: Final = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))
# U32 distributions as pairs of offset and number of bits.
_SIDE: Final = ((1, 9), (1, 13), (1, 18), (1, 30))
_SMALL_PREVIEW: Final = ((16, 0), (32, 0), (1, 5), (33, 9))
_PREVIEW: Final = ((1, 6), (65, 8), (321, 10), (1345, 12))
_ENUM: Final = ((0, 0), (1, 0), (2, 4), (18, 6))
_ALPHA: Final = 0
_CFA: Final = 5
_SPOT: Final = 2
_GREY: Final = 1
_KINDS: Final = {
    # The package's modes: bands, libvips' number and interpretation.
    "L": (1, "uchar", "b-w"),
    "LA": (2, "uchar", "b-w"),
    "RGB": (3, "uchar", "srgb"),
    "RGBA": (4, "uchar", "srgb"),
    "I;16": (1, "ushort", "grey16"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What the codestream says of the picture: its size as stored and how it must be laid."""

    stored: Size
    orientation: int
    alpha: bool
    grey: bool

    @property
    def upright(self) -> Size:
        """The size in pixels after the orientation."""
        return EXIF_TURNS[self.orientation].apply(self.stored)


def measure(data: bytes, page: int) -> Leaf:
    """Read the header. Of an animation the first frame counts."""
    del page  # it has one; the caller compares
    header = read_header(data)
    return Leaf(
        size=header.upright,
        pages=1,
        alpha=header.alpha,
        scalable=False,
        bands=(1 if header.grey else 3) + header.alpha,
    )


def draw(data: bytes, page: int, scale: float) -> Raster:
    """Decode, and shrink by `scale` (0..1)."""
    del page
    header = read_header(data)
    target = drawn(header.upright, min(1.0, scale))
    package = importlib.import_module(PACKAGE)
    try:
        packed, info, pixels, profile, _ = package.Decoder(num_threads=0)(data)
    except _ERRORS:  # what it says is advice to those who build libjxl
        raise BrokenImage("The JPEG XL is cut short or corrupt") from None
    if packed:
        return raster_of(_draw_jpeg(pixels, header, target))
    if info.mode not in _KINDS:
        raise BrokenImage(f"The JPEG XL has pixels of an unknown kind: {info.mode}")
    bands, number, interpretation = _KINDS[info.mode]
    image = libvips.Image.new_from_memory(pixels, info.width, info.height, bands, number)
    image = with_profile(image.copy(interpretation=interpretation), profile)
    return raster_of(fit(image, target))


def _draw_jpeg(data: bytes, header: Header, target: Size) -> Any:
    """Shrink a JPEG that was packed in JPEG XL. Its own orientation tag does not count."""
    turn = EXIF_TURNS[header.orientation]
    stored = turn.apply(target)
    image = libvips.Image.thumbnail_buffer(
        data, stored.width, height=stored.height, size="force", no_rotate=True, fail_on="error"
    ).copy()
    image.set_type(libvips.MetadataType.INTEGER, "orientation", header.orientation)
    return image.copy_memory().autorot()


def read_header(data: bytes) -> Header:
    """Read SizeHeader and ImageMetadata (ISO/IEC 18181-1, annex D). Raises BrokenImage."""
    bits = _Bits(_codestream(data))
    stored = _read_size(bits)
    orientation, alpha, grey = 1, False, False
    if bits.flag():  # all_default
        return Header(stored=stored, orientation=orientation, alpha=alpha, grey=grey)
    if bits.flag():  # extra_fields
        orientation = 1 + bits.take(3)
        _skip_extra_fields(bits)
    _skip_bit_depth(bits)
    bits.flag()  # modular_16bit_buffers
    for _ in range(bits.number((0, 0), (1, 0), (2, 4), (1, 12))):
        alpha |= _read_extra_channel(bits) == _ALPHA
    bits.flag()  # xyb_encoded
    if not bits.flag():  # the colour encoding's all_default
        bits.flag()  # want_icc
        grey = bits.number(*_ENUM) == _GREY
    return Header(stored=stored, orientation=orientation, alpha=alpha, grey=grey)


class _Bits:
    """Reads bits, the least significant of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "little")
        self._left = 8 * len(data)

    def take(self, count: int) -> int:
        if count > self._left:
            raise BrokenImage("The JPEG XL's header is cut short")
        taken = self._value & ((1 << count) - 1)
        self._value >>= count
        self._left -= count
        return taken

    def flag(self) -> bool:
        return bool(self.take(1))

    def number(self, *distributions: tuple[int, int]) -> int:
        """A U32: two bits choose the offset and how many bits are added to it."""
        offset, count = distributions[self.take(2)]
        return offset + self.take(count)


def _codestream(data: bytes) -> bytes:
    """The beginning of the codestream, without its signature, bare or in its container."""
    start = data[:4096] if data[:2] == b"\xff\x0a" else _unbox(data)
    if start[:2] != b"\xff\x0a":
        raise BrokenImage("The JPEG XL has no codestream")
    return start[2:]


def _unbox(data: bytes) -> bytes:
    # ISO/IEC 18181-2, clause 9: the codestream is one box, or parts with a counter of 4 bytes.
    at, found = 0, b""
    while at + 8 <= len(data) and len(found) < 4096:
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = at + 8
        if length == 1:
            length, body = int.from_bytes(data[at + 8 : at + 16], "big"), at + 16
        end = len(data) if length == 0 else at + length
        if end < body:
            break
        if kind == b"jxlc":
            return data[body : min(end, body + 4096)]
        if kind == b"jxlp":
            found += data[body + 4 : min(end, body + 4096)]
        at = end
    return found


def _read_size(bits: _Bits) -> Size:
    small = bits.flag()
    height = 8 * (1 + bits.take(5)) if small else bits.number(*_SIDE)
    ratio = bits.take(3)
    if ratio:
        across, down = _RATIOS[ratio - 1]
        width = height * across // down
    else:
        width = 8 * (1 + bits.take(5)) if small else bits.number(*_SIDE)
    return Size(max(1, width), height)


def _skip_extra_fields(bits: _Bits) -> None:
    if bits.flag():  # an intrinsic size, which the decoder does not use
        _read_size(bits)
    if bits.flag():  # a preview
        small = bits.flag()
        sides = _SMALL_PREVIEW if small else _PREVIEW
        bits.number(*sides)
        if not bits.take(3):
            bits.number(*sides)
    if bits.flag():  # an animation
        bits.number((100, 0), (1000, 0), (1, 10), (1, 30))
        bits.number((1, 0), (1001, 0), (1, 8), (1, 10))
        bits.number((0, 0), (0, 3), (0, 16), (0, 32))
        bits.flag()


def _skip_bit_depth(bits: _Bits) -> None:
    if bits.flag():  # floating point
        bits.number((32, 0), (16, 0), (24, 0), (1, 6))
        bits.take(4)
    else:
        bits.number((8, 0), (10, 0), (12, 0), (1, 6))


def _read_extra_channel(bits: _Bits) -> int:
    """Skip an ExtraChannelInfo and return what kind of channel it is."""
    if bits.flag():
        return _ALPHA
    kind = bits.number(*_ENUM)
    _skip_bit_depth(bits)
    bits.number((0, 0), (3, 0), (4, 0), (1, 3))
    for _ in range(bits.number((0, 0), (0, 4), (16, 5), (48, 10))):
        bits.take(8)
    if kind == _ALPHA:
        bits.flag()
    elif kind == _SPOT:
        for _ in range(4):
            bits.take(16)
    elif kind == _CFA:
        bits.number((1, 0), (0, 2), (3, 4), (19, 8))
    return kind
