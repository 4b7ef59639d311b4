"""Describe: everything that can be told of an original.

`read_facts` needs no more than its header and its metadata, `read_colours` a small picture of it;
`describe` does both.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from transforms import libvips, pipeline
from transforms.inspect import Header, broken, look
from transforms.metadata import Metadata, read_metadata
from transforms.options import MAX_SIDE
from transforms.palette import Swatch, average, dominant, palette
from transforms.placeholders import LONGEST_SIDE, blurhash, data_uri, perceptual_hash, thumbhash
from transforms.transform import Transform

if TYPE_CHECKING:
    from decimal import Decimal

    from transforms.limits import Limits
    from transforms.values import Colour

MOST_DELAYS: Final = 1000
"""Frames of an animation whose delays are told."""

SMALL: Final = Transform.from_query(
    f"w={LONGEST_SIDE}&h={LONGEST_SIDE}&fit=inside&fm=png&effort=0&meta=none"
)
"""What an original's colours are read from."""

_OPAQUE: Final = 255

_COLOUR_SPACES: Final = {
    "rgb": "srgb",
    "rgb16": "srgb",
    "scrgb": "srgb",
    "grey16": "b-w",
    "labs": "lab",
    "labq": "lab",
}
"""libvips' names of colour spaces that differ in the bits of a sample alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the header and the metadata say. Sizes are in pixels, `length` is in bytes.

    `stored_width` and `stored_height` are those of one page as it is stored, `width` and `height`
    as it is seen, once its EXIF `orientation` (1 to 8) has been applied. `pages` are the pages of
    a document or the frames of an animation, `delays` how long each frame lasts in milliseconds,
    and `loop` how often it plays, 0 for ever. `colour_space` is srgb, b-w, cmyk or lab; `bits` is
    for one sample (or one index into a colour table), as the original has it. `sha256` is None
    where not all of the original was read.
    """

    format: str
    media_type: str
    length: int
    sha256: str | None
    stored_width: int
    stored_height: int
    width: int
    height: int
    orientation: int
    pages: int
    animated: bool
    delays: tuple[int, ...]
    loop: int | None
    alpha: bool
    colour_space: str
    bits: int
    progressive: bool
    metadata: Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours:
    """What a small picture of the original tells; see `palette` and `placeholders`."""

    dominant: Colour
    average: Colour
    palette: tuple[Swatch, ...]
    blurhash: str
    thumbhash: bytes
    perceptual_hash: str
    data_uri: str
    transparent: bool = False
    """Whether anything shines through."""

    @property
    def thumbhash_text(self) -> str:
        """The ThumbHash in base64, as pages have it."""
        return base64.b64encode(self.thumbhash).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """All that is known of an original; its colours only where it was decoded for them."""

    facts: Facts
    colours: Colours | None = None

    def as_json(self, *, place: bool = False) -> dict[str, Any]:
        """As data for JSON. Where the picture was taken is told with `place` alone.

        Colours are `#rrggbb`, or `none` of a picture without a pixel to be seen; the ThumbHash is
        in base64. Metadata that is not there is left out.
        """
        told = asdict(self.facts)
        metadata = told.pop("metadata")
        location = metadata.pop("place")
        told |= {"density": metadata.pop("density"), "profile": metadata.pop("profile")}
        told["delays"] = list(told["delays"])
        told["metadata"] = {name: _present(values) for name, values in metadata.items()}
        if place:
            told["place"] = location
        if self.colours is not None:
            told |= _colours_as_json(self.colours)
        return told


def describe(data: bytes, *, limits: Limits, stop: pipeline.Stop | None = None) -> Description:
    """Read the header and the metadata, decode a small picture and look at its colours.

    The picture is upright, in sRGB, of at most 100x100 pixels; of an animation or a document it is
    the first page. Blocks for as long as decoding takes. Raises BrokenImage, UnsupportedFormat,
    SourceTooLarge, Stopped.
    """
    works = [pipeline.prepare(data, SMALL, limits)]
    return Description(
        facts=read_facts(data), colours=see_colours(data, works, stop or pipeline.Stop())
    )


def see_colours(data: bytes, works: Sequence[pipeline.Work], stop: pipeline.Stop) -> Colours:
    """Decode the small picture that `SMALL` asks for, and look at its colours."""
    return read_colours(pipeline.make_picture(data, works, stop))


def miniature(transform: Transform) -> Transform:
    """What a result's colours are read from: all of it, at most 100x100 pixels large.

    A transform that does not change how the original looks gives `SMALL`.
    """
    bare = replace(
        transform.pixels_only, fm=SMALL.fm, effort=SMALL.effort, meta=SMALL.meta, frames=None
    )
    if replace(bare, w=SMALL.w, h=SMALL.h, fit=SMALL.fit, enlarge=SMALL.enlarge) == SMALL and (
        bare.w is None or bare.h is None or bare.fit == "inside"
    ):
        return SMALL
    columns, rows = (1, 1) if bare.tile is None else (bare.tile.columns, bare.tile.rows)
    return replace(
        bare,
        max_w=_bound(columns, bare.max_w, bare.dpr),
        max_h=_bound(rows, bare.max_h, bare.dpr),
    )


def _bound(parts: int, bound: int | None, dpr: Decimal) -> int:
    """How long a side may be of which each of so many parts is small enough."""
    most = min(MAX_SIDE, max(1, int(LONGEST_SIDE * parts / dpr)))
    return most if bound is None else min(most, bound)


def read_facts(data: bytes, *, length: int | None = None) -> Facts:
    """What an original says of itself. Decodes nothing.

    `length` is that of the whole original where `data` is only its beginning. Raises BrokenImage,
    UnsupportedFormat.
    """
    header = look(data)
    try:
        image = libvips.Image.new_from_buffer(data, "", access="sequential")
    except libvips.Error as error:
        raise broken(header.format, error) from None
    tiff = data if header.format.name == "tiff" else b""
    return replace(
        facts_of(header, data, length=length),
        delays=tuple(_field(image, "delay", [])[:MOST_DELAYS]) if header.animated else (),
        loop=_field(image, "loop", 0) if header.animated else None,
        bits=_field(image, "bits-per-sample", 8 * header.bytes_per_band),
        metadata=read_metadata(image, tiff=tiff),
    )


def facts_of(header: Header, data: bytes, *, length: int | None = None) -> Facts:
    """What a header says, without metadata."""
    size = pipeline.upright(header)
    whole = length is None or length == len(data)
    return Facts(
        format=header.format.name,
        media_type=header.format.media_type,
        length=len(data) if length is None else length,
        sha256=hashlib.sha256(data).hexdigest() if whole else None,
        stored_width=header.size.width,
        stored_height=header.size.height,
        width=size.width,
        height=size.height,
        orientation=header.orientation,
        pages=header.pages,
        animated=header.animated,
        delays=(),
        loop=None,
        alpha=bool(header.alpha),
        colour_space=_COLOUR_SPACES.get(header.interpretation, header.interpretation),
        bits=8 * header.bytes_per_band,
        progressive=header.progressive,
        metadata=Metadata(),
    )


def read_colours(image: libvips.Image) -> Colours:
    """The colours and the codes of a picture of at most 100x100 pixels, upright and in sRGB.

    Raises ValueError for a larger one.
    """
    return Colours(
        dominant=dominant(image),
        average=average(image),
        palette=palette(image),
        blurhash=blurhash(image),
        thumbhash=thumbhash(image),
        perceptual_hash=perceptual_hash(image),
        data_uri=data_uri(image),
        transparent=bool(image.hasalpha() and image[image.bands - 1].min() < _OPAQUE),
    )


def _field(image: libvips.Image, name: str, default: Any) -> Any:
    return image.get(name) if image.get_typeof(name) else default


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None and value != ()
    }


def _colours_as_json(colours: Colours) -> dict[str, Any]:
    return {
        "dominant": _hex(colours.dominant),
        "average": _hex(colours.average),
        "palette": [
            {"colour": _hex(swatch.colour), "share": round(swatch.share, 4)}
            for swatch in colours.palette
        ],
        "blurhash": colours.blurhash,
        "thumbhash": colours.thumbhash_text,
        "perceptual_hash": colours.perceptual_hash,
        "data_uri": colours.data_uri,
    }


def _hex(colour: Colour) -> str:
    if colour.alpha == 0:
        return "none"
    return f"#{colour.red:02x}{colour.green:02x}{colour.blue:02x}"
