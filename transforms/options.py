"""The one table of every transform parameter.

The query parser, the strict parser of POST bodies, the OpenAPI parameters, `GET /schema`, the
command line, the README's table, the canonical form and the error texts all read this table. To
add a parameter, add a row here, a field to `Transform`, and the step that honours it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final

from transforms.values import (
    COMPASS,
    Angle,
    Choice,
    ColourKind,
    ExtentKind,
    Flag,
    GravityKind,
    Integer,
    Kind,
    Number,
    RectKind,
    Sides,
    SidesKind,
)

MAX_SIDE: Final = 8192
"""The largest width or height in pixels that can be asked for."""

MAX_PADDING: Final = 4096
"""The widest side of a frame in pixels."""

FITS: Final = ("contain", "cover", "inside", "outside", "fill")
OUTPUTS: Final = ("jpeg", "png", "webp", "avif", "gif", "tiff")
ALIASES_OF_OUTPUTS: Final = {"jpg": "jpeg", "tif": "tiff"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One parameter: how it is spelt, what it may be, what it is when absent and what it does."""

    name: str
    kind: Kind
    step: str
    help: str
    example: str
    default: Any = None
    aliases: tuple[str, ...] = field(default=())

    @property
    def field(self) -> str:
        """The name of the attribute of `Transform` that holds the value."""
        return self.name.replace("-", "_")

    @property
    def spellings(self) -> tuple[str, ...]:
        """Every name under which the parameter is accepted."""
        snake = (self.field,) if self.field != self.name else ()
        return (self.name, *snake, *self.aliases)


_SIDE = Integer(1, MAX_SIDE)
_PADDING = Integer(0, MAX_PADDING)

OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="w",
        aliases=("width",),
        kind=_SIDE,
        step="resize",
        example="200",
        help="Width of the box in pixels.",
    ),
    Option(
        name="h",
        aliases=("height",),
        kind=_SIDE,
        step="resize",
        example="200",
        help="Height of the box in pixels.",
    ),
    Option(
        name="fit",
        kind=Choice(
            FITS,
            {
                "pad": "contain",
                "crop": "cover",
                "clip": "inside",
                "max": "inside",
                "scale-down": "inside",
                "min": "outside",
                "scale": "fill",
                "stretch": "fill",
            },
        ),
        step="resize",
        example="cover",
        help="How the picture meets the box. contain: inside it, on a background of exactly w x h; "
        "cover: fills it, the rest cropped; inside: the largest that fits in; outside: the "
        "smallest that covers it; fill: stretched. Default: contain where both w and h are given, "
        "inside where one is.",
    ),
    Option(
        name="enlarge",
        kind=Flag(),
        default=False,
        step="resize",
        example="1",
        help="Let a small original grow. Without it, no picture is blown up.",
    ),
    Option(
        name="dpr",
        kind=Number(Decimal("0.1"), Decimal(8)),
        default=Decimal(1),
        step="resize",
        example="2",
        help="Device pixel ratio: multiplies every size of the result that is given in pixels, or "
        "the original's size where neither w nor h is given.",
    ),
    Option(
        name="min-w",
        kind=_SIDE,
        step="resize",
        example="100",
        help="The picture is scaled to at least this wide, enlarged if it must be; what then "
        "exceeds the box is cropped.",
    ),
    Option(
        name="min-h",
        kind=_SIDE,
        step="resize",
        example="100",
        help="The picture is scaled to at least this high, as with min-w.",
    ),
    Option(
        name="max-w",
        kind=_SIDE,
        step="resize",
        example="1200",
        help="The result is at most this wide: all of it shrinks in proportion, canvas and "
        "padding included.",
    ),
    Option(
        name="max-h",
        kind=_SIDE,
        step="resize",
        example="1200",
        help="The result is at most this high, as with max-w.",
    ),
    Option(
        name="crop",
        kind=RectKind(),
        step="crop",
        example="0.1,0.1,0.8,0.8",
        help="The part of the upright original to use: x,y,width,height in pixels, or with a "
        "decimal point in fractions of its sides. What lies outside is cut off.",
    ),
    Option(
        name="gravity",
        aliases=("g",),
        kind=GravityKind(),
        default=COMPASS["center"],
        step="canvas",
        example="north",
        help="What stays in sight when cropping, and where the picture sits on its canvas: a "
        "compass point, a focal point x,y in 0..1, attention (what catches the eye) or entropy "
        "(where most is going on).",
    ),
    Option(
        name="extent",
        kind=ExtentKind(_SIDE),
        step="canvas",
        example="300x300",
        help="Put the resized picture on a canvas of exactly this size, held by gravity; what is "
        "larger is cropped.",
    ),
    Option(
        name="padding",
        kind=SidesKind(_PADDING),
        default=Sides(),
        step="canvas",
        example="10,20",
        help="Frame of background colour round the result, in pixels: one to four widths in the "
        "order of CSS. It adds to the size.",
    ),
    Option(
        name="background",
        aliases=("bg",),
        kind=ColourKind(),
        step="canvas",
        example="f5f5f5",
        help="Colour of canvas and padding, and of what shines through: a CSS name, hex (3, 4, 6 "
        "or 8 digits), rgb(r,g,b) or none. Where it is absent, canvases are white and pictures "
        "without canvas keep their transparency.",
    ),
    Option(
        name="rotate",
        kind=Angle(),
        default=0,
        step="orient",
        example="90",
        help="Turn clockwise by a multiple of 90 degrees. w and h mean the turned picture.",
    ),
    Option(
        name="flip",
        kind=Choice(("h", "v", "hv"), {"both": "hv", "vh": "hv"}),
        step="orient",
        example="h",
        help="Mirror left-right (h), top-bottom (v) or both, before rotate.",
    ),
    Option(
        name="orient",
        kind=Choice(("auto", "none", *"12345678"), {"0": "none"}),
        default="auto",
        step="orient",
        example="auto",
        help="Which EXIF orientation to apply: the original's own (auto), none, or a number 1 to "
        "8 instead of it.",
    ),
    Option(
        name="page",
        kind=Integer(0, 9999),
        default=0,
        step="load",
        example="0",
        help="Which page of a TIFF or frame of an animation to use, from 0.",
    ),
    Option(
        name="fm",
        aliases=("format", "output", "f"),
        kind=Choice(OUTPUTS, ALIASES_OF_OUTPUTS),
        step="encode",
        example="webp",
        help="Format of the result. Where it is absent, auto decides.",
    ),
    Option(
        name="auto",
        kind=Choice(("format", "avif", "none"), {}),
        default="format",
        step="encode",
        example="avif",
        help="Without fm. format: WebP where the request accepts it, else JPEG, or PNG where there "
        "is transparency; avif: AVIF first; none: the original's own format.",
    ),
    Option(
        name="q",
        aliases=("quality",),
        kind=Integer(1, 100),
        step="encode",
        example="80",
        help="Quality of JPEG and WebP (default 80) and of AVIF (default 50).",
    ),
    Option(
        name="lossless",
        kind=Flag(),
        default=False,
        step="encode",
        example="1",
        help="Lossless WebP or AVIF.",
    ),
    Option(
        name="effort",
        kind=Integer(0, 9),
        default=2,
        step="encode",
        example="4",
        help="Processor time spent on small files, 0 (quick) to 9 (small): WebP effort (at most "
        "6), AVIF effort, PNG compression, GIF effort; for JPEG optimised tables from 1 and "
        "trellis quantisation from 7.",
    ),
    Option(
        name="progressive",
        kind=Flag(),
        default=False,
        step="encode",
        example="1",
        help="Progressive JPEG or interlaced PNG.",
    ),
    Option(
        name="meta",
        kind=Choice(("none", "copyright", "keep"), {}),
        default="copyright",
        step="encode",
        example="none",
        help="Metadata that survives: none, the EXIF copyright and artist, or all of it (keep), "
        "places included.",
    ),
)

BY_NAME: Final[Mapping[str, Option]] = {o.name: o for o in OPTIONS}
BY_SPELLING: Final[Mapping[str, Option]] = {s: o for o in OPTIONS for s in o.spellings}

if len(BY_SPELLING) != sum(len(option.spellings) for option in OPTIONS):
    raise AssertionError("two options share a spelling")
