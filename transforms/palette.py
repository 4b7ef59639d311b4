"""The colours of a small picture: its average, the colour of its ground, and its palette.

All three look at what can be seen, in sRGB. A picture of at most 100x100 pixels is enough for them
and takes one to four milliseconds; a larger one takes longer and gives much the same.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter, mul
from typing import Final, NamedTuple

from transforms import libvips
from transforms.values import TRANSPARENT, Colour


@dataclass(frozen=True, slots=True)
class Swatch:
    """One colour of a palette, and the share 0..1 of the picture that is near it."""

    colour: Colour
    share: float


class _Bin(NamedTuple):
    """Pixels of nearly one colour: the sum of their opacities, and their mean in Oklab."""

    weight: float
    lab: tuple[float, float, float]


_Part = list[_Bin]


class _Split(NamedTuple):
    """A part of the bins in two, and by how much that lowers the squared errors. 0: not at all."""

    gain: float
    near: _Part
    far: _Part


# 16 levels of red, of green and of blue part what an eye parts; a few hundred of these bins are
# filled. A bin's colour is the mean of its pixels.
_BIN: Final = 0x00F0F0F0  # of a pixel as a number, little-endian
_HEAVIEST: Final = 160  # the other bins are a few pixels each

# How much the outer eighth at each side counts when the ground is sought: the ground is there, and
# what a picture shows is mostly in its middle.
_EDGE_SHARE: Final = 8
_EDGE_WEIGHT: Final = 3

_SAME: Final = 0.06  # in Oklab: nearer colours have one name
_GROUNDS: Final = 6  # so many parts a ground is sought among
_NOISE: Final = 0.004  # a smaller share of the pixels is no colour of the picture
_ROUNDS: Final = 2


def average(image: libvips.Image) -> Colour:
    """The mean of the light, not of the numbers: what is left when the eye is half shut.

    `TRANSPARENT` where nothing can be seen.
    """
    image = as_rgba(image)
    opacity = image[3] / 255
    light = (image[0:3].colourspace("scrgb") * opacity).bandjoin(opacity)
    red, green, blue, whole = light.shrink(image.width, image.height)(0, 0)
    if whole == 0:
        return TRANSPARENT
    return _from_linear(red / whole, green / whole, blue / whole)


def dominant(image: libvips.Image) -> Colour:
    """The colour of the picture's ground: the most frequent one, edges counting more.

    It is taken from the heaviest part of the palette: its most frequent colour where the part is
    flat, so that a ground is matched exactly, and else its mean. `TRANSPARENT` where nothing can
    be seen.
    """
    bins = _histogram(as_rgba(image), edge_weight=_EDGE_WEIGHT)
    if not bins:
        return TRANSPARENT
    ground = max(_part(bins, _GROUNDS), key=_weight)
    peak = max(ground, key=itemgetter(0))
    return _from_oklab(peak.lab if peak.weight > _weight(ground) / 2 else _mean(ground))


def palette(image: libvips.Image, *, count: int = 6) -> tuple[Swatch, ...]:
    """The colours that the picture is made of, at most `count`, the most frequent first.

    The bins of a histogram are parted again and again where that lowers the sum of the squared
    errors most, as in X. Wu, "Efficient statistical computations for optimal color quantization"
    (Graphics Gems II, 1991), but in Oklab (B. Ottosson, 2020), whose distances are those of the
    eye; then k-means settles the parts. Nothing is left to chance: equal pictures have equal
    palettes. Colours of one name are one swatch, so that a logo of two colours has two.

    The shares are of the pixels that can be seen and add up to 1. Nothing is returned where there
    are none. Raises ValueError where `count` is less than 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    bins = _histogram(as_rgba(image), edge_weight=1)
    if not bins:
        return ()
    parts = _join(_settle(_part(bins, count)))
    whole = sum(map(_weight, parts))
    swatches = [Swatch(_from_oklab(_mean(part)), _weight(part) / whole) for part in parts]
    return tuple(sorted(swatches, key=lambda swatch: swatch.share, reverse=True))


def as_srgb(image: libvips.Image) -> libvips.Image:
    """The picture in three bands of 8-bit sRGB, and a fourth of opacity where it has one."""
    if image.interpretation != "srgb" or image.bands < 3:
        image = image.colourspace("srgb")
    return image if image.format == "uchar" else image.cast("uchar")


def as_rgba(image: libvips.Image) -> libvips.Image:
    """The picture in three bands of 8-bit sRGB and one of opacity."""
    image = as_srgb(image)
    return image if image.hasalpha() else image.bandjoin(255)


def _histogram(image: libvips.Image, *, edge_weight: int) -> list[_Bin]:
    """The heaviest bins of the picture. Its edges count `edge_weight` times."""
    # One number is one pixel, and the loop over thousands of them does no more than it must.
    data = image.write_to_memory()
    pixels = struct.unpack(f"<{len(data) // 4}I", data)
    edges = [*_edges(pixels, image.width, image.height)] * (edge_weight - 1)
    bins: defaultdict[int, list[int]] = defaultdict(list)
    for pixel in chain(pixels, *edges):
        bins[pixel & _BIN].append(pixel)
    sums = [_sum(members) for members in bins.values()]
    heaviest = sorted(sums, key=itemgetter(3), reverse=True)[:_HEAVIEST]
    return [
        _Bin(weight, _to_oklab(red / weight, green / weight, blue / weight))
        for red, green, blue, weight in heaviest
        if weight
    ]


def _sum(pixels: list[int]) -> tuple[int, int, int, int]:
    """Red, green and blue, each times opacity, and opacity, of some pixels together."""
    data = struct.pack(f"<{len(pixels)}I", *pixels)
    opacity = data[3::4]
    red, green, blue = (sum(map(mul, data[band::4], opacity)) for band in range(3))
    return red, green, blue, sum(opacity)


def _edges(pixels: tuple[int, ...], width: int, height: int) -> Iterator[tuple[int, ...]]:
    """The outer parts of a picture, row by row."""
    columns, rows = width // _EDGE_SHARE, height // _EDGE_SHARE
    yield pixels[: rows * width]
    yield pixels[(height - rows) * width :]
    for start in range(rows * width, (height - rows) * width, width):
        yield pixels[start : start + columns]
        yield pixels[start + width - columns : start + width]


def _part(bins: _Part, count: int) -> list[_Part]:
    """At most `count` parts of the bins, each of a colour with a name of its own."""
    least = _NOISE * sum(entry.weight for entry in bins)
    splits = [_split(bins, least)]
    while len(splits) < count:
        best = max(splits, key=lambda split: split.gain)
        if best.gain == 0:
            break
        splits.remove(best)
        splits += [_split(best.near, least), _split(best.far, least)]
    return [[*split.near, *split.far] for split in splits]


def _split(part: _Part, least: float) -> _Split:
    """Part the bins in two, along the axis on which they differ most, where errors fall most."""
    mean, whole = _mean(part), _weight(part)
    spread = [sum(b.weight * (b.lab[at] - mean[at]) ** 2 for b in part) for at in range(3)]
    axis = spread.index(max(spread))
    ordered = sorted(part, key=lambda entry: entry.lab[axis])
    # The errors fall by the squared distance of both means, times both weights, by their sum.
    best, at, weight, moment = 0.0, 0, 0.0, 0.0
    for place, entry in enumerate(ordered[:-1], 1):
        weight += entry.weight
        moment += entry.weight * (entry.lab[axis] - mean[axis])
        rest = whole - weight
        gain = moment * moment * whole / (weight * rest)
        if gain > best and weight >= least and rest >= least:
            best, at = gain, place
    near, far = ordered[:at], ordered[at:]
    if not near or _distance(_mean(near), _mean(far)) < _SAME**2:
        return _Split(0.0, part, [])
    return _Split(best, near, far)


def _settle(parts: list[_Part]) -> list[_Part]:
    """Move every bin to the part whose mean is nearest, some times over (k-means)."""
    bins = [entry for part in parts for entry in part]
    for _ in range(_ROUNDS):
        means = [_mean(part) for part in parts]
        moved: list[_Part] = [[] for _ in means]
        for entry in bins:
            distances = [_distance(entry.lab, mean) for mean in means]
            moved[distances.index(min(distances))].append(entry)
        parts = [part for part in moved if part]
    return parts


def _join(parts: list[_Part]) -> list[_Part]:
    """Make one part of those whose colours have the same name."""
    joined: list[_Part] = []
    for part in sorted(parts, key=_weight, reverse=True):
        mean = _mean(part)
        same = (other for other in joined if _distance(_mean(other), mean) < _SAME**2)
        if nearest := next(same, None):
            nearest += part
        else:
            joined.append([*part])
    return joined


def _weight(part: _Part) -> float:
    return sum(entry.weight for entry in part)


def _mean(part: _Part) -> tuple[float, float, float]:
    whole = light = green_red = blue_yellow = 0.0
    for weight, lab in part:
        whole += weight
        light += weight * lab[0]
        green_red += weight * lab[1]
        blue_yellow += weight * lab[2]
    return light / whole, green_red / whole, blue_yellow / whole


def _distance(one: tuple[float, float, float], other: tuple[float, float, float]) -> float:
    """The square of the distance in Oklab."""
    return (one[0] - other[0]) ** 2 + (one[1] - other[1]) ** 2 + (one[2] - other[2]) ** 2


def _to_oklab(red: float, green: float, blue: float) -> tuple[float, float, float]:
    # B. Ottosson, "A perceptual color space for image processing", 2020.
    r, g, b = (_decode_gamma(value / 255) for value in (red, green, blue))
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    medium = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def _from_oklab(lab: tuple[float, float, float]) -> Colour:
    light, green_red, blue_yellow = lab
    long = (light + 0.3963377774 * green_red + 0.2158037573 * blue_yellow) ** 3
    medium = (light - 0.1055613458 * green_red - 0.0638541728 * blue_yellow) ** 3
    short = (light - 0.0894841775 * green_red - 1.2914855480 * blue_yellow) ** 3
    return _from_linear(
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )


def _from_linear(red: float, green: float, blue: float) -> Colour:
    return Colour(*(round(255 * _encode_gamma(value)) for value in (red, green, blue)))


def _decode_gamma(value: float) -> float:
    # IEC 61966-2-1, as is the next.
    return value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4


def _encode_gamma(value: float) -> float:
    value = max(0.0, min(1.0, value))
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
