"""The formats that are read and written here, and how to tell them by their first bytes.

A name or a Content-Type proves nothing: only the bytes do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from transforms.errors import BrokenImage, UnsupportedFormat


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """One format: its name here, its media type, its file extension and what it can hold."""

    name: str
    media_type: str
    extension: str
    alpha: bool


_ALL: Final = (
    Format(name="jpeg", media_type="image/jpeg", extension="jpg", alpha=False),
    Format(name="png", media_type="image/png", extension="png", alpha=True),
    Format(name="webp", media_type="image/webp", extension="webp", alpha=True),
    Format(name="avif", media_type="image/avif", extension="avif", alpha=True),
    Format(name="gif", media_type="image/gif", extension="gif", alpha=True),
    Format(name="tiff", media_type="image/tiff", extension="tif", alpha=True),
)
FORMATS: Final[Mapping[str, Format]] = {f.name: f for f in _ALL}
"""All of them can be read and written."""

SNIFFED_BYTES: Final = 128
"""How many leading bytes of a file `sniff` looks at."""

_TIFF_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Kinds that people do send, so that the refusal can name them.
_NAMED: Final = (
    (b"%PDF", "PDF"),
    (b"BM", "BMP"),
    (b"\0\0\1\0", "ICO"),
    (b"8BPS", "PSD"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\x1f\x8b", "a gzip archive (SVGZ?)"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)


def sniff(head: bytes) -> Format:
    """The format of a file whose first bytes are `head`.

    Raises BrokenImage for an empty file and UnsupportedFormat for anything that is not decoded
    here.
    """
    if not head:
        raise BrokenImage("The original is empty")
    if head.startswith(b"\xff\xd8\xff"):
        return FORMATS["jpeg"]
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return FORMATS["png"]
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return FORMATS["webp"]
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return FORMATS["gif"]
    if head[:4] in _TIFF_MAGIC:
        return FORMATS["tiff"]
    if head[4:8] == b"ftyp":
        return _sniff_isobmff(head)
    for magic, name in _NAMED:
        if head.startswith(magic):
            raise UnsupportedFormat(f"The original is {name}, which is not supported")
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
        raise UnsupportedFormat("The original is SVG or another text format: not supported")
    raise UnsupportedFormat("The original is not an image of a supported format")


def _sniff_isobmff(head: bytes) -> Format:
    # ISO/IEC 14496-12, 4.3: a major brand, a version, then the compatible brands. Some AVIF
    # writers put `mif1` first and `avif` after it.
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return FORMATS["avif"]
    if brands & {b"heic", b"heix", b"hevc", b"mif1", b"msf1"}:
        raise UnsupportedFormat("The original is HEIC, which is not supported")
    raise UnsupportedFormat("The original is a video or another ISO media file: not supported")
