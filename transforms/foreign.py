"""Documents that only a process of its own may decode: SVG, HEIC, JPEG XL and PDF.

Their decoders are large, and what they need of time and memory cannot be told from a header. This
module runs inside such a process, which may be killed: see `app.child`.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from transforms import foreign_heic, foreign_jxl, foreign_pdf, foreign_svg, libvips
from transforms.errors import BrokenImage, UnsupportedFormat, no_such_page
from transforms.foreign_raster import Leaf, Raster


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoder:
    """A format's decoder: the package it needs, if any, and the libvips loaders it may use."""

    title: str
    measure: Callable[[bytes, int], Leaf]
    draw: Callable[[bytes, int, float], Raster]
    package: str | None = None
    loaders: tuple[str, ...] = ()


_DECODERS: Final[Mapping[str, _Decoder]] = {
    "svg": _Decoder(
        title="SVG", measure=foreign_svg.measure, draw=foreign_svg.draw, loaders=("Svg",)
    ),
    "heic": _Decoder(
        title="HEIC",
        measure=foreign_heic.measure,
        draw=foreign_heic.draw,
        package=foreign_heic.PACKAGE,
    ),
    "jxl": _Decoder(
        title="JPEG XL",
        measure=foreign_jxl.measure,
        draw=foreign_jxl.draw,
        package=foreign_jxl.PACKAGE,
        loaders=("Jpeg",),  # a JPEG that was packed comes out as one
    ),
    "pdf": _Decoder(
        title="PDF",
        measure=foreign_pdf.measure,
        draw=foreign_pdf.draw,
        package=foreign_pdf.PACKAGE,
    ),
}
NAMES: Final = tuple(_DECODERS)

_OPERATIONS: Final = ("svgload_buffer", "thumbnail_image", "copy", "cast", "colourspace", "crop")


def require(name: str) -> None:
    """Raise UnsupportedFormat where the optional package that decodes this format is missing."""
    if not supported(name):
        raise UnsupportedFormat(f"{_DECODERS[name].title} needs the extra pixelmill[{name}]")


def supported(name: str) -> bool:
    """Whether what decodes this format is installed."""
    package = _DECODERS[name].package
    return package is None or importlib.util.find_spec(package) is not None


def preload() -> None:
    """Do what every document needs, so that processes forked later share it.

    The optional packages are imported and pyvips learns its operations. None of them is run.
    """
    for operation in _OPERATIONS:
        libvips.learn(operation)
    for name, decoder in _DECODERS.items():
        if decoder.package is not None and supported(name):
            with contextlib.suppress(ImportError):  # the other formats still work
                importlib.import_module(decoder.package)


def restrict(name: str) -> None:
    """Leave libvips no loader but those this format needs. It holds for the whole process."""
    libvips.allow_decoders(_DECODERS[name].loaders)


def measure(name: str, data: bytes, page: int = 0) -> Leaf:
    """Read the header of a document, as one of its pages has it. Draws nothing.

    Raises BrokenImage, UnsupportedFormat, SourceTooLarge, and InvalidOption for a page that the
    document does not have.
    """
    require(name)
    try:
        leaf = _DECODERS[name].measure(data, page)
    except libvips.Error as error:
        raise _broken(name, error) from None
    if page >= leaf.pages:
        raise no_such_page(page, leaf.pages)
    return leaf


def draw(name: str, data: bytes, *, page: int = 0, scale: float) -> Raster:
    """Draw a page at a scale of its own size: exactly `leaf.drawn(scale)` pixels, upright, sRGB.

    Formats made of pixels are not enlarged: `scale` is at most 1 for them. Raises BrokenImage,
    UnsupportedFormat, SourceTooLarge.
    """
    require(name)
    try:
        return _DECODERS[name].draw(data, page, scale)
    except libvips.Error as error:
        raise _broken(name, error) from None


def _broken(name: str, error: Exception) -> BrokenImage:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    cause = lines[-1][:160] if lines else "unknown cause"
    return BrokenImage(f"The original cannot be decoded as {_DECODERS[name].title}: {cause}")
