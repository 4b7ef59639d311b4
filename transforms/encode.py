"""Encode: the finished pixels as the bytes of a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from transforms.canvas import lay_on
from transforms.formats import FORMATS, Format
from transforms.values import WHITE

if TYPE_CHECKING:
    from transforms import libvips
    from transforms.pipeline import Work
    from transforms.transform import Transform

DEFAULT_QUALITY: Final = {"jpeg": 80, "webp": 80, "avif": 50}
_RIGHTS: Final = ("exif-ifd0-Copyright", "exif-ifd0-Artist")
_TRELLIS_FROM: Final = 7


def choose_format(image: libvips.Image, work: Work) -> Format:
    """The format to write: the one asked for, the original's, or JPEG or PNG by transparency."""
    match work.transform.fm:
        case "same":
            return work.header.format
        case "auto" | None:
            return FORMATS["png" if _shows_through(image) else "jpeg"]
        case name:
            return FORMATS[name]


def encode(image: libvips.Image, image_format: Format, work: Work) -> bytes:
    """Write the picture. Its pixels are in memory by now: only the encoder runs."""
    transform = work.transform
    if image.hasalpha() and not image_format.alpha:
        image = lay_on(image, transform.background or WHITE)
        if image.hasalpha():  # a background that is transparent itself
            image = lay_on(image, WHITE)
    image, keep = _choose_metadata(image, transform.meta)
    data: bytes = _SAVERS[image_format.name](image, transform, keep)
    return data


def _shows_through(image: libvips.Image) -> bool:
    return bool(image.hasalpha() and image[image.bands - 1].min() < 255)


def _choose_metadata(image: libvips.Image, meta: str) -> tuple[libvips.Image, str]:
    """The image with the metadata that may survive, and libvips' `keep` flag for it."""
    if meta == "none":
        return image, "none"
    image = image.copy()
    if image.get_typeof("orientation"):
        image.remove("orientation")  # it has been applied
    if meta == "keep":
        return image, "all"
    rights = {name: image.get(name) for name in _RIGHTS if image.get_typeof(name)}
    if not rights:
        return image, "none"
    for name in image.get_fields():
        # libvips writes EXIF anew from these fields; without the old block nothing else is in it.
        if name.startswith("exif-") and name not in rights:
            image.remove(name)
    return image, "exif"


def _save_jpeg(image: libvips.Image, transform: Transform, keep: str) -> Any:
    slow = transform.effort >= _TRELLIS_FROM
    return image.jpegsave_buffer(
        Q=transform.q or DEFAULT_QUALITY["jpeg"],
        optimize_coding=transform.effort >= 1,
        interlace=transform.progressive,
        trellis_quant=slow,
        overshoot_deringing=slow,
        optimize_scans=slow and transform.progressive,
        keep=keep,
    )


def _save_png(image: libvips.Image, transform: Transform, keep: str) -> Any:
    return image.pngsave_buffer(
        compression=transform.effort, interlace=transform.progressive, keep=keep
    )


def _save_webp(image: libvips.Image, transform: Transform, keep: str) -> Any:
    return image.webpsave_buffer(
        Q=transform.q or DEFAULT_QUALITY["webp"],
        effort=min(transform.effort, 6),
        lossless=transform.lossless,
        keep=keep,
    )


def _save_avif(image: libvips.Image, transform: Transform, keep: str) -> Any:
    return image.heifsave_buffer(
        Q=transform.q or DEFAULT_QUALITY["avif"],
        compression="av1",
        effort=transform.effort,
        lossless=transform.lossless,
        keep=keep,
    )


def _save_gif(image: libvips.Image, transform: Transform, keep: str) -> Any:
    return image.gifsave_buffer(effort=max(1, transform.effort), keep=keep)


def _save_tiff(image: libvips.Image, transform: Transform, keep: str) -> Any:
    del transform  # lossless: there is nothing to choose
    return image.tiffsave_buffer(compression="deflate", predictor="horizontal", keep=keep)


_SAVERS: Final[dict[str, Any]] = {
    "jpeg": _save_jpeg,
    "png": _save_png,
    "webp": _save_webp,
    "avif": _save_avif,
    "gif": _save_gif,
    "tiff": _save_tiff,
}
