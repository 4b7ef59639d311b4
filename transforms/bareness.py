"""Bareness: whether a file holds nothing but its pixels and how these are to be shown.

An original that is answered as it is must not tell what a result would not. Each format is walked
from its first byte to its last, and what is not known to be harmless counts as telling: comments,
thumbnails, previews, films behind the picture.

Sources: ITU-T T.81, annex B, and JFIF 1.02 (JPEG); PNG 3rd edition, 5 and 11; GIF89a, 17 to 27; RFC
9649 (WebP); EXIF 2.32, 4.6.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Final

from transforms import jpegfile

_Block = tuple[bytes, int, int]
"""The name of a part of a file, and where its payload begins and ends."""
_Tags = frozenset[int]
"""The EXIF tags that there may be."""

_EXIF: Final = b"Exif\0\0"
_ICC: Final = b"ICC_PROFILE\0"
_JFIF_BYTES: Final = 14
_ADOBE_BYTES: Final = 12

_MARKER: Final = re.compile(rb"\xff+([^\x00\xd0-\xd7\xff])", re.DOTALL)
"""What ends entropy-coded data: neither a stuffed byte nor a restart."""
_BETWEEN_SCANS: Final = frozenset((0xC4, 0xDA, 0xDB, 0xDC, 0xDD))
_END_OF_IMAGE: Final = 0xD9

_PNG_START: Final = b"\x89PNG\r\n\x1a\n"
_PNG_CHUNKS: Final = frozenset(
    (
        *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"sBIT", b"pHYs"),
        *(b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI"),
    )
)
_WEBP_CHUNKS: Final = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ICCP"))
_WEBP_FRAME: Final = frozenset((b"VP8 ", b"VP8L", b"ALPH"))
_FRAME_HEAD: Final = 16
_GIF_LOOPS: Final = (b"NETSCAPE2.0", b"ANIMEXTS1.0")

_LAYOUT_TAGS: Final = frozenset(
    (
        *(0x0100, 0x0101, 0x0102, 0x0103, 0x0106, 0x0112, 0x0115, 0x011A, 0x011B, 0x011C),
        *(0x0128, 0x0213, 0x9000, 0x9101, 0xA000, 0xA001, 0xA002, 0xA003),
    )
)
"""EXIF tags that say how pixels lie, and nothing else."""
_RIGHTS_TAGS: Final = frozenset((0x013B, 0x8298))
_CAMERA_DIRECTORY: Final = 0x8769
_LARGEST_LAYOUT: Final = 16
_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8}


def is_bare(data: bytes, format_name: str, *, rights: bool) -> bool:
    """Whether a file tells nothing, but for its artist and copyright where `rights` may stay.

    A format that is not walked here counts as telling.
    """
    walk = _WALKS.get(format_name)
    tags = _LAYOUT_TAGS | _RIGHTS_TAGS if rights else _LAYOUT_TAGS
    try:
        return walk is not None and walk(data, tags)
    except (struct.error, IndexError):
        return False


def _is_bare_jpeg(data: bytes, tags: _Tags) -> bool:
    head = jpegfile.read_head(data)
    if head is None:
        return False
    for segment in head.segments:
        payload = data[segment.start : segment.end]
        if segment.described and not _is_bare_segment(segment.marker, payload, tags):
            return False
    at = head.scan
    while found := _MARKER.search(data, at):
        marker = found[1][0]
        if marker == _END_OF_IMAGE:
            return found.end() == len(data)
        if marker not in _BETWEEN_SCANS:
            return False
        (length,) = struct.unpack_from(">H", data, found.end())
        at = found.end() + length
    return False


def _is_bare_segment(marker: int, payload: bytes, tags: _Tags) -> bool:
    match marker:
        case jpegfile.APP0:  # a longer one has a thumbnail
            return payload.startswith(b"JFIF\0") and len(payload) == _JFIF_BYTES
        case jpegfile.APP1:
            return payload.startswith(_EXIF) and _is_bare_exif(payload[len(_EXIF) :], tags)
        case jpegfile.APP2:
            return payload.startswith(_ICC)
        case jpegfile.APP14:
            return payload.startswith(b"Adobe") and len(payload) == _ADOBE_BYTES
    return False


def _is_bare_png(data: bytes, tags: _Tags) -> bool:
    for name, start, end in _chunks(data, len(_PNG_START), ">I4s", trailer=4):
        if name == b"eXIf":
            if not _is_bare_exif(data[start:end], tags):
                return False
        elif name not in _PNG_CHUNKS:
            return False
        if name == b"IEND":
            return start == end == len(data) - 4
    return False


def _is_bare_webp(data: bytes, tags: _Tags) -> bool:
    (size,) = struct.unpack_from("<I", data, 4)
    if size + 8 != len(data):
        return False
    for name, start, end in _chunks(data, 12, "<4sI"):
        if name == b"EXIF":
            if not _is_bare_exif(data[start:end].removeprefix(_EXIF), tags):
                return False
        elif name == b"ANMF":
            inner = data[start + _FRAME_HEAD : end]
            if any(part not in _WEBP_FRAME for part, _, _ in _chunks(inner, 0, "<4sI")):
                return False
        elif name not in _WEBP_CHUNKS:
            return False
    return True


def _chunks(data: bytes, at: int, head: str, *, trailer: int = 0) -> Iterator[_Block]:
    """The chunks of a PNG, or of RIFF, which pads them to even lengths."""
    padded = head.startswith("<")
    while at < len(data):
        first, second = struct.unpack_from(head, data, at)
        name, length = (first, second) if padded else (second, first)
        start = at + 8
        end = start + length
        yield name, start, end
        at = end + trailer + (padded and length % 2)


def _is_bare_gif(data: bytes, tags: _Tags) -> bool:
    del tags  # a GIF has no place for them but its comments
    at = 13 + _colours(data[10])
    while True:
        match data[at]:
            case 0x3B:
                return at + 1 == len(data)
            case 0x2C:
                at = _after_blocks(data, at + 11 + _colours(data[at + 9]))
            case 0x21 if data[at + 1] == 0xF9 or data[at + 3 : at + 14] in _GIF_LOOPS:
                at = _after_blocks(data, at + 2)
            case _:
                return False


def _colours(flags: int) -> int:
    """The bytes of a table of colours."""
    return 3 << ((flags & 7) + 1) if flags & 0x80 else 0


def _after_blocks(data: bytes, at: int) -> int:
    while data[at]:
        at += 1 + data[at]
    return at + 1


def _is_bare_exif(block: bytes, tags: _Tags) -> bool:
    """Whether all tags may stay, each once, and nothing but zeros lies between what they take."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return False
    unused = bytearray(block)
    unused[:8] = bytes(8)
    (directory,) = struct.unpack_from(order + "I", block, 4)
    waiting = [directory]
    met: set[int] = set()
    for at in waiting:
        (count,) = struct.unpack_from(order + "H", block, at)
        end = at + 2 + 12 * count
        (following,) = struct.unpack_from(order + "I", block, end)
        if following:
            return False  # a second directory is that of a thumbnail
        unused[at : end + 4] = bytes(end + 4 - at)
        for entry in range(at + 2, end, 12):
            tag, kind, number, place = struct.unpack_from(order + "HHII", block, entry)
            if tag in met:
                return False
            met.add(tag)
            size = number * _TYPE_BYTES.get(kind, len(block))
            if tag == _CAMERA_DIRECTORY and len(waiting) == 1:
                waiting.append(place)
            elif tag not in tags or (tag in _LAYOUT_TAGS and size > _LARGEST_LAYOUT):
                return False
            elif size > 4:
                if place + size > len(block):
                    return False
                unused[place : place + size] = bytes(size)
    return not any(unused)


_WALKS: Final[dict[str, Callable[[bytes, _Tags], bool]]] = {
    "jpeg": _is_bare_jpeg,
    "png": _is_bare_png,
    "webp": _is_bare_webp,
    "gif": _is_bare_gif,
}
