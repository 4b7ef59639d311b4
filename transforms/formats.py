"""The formats that are read and written here, and how to tell them by their first bytes.

A name or a Content-Type proves nothing: only the bytes do.
"""

from __future__ import annotations

import re
import zlib
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
    animated: bool = False
    foreign: bool = False
    """Whether only a process of its own may decode it. None of these is written."""


_ALL: Final = (
    Format(name="jpeg", media_type="image/jpeg", extension="jpg", alpha=False),
    Format(name="png", media_type="image/png", extension="png", alpha=True),
    Format(name="webp", media_type="image/webp", extension="webp", alpha=True, animated=True),
    Format(name="avif", media_type="image/avif", extension="avif", alpha=True),
    Format(name="gif", media_type="image/gif", extension="gif", alpha=True, animated=True),
    Format(name="tiff", media_type="image/tiff", extension="tif", alpha=True),
)
FORMATS: Final[Mapping[str, Format]] = {f.name: f for f in _ALL}
"""All of them can be read and written."""

_FOREIGN: Final = (
    Format(name="svg", media_type="image/svg+xml", extension="svg", alpha=True, foreign=True),
    Format(name="heic", media_type="image/heic", extension="heic", alpha=True, foreign=True),
    Format(name="jxl", media_type="image/jxl", extension="jxl", alpha=True, foreign=True),
    Format(name="pdf", media_type="application/pdf", extension="pdf", alpha=True, foreign=True),
)
FOREIGN: Final[Mapping[str, Format]] = {f.name: f for f in _FOREIGN}
"""Those that are read, in a process of their own, and not written."""

SNIFFED_BYTES: Final = 128
"""How many leading bytes of a file `sniff` looks at."""

_TIFF_MAGIC: Final = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

# Kinds that people do send, so that the refusal can name them.
_NAMED: Final = (
    (b"BM", "BMP"),
    (b"\0\0\1\0", "ICO"),
    (b"8BPS", "PSD"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
)

# ISO/IEC 23008-12, annex B. A file with an AVIF brand is AVIF, whatever else it names.
_HEIC_BRANDS: Final = {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"}
_AVIF_BRANDS: Final = {b"avif", b"avis"}
_SVG_START: Final = re.compile(rb"<(?:svg[\s>:/]|\?xml\s|!--|!doctype\s+svg\b)", re.IGNORECASE)
_BLANK: Final = b" \t\r\n"


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
    if name := _sniff_foreign(head):
        return FOREIGN[name]
    for magic, title in _NAMED:
        if head.startswith(magic):
            raise UnsupportedFormat(f"The original is {title}, which is not supported")
    if _ascii(head).lstrip(_BLANK).startswith(b"<"):
        raise UnsupportedFormat("The original is HTML or another text format: not supported")
    raise UnsupportedFormat("The original is not an image of a supported format")


def _sniff_isobmff(head: bytes) -> Format:
    # ISO/IEC 14496-12, 4.3: a major brand, a version, then the compatible brands. Some AVIF
    # writers put `mif1` first and `avif` after it.
    length = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[at : at + 4] for at in range(16, length - 3, 4))}
    if brands & _AVIF_BRANDS:
        return FORMATS["avif"]
    if brands & _HEIC_BRANDS:
        return FOREIGN["heic"]
    raise UnsupportedFormat("The original is a video or another ISO media file: not supported")


def _sniff_foreign(head: bytes) -> str | None:
    """SVG, JPEG XL or PDF.

    For XML this is a guess: its root may lie behind a comment of any length, so whatever begins
    as an SVG may is called one, and its decoder tells. HTML and plain text are not.
    """
    if head.startswith(b"%PDF-"):
        return "pdf"
    # ISO/IEC 18181-2, clause 9: the bare codestream and the container.
    if head.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n")):
        return "jxl"
    if head.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, SNIFFED_BYTES)
        except zlib.error:
            return None
    return "svg" if _SVG_START.match(_ascii(head).lstrip(_BLANK)) else None


def _ascii(head: bytes) -> bytes:
    """The text of a file's first bytes, whatever its encoding, as far as it is ASCII."""
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if head.startswith(mark):
            return head[2:].decode(encoding, "ignore").encode("ascii", "replace")
    return head.removeprefix(b"\xef\xbb\xbf")
