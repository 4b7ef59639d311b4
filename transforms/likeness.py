"""Likeness: how much of what the eye sees an encoder has kept.

The measure is the structural term of SSIM (Wang et al. 2004, doi:10.1109/TIP.2003.819861), taken on
blocks of 4x4 pixels: the energy of the error beside the activity of the picture in the same block,
which hides it. Detail is judged at full size by the green channel, which carries most of luma; luma
and chroma at a quarter of the size, where banding, blocking and lost colour show. Blocks are
gathered by their root mean square, so that a few bad ones are not averaged away.

A score reads like SSIMULACRA 2 (https://github.com/cloudinary/ssimulacra2): 90 is very high
quality, 80 high, 70 medium, 50 low. It is an estimate, at the cost of decoding a JPEG.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from operator import mul
from typing import Final

from transforms import libvips

WEIGHTS: Final = (1.0, 63.0, 3.2)
"""The weights of detail, coarse luma and coarse chroma.

`python -m bench.calibrate` fits these and `CALIBRATED` to SSIMULACRA 2 on 672 encodings of 28
pictures, made from 10 photographs. Of a photograph that is left out of the fit, scores from 60 up
are off by 0.9 points on average, one in twenty by more than 2.8.
"""

CALIBRATED: Final[Mapping[str, float]] = {"jpeg": 37.1, "webp": 33.1, "avif": 34.4}
"""The points that a distance of 1 costs, by format: each encoder errs in its own way."""

_STABLE: Final = 60.0
"""Activity that even a flat block is taken to have, in squared steps of 0..255: the C2 of SSIM."""
_BLOCK: Final = 4
_WHOLE: Final = 4 * _BLOCK
_GREEN: Final = 1
_GREY: Final = (128, 128, 128)
"""What shines through: neither black nor white lettering may vanish before it."""
_SHIFT: Final = 3
"""Binary places kept when small differences are averaged: integers are several times faster."""

_LUMA_CHROMA: Final = libvips.Image.new_from_array(
    [  # ITU-T T.871 (JFIF), section 7
        [part / 2**_SHIFT for part in row]
        for row in ((0.299, 0.587, 0.114), (-0.1687, -0.3313, 0.5), (0.5, -0.4187, -0.0813))
    ]
)


@dataclass(frozen=True, slots=True)
class Reference:
    """A picture that others are compared with, and how well each of its blocks hides an error."""

    green: libvips.Image
    halved: libvips.Image
    fine: libvips.Image
    coarse: libvips.Image

    @classmethod
    def of(cls, image: libvips.Image) -> Reference:
        """Measure a picture of uchar in sRGB or grey, with or without alpha."""
        pixels = _settle(image)
        halved = pixels.shrink(2, 2).copy_memory()
        return cls(
            green=pixels[_GREEN].copy_memory(),
            halved=halved,
            fine=_visibility(pixels[_GREEN]),
            coarse=_visibility(_quarter(halved)),
        )


def differences(reference: Reference, image: libvips.Image) -> tuple[float, float, float]:
    """How far an image of the same size is from a reference: detail, luma and chroma.

    Each is 0 where nothing differs, and about 1 where errors are as strong as the picture itself.
    """
    pixels = _settle(image)
    (detail,) = _gather(reference.green - pixels[_GREEN], reference.fine)
    halved = reference.halved - pixels.shrink(2, 2)
    luma, blue, red = _gather(_quarter(halved), reference.coarse)
    return math.sqrt(detail), math.sqrt(luma), math.sqrt(blue + red)


def distance(reference: Reference, image: libvips.Image) -> float:
    """The differences as one number: 0 for equal pictures, about 1 for poor ones."""
    return float(sum(map(mul, WEIGHTS, differences(reference, image))))


def score(distance: float, format_name: str) -> float:
    """The score of a distance, 100 or less, for a format that is in `CALIBRATED`."""
    return 100 - CALIBRATED[format_name] * math.sqrt(distance)


def _settle(image: libvips.Image) -> libvips.Image:
    """The picture in memory, in three bands, mirrored beyond its edges to whole coarse blocks."""
    if image.bands < 3:
        image = image.colourspace("srgb")
    if image.hasalpha():
        image = image.flatten(background=_GREY)
    width, height = (-(-side // _WHOLE) * _WHOLE for side in (image.width, image.height))
    if (width, height) != (image.width, image.height):
        image = image.embed(0, 0, width, height, extend="mirror")
    return image.copy_memory()


def _quarter(halved: libvips.Image) -> libvips.Image:
    """Luma and chroma at half the size of a picture that has been halved, or of a difference."""
    precise = halved.cast("short") << _SHIFT
    return precise.shrink(2, 2).recomb(_LUMA_CHROMA)


def _visibility(image: libvips.Image) -> libvips.Image:
    """For each block and band, the factor that makes an error's energy a visible one."""
    image = image.cast("float")  # whole numbers would be rounded
    mean = _blocks(image)
    return ((_blocks(image * image) - mean * mean + _STABLE) ** -1).copy_memory()


def _gather(error: libvips.Image, visibility: libvips.Image) -> list[float]:
    """The mean square of the visible error of all blocks, for each band."""
    visible = _blocks(error * error) * visibility
    blocks = visible.width * visible.height
    rows = visible.stats().tolist()[1:]  # the first is of all bands together
    return [squares / blocks for _, _, _, squares, *_ in rows]


def _blocks(image: libvips.Image) -> libvips.Image:
    return image.shrink(_BLOCK, _BLOCK)
