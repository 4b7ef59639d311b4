"""Resize: bring the region to its size, in 8-bit sRGB or grey with straight alpha."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transforms import libvips
    from transforms.pipeline import Work


def resize(image: libvips.Image, work: Work) -> libvips.Image:
    """Scale to `plan.stored_scaled`. CMYK, Lab and 16-bit pictures are imported on the way.

    What is semi-transparent ends about one step of 255 darker when it is laid on something, since
    libvips weighs colours by their alpha in 8 bits and cuts fractions off. In floating point
    nothing is lost, at three times the cost.
    """
    size = work.plan.stored_scaled
    fits = (image.width, image.height) == (size.width, size.height)
    if fits and image.format == "uchar" and image.interpretation in ("srgb", "b-w"):
        return image
    return image.thumbnail_image(size.width, height=size.height, size="force", no_rotate=True)
