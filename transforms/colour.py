"""Colour: end in sRGB, or in grey where the original is grey."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from transforms import libvips

if TYPE_CHECKING:
    from transforms.pipeline import Work

_PROFILE: Final = "icc-profile-data"


def to_srgb(image: libvips.Image, work: Work) -> libvips.Image:
    """Apply the embedded profile, on the small picture. A profile that is broken is ignored."""
    if image.get_typeof(_PROFILE) and work.header.interpretation != "cmyk":
        try:
            image = image.icc_transform("srgb", embedded=True, intent="relative")
        except libvips.Error:
            image = _without_profile(image)
    if image.interpretation not in ("srgb", "b-w"):
        image = image.colourspace("srgb")
    colours = 3 if image.interpretation == "srgb" else 1
    if image.bands > colours + 1:
        image = image[: colours + 1]  # colour and transparency; the rest has no meaning
    return image if image.format == "uchar" else image.cast("uchar")


def _without_profile(image: libvips.Image) -> libvips.Image:
    image = image.copy()
    image.remove(_PROFILE)
    return image
