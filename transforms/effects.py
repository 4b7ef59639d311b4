"""Effects: what a pixel becomes by its neighbours.

Every function takes an 8-bit image that is `srgb` or `b-w`, with or without straight alpha, and
gives back one of the same size. Lengths are in pixels. Beyond its edges a picture goes on as its
outermost pixels. Arithmetic is on the encoded sRGB values, as in CSS filters and ImageMagick. The
time taken depends on the size of the picture, and hardly on sigma or block.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Final

from transforms import libvips, tone

LARGEST_SIGMA: Final = 12.0
"""The largest sigma that is convolved at full size; above it the picture is shrunk first."""

_SMALLEST: Final = 0.2
"""A Gaussian of this sigma or less is one pixel, and changes nothing."""

_TAIL: Final = 3.0
"""Where a Gaussian ends, in sigmas: 0.3 % of it lie beyond."""

_LARGEST_MASK: Final = 2
"""The largest radius whose edges libvips finds in integers at full speed."""

_FINEST: Final = 64
"""The largest value of a mask that is exact in libvips' fixed point; see `_mask`."""

Normalize = Callable[[libvips.Image], libvips.Image]
"""Stretches the contrast of an image in memory: `tone.normalize`, or what was found elsewhere."""


def blur(image: libvips.Image, *, sigma: float) -> libvips.Image:
    """Gaussian blur: CSS `blur()`, ImageMagick's `-blur 0x{sigma}`. Blurs alpha too.

    Colours count by their alpha, so that what is transparent does not darken the rim.
    """
    if sigma <= _SMALLEST:
        return image
    if not image.hasalpha():
        return _gaussian(image, sigma)
    weighted = image.premultiply().rint().cast("uchar")
    blurred = _gaussian(weighted, sigma).unpremultiply().rint().cast("uchar")
    return blurred.copy(interpretation=image.interpretation)


def sharpen(
    image: libvips.Image, *, sigma: float, amount: float, threshold: float
) -> libvips.Image:
    """Unsharp mask: add `amount` times what a blur of `sigma` takes away.

    As ImageMagick's `-unsharp 0x{sigma}+{amount}+{threshold}`: a pixel stays as it is where twice
    the difference is below `threshold` (0..1 of full scale). The difference is that of luma, and
    all channels get the same: no coloured fringes between colours, and one band to blur instead
    of three. Alpha stays, and what is transparent does not count.
    """
    if not amount or sigma <= _SMALLEST:
        return image
    luma = tone.luma(image).cast("float")
    if image.hasalpha():
        weight = image[image.bands - 1]
        mean = _gaussian(luma * weight, sigma) / _gaussian(weight.cast("float"), sigma)
    else:
        mean = _gaussian(luma, sigma)
    detail = luma - mean
    if threshold:
        detail = (detail.abs() * 2 < threshold * 255).ifthenelse(0, detail)
    colours = image.extract_band(0, n=image.bands - image.hasalpha())
    sharpened = (colours + (detail * amount).rint()).cast("uchar")
    return _finish(sharpened, image)


def pixelate(image: libvips.Image, *, block: int) -> libvips.Image:
    """Give each block of `block` x `block` pixels, counted from the top left, its mean colour.

    What the right and bottom edges leave of a block has the mean of just that. Alpha becomes its
    mean too; colours count by their alpha.
    """
    if block <= 1:
        return image
    if image.hasalpha():
        means = _means(image.premultiply(), block).unpremultiply()
    else:
        means = _means(image.cast("float"), block)
    enlarged = (
        _keep_rows(means.rint().cast("uchar"))
        .zoom(block, block)
        .crop(0, 0, image.width, image.height)
    )
    return enlarged.copy(interpretation=image.interpretation)


def sketch(image: libvips.Image, *, normalize: Normalize = tone.normalize) -> libvips.Image:
    """A pencil sketch: grey lines on white, as `b-w`. Alpha stays.

    As ImageMagick's `-edge 1 -negate -normalize -colorspace Gray -blur 0x.5`. The pixels are read
    twice: the image must be in memory.
    """
    lines = _edges(_on_black(image), 1)
    drawing = tone.grayscale(normalize(tone.invert(lines)))
    return _finish(_gaussian(drawing, 0.5), image)


def charcoal(
    image: libvips.Image, *, sigma: float, normalize: Normalize = tone.normalize
) -> libvips.Image:
    """A charcoal drawing: broad dark strokes on white, as `b-w`. Alpha stays.

    As ImageMagick's `-charcoal {sigma}`: an edge is what is lighter than its surroundings of
    `sigma` pixels (rounded up) to each side. The lines are softened, stretched and negated. The
    pixels are read several times: the image must be in memory.
    """
    radius = max(1, math.ceil(sigma))
    lines = _convolve(_edges(_on_black(image), radius), 1.0, radius=min(radius, 3))
    drawing = tone.invert(tone.grayscale(normalize(lines.copy_memory())))
    return _finish(drawing, image)


def _gaussian(image: libvips.Image, sigma: float) -> libvips.Image:
    """A Gaussian blur of all bands, 8-bit or float.

    A large one is a smaller one of the shrunk picture. Shrinking by f is a box of f pixels and
    enlarging by f a triangle of 2 f, whose variances are (f**2 - 1) / 12 and f**2 / 6: what they
    blur is taken off.
    """
    factor = math.ceil(sigma / LARGEST_SIGMA)
    if factor == 1:
        return _convolve(_keep_rows(image), sigma)
    # A border of one block, so that it is the outermost pixels that go on and not block means.
    columns, rows = 2 - -image.width // factor, 2 - -image.height // factor
    whole = image.embed(factor, factor, columns * factor, rows * factor, extend="copy")
    small = whole.cast("float").shrink(factor, factor)  # of 8 bits it would round down
    if image.format == "uchar":
        small = small.rint().cast("uchar")
    rest = math.sqrt(sigma**2 - (factor**2 - 1) / 12 - factor**2 / 6) / factor
    # Where the middle of the first large pixel is, counted from that of the first small one.
    first = 0.5 + 0.5 / factor
    return _keep_rows(_convolve(_keep_rows(small), rest)).affine(
        [factor, 0, 0, factor],
        idx=-first,
        idy=-first,
        oarea=[0, 0, image.width, image.height],
        extend="copy",
        premultiplied=True,
    )


def _convolve(image: libvips.Image, sigma: float, *, radius: int | None = None) -> libvips.Image:
    """A Gaussian blur at full size, cut off at a radius."""
    mask = _mask(sigma, radius or math.ceil(_TAIL * sigma))
    return image.convsep(mask, precision="integer" if image.format == "uchar" else "float")


def _mask(sigma: float, radius: int) -> libvips.Image:
    """One row of a Gaussian, integrated over each pixel, in integers.

    libvips computes 8-bit convolution in fixed point, with few bits for each value of the mask.
    Values up to 64 whose sum is a power of two are exact in it. Any others may be rounded, and
    the picture gets lighter or darker by up to 2 %.
    """
    scale = sigma * math.sqrt(2)
    within = [math.erf((at + 0.5) / scale) for at in range(radius + 1)]
    shares = [(outer - inner) / (2 * within[-1]) for inner, outer in pairwise(within)]
    steps, row = _FINEST, _in_steps(shares, _FINEST)
    while max(finer := _in_steps(shares, 2 * steps)) <= _FINEST:
        steps, row = 2 * steps, finer
    return libvips.Image.new_from_array([row], scale=steps)


def _in_steps(shares: list[float], steps: int) -> list[int]:
    """A symmetric row whose sum is `steps`, from the shares of its right half."""
    side = [round(steps * share) for share in shares]
    return [*side[::-1], steps - 2 * sum(side), *side]


def _edges(image: libvips.Image, radius: int) -> libvips.Image:
    """How much lighter a pixel is than those within a radius, summed and clipped to 8 bits.

    As ImageMagick's `-edge`: a mask of -1 whose middle makes its sum 0.
    """
    side = 2 * radius + 1
    if radius <= _LARGEST_MASK:
        mask = [[-1] * side for _ in range(side)]
        mask[radius][radius] = side**2 - 1
        return image.conv(libvips.Image.new_from_array(mask), precision="integer")
    # One layer is one box: exact, by a running sum, hence in the same time for any radius.
    box = libvips.Image.new_from_array([[1] * side], scale=side)
    mean = image.cast("float").convsep(box, precision="approximate", layers=1)
    return (image - mean).linear(side**2, 0.5, uchar=True).copy(interpretation=image.interpretation)


def _means(image: libvips.Image, block: int) -> libvips.Image:
    """The mean of each block as one pixel, of a float image: of 8 bits libvips rounds it down."""
    full, rest = divmod(image.height, block)
    parts = [image.crop(0, 0, image.width, full * block).shrinkv(block)] if full else []
    if rest:
        parts.append(image.crop(0, full * block, image.width, rest).shrinkv(rest))
    rows = parts[0] if len(parts) == 1 else parts[0].join(parts[1], "vertical")

    full, rest = divmod(image.width, block)
    parts = [rows.crop(0, 0, full * block, rows.height).shrinkh(block)] if full else []
    if rest:
        parts.append(rows.crop(full * block, 0, rest, rows.height).shrinkh(rest))
    return parts[0] if len(parts) == 1 else parts[0].join(parts[1], "horizontal")


def _keep_rows(image: libvips.Image) -> libvips.Image:
    """Have rows that neighbours need again kept for them, and not computed again."""
    return image.linecache(tile_height=16, access="sequential")


def _on_black(image: libvips.Image) -> libvips.Image:
    """The picture without its alpha. What lies hidden under transparency has no edges.

    Edges are drawn on the lighter side, and on black that is the side that is seen.
    """
    return image.flatten() if image.hasalpha() else image


def _finish(colours: libvips.Image, image: libvips.Image) -> libvips.Image:
    """The colours with the image's alpha, if it has any."""
    if image.hasalpha():
        colours = colours.bandjoin(image[image.bands - 1])
    return colours.copy(interpretation="srgb" if colours.bands >= 3 else "b-w")
