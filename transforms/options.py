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

from transforms.compounds import (
    ColourKind,
    Either,
    ExtentKind,
    GravityKind,
    IdsKind,
    Part,
    Parts,
    QualityKind,
    RectKind,
    SidesKind,
    TileKind,
    WordsKind,
)
from transforms.kinds import Angle, Bytes, Choice, Flag, Integer, Kind, Number
from transforms.layers import TEXTS, WATERMARKS
from transforms.values import COMPASS, Border, Duotone, Level, Shadow, Sharpen, Sides, Trim

MAX_SIDE: Final = 8192
"""The largest width or height in pixels that can be asked for."""

MAX_MERGED: Final = 25
"""The most originals that are merged to one picture."""

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
    is_length: bool = False
    """Whether it is in pixels of the result, so that dpr multiplies it."""

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
_COLOUR = ColourKind()
_SHIFT = Number(Decimal(-100), Decimal(100))
_SHARE = Number(Decimal(0), Decimal(100), empty=Decimal(100))

OPTIONS: Final[tuple[Option, ...]] = (
    Option(
        name="w",
        is_length=True,
        aliases=("width",),
        kind=_SIDE,
        step="resize",
        example="200",
        help="Width of the box in pixels.",
    ),
    Option(
        name="h",
        is_length=True,
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
        is_length=True,
        kind=_SIDE,
        step="resize",
        example="100",
        help="The picture is scaled to at least this wide, enlarged if it must be; what then "
        "exceeds the box is cropped.",
    ),
    Option(
        name="min-h",
        is_length=True,
        kind=_SIDE,
        step="resize",
        example="100",
        help="The picture is scaled to at least this high, as with min-w.",
    ),
    Option(
        name="max-w",
        is_length=True,
        kind=_SIDE,
        step="resize",
        example="1200",
        help="The result is at most this wide: all of it shrinks in proportion, canvas and "
        "padding included.",
    ),
    Option(
        name="max-h",
        is_length=True,
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
        name="trim",
        kind=Parts(
            Trim,
            (Part(field="threshold", kind=Integer(0, 255)), Part(field="colour", kind=_COLOUR)),
            required=0,
        ),
        step="trim",
        example="10",
        help="Cut a border of one colour off, before anything else: what differs from it by at "
        "most the threshold (10 where none is named). The colour is that of the top left pixel "
        "unless named.",
    ),
    Option(
        name="gravity",
        aliases=("g",),
        kind=GravityKind(),
        default=COMPASS["center"],
        step="canvas",
        example="north",
        help="What stays in sight when cropping, and where the picture sits on its canvas: a "
        "compass point, a focal point x,y in 0..1 or several, attention (what catches the eye) or "
        "entropy (where most is going on).",
    ),
    Option(
        name="extent",
        is_length=True,
        kind=ExtentKind(_SIDE),
        step="canvas",
        example="300x300",
        help="Put the resized picture on a canvas of exactly this size, held by gravity; what is "
        "larger is cropped.",
    ),
    Option(
        name="padding",
        is_length=True,
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
        kind=Either(("auto", "blur"), _COLOUR, {"dominant": "auto"}),
        step="canvas",
        example="f5f5f5",
        help="Colour of canvas and padding, and of what shines through: a CSS name, hex (3, 4, 6 "
        "or 8 digits), rgb(r,g,b) or none; auto is the picture's dominant colour, and blur the "
        "picture itself, blurred. Where it is absent, canvases are white and pictures without "
        "canvas keep their transparency.",
    ),
    Option(
        name="border",
        is_length=True,
        kind=Parts(
            Border,
            (
                Part(field="width", kind=Integer(1, 500), is_length=True),
                Part(field="colour", kind=_COLOUR),
            ),
            required=1,
        ),
        step="frame",
        example="2,gold",
        help="A line round canvas and padding, as in CSS: its width in pixels and its colour "
        "(black where none is named). It adds to the size.",
    ),
    Option(
        name="round",
        is_length=True,
        aliases=("radius",),
        kind=Either(("full",), _SIDE, {"circle": "full", "max": "full"}),
        step="frame",
        example="24",
        help="Round the corners, border included: a radius in pixels, or full for a circle (on a "
        "square) or a pill. What is cut away is transparent, or background in a format without "
        "transparency.",
    ),
    Option(
        name="shadow",
        is_length=True,
        kind=Parts(
            Shadow,
            (
                Part(field="x", kind=Integer(-200, 200), is_length=True),
                Part(field="y", kind=Integer(-200, 200), is_length=True),
                Part(field="blur", kind=Integer(0, 200), is_length=True),
                Part(field="colour", kind=_COLOUR),
            ),
            required=0,
        ),
        step="frame",
        example="0,8,24,00000066",
        help="A shadow under the picture with its border and corners: x, y, blur and colour, as in "
        "CSS box-shadow. It adds what room it needs to the size.",
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
        name="normalize",
        aliases=("normalise",),
        kind=Flag(),
        default=False,
        step="tone",
        example="1",
        help="Stretch the contrast over the full scale, but for the very darkest and lightest.",
    ),
    Option(
        name="level",
        kind=Parts(
            Level,
            (
                Part(field="black", kind=Number(Decimal(0), Decimal(100))),
                Part(field="white", kind=Number(Decimal(0), Decimal(100))),
                Part(field="gamma", kind=Number(Decimal("0.1"), Decimal(10))),
            ),
            required=2,
        ),
        step="tone",
        example="10,90,1.2",
        help="What becomes black and what white, in percent of full scale, and the gamma between.",
    ),
    Option(
        name="gamma",
        kind=Number(Decimal("0.1"), Decimal(10)),
        default=Decimal(1),
        step="tone",
        example="1.4",
        help="Gamma: above 1 lightens the middle tones, below 1 darkens them.",
    ),
    Option(
        name="brightness",
        aliases=("bri",),
        kind=_SHIFT,
        default=Decimal(0),
        step="tone",
        example="10",
        help="Lighter or darker.",
    ),
    Option(
        name="contrast",
        aliases=("con",),
        kind=_SHIFT,
        default=Decimal(0),
        step="tone",
        example="15",
        help="More or less contrast.",
    ),
    Option(
        name="saturation",
        aliases=("sat",),
        kind=_SHIFT,
        default=Decimal(0),
        step="tone",
        example="-50",
        help="More or less colour; -100 is grey.",
    ),
    Option(
        name="hue",
        kind=Number(Decimal(-360), Decimal(360)),
        default=Decimal(0),
        step="tone",
        example="90",
        help="Turn the colours, in degrees.",
    ),
    Option(
        name="grayscale",
        aliases=("greyscale", "gray", "grey"),
        kind=Flag(),
        default=False,
        step="tone",
        example="1",
        help="Shades of grey.",
    ),
    Option(
        name="sepia",
        kind=_SHARE,
        default=Decimal(0),
        step="tone",
        example="80",
        help="Brown as an old print; without a value, wholly.",
    ),
    Option(
        name="tint",
        kind=_COLOUR,
        step="tone",
        example="teal",
        help="Everything in the shades of one colour, as light and dark as it was.",
    ),
    Option(
        name="duotone",
        kind=Parts(
            Duotone,
            (Part(field="dark", kind=_COLOUR), Part(field="light", kind=_COLOUR)),
            required=2,
        ),
        step="tone",
        example="192550,ffd500",
        help="Two colours: what black and what white become.",
    ),
    Option(
        name="invert",
        aliases=("negate",),
        kind=Flag(),
        default=False,
        step="tone",
        example="1",
        help="The negative.",
    ),
    Option(
        name="sketch",
        kind=Flag(),
        default=False,
        step="effects",
        example="1",
        help="A pencil sketch: edges, negated, normalised, grey, a little blurred.",
    ),
    Option(
        name="charcoal",
        is_length=True,
        kind=Number(Decimal("0.1"), Decimal(20), empty=Decimal(1)),
        step="effects",
        example="1",
        help="A charcoal drawing; the number is the width of its strokes, 1 without one.",
    ),
    Option(
        name="pixelate",
        is_length=True,
        kind=Integer(2, MAX_SIDE),
        step="effects",
        example="12",
        help="Blocks of this many pixels a side.",
    ),
    Option(
        name="blur",
        is_length=True,
        kind=Number(Decimal("0.1"), Decimal(250)),
        step="effects",
        example="8",
        help="Gaussian blur: its standard deviation in pixels.",
    ),
    Option(
        name="sharpen",
        is_length=True,
        aliases=("unsharp",),
        kind=Parts(
            Sharpen,
            (
                Part(field="sigma", kind=Number(Decimal("0.1"), Decimal(20)), is_length=True),
                Part(field="amount", kind=Number(Decimal(0), Decimal(10))),
                Part(field="threshold", kind=Number(Decimal(0), Decimal(1))),
            ),
            required=0,
        ),
        step="effects",
        example="1,0.8,0.02",
        help="Unsharp mask: sigma in pixels, amount, and the difference in 0..1 from which on it "
        "acts. Without a value 1,1,0.02.",
    ),
    Option(
        name="opacity",
        kind=Number(Decimal(0), Decimal(1)),
        default=Decimal(1),
        step="effects",
        example="0.5",
        help="Let the picture shine through, 0 to 1; canvas and padding stay.",
    ),
    Option(
        name="watermark",
        aliases=("wm",),
        kind=WATERMARKS,
        step="overlay",
        example="samples/emblem.png,scale=0.2,opacity=0.7",
        help="Originals of the store laid over the picture, each with parts name=value: gravity "
        "(default southeast), x and y (inwards, in pixels, or with a decimal point in fractions), "
        "scale (share of the box it fits into; else its own size), opacity, blend, tile and gap.",
    ),
    Option(
        name="text",
        kind=TEXTS,
        step="overlay",
        example="Hello world,size=40,color=fff,gravity=south,y=20,outline=000",
        help="Words over the picture, as they stand, each with parts name=value: font, weight, "
        "italic, size, color, align, width (where lines are wrapped), bg and padding of a box "
        "behind, outline and outline-width, gravity (default center), x, y, opacity.",
    ),
    Option(
        name="layer-dpr",
        kind=Number(Decimal("0.01"), Decimal(100)),
        default=Decimal(1),
        step="overlay",
        example="2",
        help="Multiplies what is given in pixels within watermarks and texts. dpr does so too.",
    ),
    Option(
        name="merge",
        kind=IdsKind(MAX_MERGED - 1),
        step="mosaic",
        example="samples/portrait-rotated.jpg|samples/emblem.png",
        help="Ids of more originals in the store: all are joined to one picture, in rows and "
        "columns from the top left, before anything else is done to it. Between and under them is "
        "the background, which is white where none is asked for.",
    ),
    Option(
        name="across",
        kind=Integer(1, MAX_MERGED),
        step="mosaic",
        example="2",
        help="How many merged originals are in a row; without it about as many as there are rows.",
    ),
    Option(
        name="cell",
        kind=ExtentKind(_SIDE),
        step="mosaic",
        example="300x200",
        help="Fit each merged original into a cell of this size, in its middle; without it each "
        "keeps its own size and rows are aligned at their top.",
    ),
    Option(
        name="gap",
        kind=Integer(0, 500),
        default=0,
        step="mosaic",
        example="8",
        help="Pixels of background between merged originals.",
    ),
    Option(
        name="tile",
        kind=TileKind(100),
        step="tile",
        example="3x2,0,1",
        help="Of the finished picture, cut into equal parts, only one: columns x rows, then its "
        "place from the left and from the top, from 0.",
    ),
    Option(
        name="page",
        kind=Integer(0, 9999),
        step="load",
        example="0",
        help="Which page of a TIFF or PDF or frame of an animation to use, from 0. Of an "
        "animation, that one only, unless frames says how many.",
    ),
    Option(
        name="frames",
        kind=Integer(1, 10_000),
        step="load",
        example="1",
        help="How many frames of an animation to keep; 1 makes it stand still. Without it all, "
        "where the result is GIF or WebP. Of equal frames in a row WebP keeps one, for as long as "
        "all of them.",
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
        kind=WordsKind(("format", "avif", "none"), ("smaller",)),
        default=("format",),
        step="encode",
        example="avif",
        help="Without fm. format: WebP where the request accepts it, else JPEG, or PNG where there "
        "is transparency, or GIF where it moves; avif: AVIF first; none: the original's own "
        "format. smaller: the original's own bytes, where they already are what is asked for, in "
        "size and format, and no larger.",
    ),
    Option(
        name="q",
        aliases=("quality",),
        kind=QualityKind(Integer(50, 95)),
        step="encode",
        example="80",
        help="Quality of JPEG and WebP (default 80) and of AVIF (default 50). auto: the lowest one "
        "that still looks the same, by a target on a scale like that of SSIMULACRA 2 (90 is very "
        "high, 80 high, 70 medium; 80 without one).",
    ),
    Option(
        name="max-bytes",
        kind=Bytes(1000, 100_000_000),
        step="encode",
        example="50k",
        help="The best quality, up to q, whose file is at most this large: for JPEG, WebP and "
        "AVIF.",
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
        "6), AVIF effort, PNG compression, GIF effort; for JPEG optimised tables from 1 (beyond a "
        "megapixel only where they save much, or from 5) and trellis quantisation from 7.",
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
        name="hdr",
        kind=Choice(("keep", "drop"), {}),
        default="keep",
        step="encode",
        example="drop",
        help="What becomes of the gain map of an Ultra HDR JPEG whose result is a JPEG.",
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
