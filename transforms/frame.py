"""Frame: border, round corners and shadow, round canvas and padding as in CSS's box model."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from transforms import effects, libvips
from transforms.composite import composite
from transforms.shapes import Size

if TYPE_CHECKING:
    from transforms.pipeline import Work
    from transforms.values import Colour

_BLUR_TO_SIGMA = 0.5
"""CSS Backgrounds 3, 6.1.2: a blur radius is twice the Gaussian's standard deviation."""


def frame(image: libvips.Image, work: Work) -> libvips.Image:
    """Draw what the transform asks for. The image has the size of `plan.padded`."""
    transform, plan = work.transform, work.plan
    radius = _radius(work)
    if plan.border and transform.border is not None:
        image = _border(image, plan.border, transform.border.colour, radius)
    if radius:
        image = _mask(image, _rounded(plan.bordered, radius))
    if transform.shadow is not None:
        image = _shadow(image, work)
    return image


def _radius(work: Work) -> float:
    """The radius of the corners in pixels, at most half the shorter side."""
    wanted, size = work.transform.round, work.plan.bordered
    most = min(size.width, size.height) / 2
    if wanted is None:
        return 0
    if isinstance(wanted, str):
        return most
    return min(most, max(1.0, float(wanted * work.plan.scale)))


def _border(image: libvips.Image, width: int, colour: Colour, radius: float) -> libvips.Image:
    outer = Size(image.width + 2 * width, image.height + 2 * width)
    image = image if image.bands >= 3 else image.colourspace("srgb")
    needs_alpha = image.hasalpha() or not colour.opaque
    if needs_alpha and not image.hasalpha():
        image = image.addalpha()
    ink = [colour.red, colour.green, colour.blue, *([colour.alpha] if needs_alpha else [])]
    inner = radius - width
    if inner <= 0:
        return image.embed(width, width, *_sides(outer), extend="background", background=ink)
    # Within a rounded border the picture is round as well (CSS Backgrounds 3, 5.2).
    size = Size(image.width, image.height)
    line = (libvips.Image.black(*_sides(outer), bands=len(ink)) + ink).cast("uchar")
    line = line.copy(interpretation="srgb")
    mask = _rounded(size, inner).embed(width, width, *_sides(outer))
    placed = image.embed(width, width, *_sides(outer), extend="copy")
    return mask.ifthenelse(placed, line, blend=True).cast("uchar").copy(interpretation="srgb")


def _rounded(size: Size, radius: float) -> libvips.Image:
    """A mask of a box with round corners: 255 within, 0 without, the edge smooth."""
    side = math.ceil(radius)
    away = libvips.Image.xyz(side, side) * -1 + (radius - 0.5)
    away = (away > 0).ifthenelse(away, 0)
    distance = (away[0] ** 2 + away[1] ** 2) ** 0.5
    # Half of a pixel on the circle is within it.
    corner = ((distance * -1 + (radius + 0.5)) * 255).rint().cast("uchar").copy_memory()
    mask = (libvips.Image.black(*_sides(size)) + 255).cast("uchar")
    far_x, far_y = size.width - side, size.height - side
    mask = mask.insert(corner, 0, 0)
    mask = mask.insert(corner.fliphor(), far_x, 0)
    mask = mask.insert(corner.flipver(), 0, far_y)
    return mask.insert(corner.rot180(), far_x, far_y)


def _mask(image: libvips.Image, mask: libvips.Image) -> libvips.Image:
    """The image with its alpha multiplied by a mask."""
    if not image.hasalpha():
        return image.bandjoin(mask)
    colours = image.bands - 1
    alpha = (image[colours] * mask / 255).rint().cast("uchar")
    return image[:colours].bandjoin(alpha).copy(interpretation=image.interpretation)


def _shadow(image: libvips.Image, work: Work) -> libvips.Image:
    plan, shadow = work.plan, work.transform.shadow
    assert shadow is not None  # noqa: S101 - the caller has looked
    room, whole, scale = plan.shadow_room, plan.whole, float(plan.scale)
    image = image if image.bands >= 3 else image.colourspace("srgb")
    image = (image if image.hasalpha() else image.addalpha()).copy_memory()
    left, top = room.left + round(shadow.x * scale), room.top + round(shadow.y * scale)
    shape = image[3].embed(0, 0, image.width, image.height)
    cast = libvips.Image.black(*_sides(whole)).insert(shape, left, top)
    cast = effects.blur(cast, sigma=shadow.blur * scale * _BLUR_TO_SIGMA)
    colour = shadow.colour
    ink = cast.new_from_image([colour.red, colour.green, colour.blue]).cast("uchar")
    under = ink.bandjoin((cast * (colour.alpha / 255)).rint().cast("uchar"))
    under = under.copy(interpretation="srgb")
    over = image.embed(room.left, room.top, *_sides(whole))
    return composite(under, over)


def _sides(size: Size) -> tuple[int, int]:
    return size.width, size.height
