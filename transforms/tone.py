"""Tone: lightness, contrast and colour of each pixel by itself.

Every function takes an 8-bit image that is `srgb` or `b-w`, with or without straight alpha, and
gives back one of the same size whose alpha is unchanged unless said. Arithmetic is on the encoded
sRGB values, as in CSS filters, imgix and ImageMagick. Grey is the luma of Rec. 709, as ImageMagick
and the CSS filter `grayscale()` compute it. What a value leaves as it is comes back untouched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import mul
from typing import Final

from transforms import libvips
from transforms.values import Colour

LUMA: Final = (0.2126, 0.7152, 0.0722)
"""The shares of red, green and blue in grey: Rec. 709."""

CLIPPED_BLACK: Final = 0.0015
CLIPPED_WHITE: Final = 0.0005
"""The shares of all pixels that `normalize` may drive to black and to white.

They are what ImageMagick 6 and 7 do; their manual says 2 % and 1 %, which no longer holds.
"""

_SCALE: Final = range(256)
_IDENTITY: Final = bytes(_SCALE)
_SEPIA: Final = ((0.393, 0.769, 0.189), (0.349, 0.686, 0.168), (0.272, 0.534, 0.131))

_Matrix = Sequence[Sequence[float]]


def level(image: libvips.Image, *, black: float, white: float, gamma: float) -> libvips.Image:
    """Stretch the scale from `black` to `white` (percent, 0..100), then apply a gamma (above 0).

    As ImageMagick's `-level black%,white%,gamma`: out = ((in - black) / (white - black)) ** (1 /
    gamma). Black above white inverts; where both are equal, what is above turns white.
    """
    if (black, white, gamma) == (0, 100, 1):
        return image
    low, high = black / 100, white / 100

    def stretched(share: float) -> float:
        if low == high:
            return 1.0 if share > low else 0.0
        return math.pow(_clip((share - low) / (high - low)), 1 / gamma)

    return _map(image, stretched)


def normalize(image: libvips.Image) -> libvips.Image:
    """Stretch the contrast until the lightest and darkest pixels are white and black.

    As ImageMagick's `-normalize`: black and white are found in the histogram of the grey and apply
    to all channels alike, so that colours keep their hue. Pixels count by their alpha. A picture
    of one shade stays as it is. The pixels are read twice: the image must be in memory.
    """
    return stretch(image, find_range(image))


def find_range(image: libvips.Image) -> tuple[int, int]:
    """The greys (0..255) that `normalize` makes black and white, 0 and 255 where there are none."""
    counts = _histogram(grayscale(image))
    whole = sum(counts)
    if not whole:
        return 0, 255
    black = _first_beyond(counts, CLIPPED_BLACK * whole)
    white = 255 - _first_beyond(counts[::-1], CLIPPED_WHITE * whole)
    return (black, white) if black < white else (0, 255)


def stretch(image: libvips.Image, shades: tuple[int, int]) -> libvips.Image:
    """Stretch the scale between two greys (0..255), as `normalize` does with those it has found."""
    black, white = shades
    return level(image, black=black / 2.55, white=white / 2.55, gamma=1)


def gamma(image: libvips.Image, *, exponent: float) -> libvips.Image:
    """Lighten (above 1) or darken (below 1) the middle tones: out = in ** (1 / exponent).

    As ImageMagick's `-gamma`. The exponent is above 0.
    """
    return level(image, black=0, white=100, gamma=exponent)


def brightness(image: libvips.Image, *, amount: float) -> libvips.Image:
    """Add `amount` percent of full scale, -100 (all black) to 100 (all white).

    As thumbor's `brightness` and ImageMagick's `-brightness-contrast`. CSS multiplies instead,
    which never lightens black.
    """
    if not amount:
        return image
    return _map(image, lambda share: share + amount / 100)


def contrast(image: libvips.Image, *, amount: float) -> libvips.Image:
    """Move every value away from middle grey by `amount` percent, -100 (all grey) to 100 (twice).

    As CSS `contrast()` (W3C Filter Effects 1) and thumbor: out = (in - 0.5) * (1 + amount / 100)
    + 0.5.
    """
    if not amount:
        return image
    return _map(image, lambda share: (share - 0.5) * (1 + amount / 100) + 0.5)


def saturation(image: libvips.Image, *, amount: float) -> libvips.Image:
    """Move every colour away from its grey by `amount` percent, -100 (grey) to 100 (twice).

    As CSS `saturate()` (W3C Filter Effects 1), of which it has the matrix.
    """
    if not amount or not _is_colour(image):
        return image
    kept = 1 + amount / 100
    return _recombine(
        image,
        [
            [kept * (row == column) + (1 - kept) * share for column, share in enumerate(LUMA)]
            for row in range(3)
        ],
    )


def hue(image: libvips.Image, *, degrees: float) -> libvips.Image:
    """Turn all colours round the grey axis: CSS `hue-rotate()` (W3C Filter Effects 1).

    Red goes towards green. Luma stays, as far as colours do not have to be clipped.
    """
    if not degrees % 360 or not _is_colour(image):
        return image
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    red, green, blue = 0.213, 0.715, 0.072
    turned = (
        (-red, -green, 1 - blue),
        (0.143, 0.140, -0.283),
        (red - 1, green, blue),
    )
    return _recombine(
        image,
        [
            [
                grey + cosine * ((row == column) - grey) + sine * turned[row][column]
                for column, grey in enumerate((red, green, blue))
            ]
            for row in range(3)
        ],
    )


def grayscale(image: libvips.Image) -> libvips.Image:
    """Shades of grey by luma. The result is `b-w`: one band, and alpha where there was alpha."""
    if not _is_colour(image):
        return image
    return _recombine(image, [LUMA]).copy(interpretation="b-w")


def luma(image: libvips.Image) -> libvips.Image:
    """The grey of each pixel as one band, not rounded where it had colour. Alpha is left out."""
    if not _is_colour(image):
        return image[0] if image.hasalpha() else image
    return image.recomb([[*LUMA, 0.0] if image.hasalpha() else list(LUMA)])


def sepia(image: libvips.Image, *, amount: float) -> libvips.Image:
    """The brown of an old print, 0 (as is) to 100: CSS `sepia()` (W3C Filter Effects 1).

    The result is `srgb`.
    """
    if not amount:
        return image
    kept = 1 - amount / 100
    matrix = [
        [kept * (row == column) + (1 - kept) * brown for column, brown in enumerate(browns)]
        for row, browns in enumerate(_SEPIA)
    ]
    if not _is_colour(image):
        return _dye(image, lambda share: [share * sum(row) for row in matrix])
    return _recombine(image, matrix)


def tint(image: libvips.Image, *, colour: Colour) -> libvips.Image:
    """Everything in the hue and chroma of one colour, as light as it was. The result is `srgb`.

    This is the blend mode `color` of CSS (W3C Compositing and Blending 1) with the colour above
    the picture, on Rec. 709 luma: black and white stay, greys between take as much chroma as they
    can bear. The colour's alpha does not matter.
    """
    chosen = (colour.red / 255, colour.green / 255, colour.blue / 255)
    return _dye(image, lambda share: _with_luma(chosen, share))


def duotone(image: libvips.Image, *, dark: Colour, light: Colour) -> libvips.Image:
    """Two colours and what lies between them: black becomes `dark`, white becomes `light`.

    The result is `srgb`. The colours' alpha does not matter.
    """
    ends = [
        (low / 255, high / 255)
        for low, high in zip(
            (dark.red, dark.green, dark.blue), (light.red, light.green, light.blue), strict=True
        )
    ]
    return _dye(image, lambda share: [low + (high - low) * share for low, high in ends])


def invert(image: libvips.Image) -> libvips.Image:
    """The negative: CSS `invert()`, ImageMagick's `-negate`."""
    return _map(image, lambda share: 1 - share)


def opacity(image: libvips.Image, *, amount: float) -> libvips.Image:
    """Multiply alpha by `amount`, 0 (invisible) to 1 (as is): CSS `opacity()`.

    An image without alpha gets it, unless the amount is 1.
    """
    if amount == 1:
        return image
    if not image.hasalpha():
        return image.bandjoin(_byte(amount))
    tables = [_IDENTITY] * (image.bands - 1)
    return _look_up(image, [*tables, bytes(_byte(amount * value / 255) for value in _SCALE)])


def _map(image: libvips.Image, curve: Callable[[float], float]) -> libvips.Image:
    """Put every colour value (0..1) through a curve, and leave alpha."""
    table = bytes(_byte(curve(value / 255)) for value in _SCALE)
    alpha = image.hasalpha()
    return _look_up(image, [table] * (image.bands - alpha) + [_IDENTITY] * alpha)


def _dye(image: libvips.Image, colour_of: Callable[[float], Sequence[float]]) -> libvips.Image:
    """Give every grey (0..1) a colour (three of 0..1), and leave alpha."""
    colours = [colour_of(value / 255) for value in _SCALE]
    tables = [bytes(_byte(colour[band]) for colour in colours) for band in range(3)]
    dyed = _look_up(luma(image).rint().cast("uchar"), tables)
    if image.hasalpha():
        dyed = dyed.bandjoin(image[image.bands - 1])
    return dyed.copy(interpretation="srgb")


def _look_up(image: libvips.Image, tables: Sequence[bytes]) -> libvips.Image:
    """Put each band through its table of 256 values, or a single band through several tables."""
    data = bytes(value for values in zip(*tables, strict=True) for value in values)
    return image.maplut(libvips.Image.new_from_memory(data, 256, 1, len(tables), "uchar"))


def _recombine(image: libvips.Image, matrix: _Matrix) -> libvips.Image:
    """Mix the colour bands of an `srgb` image by a matrix (a row for each band that results)."""
    rows = [list(row) for row in matrix]
    if image.hasalpha():
        rows = [[*row, 0.0] for row in rows] + [[0.0, 0.0, 0.0, 1.0]]
    return image.recomb(rows).rint().cast("uchar")


def _histogram(grey: libvips.Image) -> list[float]:
    """How many pixels there are of each of 256 greys; a transparent one counts by its alpha."""
    if grey.hasalpha():
        counts = grey[1].hist_find_indexed(grey[0], combine="sum") / 255
    else:
        counts = grey.hist_find()
    return [float(count) for count in counts.tolist()[0]]


def _first_beyond(counts: Sequence[float], limit: float) -> int:
    """The first place at which the sum of the counts is more than a limit below their sum."""
    return next(place for place, total in enumerate(accumulate(counts)) if total > limit)


def _with_luma(colour: tuple[float, float, float], luma_wanted: float) -> list[float]:
    """The colour (0..1) shifted to a luma, with its chroma cut where it would not fit the scale.

    SetLum and ClipColor of W3C Compositing and Blending 1.
    """
    shift = luma_wanted - sum(map(mul, LUMA, colour))
    shifted = [value + shift for value in colour]
    lowest, highest = min(shifted), max(shifted)
    kept = 1.0
    if lowest < 0:
        kept = luma_wanted / (luma_wanted - lowest)
    if highest > 1:
        kept = min(kept, (1 - luma_wanted) / (highest - luma_wanted))
    return [luma_wanted + (value - luma_wanted) * kept for value in shifted]


def _is_colour(image: libvips.Image) -> bool:
    return bool(image.bands - image.hasalpha() == 3)


def _clip(share: float) -> float:
    return min(1.0, max(0.0, share))


def _byte(share: float) -> int:
    """The value of 0..255 next to a share of 0..1, clipped."""
    return math.floor(255 * _clip(share) + 0.5)
