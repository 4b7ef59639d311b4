"""Encode: the finished pixels as the bytes of a file."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from transforms import libvips
from transforms.canvas import lay_on
from transforms.formats import FORMATS, Format
from transforms.values import WHITE

if TYPE_CHECKING:
    from transforms.pipeline import Stop, Work
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


def encode(image: libvips.Image, image_format: Format, work: Work, stop: Stop) -> bytes:
    """Write the picture. Its pixels are in memory by now: only the encoder runs."""
    transform = work.transform
    if image.hasalpha() and not image_format.alpha:
        image = lay_on(image, WHITE)  # the canvas has laid it on its background
    image, keep = _choose_metadata(image, transform.meta)
    stop.watch(image)  # the saver looks at the very image that it is given
    data: bytes = _SAVERS[image_format.name](image, transform, keep)
    return data


def _shows_through(image: libvips.Image) -> bool:
    return bool(image.hasalpha() and image[image.bands - 1].min() < 255)


def _choose_metadata(image: libvips.Image, meta: str) -> tuple[libvips.Image, str]:
    """The image with the metadata that may survive, and libvips' `keep` flag for it."""
    image = image.copy()
    if image.get_typeof("orientation"):
        image.remove("orientation")  # it has been applied
    if meta == "none":
        return image, "none"
    if meta == "keep":
        return image, "all"
    rights = {name: image.get(name) for name in _RIGHTS if image.get_typeof(name)}
    if not rights:
        return image, "none"
    block = exif_of_rights(image.get("exif-data")) if image.get_typeof("exif-data") else b""
    for name in image.get_fields():
        if name == "jpeg-thumbnail-data" or (name.startswith("exif-") and name not in rights):
            image.remove(name)
    # libvips writes a field again only where it differs from the block, and then in ASCII.
    image.set_type(libvips.MetadataType.BYTES, "exif-data", block)
    return image, "exif"


def exif_of_rights(block: bytes) -> bytes:
    """An EXIF block with nothing but the artist and the copyright of another, byte by byte."""
    found = {}
    tiff = block.removeprefix(b"Exif\0\0")
    order = "<" if tiff[:2] == b"II" else ">"
    try:
        (at,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, at)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            tag, kind, length, start = struct.unpack_from(order + "HHII", tiff, entry)
            if tag in (0x013B, 0x8298) and kind == 2:
                start = entry + 8 if length <= 4 else start
                found[tag] = tiff[start : start + length]
    except struct.error:
        pass
    entries, values = b"", b""
    free = 8 + 2 + 12 * len(found) + 4
    for tag, value in sorted(found.items()):
        padded = value.ljust(6, b"\0")
        entries += struct.pack("<HHII", tag, 2, len(padded), free + len(values))
        values += padded + b"\0" * (len(padded) % 2)
    head = struct.pack("<2sHIH", b"II", 42, 8, len(found))
    return b"Exif\0\0" + head + entries + struct.pack("<I", 0) + values


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
