"""HEIC, by libheif within the optional package pillow-heif."""

from __future__ import annotations

import importlib
from typing import Any, Final

from transforms.errors import BrokenImage
from transforms.foreign_raster import Leaf, Raster, drawn, fit, pixels_of, raster_of, with_profile
from transforms.shapes import Size

PACKAGE: Final = "pillow_heif"

_BANDS: Final = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "RGBa": 4}
_ERRORS: Final = (ValueError, SyntaxError, RuntimeError, EOFError, OSError)


def measure(data: bytes, page: int) -> Leaf:
    """Read the header. Page 0 is the primary image, and the others follow in their order."""
    images = _open(data)
    image = images[min(page, len(images) - 1)]
    return Leaf(
        size=Size(*image.size),
        pages=len(images),
        alpha=image.has_alpha,
        scalable=False,
        bands=_bands(image),
    )


def draw(data: bytes, page: int, scale: float) -> Raster:
    """Decode, and shrink by `scale` (0..1). libheif has laid the picture upright."""
    image = _open(data)[page]
    bands, size = _bands(image), Size(*image.size)
    try:
        pixels, stride = image.data, image.stride
    except _ERRORS as error:
        raise _broken(error) from None
    picture = pixels_of(pixels, size, bands=bands, stride=stride)
    if image.premultiplied_alpha:
        picture = picture.unpremultiply().cast("uchar")
    picture = with_profile(picture, image.info.get("icc_profile"))
    return raster_of(fit(picture, drawn(size, min(1.0, scale))))


def _open(data: bytes) -> list[Any]:
    package = importlib.import_module(PACKAGE)
    package.options.DECODE_THREADS = 1
    try:
        file = package.open_heif(data, convert_hdr_to_8bit=True)
        images = list(file)
        first = file.primary_index
    except _ERRORS as error:
        raise _broken(error) from None
    return [images[first], *images[:first], *images[first + 1 :]]


def _bands(image: Any) -> int:
    bands = _BANDS.get(image.mode)
    if bands is None:
        raise BrokenImage(f"The HEIC has pixels of an unknown kind: {image.mode}")
    return bands


def _broken(error: Exception) -> BrokenImage:
    return BrokenImage(f"The original cannot be decoded as HEIC: {str(error)[:160]}")
