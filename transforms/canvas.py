"""Canvas: background, extent and padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transforms import effects, palette
from transforms.composite import composite
from transforms.shapes import Size
from transforms.values import TRANSPARENT, WHITE, Colour

if TYPE_CHECKING:
    from transforms import libvips
    from transforms.geometry import Plan
    from transforms.pipeline import Work

_BACKDROP_SIDE = 64
"""A blurred backdrop is made of a picture of this many pixels a side: it has no detail to lose."""
_BACKDROP_SIGMA = 0.04
"""Its blur, in parts of the longer side."""
_DOMINANT_SIDE = 100
_BLACK = Colour(0, 0, 0)
_HALF = 128
_LIGHT = 180
"""From this luma on a colour is hard to see on white: its contrast is less than 2 (WCAG 2.2)."""


def canvas(image: libvips.Image, work: Work) -> libvips.Image:
    """Lay the picture on its background, and put padding round it.

    A transform that makes a canvas fills the picture's own transparency too, whether or not room
    is left round it: the result must not depend on the shape of the original.
    """
    transform, plan = work.transform, work.plan
    background = transform.background or (WHITE if transform.framed else None)
    if background is None:
        return image
    if background == "blur":
        return _lay_on_blur(image, plan)
    colour = background
    if background == "auto":
        colour = work.decisions.once("background", lambda: _ground(image))
    if not isinstance(colour, Colour):
        raise TypeError(f"no background: {colour}")
    image = lay_on(image, colour)
    if not plan.frames:
        return image
    return image.embed(
        plan.offset[0] + plan.padding.left,
        plan.offset[1] + plan.padding.top,
        plan.padded.width,
        plan.padded.height,
        extend="background",
        background=_pixel(image, colour),
    )


def _ground(image: libvips.Image) -> Colour:
    """The colour that a canvas has to have to look like more of the picture.

    A logo's ground is transparency, and its most frequent colour is its own: on that it would
    vanish. It is laid on white, and one that is as light as that on black.
    """
    small = palette.as_rgba(_shrunk(image, _DOMINANT_SIDE))
    colour = palette.dominant(small)
    if colour == TRANSPARENT or _edge_opacity(small) >= _HALF:
        return colour
    luma = 0.2126 * colour.red + 0.7152 * colour.green + 0.0722 * colour.blue  # ITU-R BT.709
    return WHITE if luma < _LIGHT else _BLACK


def _edge_opacity(image: libvips.Image) -> float:
    """The mean opacity (0..255) of the outermost pixels of a picture of four bands."""
    alpha, right, bottom = image[3], image.width - 1, image.height - 1
    sides = (
        alpha.crop(0, 0, image.width, 1),
        alpha.crop(0, bottom, image.width, 1),
        alpha.crop(0, 0, 1, image.height),
        alpha.crop(right, 0, 1, image.height),
    )
    return sum(float(side.avg()) for side in sides) / len(sides)


def _lay_on_blur(image: libvips.Image, plan: Plan) -> libvips.Image:
    """Lay the picture on itself, blown up to cover everything, and blurred."""
    if not plan.frames and not image.hasalpha():
        return image
    size = plan.padded
    small = _shrunk(image, _BACKDROP_SIDE)
    small = small.flatten(background=_bands(small, WHITE)) if small.hasalpha() else small
    scale = max(size.width / small.width, size.height / small.height)
    part = Size(
        max(1, min(small.width, round(size.width / scale))),
        max(1, min(small.height, round(size.height / scale))),
    )
    small = small.extract_area(
        (small.width - part.width) // 2, (small.height - part.height) // 2, part.width, part.height
    )
    small = effects.blur(small, sigma=max(0.5, max(part.width, part.height) * _BACKDROP_SIGMA))
    backdrop = small.thumbnail_image(size.width, height=size.height, size="force", no_rotate=True)
    left, top = plan.offset[0] + plan.padding.left, plan.offset[1] + plan.padding.top
    if not image.hasalpha():
        return backdrop.copy_memory().insert(image, left, top)
    over = image.embed(left, top, size.width, size.height)
    return _over(backdrop, over)


def _over(under: libvips.Image, over: libvips.Image) -> libvips.Image:
    """One picture laid on another of its size, opaque if that is opaque."""
    if over.bands < 3:
        over, under = over.colourspace("srgb"), under.colourspace("srgb")
    laid = composite(under, over)
    return laid if under.hasalpha() else laid[:3].copy(interpretation="srgb")


def _shrunk(image: libvips.Image, side: int) -> libvips.Image:
    """A copy in memory whose sides are at most `side` pixels."""
    return image.thumbnail_image(side, height=side, size="down", no_rotate=True).copy_memory()


def lay_on(image: libvips.Image, colour: Colour) -> libvips.Image:
    """Fill what is transparent with a colour, which may itself be (partly) transparent."""
    grey = colour.red == colour.green == colour.blue
    if image.bands < 3 and not grey:
        image = image.colourspace("srgb")
    if colour.opaque:
        return image.flatten(background=_bands(image, colour)) if image.hasalpha() else image
    if not image.hasalpha():
        return image.addalpha()
    if colour.alpha == 0:
        return image
    under = image.new_from_image(_pixel(image, colour)).copy(interpretation=image.interpretation)
    return composite(under, image)


def _pixel(image: libvips.Image, colour: Colour) -> list[int]:
    """The colour in all bands of an image, alpha included where it has one."""
    bands = _bands(image, colour)
    return [*bands, colour.alpha] if image.hasalpha() else bands


def _bands(image: libvips.Image, colour: Colour) -> list[int]:
    """The colour in the colour bands of an image: one for grey, three for sRGB."""
    if image.bands - image.hasalpha() < 3:
        return [colour.red]
    return [colour.red, colour.green, colour.blue]
