"""Encode: the finished pixels as the bytes of a file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from transforms import libvips
from transforms.aim import Aimed, fit_bytes, reach_target
from transforms.bareness import is_bare
from transforms.canvas import lay_on
from transforms.errors import InvalidOption
from transforms.formats import FORMATS, Format
from transforms.gainmap import find_gain_map
from transforms.load import LOADERS
from transforms.previews import drop_previews
from transforms.shapes import Turn
from transforms.values import WHITE, AutoQuality, Colour

if TYPE_CHECKING:
    from transforms.pipeline import Stop, Work
    from transforms.transform import Transform

DEFAULT_QUALITY: Final = {"jpeg": 80, "webp": 80, "avif": 50}
_RIGHTS: Final = ("exif-ifd0-Copyright", "exif-ifd0-Artist")
_TRELLIS_FROM: Final = 7
_OWN_TABLES_FROM: Final = 5
_LARGE: Final = 1_000_000
"""Pixels from which a JPEG's own Huffman tables cost more time than all else of its encoding."""
_DENSE: Final = 0.7
"""Bits for a pixel from which they save a photograph 1 to 3 %; with fewer bits they save more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A file, its format and quality, and whether that reaches its aim: None where it has none."""

    data: bytes
    format: Format
    quality: int | None = None
    reached: bool | None = None


def choose_format(image: libvips.Image, work: Work) -> Format:
    """The format to write.

    The one asked for, or the original's, or by what the pixels need: GIF where they move, PNG where
    they are transparent, else JPEG.
    """
    match work.transform.fm:
        case "same":
            return FORMATS["png"] if work.header.format.foreign else work.header.format
        case "auto" | None:
            if work.frames > 1:
                return FORMATS["gif"]
            return FORMATS["png" if _shows_through(image) else "jpeg"]
        case name:
            return FORMATS[name]


def encode(
    image: libvips.Image,
    image_format: Format,
    work: Work,
    original: bytes,
    stop: Stop,
    *,
    attach: Callable[[bytes], bytes] = bytes,
) -> Encoded:
    """Write the picture, whose pixels are in memory by now: only the encoder runs.

    `attach` completes each file that is written. Raises InvalidOption where no quality makes the
    file as small as `max-bytes`.
    """
    transform = work.transform
    if image.hasalpha() and not image_format.alpha:
        # The canvas has been laid on its background; this is what round corners have left.
        under = transform.background
        image = lay_on(image, under if isinstance(under, Colour) and under.opaque else WHITE)
    image, keep = _choose_metadata(image, transform.meta)
    stop.watch(image)  # the saver looks at the very image that it is given
    encoded = _encode(image, image_format, work, keep, attach)
    within = transform.max_bytes is None or len(original) <= transform.max_bytes
    if (
        "smaller" in transform.auto
        and within
        and len(original) <= len(encoded.data)
        and _is_answer(work, image_format, original)
    ):
        return Encoded(data=original, format=work.header.format)
    return encoded


def _encode(
    image: libvips.Image,
    image_format: Format,
    work: Work,
    keep: str,
    attach: Callable[[bytes], bytes],
) -> Encoded:
    name, transform = image_format.name, work.transform

    def save(quality: int) -> bytes:
        return attach(_SAVERS[name](image, transform, keep, quality=quality))

    asked = transform.q if isinstance(transform.q, int) else DEFAULT_QUALITY.get(name, 0)
    reached = None
    if name not in DEFAULT_QUALITY or transform.lossless:
        aimed = Aimed(data=save(asked), quality=0, encodes=1)
    elif isinstance(transform.q, AutoQuality):
        pages = {"n": -1} if work.frames > 1 else {}
        aimed = reach_target(
            image,
            save,
            lambda data: LOADERS[name](data, **pages),
            target=transform.q.target,
            format_name=name,
            budget=transform.max_bytes,
        )
        reached = aimed.met
    elif transform.max_bytes is not None:
        aimed = fit_bytes(save, budget=transform.max_bytes, best=asked)
        reached = aimed.fits
    else:
        aimed = Aimed(data=save(asked), quality=asked, encodes=1)
    if transform.max_bytes is not None and len(aimed.data) > transform.max_bytes:
        if isinstance(transform.q, AutoQuality):  # it goes no lower than what can be looked at
            aimed = fit_bytes(save, budget=transform.max_bytes, best=aimed.quality - 1)
        _check_bytes(aimed.data, transform)
    return Encoded(
        data=aimed.data, format=image_format, quality=aimed.quality or None, reached=reached
    )


def _check_bytes(data: bytes, transform: Transform) -> None:
    if transform.max_bytes is not None and len(data) > transform.max_bytes:
        raise InvalidOption(
            "max-bytes",
            f"the smallest file is {len(data)} bytes, more than max-bytes={transform.max_bytes}: "
            "ask for a smaller picture or another fm",
        )


def _is_answer(work: Work, wanted: Format, original: bytes) -> bool:
    """Whether the original, as it is, is what was asked for."""
    transform, plan, header = work.transform, work.plan, work.header
    universal = ("jpeg", "png", "gif") if transform.auto[0] != "none" else ()
    unchanged = (
        plan.whole == plan.stored
        and plan.turn == Turn()
        and plan.region.size == plan.stored
        and plan.tile is None
        and plan.scaled == plan.stored
        and not transform.decorates
        and work.mosaic is None
    )
    plain = header.orientation == 1 and header.interpretation in ("srgb", "b-w")
    still_or_whole = header.pages in (1, work.frames)
    filled = header.alpha and (transform.background is not None or transform.framed)
    return (
        header.format.name in (wanted.name, *universal)
        and unchanged
        and plain
        and still_or_whole
        and not filled
        and _keeps_what_may_stay(original, header.format.name, transform)
    )


def _keeps_what_may_stay(original: bytes, format_name: str, transform: Transform) -> bool:
    """Whether there is nothing beside the pixels that a result would be without."""
    if transform.hdr == "drop" and find_gain_map(original) is not None:
        return False
    if transform.meta == "keep":
        return True
    return is_bare(original, format_name, rights=transform.meta != "none")


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
        return drop_previews(image), "all"
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


def _save_jpeg(image: libvips.Image, transform: Transform, keep: str, *, quality: int) -> Any:
    slow = transform.effort >= _TRELLIS_FROM

    def save(*, own_tables: bool) -> Any:
        return image.jpegsave_buffer(
            Q=quality,
            optimize_coding=own_tables,
            interlace=transform.progressive,
            trellis_quant=slow,
            overshoot_deringing=slow,
            optimize_scans=slow and transform.progressive,
            keep=keep,
        )

    if transform.effort == 0 or transform.effort >= _OWN_TABLES_FROM:
        return save(own_tables=transform.effort > 0)
    pixels = image.width * image.height
    if pixels < _LARGE or transform.progressive or transform.max_bytes is not None:
        return save(own_tables=True)
    # libjpeg-turbo encodes with the standard tables twice as quickly, by vector instructions.
    data = save(own_tables=False)
    return data if len(data) * 8 >= _DENSE * pixels else save(own_tables=True)


def _save_png(image: libvips.Image, transform: Transform, keep: str, *, quality: int) -> Any:
    del quality
    return image.pngsave_buffer(
        compression=transform.effort, interlace=transform.progressive, keep=keep
    )


def _save_webp(image: libvips.Image, transform: Transform, keep: str, *, quality: int) -> Any:
    return image.webpsave_buffer(
        Q=quality,
        effort=min(transform.effort, 6),
        lossless=transform.lossless,
        keep=keep,
    )


def _save_avif(image: libvips.Image, transform: Transform, keep: str, *, quality: int) -> Any:
    return image.heifsave_buffer(
        Q=quality,
        compression="av1",
        effort=transform.effort,
        lossless=transform.lossless,
        keep=keep,
    )


def _save_gif(image: libvips.Image, transform: Transform, keep: str, *, quality: int) -> Any:
    del quality
    # Unlike WebP's encoder, which always makes one frame of equal ones and adds up their times.
    # Frames are kept as they are counted, even where one is like the other.
    return image.gifsave_buffer(
        effort=max(1, transform.effort), keep=keep, keep_duplicate_frames=True
    )


def _save_tiff(image: libvips.Image, transform: Transform, keep: str, *, quality: int) -> Any:
    del transform, quality  # lossless: there is nothing to choose
    return image.tiffsave_buffer(compression="deflate", predictor="horizontal", keep=keep)


_SAVERS: Final[dict[str, Any]] = {
    "jpeg": _save_jpeg,
    "png": _save_png,
    "webp": _save_webp,
    "avif": _save_avif,
    "gif": _save_gif,
    "tiff": _save_tiff,
}
