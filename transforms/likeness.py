"""Likeness: how much of what the eye sees an encoder has kept.

The measure is the structural term of SSIM (Wang et al. 2004, doi:10.1109/TIP.2003.819861), taken on
blocks of 4x4 pixels: the energy of the error beside the activity of the picture in the same block,
which hides it. Luma is judged at full and at a quarter of the size, chroma at half the size. Blocks
are gathered by their root mean square, so that a few bad ones are not averaged away.

A score reads like SSIMULACRA 2 (https://github.com/cloudinary/ssimulacra2): 90 is very high
quality, 80 high, 70 medium, 50 low. It is an estimate at a fraction of the cost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from transforms import libvips

CALIBRATED: Final[dict[str, float]] = {"jpeg": 8.2, "webp": 7.4, "avif": 7.5}
"""The points of the scale that a distance of 1 costs, by format. Encoders differ in where they put
their errors, which shows in the sums over blocks."""

WEIGHTS: Final = (20.0, 1300.0, 30.0)
"""The weights of fine luma, coarse luma and chroma.

These and `CALIBRATED` are fitted by `python -m bench.calibrate` to SSIMULACRA 2 on 672 encodings of
28 pictures, made from 10 photographs, at scores above 35.
"""

_STABLE: Final = 60.0
"""Activity that even a flat block is taken to have, in squared steps of 0..255 (SSIM: C2 = 58.5)."""
_BLOCK: Final = 4
_UNIT: Final = 4
"""Luma is counted in quarters of a step, so that integers suffice, which are several times faster."""
_GREY: Final = (128, 128, 128)
"""What shines through: neither black nor white lettering may vanish before it."""

# ITU-T T.871 (JFIF), section 7.
_LUMA: Final = libvips.Image.new_from_array([[_UNIT * part for part in (0.299, 0.587, 0.114)]])
_CHROMA: Final = libvips.Image.new_from_array([[-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture that others are compared with, and how sensitive each of its blocks is."""

    pixels: libvips.Image
    halved: libvips.Image
    fine: libvips.Image
    coarse: libvips.Image
    chroma: libvips.Image

    @classmethod
    def of(cls, image: libvips.Image) -> Reference:
        """Measure a picture: uchar, sRGB or grey, with or without alpha."""
        pixels = _opaque(image).copy_memory()
        halved = pixels.shrink(2, 2, ceil=True).copy_memory()
        luma = _luma(pixels)
        return cls(
            pixels=pixels,
            halved=halved,
            fine=_sensitivity(luma, unit=_UNIT),
            coarse=_sensitivity(luma.shrink(4, 4, ceil=True), unit=_UNIT),
            chroma=_sensitivity(halved.recomb(_CHROMA), unit=1),
        )


def differences(reference: Reference, image: libvips.Image) -> tuple[float, float, float]:
    """How far an image of the same size is from a reference: fine luma, coarse luma, chroma.

    Each is 0 where nothing differs, and about 1 where the error is as strong as the picture.
    """
    pixels = _opaque(image).copy_memory()
    luma = _luma(reference.pixels - pixels)
    halved = reference.halved - pixels.shrink(2, 2, ceil=True)
    return (
        _gather(luma, reference.fine),
        _gather(luma.shrink(4, 4, ceil=True), reference.coarse),
        _gather(halved.recomb(_CHROMA), reference.chroma),
    )


def distance(reference: Reference, image: libvips.Image) -> float:
    """The differences as one number, which grows as the square of how far the score falls."""
    parts = zip(WEIGHTS, differences(reference, image), strict=True)
    return sum(weight * part for weight, part in parts)


def score(distance: float, format_name: str) -> float:
    """The score of a distance, 100 and below, for a format in `CALIBRATED`."""
    return 100.0 - CALIBRATED[format_name] * math.sqrt(distance)


def _opaque(image: libvips.Image) -> libvips.Image:
    """The picture in three bands."""
    if image.bands < 3:
        image = image.colourspace("srgb")
    return image.flatten(background=_GREY) if image.hasalpha() else image


def _luma(image: libvips.Image) -> libvips.Image:
    return image.recomb(_LUMA).rint().cast("short").copy_memory()


def _sensitivity(image: libvips.Image, *, unit: int) -> libvips.Image:
    """For each block the weight of an error's energy in it, in the units of the image squared."""
    mean = _blocks(image)
    activity = _energy(image) - _sum_of_bands(mean * mean)
    return ((activity + _STABLE * unit * unit) ** -1).copy_memory()


def _gather(error: libvips.Image, sensitivity: libvips.Image) -> float:
    """The root mean square over all blocks of their visible error."""
    visible = _energy(error) * sensitivity
    return math.sqrt((visible * visible).avg())


def _energy(image: libvips.Image) -> libvips.Image:
    """The mean square of each block, its bands added up."""
    return _sum_of_bands(_blocks(image * image))


def _blocks(image: libvips.Image) -> libvips.Image:
    return image.shrink(_BLOCK, _BLOCK, ceil=True)


def _sum_of_bands(image: libvips.Image) -> libvips.Image:
    return image if image.bands == 1 else image[0] + image[1]
