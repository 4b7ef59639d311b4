"""What a render will cost, from its header and plan alone.

Seconds of one processor and bytes of pixel memory. The factors were measured with libvips 8.18 on
one core of a 2023 server; the service corrects them by what its own renders take.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from transforms.aim import MOST_ENCODES
from transforms.load import shrink_on_load
from transforms.pipeline import Work, scale_of
from transforms.values import AutoQuality

_FIXED: Final = 0.0015
_MEGA: Final = 1_000_000

# Seconds for a megapixel of the original.
_DECODE: Final = {
    "jpeg": 0.0050,
    "png": 0.0150,
    "webp": 0.0070,
    "avif": 0.0300,
    "gif": 0.0060,
    "tiff": 0.0080,
    # These are decoded by another process, which a processor is taken for.
    "heic": 0.0600,
    "jxl": 0.0500,
    "svg": 0.0300,
    "pdf": 0.0300,
}
_JPEG_SHRUNK: Final = 0.0022  # Huffman decoding alone
_PROGRESSIVE: Final = 4.5
_START_DOCUMENT: Final = 0.0150  # a process for a foreign document, its fonts included
_RESIZE: Final = 0.0030  # for a megapixel that comes out of the decoder
_TRIM: Final = 0.0150

# Seconds for a megapixel of the result, for each adjustment, and for border, corners and shadow.
_ADJUST: Final = 0.0100
_FRAME: Final = 0.0150

# Seconds for a megapixel of the result, by effort 0 to 9.
_ENCODE: Final = {
    "jpeg": (0.006, *[0.010] * 6, *[0.064] * 3),
    "png": (0.005, 0.028, 0.044, 0.048, 0.050, 0.052, 0.053, 0.060, 0.075, 0.090),
    "webp": (0.028, 0.035, 0.042, 0.090, 0.094, 0.150, *[0.233] * 4),
    "avif": (0.063, 0.236, 0.394, 0.600, 2.500, 3.500, 4.500, 6.000, 8.000, 10.00),
    "gif": (0.060, *[0.080] * 3, *[0.100] * 3, *[0.150] * 3),
    "tiff": (0.030,) * 10,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """An estimate: seconds of one processor, bytes of pixel memory, and whose correction applies.

    `kind` groups renders whose estimates err alike.
    """

    seconds: float
    memory: int
    kind: tuple[str, str]


def estimate_all(works: Sequence[Work]) -> Cost:
    """The cost of several results of one original, which is decoded once."""
    first = works[0]
    name = first.header.format.name
    largest = max(works, key=_pixels_opened)
    seconds = _FIXED + _decoding(largest) + sum(_making(work) for work in works)
    memory = _memory_opened(largest) + sum(_memory_made(work) for work in works)
    if len(works) > 1:
        memory += int(_pixels_opened(largest)) * 4
    return Cost(seconds=seconds, memory=memory, kind=(name, _output(first)))


def _output(work: Work) -> str:
    """The format whose encoder will run, as far as it is known."""
    fm = work.transform.fm
    if fm == "same":
        fm = work.header.format.name
    if fm in _ENCODE:
        return str(fm)
    return "gif" if work.frames > 1 else "jpeg"


def _pixels_opened(work: Work) -> float:
    """Pixels that come out of the decoder and are resized."""
    if work.header.format.foreign:
        return work.plan.stored_scaled.pixels
    shrink = shrink_on_load(work.header.format.name, work.plan)
    return work.plan.region.size.pixels / shrink**2 * work.frames


def _decoding(work: Work) -> float:
    if work.mosaic is not None:
        return sum(
            piece.header.size.pixels / _MEGA * _DECODE[piece.header.format.name]
            for piece in work.pieces
        )
    header, transform = work.header, work.transform
    name = header.format.name
    shrink = 1.0 if transform.trim else shrink_on_load(name, work.plan)
    factor = _JPEG_SHRUNK if name == "jpeg" and shrink > 1 else _DECODE[name]
    if name == "jpeg" and header.progressive:
        factor *= _PROGRESSIVE
    if header.format.foreign:
        # A drawing is made as large as it is needed.
        pixels = header.size.pixels * (scale_of(work.plan) ** 2 if header.scalable else 1)
        return _START_DOCUMENT + pixels / _MEGA * factor
    frames = (transform.page or 0) + work.frames if header.animated else 1
    trimming = header.size.pixels / _MEGA * _TRIM * work.frames if transform.trim else 0
    return header.size.pixels / _MEGA * frames * factor + trimming


def _making(work: Work) -> float:
    """Seconds for what happens to the pixels of one result, and for its encoder."""
    transform, plan = work.transform, work.plan
    made = plan.whole.pixels / _MEGA * work.frames
    encodes = 1
    if transform.max_bytes is not None or isinstance(transform.q, AutoQuality):
        encodes = MOST_ENCODES
    return (
        _pixels_opened(work) / _MEGA * _RESIZE
        + made * _ADJUST * transform.adjustments
        + (made * _FRAME if transform.decorates else 0)
        + plan.result.pixels
        / _MEGA
        * work.frames
        * _ENCODE[_output(work)][transform.effort]
        * encodes
    )


def _memory_opened(work: Work) -> int:
    header = work.header
    pixel = max(4, header.bands * header.bytes_per_band)
    whole = (
        header.progressive
        or header.format.name not in ("jpeg", "png", "tiff")
        or work.transform.trim is not None
        or work.mosaic is not None
    )
    if header.scalable:
        return int(header.size.pixels * scale_of(work.plan) ** 2 * pixel)
    if whole:
        return int(header.size.pixels * pixel * work.frames)
    return int(min(header.size.pixels, header.size.width * 512) * pixel)


def _memory_made(work: Work) -> int:
    marks = sum(mark.memory for mark in work.marks.values())
    return (work.plan.scaled.pixels * 4 + work.plan.whole.pixels * 12) * work.frames + marks
