"""What can be known of an original without decoding it.

`peek` reads the first bytes in plain Python, so that a download can be refused before it is
complete; `look` lets libvips read the whole header.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from transforms import formats, libvips
from transforms.errors import BrokenImage, UnsupportedFormat
from transforms.foreign_raster import Leaf
from transforms.formats import Format
from transforms.shapes import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """An original's header. The size is of one page as stored, before any orientation.

    A `scalable` original is a drawing.
    """

    format: Format
    size: Size
    pages: int
    orientation: int
    bands: int
    bytes_per_band: int
    alpha: bool
    progressive: bool
    interpretation: str
    scalable: bool = False

    @property
    def animated(self) -> bool:
        """Whether its pages are frames that follow each other."""
        return self.pages > 1 and self.format.animated


def look(data: bytes, *, page: int = 0) -> Header:
    """Read the header of a complete file, as one of its pages has it. Decodes nothing.

    Raises BrokenImage, UnsupportedFormat: also for what only a process of its own may decode.
    """
    image_format = formats.sniff(data[: formats.SNIFFED_BYTES])
    if image_format.foreign:
        raise UnsupportedFormat(
            f"The original is {image_format.name}, which is not read here: only a process of its "
            "own may decode it"
        )
    try:
        image = libvips.Image.new_from_buffer(
            data, f"[page={page}]" if page else "", access="sequential"
        )
    except libvips.Error as error:
        raise broken(image_format, error) from None
    pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    orientation = image.get("orientation") if image.get_typeof("orientation") else 1
    return Header(
        format=image_format,
        size=Size(image.width, image.height),
        pages=pages,
        orientation=orientation,
        bands=image.bands,
        bytes_per_band=2 if image.format in ("ushort", "short") else 1,
        alpha=image.hasalpha(),
        progressive=bool(image.get_typeof("interlaced")),
        interpretation=image.interpretation,
    )


def header_of_leaf(image_format: Format, leaf: Leaf) -> Header:
    """The header of a foreign document's page, as its own process has told it."""
    return Header(
        format=image_format,
        size=leaf.size,
        pages=leaf.pages,
        orientation=1,
        bands=leaf.bands,
        bytes_per_band=1,
        alpha=leaf.alpha,
        progressive=False,
        interpretation="srgb" if leaf.bands >= 3 else "b-w",
        scalable=leaf.scalable,
    )


def broken(image_format: Format, error: Exception) -> BrokenImage:
    """The public form of a libvips complaint: its last line, which is the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = lines[-1][:160] if lines else "unknown cause"
    return BrokenImage(f"The original cannot be decoded as {image_format.name}: {cause}")


def peek(head: bytes) -> tuple[Format, Size | None]:
    """The format, and the size where the first bytes tell it (JPEG, PNG, GIF, WebP).

    Raises BrokenImage, UnsupportedFormat.
    """
    image_format = formats.sniff(head)
    try:
        match image_format.name:
            case "png":
                return image_format, Size(*struct.unpack(">II", head[16:24]))
            case "gif":
                return image_format, Size(*struct.unpack("<HH", head[6:10]))
            case "webp":
                return image_format, _peek_webp(head)
            case "jpeg":
                return image_format, _peek_jpeg(head)
    except (struct.error, IndexError):
        pass  # not enough bytes yet
    return image_format, None


def _peek_webp(head: bytes) -> Size | None:
    # RFC 9649, sections 2.5 to 2.7.
    match head[12:16]:
        case b"VP8X":
            width, height = (
                int.from_bytes(head[24:27], "little"),
                int.from_bytes(head[27:30], "little"),
            )
            return Size(width + 1, height + 1) if len(head) >= 30 else None
        case b"VP8L":
            (bits,) = struct.unpack("<I", head[21:25])
            return Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        case b"VP8 ":
            width, height = struct.unpack("<HH", head[26:30])
            return Size(width & 0x3FFF, height & 0x3FFF)
    return None


def _peek_jpeg(head: bytes) -> Size | None:
    # ITU-T T.81, B.1: markers with a length, until a start of frame (SOF0 to SOF15 without the
    # tables DHT, JPG and DAC, which share its range).
    at = 2
    while True:
        marker, length = struct.unpack(">HH", head[at : at + 4])
        if marker >> 8 != 0xFF or length < 2:
            return None
        if 0xC0 <= marker & 0xFF <= 0xCF and marker & 0xFF not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return Size(width, height)
        at += 2 + length
