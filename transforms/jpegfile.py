"""A JPEG file as a row of marker segments, read and written without touching its pixels.

Sources: ITU-T T.81, annex B (markers); CIPA DC-007-2009 (the Multi-Picture Format, MPF).
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from transforms.shapes import Size

SOI: Final = b"\xff\xd8"
APP0: Final = 0xE0
APP1: Final = 0xE1
APP2: Final = 0xE2
APP14: Final = 0xEE
COM: Final = 0xFE
LARGEST_PAYLOAD: Final = 65533
"""Bytes that a segment can hold: its length is of 16 bits and counts itself."""

MPF: Final = b"MPF\0"
MULTI_PICTURE_BYTES: Final = 90
"""The size of what `write_multi_picture` gives."""

_SOS: Final = 0xDA
_STARTS_OF_FRAME: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# A profile can take 255 segments, extended XMP as many as its megabytes need. More is no picture,
# and walking over it would let a file without end keep a processor.
_MOST_SEGMENTS: Final = 1000
_MOST_PICTURES: Final = 16


@dataclass(frozen=True, slots=True)
class Segment:
    """A marker's second byte, and where in the file the segment's payload begins and ends."""

    marker: int
    start: int
    end: int

    @property
    def described(self) -> bool:
        """Whether it tells of the picture (APP0 to APP15, COM); all others are for the decoder."""
        return APP0 <= self.marker <= 0xEF or self.marker == COM


@dataclass(frozen=True, slots=True)
class Head:
    """What comes before the first scan: segments, the size in pixels, where that scan starts."""

    segments: tuple[Segment, ...]
    size: Size
    scan: int

    def find(self, data: bytes, marker: int, name: bytes) -> list[Segment]:
        """The segments with this marker whose payload begins with this name."""
        return [
            segment
            for segment in self.segments
            if segment.marker == marker and data.startswith(name, segment.start, segment.end)
        ]


def read_head(data: bytes, start: int = 0) -> Head | None:
    """The segments of the JPEG that begins at `start`, or None where that is no sound JPEG."""
    if not data.startswith(SOI, start):
        return None
    segments: list[Segment] = []
    size = None
    at = start + 2
    while len(segments) < _MOST_SEGMENTS and at + 4 <= len(data):
        mark, marker, length = struct.unpack_from(">BBH", data, at)
        end = at + 2 + length
        if mark != 0xFF or length < 2 or end > len(data):
            return None
        if marker == _SOS:
            return Head(tuple(segments), size, at) if size else None
        if marker in _STARTS_OF_FRAME:
            if size or length < 8:
                return None
            height, width = struct.unpack_from(">HH", data, at + 5)
            if not width or not height:
                return None
            size = Size(width, height)
        segments.append(Segment(marker, at + 4, end))
        at = end
    return None


def write_segment(marker: int, payload: bytes) -> bytes:
    """A marker segment. Raises ValueError where the payload exceeds `LARGEST_PAYLOAD`."""
    if len(payload) > LARGEST_PAYLOAD:
        raise ValueError(f"a segment holds {LARGEST_PAYLOAD} bytes, not {len(payload)}")
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def split(data: bytes, head: Head, kept: Collection[Segment]) -> tuple[bytes, bytes]:
    """The file in two parts: what describes it, reduced to the segments `kept`, and all the rest.

    Between them is the place for further segments: JFIF and EXIF want to be first in a file.
    """
    described: list[bytes] = [SOI]
    needed: list[bytes] = []
    for segment in head.segments:
        whole = data[segment.start - 4 : segment.end]
        if not segment.described:
            needed.append(whole)
        elif segment in kept:
            described.append(whole)
    return b"".join(described), b"".join((*needed, data[head.scan :]))


def read_multi_picture(data: bytes, segment: Segment) -> list[tuple[int, int]]:
    """Where an MPF segment says that pictures beside the first lie: start and length in bytes.

    CIPA DC-007, 5.2: offsets count from the byte order mark; the first picture's is 0. Only what
    lies within the file is returned.
    """
    base = segment.start + len(MPF)
    block = data[base : segment.end]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return []
    try:
        (directory,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, directory)
        for entry in range(directory + 2, directory + 2 + 12 * count, 12):
            tag, _, size, table = struct.unpack_from(order + "HHII", block, entry)
            if tag == 0xB002:
                listed = block[table : table + min(size // 16, _MOST_PICTURES) * 16]
                break
        else:
            return []
        entries = list(struct.iter_unpack(order + "III4x", listed))
    except struct.error:
        return []
    places = [(base + offset, length) for _, length, offset in entries if offset]
    return [(start, length) for start, length in places if start + length <= len(data)]


def write_multi_picture(*, at: int, first: int, second: int) -> bytes:
    """An MPF segment for two pictures of these lengths in bytes, one right after the other.

    It is for the place `at` of the file and is `MULTI_PICTURE_BYTES` long, which `first` includes.
    """
    base = at + 4 + len(MPF)
    # The first is a baseline primary image; of the second DC-007 has no name for what it is.
    entries = struct.pack(">III4xIII4x", 0x030000, first, 0, 0, second, first - base)
    head = struct.pack(">4sIH", b"MM\0*", 8, 3)
    head += struct.pack(">HHI4s", 0xB000, 7, 4, b"0100")
    head += struct.pack(">HHII", 0xB001, 4, 1, 2)
    head += struct.pack(">HHII", 0xB002, 7, len(entries), len(head) + 16)
    return write_segment(APP2, MPF + head + bytes(4) + entries)
