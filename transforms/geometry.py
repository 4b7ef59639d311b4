"""Where every pixel goes: arithmetic on integers and exact fractions, with no picture in sight.

`plan` computes all sizes once, up front; the steps only carry them out. Sizes are in pixels. A half
is rounded up, and no side is ever less than 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Final

from transforms.errors import InvalidOption
from transforms.shapes import EXIF_TURNS, Box, Size, Turn
from transforms.transform import Transform
from transforms.values import Gravity, Rect, Shadow, Sides, Tile

_FLIPS: Final = {
    None: Turn(0),
    "h": Turn(0, mirrored=True),
    "v": Turn(2, mirrored=True),
    "hv": Turn(2),
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Every size and place of one render, in the order in which the steps use them.

    `region` is the part of the stored picture that is used. It is resized to `stored_scaled`, then
    laid by `turn`, which makes it `scaled`. Of that, `window` is kept: a box, or only its size in
    `window_size` where the pixels decide the place. It is put at `offset` on a `canvas`. Padding,
    the border and the room for the shadow make that `whole`, of which the `result` is a part.

    `scale` is what lengths in pixels of the result are multiplied by, beside those that are here.
    """

    stored: Size
    region: Box
    stored_scaled: Size
    turn: Turn
    scaled: Size
    window_size: Size
    window: Box | None
    canvas: Size
    offset: tuple[int, int]
    padding: Sides
    border: int
    shadow_room: Sides
    whole: Size
    tile: Box | None
    scale: Fraction

    @property
    def result(self) -> Size:
        """The size of what is encoded."""
        return self.whole if self.tile is None else self.tile.size

    @property
    def padded(self) -> Size:
        """The size of the canvas with its padding."""
        return _grow(self.canvas, self.padding)

    @property
    def bordered(self) -> Size:
        """The size of all that the border encloses, and the border."""
        return _grow(self.padded, _every(self.border))

    @property
    def crops(self) -> bool:
        """Whether a part of the resized picture is cut off."""
        return self.window_size != self.scaled

    @property
    def frames(self) -> bool:
        """Whether background is added round the picture."""
        return self.padded != self.window_size


def plan(
    stored: Size,
    transform: Transform,
    *,
    orientation: int = 1,
    trimmed: Box | None = None,
    scalable: bool = False,
) -> Plan:
    """Plan a render of a picture of `stored` size with an EXIF orientation.

    `trimmed` is the part of it that is not border, where that has been found. A `scalable` picture
    is a drawing, which is as sharp at any size. Raises InvalidOption where the crop lies outside
    the picture, or a tile has no pixel.
    """
    base = trimmed or Box(0, 0, stored.width, stored.height)
    laid = _orientation(transform, orientation)
    upright = laid.apply(base.size)
    transform = replace(transform, enlarge=transform.enlarge or scalable)
    crop = _crop_box(transform.crop, upright)
    turn = laid.then(_FLIPS[transform.flip]).then(Turn(transform.rotate // 90))
    region = laid.undo(crop, base.size)
    picture = turn.apply(region.size)

    composed = _compose(picture, transform, Fraction(1))
    shrink = Fraction(1)
    # Lengths that are each rounded up may exceed the bound once more: then it shrinks again. That
    # ends, as each round is smaller than the one before and all but a pixel can give way.
    while (further := _bound(composed.whole, transform)) < 1:
        shrink *= further
        composed = _trim_padding(_compose(picture, transform, shrink), transform)

    return Plan(
        stored=stored,
        region=replace(region, left=base.left + region.left, top=base.top + region.top),
        stored_scaled=turn.apply(composed.scaled),
        turn=turn,
        scaled=composed.scaled,
        window_size=composed.window,
        window=None
        if transform.gravity.by_content and composed.window != composed.scaled
        else _place_window(composed.scaled, composed.window, transform.gravity),
        canvas=composed.canvas,
        offset=_place_picture(composed.window, composed.canvas, transform.gravity),
        padding=composed.padding,
        border=composed.border,
        shadow_room=composed.shadow_room,
        whole=composed.whole,
        tile=find_tile(transform.tile, composed.whole),
        scale=Fraction(transform.dpr) * shrink,
    )


def scale_size(size: Size, scale: Fraction) -> Size:
    """A size times a scale, in whole pixels."""
    return Size(_side(size.width * scale), _side(size.height * scale))


@dataclass(frozen=True, slots=True)
class _Composition:
    scaled: Size
    window: Size
    canvas: Size
    padding: Sides
    border: int
    shadow_room: Sides

    @property
    def whole(self) -> Size:
        framed = _grow(_grow(self.canvas, self.padding), _every(self.border))
        return _grow(framed, self.shadow_room)


def _orientation(transform: Transform, orientation: int) -> Turn:
    if transform.orient == "none":
        return Turn(0)
    tag = orientation if transform.orient == "auto" else int(transform.orient)
    return EXIF_TURNS.get(tag, Turn(0))  # a wrong value in the file means upright


def _crop_box(rect: Rect | None, upright: Size) -> Box:
    if rect is None:
        return Box(0, 0, upright.width, upright.height)
    across = Fraction(upright.width) if rect.fractional else Fraction(1)
    down = Fraction(upright.height) if rect.fractional else Fraction(1)
    left, top = _round(Fraction(rect.x) * across), _round(Fraction(rect.y) * down)
    if rect.fractional:
        # What begins within the picture must not be rounded out of it.
        left -= left == upright.width and rect.x < 1
        top -= top == upright.height and rect.y < 1
    width = min(max(1, _round(Fraction(rect.width) * across)), upright.width - left)
    height = min(max(1, _round(Fraction(rect.height) * down)), upright.height - top)
    if width < 1 or height < 1:
        raise InvalidOption(
            "crop",
            f"crop lies outside the picture, which is {upright.width}x{upright.height}",
        )
    return Box(left, top, width, height)


def _compose(picture: Size, transform: Transform, shrink: Fraction) -> _Composition:
    """All sizes after the crop, with everything multiplied by `shrink`."""
    dpr = Fraction(transform.dpr)
    width = None if transform.w is None else transform.w * dpr
    height = None if transform.h is None else transform.h * dpr
    across, down = _scales(picture, width, height, transform, dpr)

    scaled = Size(_side(picture.width * across * shrink), _side(picture.height * down * shrink))
    window = scaled
    if transform.fit == "cover" or transform.min_w or transform.min_h:
        window = Size(
            scaled.width if width is None else min(scaled.width, _side(width * shrink)),
            scaled.height if height is None else min(scaled.height, _side(height * shrink)),
        )

    canvas = window
    if transform.fit == "contain" and width is not None and height is not None:
        canvas = Size(_side(width * shrink), _side(height * shrink))
    if transform.extent is not None:
        extent = transform.extent
        canvas = Size(_side(extent.width * dpr * shrink), _side(extent.height * dpr * shrink))
        window = Size(min(window.width, canvas.width), min(window.height, canvas.height))

    # Rounded down where all must fit into max-w and max-h; else as everywhere.
    to_length = _round if shrink == 1 else math.floor
    border = 0 if transform.border is None else to_length(transform.border.width * dpr * shrink)
    return _Composition(
        scaled=scaled,
        window=window,
        canvas=canvas,
        padding=_pad(transform, dpr * shrink),
        border=border,
        shadow_room=_shadow_room(transform.shadow, dpr * shrink),
    )


def _shadow_room(shadow: Shadow | None, scale: Fraction) -> Sides:
    """How far a shadow reaches beyond what casts it (CSS Backgrounds 3, 6.1: by its blur)."""
    if shadow is None:
        return Sides()
    x, y, blur = shadow.x * scale, shadow.y * scale, shadow.blur * scale
    top, right, bottom, left = (
        max(0, math.floor(reach)) for reach in (blur - y, blur + x, blur + y, blur - x)
    )
    return Sides(top, right, bottom, left)


def find_tile(tile: Tile | None, whole: Size) -> Box | None:
    """The box of a tile in a picture. Raises InvalidOption where it would have no pixel."""
    if tile is None:
        return None
    left, right = _part(tile.column, tile.columns, whole.width)
    top, bottom = _part(tile.row, tile.rows, whole.height)
    if left == right or top == bottom:
        raise InvalidOption(
            "tile", f"tile asks for more parts than the {whole.width}x{whole.height} pixels allow"
        )
    return Box(left, top, right - left, bottom - top)


def _part(number: int, parts: int, length: int) -> tuple[int, int]:
    """Where one of so many equal parts begins and ends."""
    return _round(Fraction(length * number, parts)), _round(Fraction(length * (number + 1), parts))


def _grow(size: Size, sides: Sides) -> Size:
    return Size(size.width + sides.left + sides.right, size.height + sides.top + sides.bottom)


def _every(width: int) -> Sides:
    return Sides(width, width, width, width)


def _scales(
    picture: Size,
    width: Fraction | None,
    height: Fraction | None,
    transform: Transform,
    dpr: Fraction,
) -> tuple[Fraction, Fraction]:
    """How much the picture grows across and down, before max-w and max-h."""
    across = None if width is None else width / picture.width
    down = None if height is None else height / picture.height
    if transform.fit == "fill":
        # A side that is not named keeps its length.
        across, down = across or Fraction(1), down or Fraction(1)
    elif across is not None and down is not None:
        chosen = (max if transform.fit in ("cover", "outside") else min)(across, down)
        across = down = chosen
    else:
        across = down = across or down or dpr
    if not transform.enlarge:
        across, down = min(across, Fraction(1)), min(down, Fraction(1))

    grow = max(
        Fraction(1),
        Fraction(transform.min_w or 0) * dpr / (picture.width * across),
        Fraction(transform.min_h or 0) * dpr / (picture.height * down),
    )
    return across * grow, down * grow


def _bound(result: Size, transform: Transform) -> Fraction:
    """By how much the whole result must shrink for max-w and max-h, 0..1."""
    dpr = Fraction(transform.dpr)
    shrink = Fraction(1)
    for most, side in ((transform.max_w, result.width), (transform.max_h, result.height)):
        if most is not None and side > _side(most * dpr):
            shrink = min(shrink, most * dpr / side)
    return shrink


def _pad(transform: Transform, scale: Fraction) -> Sides:
    sides = transform.padding
    return Sides(
        *(_round(side * scale) for side in (sides.top, sides.right, sides.bottom, sides.left))
    )


def _trim_padding(composed: _Composition, transform: Transform) -> _Composition:
    """Take back what lengths that were each rounded up exceed max-w and max-h by."""
    padding = composed.padding
    middle = replace(composed, padding=Sides()).whole
    left, right = _share(padding.left, padding.right, middle.width, transform.max_w, transform.dpr)
    top, bottom = _share(padding.top, padding.bottom, middle.height, transform.max_h, transform.dpr)
    return replace(composed, padding=Sides(top, right, bottom, left))


def _share(near: int, far: int, middle: int, bound: int | None, dpr: Decimal) -> tuple[int, int]:
    """Two paddings round a middle, within a bound: the far one gives first."""
    if bound is None:
        return near, far
    room = max(0, _side(bound * Fraction(dpr)) - middle)
    near = min(near, room)
    return near, min(far, room - near)


def _place_window(scaled: Size, window: Size, gravity: Gravity) -> Box:
    """The box of the window's size that holds the focal point in its middle, or next to it."""
    return Box(
        _centre_on(gravity.x, scaled.width, window.width),
        _centre_on(gravity.y, scaled.height, window.height),
        window.width,
        window.height,
    )


def _place_picture(window: Size, canvas: Size, gravity: Gravity) -> tuple[int, int]:
    """Left and top of the picture on its canvas: the free room is split as the gravity says."""
    return (
        _round((canvas.width - window.width) * Fraction(gravity.x)),
        _round((canvas.height - window.height) * Fraction(gravity.y)),
    )


def _centre_on(at: Decimal, whole: int, part: int) -> int:
    start = _round(whole * Fraction(at) - Fraction(part, 2))
    return min(max(0, start), whole - part)


def _round(value: Fraction) -> int:
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _side(value: Fraction) -> int:
    return max(1, _round(value))
