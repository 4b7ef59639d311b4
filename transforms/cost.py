"""What a render will cost, from its header and plan alone.

Seconds of one processor and bytes of pixel memory. What single steps cost is in `prices`; the
service corrects estimates by what its own renders take.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final

from transforms import prices
from transforms.aim import MOST_ENCODES
from transforms.effects import LARGEST_SIGMA
from transforms.encode import DEFAULT_QUALITY
from transforms.inspect import Header
from transforms.layers import Text, Watermark
from transforms.load import shrink_on_load
from transforms.overlay import MOST_RASTER, fit, mark_scale
from transforms.pipeline import Work, scale_of
from transforms.shapes import Size
from transforms.transform import Transform
from transforms.values import AutoQuality

_MEGA: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """An estimate: seconds of one processor, bytes of pixel memory, and whose correction applies.

    `kind` groups renders whose estimates err alike: the format of the original, and those of the
    results. `parts` are the seconds that a parameter is the cause of; those of the size are under
    `w`.
    """

    seconds: float
    memory: int
    kind: tuple[str, str]
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def cause(self) -> str:
        """The parameter that most seconds are for."""
        return max(self.parts, key=lambda name: self.parts[name], default="w")


def estimate_all(works: Sequence[Work]) -> Cost:
    """The cost of several results of one original, which is decoded once."""
    first = works[0]
    largest = max(works, key=_pixels_opened)
    parts: defaultdict[str, float] = defaultdict(float)
    if first.transform.merge:
        parts["merge"] += _decoding(largest)
    elif first.transform.trim:
        parts["trim"] += _decoding(largest)
    else:
        parts["w"] += _decoding(largest)
    for work in works:
        for name, seconds in _making(work):
            parts[name] += seconds
    memory = _memory_opened(largest) + sum(_memory_made(work) for work in works)
    if len(works) > 1:
        memory += int(_pixels_opened(largest)) * 4
    return Cost(
        seconds=prices.FIXED + sum(parts.values()),
        memory=memory,
        kind=(first.header.format.name, "+".join(sorted(set(map(_output, works))))),
        parts=parts,
    )


def _output(work: Work) -> str:
    """The format whose encoder will run, as far as it is known."""
    fm = work.transform.fm
    if fm == "same":
        fm = work.header.format.name
    if fm in prices.ENCODE:
        return str(fm)
    if work.frames > 1:
        return "gif"
    return "png" if _transparent(work) else "jpeg"


def _transparent(work: Work) -> bool:
    """Whether the result may have pixels that shine through."""
    transform = work.transform
    seen = work.header.alpha and not (transform.background or transform.framed)
    return bool(seen or transform.round or transform.shadow or transform.opacity != 1)


def _pixels_opened(work: Work) -> float:
    """Pixels that come out of the decoder and are resized."""
    if work.header.format.foreign:
        return work.plan.stored_scaled.pixels
    shrink = shrink_on_load(work.header.format.name, work.plan)
    return work.plan.region.size.pixels / shrink**2 * work.frames


def _decoding(work: Work) -> float:
    if work.mosaic is not None:
        boxes = work.mosaic.boxes
        return sum(
            _decoding_of(piece.header, min(piece.header.size.width / box.width, 8.0))
            + piece.header.size.pixels / _MEGA * prices.SHRINK
            for piece, box in zip(work.pieces, boxes, strict=True)
        )
    header, transform = work.header, work.transform
    if header.format.foreign:
        # A drawing is made as large as it is needed.
        pixels = header.size.pixels * (scale_of(work.plan) ** 2 if header.scalable else 1)
        return prices.START_DOCUMENT + pixels / _MEGA * prices.DECODE[header.format.name]
    shrink = 1.0 if transform.trim else shrink_on_load(header.format.name, work.plan)
    frames = (transform.page or 0) + work.frames if header.animated else 1
    trimming = header.size.pixels / _MEGA * prices.TRIM * work.frames if transform.trim else 0
    return _decoding_of(header, shrink) * frames + trimming


def _decoding_of(header: Header, shrink: float) -> float:
    """Seconds for one frame, which may be shrunk meanwhile."""
    name = header.format.name
    factor = prices.DECODE[name]
    if name == "jpeg":
        factor = next((f for step, f in prices.JPEG_SHRUNK.items() if shrink >= step), factor)
        factor *= prices.PROGRESSIVE if header.progressive else 1
    return header.size.pixels / _MEGA * factor


def _making(work: Work) -> Iterator[tuple[str, float]]:
    """Seconds for what happens to the pixels of one result, and for its encoder, by cause."""
    transform, plan = work.transform, work.plan
    moving = work.frames if work.frames > 1 else 0
    window, canvas, whole, scaled = (
        size.pixels / _MEGA * work.frames
        for size in (plan.window_size, plan.padded, plan.whole, plan.scaled)
    )
    yield "w", moving * prices.EACH_FRAME
    if plan.stored_scaled != plan.region.size:
        yield "w", _pixels_opened(work) / _MEGA * prices.SHRINK
        yield "w", scaled * (prices.ENLARGE if scale_of(plan) > 1 else prices.SHRINK)
    slower = prices.WITH_ALPHA if work.header.alpha else 1
    for name, price in _adjustments(transform, float(plan.scale)):
        yield name, window * price * slower + moving * prices.EACH_ADJUSTMENT
    if isinstance(transform.background, str):
        yield "background", canvas * prices.BACKGROUND[transform.background]
    for name, price in prices.FRAME.items():
        if getattr(transform, name):
            yield name, whole * price
    for name, seconds in _layers(work):
        yield name, seconds + moving * prices.EACH_LAYER
    yield from _encoding(work)


def _adjustments(transform: Transform, scale: float) -> list[tuple[str, float]]:
    """Each adjustment with its seconds for a megapixel."""
    found = [(name, price) for name, price in prices.ADJUST.items() if transform.adjusts(name)]
    if transform.blur is not None:
        found.append(("blur", 0.007 + _gaussian(float(transform.blur) * scale, 0.0014)))
    if transform.sharpen is not None:
        sigma = float(transform.sharpen.sigma) * scale
        found.append(("sharpen", 0.045 + _gaussian(sigma, 0.011)))  # in floating point
    if transform.charcoal is not None:
        found.append(("charcoal", 0.035 if float(transform.charcoal) * scale <= 2 else 0.085))
    return found


def _gaussian(sigma: float, price: float) -> float:
    """Seconds for a megapixel of a Gaussian, at a price for each pixel of its sigma.

    A large one is that of a shrunk picture, which is enlarged again.
    """
    shrink = max(1, math.ceil(sigma / LARGEST_SIGMA))
    return price * sigma / shrink**3 + (0.030 if shrink > 1 else 0)


def _layers(work: Work) -> list[tuple[str, float]]:
    """Seconds for each mark: it is drawn once, and laid over every frame."""
    canvas = work.plan.padded
    scale = mark_scale(work)
    found = []
    for layer in work.transform.layers:
        if isinstance(layer, Text):
            side = min(MOST_RASTER, 2 * max(canvas.width, canvas.height))
            most = side * min(side, canvas.width)
            pixels = min(most, len(layer.words) * float(layer.size * scale) ** 2 * 0.6)
            fixed, each, much = prices.TEXT
            drawing = fixed + each * len(layer.words) + pixels / _MEGA * much
            if layer.outline.alpha:
                drawing += prices.OUTLINE[0] + pixels / _MEGA * prices.OUTLINE[1]
        else:
            drawing, pixels = _watermark(work, layer, scale)
        plain = not _transparent(work) and getattr(layer, "blend", "over") == "over"
        price = prices.OVER if plain else prices.BLEND
        laid = min(pixels, canvas.pixels) / _MEGA * work.frames * price
        found.append(("text" if isinstance(layer, Text) else "watermark", drawing + laid))
    return found


def _watermark(work: Work, layer: Watermark, scale: Decimal) -> tuple[float, int]:
    """Seconds for resizing a watermark, and the pixels that it covers."""
    canvas = work.plan.padded
    bitmap = work.marks.get(layer.original)
    size = fit(canvas, canvas if bitmap is None else bitmap.size, layer.scale, scale)
    there = size if bitmap is None else Size(bitmap.image.width, bitmap.image.height)
    price = prices.ENLARGE if size.pixels > there.pixels else prices.SHRINK
    drawing = max(size.pixels, there.pixels) / _MEGA * price if size != there else 0
    return drawing, canvas.pixels if layer.tile else size.pixels


def _encoding(work: Work) -> Iterator[tuple[str, float]]:
    """Seconds for the encoder. What exceeds one usual file is the fault of what asks for more."""
    transform, name = work.transform, _output(work)
    pixels = work.plan.result.pixels / _MEGA * work.frames
    table = prices.LOSSLESS if transform.lossless and name in prices.LOSSLESS else prices.ENCODE
    shines = name == "webp" and not transform.lossless and _transparent(work)
    scans = prices.SCANS.get(name, 1) if transform.progressive else 1

    def encode(effort: int) -> float:
        price = table[name][effort] + (prices.WEBP_ALPHA[effort] if shines else 0)
        return pixels * price * scans

    once = encode(transform.effort)
    usual = min(once, encode(prices.USUAL_EFFORT))
    yield "w", usual + (work.frames * prices.EACH_PALETTE if name == "gif" else 0)
    yield "effort", once - usual
    if name not in DEFAULT_QUALITY or transform.lossless:
        return
    aimed = isinstance(transform.q, AutoQuality)
    if aimed:
        yield "q", once * (MOST_ENCODES - 1) + pixels * prices.SCORE * (MOST_ENCODES + 1)
    if transform.max_bytes is not None:
        # Beside a likeness, a size is looked for when that has been found.
        yield "max-bytes", once * (MOST_ENCODES if aimed else MOST_ENCODES - 1)


def _memory_opened(work: Work) -> int:
    if work.mosaic is not None:
        scale = min(1.0, scale_of(work.plan))
        placed = sum(box.size.pixels for box in work.mosaic.boxes) + work.mosaic.size.pixels
        # One after another they are decoded; what has been made of each stays.
        decoded = max(_memory_decoded(piece.header) for piece in work.pieces)
        return decoded + int(placed * scale**2 * 4)
    header = work.header
    if header.scalable:
        drawn = header.size.pixels * scale_of(work.plan) ** 2
        return int(drawn * max(4, header.bands * header.bytes_per_band))
    whole = work.transform.trim is not None
    return _memory_decoded(header, frames=work.frames, whole=whole)


def _memory_decoded(header: Header, *, frames: int = 1, whole: bool = False) -> int:
    pixel = max(4, header.bands * header.bytes_per_band)
    if whole or header.progressive or header.format.name not in ("jpeg", "png", "tiff"):
        return int(header.size.pixels * pixel * frames)
    return int(min(header.size.pixels, header.size.width * 512) * pixel)


def _memory_made(work: Work) -> int:
    plan = work.plan
    marks = sum(mark.memory for mark in work.marks.values())
    # What is laid over the picture is drawn first, and may be as large.
    marks += len(work.transform.layers) * plan.padded.pixels * 4
    return (plan.scaled.pixels * 4 + plan.whole.pixels * 12) * work.frames + marks
