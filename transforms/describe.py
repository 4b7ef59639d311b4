"""Describe: everything that can be told of an original.

`read_facts` needs no more than its header and its metadata, `read_colours` a small picture of it;
`describe` does both.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from transforms import libvips, pipeline
from transforms.inspect import broken, look
from transforms.metadata import Metadata, read_metadata
from transforms.palette import Swatch, average, dominant, palette
from transforms.placeholders import LONGEST_SIDE, blurhash, data_uri, perceptual_hash, thumbhash
from transforms.transform import Transform

if TYPE_CHECKING:
    from transforms.limits import Limits
    from transforms.values import Colour

MOST_DELAYS: Final = 1000
"""Frames of an animation whose delays are told."""

_SMALL: Final = Transform.from_query(
    f"w={LONGEST_SIDE}&h={LONGEST_SIDE}&fit=inside&fm=png&effort=0&meta=none"
)
_ANIMATED: Final = ("gif", "webp")
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
    for one sample (or one index into a colour table), as the original has it.
    """

    format: str
    media_type: str
    length: int
    sha256: str
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
    work = pipeline.prepare(data, _SMALL, limits)
    small = pipeline.run(data, work, stop).data
    image = libvips.Image.new_from_buffer(small, "").copy_memory()
    return Description(facts=read_facts(data), colours=read_colours(image))


def read_facts(data: bytes) -> Facts:
    """What an original says of itself. Decodes nothing.

    Raises BrokenImage, UnsupportedFormat.
    """
    header = look(data)
    image_format = header.format
    try:
        image = libvips.Image.new_from_buffer(data, "", access="sequential")
    except libvips.Error as error:
        raise broken(image_format, error) from None
    animated = image_format.name in _ANIMATED and header.pages > 1
    width, height = header.size.width, header.size.height
    if header.orientation >= 5:
        width, height = height, width
    return Facts(
        format=image_format.name,
        media_type=image_format.media_type,
        length=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        stored_width=header.size.width,
        stored_height=header.size.height,
        width=width,
        height=height,
        orientation=header.orientation,
        pages=header.pages,
        animated=animated,
        delays=tuple(_field(image, "delay", [])[:MOST_DELAYS]) if animated else (),
        loop=_field(image, "loop", 0) if animated else None,
        alpha=bool(header.alpha),
        colour_space=_COLOUR_SPACES.get(header.interpretation, header.interpretation),
        bits=_field(image, "bits-per-sample", 8 * header.bytes_per_band),
        progressive=header.progressive,
        metadata=read_metadata(image, tiff=data if image_format.name == "tiff" else b""),
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
        "thumbhash": base64.b64encode(colours.thumbhash).decode(),
        "perceptual_hash": colours.perceptual_hash,
        "data_uri": colours.data_uri,
    }


def _hex(colour: Colour) -> str:
    if colour.alpha == 0:
        return "none"
    return f"#{colour.red:02x}{colour.green:02x}{colour.blue:02x}"
