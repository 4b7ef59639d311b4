"""Placeholders: what a page can show while the picture itself is on its way.

Three of them are short codes made of the lowest frequencies of a small picture: BlurHash, ThumbHash
and a perceptual hash, which tells pictures that look alike. The fourth is a tiny picture in a URI.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from functools import lru_cache
from operator import mul
from typing import Final

from transforms import libvips
from transforms.palette import as_rgba, as_srgb

LONGEST_SIDE: Final = 100
"""The largest picture, in pixels a side, that the codes are made of: more adds nothing to them."""

Plane = list[list[float]]
"""The frequencies of one band: rows of growing vertical, columns of growing horizontal ones."""

_BASE83: Final = (
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~"
)
_GREY: Final = [[0.299, 0.587, 0.114]]
_URI_BYTES: Final = 400
_URI_SIDES: Final = (24, 16, 12, 8, 4)


def blurhash(image: libvips.Image, *, across: int = 4, down: int = 3) -> str:
    """The BlurHash of a small picture with `across` x `down` components, each 1..9.

    The format knows no transparency: what is transparent counts as white. Format:
    https://github.com/woltapp/blurhash/blob/master/Algorithm.md

    Raises ValueError for a picture larger than 100x100 or for other numbers of components.
    """
    if not (1 <= across <= 9 and 1 <= down <= 9):
        raise ValueError(f"across and down must be 1 to 9, got {across} and {down}")
    _check_size(image)
    image = as_srgb(image)
    if image.hasalpha():
        image = image.flatten(background=255)
    # The encoders in use sample the cosines at the left edge of a pixel, not at its middle.
    planes = _frequencies(image.colourspace("scrgb"), across, down, at=0.0)
    mean, *waves = [
        tuple(plane[row][column] for plane in planes)
        for row in range(down)
        for column in range(across)
    ]
    # Every wave but the mean counts twice, which makes the sum over them the picture again.
    waves = [tuple(2 * value for value in wave) for wave in waves]
    code = _base83((across - 1) + (down - 1) * 9, 1)
    largest = max((abs(value) for wave in waves for value in wave), default=0.0)
    step = max(0, min(82, math.floor(largest * 166 - 0.5)))
    code += _base83(step, 1)
    red, green, blue = (_encode_gamma(value) for value in mean)
    code += _base83(red << 16 | green << 8 | blue, 4)
    for wave in waves:
        red, green, blue = (_quantise(value * 166 / (step + 1)) for value in wave)
        code += _base83((red * 19 + green) * 19 + blue, 2)
    return code


def thumbhash(image: libvips.Image) -> bytes:
    """The ThumbHash of a small picture, its transparency and its proportions included.

    5 to 25 bytes. Format: https://evanw.github.io/thumbhash/ (the encoder there is its only
    specification). Raises ValueError for a picture larger than 100x100.
    """
    _check_size(image)
    image = as_rgba(image)
    width, height = image.width, image.height
    opacity = image[3] / 255
    transparent = bool(opacity.min() < 1)
    longest, most = max(width, height), 5 if transparent else 7
    across = max(1, _round(most * width / longest))
    down = max(1, _round(most * height / longest))
    premultiplied = (image[0:3] * opacity / 255).bandjoin(opacity)
    fewest = 5 if transparent else 3
    red, green, blue, alpha = _frequencies(
        premultiplied, max(across, fewest), max(down, fewest), at=0.5
    )
    # The picture lies on its own mean colour. All of this is linear, so it is done on frequencies:
    # there are a few dozen of them, and thousands of pixels.
    ones = _ones(width, height, len(alpha[0]), len(alpha))
    red, green, blue = (_lay_on_mean(plane, alpha, ones) for plane in (red, green, blue))
    light = _mix((red, green, blue), (1 / 3, 1 / 3, 1 / 3))
    yellow_blue = _mix((red, green, blue), (0.5, 0.5, -1.0))
    red_green = _mix((red, green, blue), (1.0, -1.0, 0.0))
    l_mean, l_scale, l_waves = _scale(light, max(3, across), max(3, down))
    p_mean, p_scale, p_waves = _scale(yellow_blue, 3, 3)
    q_mean, q_scale, q_waves = _scale(red_green, 3, 3)
    head = _round(63 * l_mean)
    head |= _round(31.5 + 31.5 * p_mean) << 6
    head |= _round(31.5 + 31.5 * q_mean) << 12
    head |= _round(31 * l_scale) << 18
    head |= transparent << 23
    landscape = width > height
    tail = down if landscape else across
    tail |= _round(63 * p_scale) << 3
    tail |= _round(63 * q_scale) << 9
    tail |= landscape << 15
    code: bytes = head.to_bytes(3, "little") + tail.to_bytes(2, "little")
    waves = l_waves + p_waves + q_waves
    if transparent:
        a_mean, a_scale, a_waves = _scale(alpha, 5, 5)
        code += bytes([_round(15 * a_mean) | _round(15 * a_scale) << 4])
        waves += a_waves
    nibbles = [_round(15 * wave) for wave in waves] + [0] * (len(waves) % 2)
    pairs = zip(nibbles[::2], nibbles[1::2], strict=True)
    return code + bytes(low | high << 4 for low, high in pairs)


def perceptual_hash(image: libvips.Image) -> str:
    """64 bits as 16 hex digits. Pictures that look alike differ in few of them (say, up to 8).

    The picture is made 32x32 and grey; of its discrete cosine transform the 8x8 lowest frequencies
    are kept, and each is a bit: whether it is above their median. Row by row, first bit first.
    Source: N. Krawetz, "Looks Like It" (2011), in the form that the Python package ImageHash gave
    it, with which hashes can be compared. What is transparent counts as white.
    """
    image = as_srgb(image)
    if image.hasalpha():
        image = image.flatten(background=255)
    # Stretched where it is not square: what is compared is what is where.
    small = image.thumbnail_image(32, height=32, size="force", no_rotate=True)
    (plane,) = _frequencies(small.recomb(_GREY), 8, 8, at=0.5)
    values = [value for row in plane for value in row]
    ordered = sorted(values)
    median = (ordered[31] + ordered[32]) / 2
    bits = "".join("1" if value > median else "0" for value in values)
    return f"{int(bits, 2):016x}"


def data_uri(image: libvips.Image) -> str:
    """A tiny WebP as a `data:` URI of at most 400 characters, for a page to stretch and blur.

    Its longest side is 24 pixels or, where that takes too many bytes, fewer.
    """
    image = as_srgb(image)
    uri = ""
    for side in _URI_SIDES:
        tiny = image.thumbnail_image(side, height=side, size="down", no_rotate=True)
        data = tiny.webpsave_buffer(Q=40, alpha_q=40, effort=2, keep="none")
        uri = "data:image/webp;base64," + base64.b64encode(data).decode()
        if len(uri) <= _URI_BYTES:
            break
    return uri


def _check_size(image: libvips.Image) -> None:
    if max(image.width, image.height) > LONGEST_SIDE:
        raise ValueError(
            f"the picture must be at most {LONGEST_SIDE}x{LONGEST_SIDE}, "
            f"got {image.width}x{image.height}"
        )


def _frequencies(image: libvips.Image, across: int, down: int, *, at: float) -> list[Plane]:
    """Every band as the mean of its product with each of `across` x `down` cosine waves.

    The waves are sampled `at` 0 (the left edge of a pixel) to 1 (its right one): 0.5 gives a
    discrete cosine transform of type II.
    """
    width, height = image.width, image.height
    bands = image.cast("double").copy_memory().bandsplit()
    # libvips multiplies a matrix with the bands of a pixel. Bands below each other, then a row as
    # one pixel of many bands: so a row is multiplied with all waves by one call.
    rows = libvips.Image.arrayjoin(bands, across=1)
    memory = rows.write_to_memory()
    pixels = libvips.Image.new_from_memory(memory, 1, rows.height, width, "double")
    products = pixels.recomb([list(wave) for wave in _waves(width, across, at)])
    values = memoryview(products.write_to_memory()).cast("d").tolist()
    size = across * height
    return [
        [
            # Rounded, so that what is nothing but error of arithmetic is nothing.
            [
                round(sum(map(mul, values[start + column : start + size : across], wave)), 12)
                for column in range(across)
            ]
            for wave in _waves(height, down, at)
        ]
        for start in range(0, size * len(bands), size)
    ]


@lru_cache(maxsize=256)
def _waves(length: int, count: int, at: float) -> Sequence[Sequence[float]]:
    """`count` cosines of 0, 1, 2 ... half periods over `length` samples, divided by `length`."""
    return tuple(
        tuple(math.cos(math.pi * wave * (x + at) / length) / length for x in range(length))
        for wave in range(count)
    )


def _ones(width: int, height: int, across: int, down: int) -> Plane:
    """The frequencies of a band that is 1 everywhere: not 0 where waves are finer than pixels."""
    rows, columns = _waves(height, down, 0.5), _waves(width, across, 0.5)
    return [[sum(row) * sum(column) for column in columns] for row in rows]


def _lay_on_mean(plane: Plane, alpha: Plane, ones: Plane) -> Plane:
    """A premultiplied band over its own mean: p + mean x (1 - alpha)."""
    mean = plane[0][0] / alpha[0][0] if alpha[0][0] else 0.0
    return [
        [value + mean * (one - cover) for value, cover, one in zip(*rows, strict=True)]
        for rows in zip(plane, alpha, ones, strict=True)
    ]


def _mix(planes: Sequence[Plane], shares: Sequence[float]) -> Plane:
    return [
        [round(sum(map(mul, values, shares)), 10) for values in zip(*rows, strict=True)]
        for rows in zip(*planes, strict=True)
    ]


def _scale(plane: Plane, across: int, down: int) -> tuple[float, float, list[float]]:
    """The mean, the largest wave, and the waves of the lower triangle as 0..1 of it."""
    waves = [
        plane[row][column]
        for row in range(down)
        for column in range(across)
        if column * down < across * (down - row)
    ]
    mean, *waves = waves
    largest = max(map(abs, waves))
    if largest == 0:
        return mean, 0.0, waves
    return mean, largest, [0.5 + 0.5 * wave / largest for wave in waves]


def _round(value: float) -> int:
    # Half up, as JavaScript rounds: the formats were born there.
    return math.floor(value + 0.5)


def _quantise(value: float) -> int:
    root = math.copysign(math.sqrt(abs(value)), value)
    return max(0, min(18, math.floor(root * 9 + 9.5)))


def _encode_gamma(value: float) -> int:
    # IEC 61966-2-1.
    value = max(0.0, min(1.0, value))
    encoded = 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
    return _round(encoded * 255)


def _base83(value: int, length: int) -> str:
    return "".join(_BASE83[value // 83**place % 83] for place in reversed(range(length)))
