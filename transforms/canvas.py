"""Canvas: background, extent and padding."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transforms.values import WHITE, Colour

if TYPE_CHECKING:
    from transforms import libvips
    from transforms.pipeline import Work


def canvas(image: libvips.Image, work: Work) -> libvips.Image:
    """Lay the picture on its background.

    A transform that makes a canvas fills the picture's own transparency too, whether or not room
    is left round it: the result must not depend on the shape of the original.
    """
    transform, plan = work.transform, work.plan
    colour = transform.background or (WHITE if transform.framed else None)
    if colour is None:
        return image
    image = lay_on(image, colour)
    if not plan.frames:
        return image
    return image.embed(
        plan.offset[0] + plan.padding.left,
        plan.offset[1] + plan.padding.top,
        plan.result.width,
        plan.result.height,
        extend="background",
        background=_pixel(image, colour),
    )


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
    return under.composite2(image, "over").cast("uchar")


def _pixel(image: libvips.Image, colour: Colour) -> list[int]:
    """The colour in all bands of an image, alpha included where it has one."""
    bands = _bands(image, colour)
    return [*bands, colour.alpha] if image.hasalpha() else bands


def _bands(image: libvips.Image, colour: Colour) -> list[int]:
    """The colour in the colour bands of an image: one for grey, three for sRGB."""
    if image.bands - image.hasalpha() < 3:
        return [colour.red]
    return [colour.red, colour.green, colour.blue]
