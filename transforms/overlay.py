"""Overlays: watermarks and text, laid over a picture that is finished but for its encoding.

All images here are 8-bit sRGB or grey with straight alpha. What lies outside a mark is left as it
is, to the bit, and only what lies under it is computed anew.
"""

from __future__ import annotations

import html
import itertools
import math
import unicodedata
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from transforms import libvips
from transforms.composite import composite
from transforms.layers import Length, Text, Watermark
from transforms.shapes import Box, Size
from transforms.values import TRANSPARENT, Colour, Gravity

if TYPE_CHECKING:
    from transforms.bitmap import Bitmap
    from transforms.pipeline import Work

MOST_RASTER: Final = 4096
"""The widest and highest raster that text is drawn on in pixels."""

_SMALL: Final = 8
"""The size in pixels at which text is drawn to learn how much room it takes."""

_CELL: Final = 256
"""Marks smaller than this are repeated in memory first: libvips copies tile by tile."""

_RENEWAL: Final = 100
"""After so many texts Pango forgets its fonts. See `_raster`."""

_drawn: Final = itertools.count(1)
"""Counts texts. Nothing that can be seen depends on it."""

_ALIGNMENTS: Final = {"left": "low", "center": "centre", "right": "high"}
_MIRRORED: Final = {"left": "high", "center": "centre", "right": "low"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A watermark or a text as it is laid: its pixels in memory, with alpha, and its place."""

    image: libvips.Image
    left: int
    top: int
    blend: str


def draw_marks(work: Work) -> tuple[Mark, ...]:
    """Draw the transform's watermarks and texts, in order, for all frames at once.

    Every frame has the size of `plan.padded`. Texts in which there is nothing to see are left out.
    """
    scale = mark_scale(work)
    canvas = work.plan.padded
    marks = [
        draw_watermark(canvas, work.marks[layer.original], layer, scale=scale)
        if isinstance(layer, Watermark)
        else draw_text(canvas, layer, scale=scale)
        for layer in work.transform.layers
    ]
    return tuple(mark for mark in marks if mark is not None)


def mark_scale(work: Work) -> Decimal:
    """What lengths of marks in pixels are multiplied by."""
    shrunk = work.plan.scale
    return work.transform.layer_dpr * shrunk.numerator / shrunk.denominator


def overlay(image: libvips.Image, work: Work) -> libvips.Image:
    """Lay what `draw_marks` has drawn over the picture, its canvas and its padding."""
    for mark in work.drawn:
        image = lay(image, mark)
    return image


def draw_watermark(canvas: Size, bitmap: Bitmap, watermark: Watermark, *, scale: Decimal) -> Mark:
    """A watermark for pictures of a size in pixels.

    `scale` multiplies lengths in pixels, the bitmap's own size among them.
    """
    size = fit(canvas, bitmap.size, watermark.scale, scale)
    mark = _fade(_resize(_bare(bitmap.image), size), watermark.opacity)
    left, top = place(canvas, size, watermark.gravity, x=watermark.x, y=watermark.y, scale=scale)
    if watermark.tile:
        gap = _round(watermark.gap * Fraction(scale))
        mark, left, top = _tile(mark, canvas, left, top, gap), 0, 0
    return Mark(image=mark.copy_memory(), left=left, top=top, blend=watermark.blend)


def draw_text(canvas: Size, text: Text, *, scale: Decimal) -> Mark | None:
    """A text for pictures of a size in pixels, or None where there is nothing to see.

    `scale` multiplies lengths in pixels. Text is placed by its ink. Of a text that would take more
    than `MOST_RASTER` pixels either way, or twice the picture, the end is left out.
    """
    image = _draw(text, canvas, scale)
    if image is None:
        return None
    left, top = place(canvas, _size(image), text.gravity, x=text.x, y=text.y, scale=scale)
    return Mark(image=image, left=left, top=top, blend="over")


def place(
    canvas: Size, mark: Size, gravity: Gravity, *, x: Length, y: Length, scale: Decimal
) -> tuple[int, int]:
    """Where the left and top edge of a mark lie on a canvas, in pixels; they may lie outside.

    A point of `gravity` lies on the same point of the mark (CSS `background-position`). Offsets go
    inward from the right or bottom edge where gravity names it, else to the right and down.
    """
    return (
        _along(canvas.width, mark.width, gravity.x, x, scale),
        _along(canvas.height, mark.height, gravity.y, y, scale),
    )


def _along(whole: int, part: int, at: Decimal, offset: Length, scale: Decimal) -> int:
    shift = _pixels(offset, whole, scale)
    return _round((whole - part) * Fraction(at)) + (-shift if at == 1 else shift)


def fit(canvas: Size, mark: Size, share: Decimal, scale: Decimal) -> Size:
    """The size at which a mark is laid: as large as it can be in `share` of the canvas.

    Where `share` is 0 it has its own size times `scale`, but no more than the canvas.
    """
    room = Fraction(share or 1)
    ratio = min(room * canvas.width / mark.width, room * canvas.height / mark.height)
    if not share:
        ratio = min(ratio, Fraction(scale))
    return Size(max(1, _round(mark.width * ratio)), max(1, _round(mark.height * ratio)))


def _pixels(length: Length, whole: int, scale: Decimal) -> int:
    return _round(Fraction(length.value) * (whole if length.fractional else Fraction(scale)))


def _round(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


def _size(image: libvips.Image) -> Size:
    return Size(image.width, image.height)


def _settle(image: libvips.Image) -> libvips.Image:
    """The picture in colour and in memory, for what lies under a mark is read more than once."""
    if image.bands < 3:
        image = image.colourspace("srgb")
    return image.copy_memory()


def _bare(image: libvips.Image) -> libvips.Image:
    """The pixels without metadata, which libvips would hand on to what they are laid on."""
    image = image.copy()
    for name in image.get_fields():
        image.remove(name)
    return image


def _resize(mark: libvips.Image, size: Size) -> libvips.Image:
    if _size(mark) == size:
        return mark
    # Premultiplies, so that what is transparent lends its colour to nothing.
    return mark.thumbnail_image(
        size.width, height=size.height, size="force", no_rotate=True
    ).copy_memory()


def _fade(mark: libvips.Image, opacity: Decimal) -> libvips.Image:
    if opacity == 1:
        return mark
    faded = (mark[3] * float(opacity)).rint().cast("uchar")
    return mark.extract_band(0, n=3).bandjoin(faded)


def _tile(mark: libvips.Image, canvas: Size, left: int, top: int, gap: int) -> libvips.Image:
    """A canvas full of marks, one of which has its edges at `left` and `top`."""
    cell = mark.embed(0, 0, mark.width + gap, mark.height + gap)
    # How far the first cell, whole or cut, begins before the canvas.
    across, down = -left % cell.width, -top % cell.height
    if cell.width < _CELL or cell.height < _CELL:
        cell = cell.replicate(-(-_CELL // cell.width), -(-_CELL // cell.height)).copy_memory()
    columns = -(-(canvas.width + across) // cell.width)
    rows = -(-(canvas.height + down) // cell.height)
    return cell.replicate(columns, rows).crop(across, down, canvas.width, canvas.height)


def lay(image: libvips.Image, mark: Mark) -> libvips.Image:
    """Blend a mark into a picture: 8-bit sRGB of the same size, with alpha where it had alpha.

    What lies outside of the picture is cut off. A picture that is still to be computed is computed
    into memory first.
    """
    image = _settle(image)
    left, top = mark.left, mark.top
    right = min(left + mark.image.width, image.width)
    bottom = min(top + mark.image.height, image.height)
    box = Box(max(left, 0), max(top, 0), right - max(left, 0), bottom - max(top, 0))
    if box.width <= 0 or box.height <= 0:
        return image
    below = image.crop(box.left, box.top, box.width, box.height)
    above = mark.image.crop(box.left - left, box.top - top, box.width, box.height)
    return image.insert(_blend(below, above, mark.blend), box.left, box.top)


def _blend(below: libvips.Image, above: libvips.Image, blend: str) -> libvips.Image:
    """Two images of one size as one, with alpha where the lower has it (W3C Compositing 1)."""
    colours, alpha = above.extract_band(0, n=3), above[3]
    if blend == "over" and not below.hasalpha():
        return alpha.ifthenelse(colours, below, blend=True)
    both = composite(below, above, blend)
    if not below.hasalpha():
        both = both.extract_band(0, n=3)
    # Premultiplied and back, colours that are nearly transparent would not be what they were.
    return (alpha == 0).ifthenelse(below, both)


def _draw(text: Text, canvas: Size, scale: Decimal) -> libvips.Image | None:
    """The text with its outline and box as a mark, or None where there is nothing to see."""
    limit = min(MOST_RASTER, 2 * max(canvas.width, canvas.height))
    wrap = min(limit, max(1, _pixels(text.width, canvas.width, scale)))
    words = _shorten(text, size=text.size * scale, wrap=wrap, limit=limit)
    mark = _raster(text, words, size=text.size * scale, wrap=wrap)
    if mark is None:
        return None
    mark = mark.crop(0, 0, min(mark.width, limit), min(mark.height, limit))
    mark = _see_through(mark, text.colour)
    if text.outline != TRANSPARENT:
        mark = _outline(mark, text.outline, max(1, _round(text.outline_width * Fraction(scale))))
    if text.background != TRANSPARENT:
        mark = _box(mark, text.background, _round(text.padding * Fraction(scale)))
    return _fade(mark.copy_memory(), text.opacity)


def _shorten(text: Text, *, size: Decimal, wrap: int, limit: int) -> str:
    """As many of the words as take no more than `limit` pixels either way."""
    words = text.words
    ratio = size / _SMALL
    # No sign is higher than twice its size, and at worst each has a line of its own.
    while words and len(words) * size * 2 > limit:
        small = _raster(text, words, size=Decimal(_SMALL), wrap=max(1, int(wrap / ratio)))
        if small is None:
            break
        taken = max(small.width, small.height) * ratio
        if taken <= limit:
            break
        words = words[: min(len(words) - 1, int(len(words) * limit / taken))]
    return words


def _raster(text: Text, words: str, *, size: Decimal, wrap: int) -> libvips.Image | None:
    """Words in their colour as large as their ink, or None where they have none."""
    if not words.strip():
        return None
    style = f"{text.weight if text.weight != 'normal' else ''} {'italic' if text.italic else ''}"
    ink = f"#{text.colour.red:02x}{text.colour.green:02x}{text.colour.blue:02x}"
    # Pango keeps about 20 kB for every family and size it was ever asked for, and whoever writes
    # URLs can think of many. A font file that is new to libvips, if only by name, clears that.
    drawn = next(_drawn)
    renewal = {} if drawn % _RENEWAL else {"fontfile": f"/dev/null/{drawn}"}
    try:
        # libvips reads markup. The comma keeps words of the family from being read as a style.
        return libvips.Image.text(
            f'<span foreground="{ink}" insert_hyphens="false">{html.escape(words)}</span>',
            font=f"{text.font}, {style} {size:f}",
            width=wrap,
            wrap="word-char",
            align=(_MIRRORED if _right_to_left(words) else _ALIGNMENTS)[text.align],
            dpi=72,  # a point is a pixel
            rgba=True,  # some signs, such as emoji, have colours of their own
            **renewal,
        )
    except libvips.Error as error:
        if "no text to render" in str(error):
            return None
        raise


def _right_to_left(words: str) -> bool:
    """Whether the first letter that has a direction runs to the left (UAX 9, P2 and P3)."""
    directions = (unicodedata.bidirectional(sign) for sign in words)
    return next((way != "L" for way in directions if way in ("L", "R", "AL")), False)


def _see_through(mark: libvips.Image, colour: Colour) -> libvips.Image:
    return _fade(mark, Decimal(colour.alpha) / 255)


def _flood(size: Size, colour: Colour) -> libvips.Image:
    """An image of one colour without alpha."""
    black = libvips.Image.black(size.width, size.height, bands=3)
    flat = black.linear(1, [colour.red, colour.green, colour.blue], uchar=True)
    return flat.copy(interpretation="srgb")


def _outline(mark: libvips.Image, colour: Colour, width: int) -> libvips.Image:
    """The mark on its own shape, grown by `width` pixels all round, in a colour."""
    grown = Size(mark.width + 2 * width, mark.height + 2 * width)
    mark = mark.embed(width, width, grown.width, grown.height)
    under = _flood(grown, colour).bandjoin(_grow(mark[3], width))
    return composite(_see_through(under, colour), mark, "over")


def _grow(shape: libvips.Image, radius: int) -> libvips.Image:
    """The greatest value within an octagon of this radius in pixels.

    An octagon is the Minkowski sum of four lines: a level, an upright and two slanting ones.
    """
    slant = round(radius * (2 - math.sqrt(2)))
    straight = radius - slant
    # The lines go to the right, and down or up, so it begins that far to the left and higher.
    grown = shape.embed(-radius, -straight, shape.width, shape.height)
    for across, down, length in (
        (1, 0, 2 * straight),
        (0, 1, 2 * straight),
        (1, 1, slant),
        (1, -1, slant),
    ):
        grown = _smear(grown, across, down, length)
    return grown.maxpair(shape)  # the smallest octagon has no middle


def _smear(shape: libvips.Image, across: int, down: int, length: int) -> libvips.Image:
    """The greatest value along a line: of the shape and its copies 1 to `length` steps away."""
    done = 0
    while done < length:
        step = min(done + 1, length - done)
        copy = shape.embed(across * step, down * step, shape.width, shape.height)
        # Each is used twice: computed on demand, the work would double with every round.
        shape = shape.maxpair(copy).copy_memory()
        done += step
    return shape


def _box(mark: libvips.Image, colour: Colour, padding: int) -> libvips.Image:
    """The mark on a filled rectangle that is `padding` pixels wider on every side."""
    size = Size(mark.width + 2 * padding, mark.height + 2 * padding)
    under = _flood(size, colour).bandjoin(colour.alpha)
    return composite(under, mark.embed(padding, padding, size.width, size.height), "over")
