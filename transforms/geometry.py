"""Where every pixel goes: arithmetic on integers and exact fractions, with no picture in sight.

`plan` computes all sizes once, up front; the steps only carry them out. Sizes are in pixels. A half
is rounded up, and no side is ever less than 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Final

from transforms.errors import InvalidOption
from transforms.transform import Transform
from transforms.values import Gravity, Rect, Sides


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def turned(self) -> Size:
        """The size after a quarter turn."""
        return Size(self.height, self.width)

    @property
    def pixels(self) -> int:
        """The area."""
        return self.width * self.height


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle: its left and top edge, its width and height, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def size(self) -> Size:
        """Its width and height."""
        return Size(self.width, self.height)


@dataclass(frozen=True, slots=True)
class Turn:
    """One of the eight ways to lay a picture down: mirrored left-right first, then turned.

    `quarters` counts quarter turns clockwise, 0 to 3.
    """

    quarters: int = 0
    mirrored: bool = False

    @property
    def swaps_sides(self) -> bool:
        """Whether width and height change places."""
        return self.quarters % 2 == 1

    def apply(self, size: Size) -> Size:
        """The size of a picture after the turn."""
        return size.turned if self.swaps_sides else size

    def then(self, after: Turn) -> Turn:
        """This turn and, after it, another, as one."""
        # Mirroring reverses the sense in which what came before it had turned.
        own = -self.quarters if after.mirrored else self.quarters
        return Turn((own + after.quarters) % 4, self.mirrored != after.mirrored)

    def undo(self, box: Box, size: Size) -> Box:
        """Where a box of the turned picture lies in the picture before. `size` is of the latter."""
        left, top, width, height = box.left, box.top, box.width, box.height
        # One quarter clockwise takes (x, y) of a picture of height H to (H - y, x).
        for turned in range(self.quarters, 0, -1):
            # Before this quarter the picture had been turned `turned - 1` times.
            before = size.turned if (turned - 1) % 2 else size
            left, top = top, before.height - left - width
            width, height = height, width
        if self.mirrored:
            left = size.width - left - width
        return Box(left, top, width, height)


# EXIF 2.32, tag 0x0112: how stored pixels must be laid to stand upright.
EXIF_TURNS: Final = {
    1: Turn(0),
    2: Turn(0, mirrored=True),
    3: Turn(2),
    4: Turn(2, mirrored=True),
    5: Turn(3, mirrored=True),
    6: Turn(1),
    7: Turn(1, mirrored=True),
    8: Turn(3),
}
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
    `window_size` where the pixels decide the place. It is put at `offset` on a `canvas`, which
    padding makes the `result`.
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
    result: Size

    @property
    def crops(self) -> bool:
        """Whether a part of the resized picture is cut off."""
        return self.window_size != self.scaled

    @property
    def frames(self) -> bool:
        """Whether background is added round the picture."""
        return self.result != self.window_size


def plan(stored: Size, transform: Transform, *, orientation: int = 1) -> Plan:
    """Plan a render of a picture of `stored` size with an EXIF orientation.

    Raises InvalidOption where the crop lies outside the picture.
    """
    laid = _orientation(transform, orientation)
    upright = laid.apply(stored)
    crop = _crop_box(transform.crop, upright)
    turn = laid.then(_FLIPS[transform.flip]).then(Turn(transform.rotate // 90))
    picture = turn.apply(laid.undo(crop, stored).size)

    unbounded = _compose(picture, transform, Fraction(1))
    shrink = _bound(unbounded.result, transform)
    composed = unbounded
    if shrink != 1:
        composed = _trim_padding(_compose(picture, transform, shrink), transform)

    region = laid.undo(crop, stored)
    return Plan(
        stored=stored,
        region=region,
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
        result=composed.result,
    )


@dataclass(frozen=True, slots=True)
class _Composition:
    scaled: Size
    window: Size
    canvas: Size
    padding: Sides
    result: Size


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

    padding = _pad(transform, dpr * shrink)
    return _Composition(
        scaled=scaled,
        window=window,
        canvas=canvas,
        padding=padding,
        result=Size(
            canvas.width + padding.left + padding.right,
            canvas.height + padding.top + padding.bottom,
        ),
    )


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
    if transform.max_w is not None:
        shrink = min(shrink, transform.max_w * dpr / result.width)
    if transform.max_h is not None:
        shrink = min(shrink, transform.max_h * dpr / result.height)
    return shrink


def _pad(transform: Transform, scale: Fraction) -> Sides:
    sides = transform.padding
    return Sides(
        *(_round(side * scale) for side in (sides.top, sides.right, sides.bottom, sides.left))
    )


def _trim_padding(composed: _Composition, transform: Transform) -> _Composition:
    """Take back what lengths that were each rounded up exceed max-w and max-h by."""
    padding, canvas = composed.padding, composed.canvas
    left, right = _share(padding.left, padding.right, canvas.width, transform.max_w, transform.dpr)
    top, bottom = _share(padding.top, padding.bottom, canvas.height, transform.max_h, transform.dpr)
    return replace(
        composed,
        padding=Sides(top, right, bottom, left),
        result=Size(canvas.width + left + right, canvas.height + top + bottom),
    )


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
