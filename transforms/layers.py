r"""What is laid over a picture: watermarks and text, and how they are written in one parameter.

A parameter holds one to four layers, separated by `|`. A layer is a first part (the id of an
original, or the words of a text) and then parts `name=value`, all separated by commas:

    brand/logo.png,gravity=southeast,x=10,y=10,scale=0.2,opacity=0.6
    Hello world,size=32,color=fff,gravity=south

A backslash makes the next sign plain (`\,` `\|` `\\`); `\n` is a line break. A point, which
elsewhere is `x,y`, is written `x:y` here.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Final

from transforms.compounds import ColourKind, GravityKind
from transforms.kinds import (
    BadValue,
    Choice,
    Flag,
    Integer,
    Kind,
    Number,
    nearest,
    refuse,
    show_decimal,
)
from transforms.values import COMPASS, TRANSPARENT, Colour, Gravity

MOST_LAYERS: Final = 4
MOST_WORDS: Final = 500
"""The longest text in characters (Unicode code points)."""

MOST_ID: Final = 1024
"""The longest id of an original in bytes of UTF-8."""

MOST_TEXT: Final = 8192
"""The longest value of a parameter of layers in characters."""

BLENDS: Final = (
    "over",
    "multiply",
    "screen",
    "overlay",
    "darken",
    "lighten",
    "soft-light",
    "difference",
)
"""Modes of blending as CSS `mix-blend-mode` names them; `over` is its `normal`."""

_BLACK: Final = Colour(0, 0, 0)
_ZERO: Final = Decimal(0)
_ONE: Final = Decimal(1)
_SIX_NINES: Final = Decimal("0.999999")


@dataclass(frozen=True, slots=True)
class Length:
    """A length in pixels before dpr, or in fractions of the result's width or height."""

    value: Decimal = _ZERO
    fractional: bool = False


@dataclass(frozen=True, slots=True)
class Watermark:
    """An original that is laid over the picture.

    `original` is its id. `x` and `y` lead away from the edges that `gravity` names, to the right
    and down where it names none. `scale` is the share of the result's box that the mark is fitted
    into; 0 means its own size times dpr, as far as the result has room. With `tile` it is repeated
    in both directions, `gap` pixels apart.
    """

    original: str
    gravity: Gravity = COMPASS["southeast"]
    x: Length = Length()
    y: Length = Length()
    scale: Decimal = _ZERO
    opacity: Decimal = _ONE
    blend: str = "over"
    tile: bool = False
    gap: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """Words that are written over the picture, exactly as they stand.

    `size`, `padding` and `outline_width` are in pixels before dpr. Lines are wrapped at `width`.
    `align` is about the lines of one text; where they stand is for `gravity`, `x` and `y`, as for
    watermarks. `background` fills a box that is `padding` wider than the text on every side; where
    it is transparent there is neither.
    """

    words: str
    font: str = "sans"
    weight: str = "normal"
    italic: bool = False
    size: int = 32
    colour: Colour = _BLACK
    align: str = "left"
    width: Length = Length(Decimal("0.9"), fractional=True)
    background: Colour = TRANSPARENT
    padding: int = 8
    outline: Colour = TRANSPARENT
    outline_width: int = 2
    gravity: Gravity = COMPASS["center"]
    x: Length = Length()
    y: Length = Length()
    opacity: Decimal = _ONE


@dataclass(frozen=True, slots=True)
class LengthKind:
    """A whole number of pixels, or with a decimal point a fraction of a side of the result."""

    pixels: Integer
    fraction: Number

    @property
    def expects(self) -> str:
        low, high = show_decimal(self.fraction.low), show_decimal(self.fraction.high)
        return f"{self.pixels.expects} pixels, or with a decimal point a fraction {low} to {high}"

    def read(self, text: str) -> Length:
        kind = self.fraction if "." in text else self.pixels
        try:
            value = Decimal(kind.read(text))
        except BadValue:
            raise refuse(self, text) from None
        return Length(value, fractional=kind is self.fraction) if value else Length()

    def show(self, value: Length) -> str:
        text = show_decimal(value.value)
        return f"{text}.0" if value.fractional and "." not in text else text

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self.pixels.schema(), self.fraction.schema()]}


@dataclass(frozen=True, slots=True)
class AnchorKind:
    """A compass point or one point `x:y`: the places of `gravity` that need no look at pixels."""

    @property
    def expects(self) -> str:
        return f"{', '.join(COMPASS)} or x:y in 0..1"

    def read(self, text: str) -> Gravity:
        if "," in text or text.count(":") > 1:
            raise refuse(self, text)
        try:
            gravity = GravityKind().read(text.replace(":", ","))
        except BadValue as error:
            known = error.suggestion if error.suggestion in COMPASS else None
            raise refuse(self, text, known) from None
        if gravity.by_content:
            raise refuse(self, text)
        return gravity

    def show(self, value: Gravity) -> str:
        return GravityKind().show(value).replace(",", ":")

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": 32}


@dataclass(frozen=True, slots=True)
class ShareKind:
    """A share of the result's box, or 0 for the mark's own size."""

    share: Number

    @property
    def expects(self) -> str:
        return f"{self.share.expects}, or 0 for its own size"

    def read(self, text: str) -> Decimal:
        if text == "0":
            return _ZERO
        try:
            return self.share.read(text)
        except BadValue:
            raise refuse(self, text) from None

    def show(self, value: Decimal) -> str:
        return self.share.show(value)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "integer", "enum": [0]}, self.share.schema()]}


@dataclass(frozen=True, slots=True)
class FontKind:
    """The name of a family of fonts. Which there are is for the machine; it finds the nearest."""

    @property
    def expects(self) -> str:
        return "a font family of letters, digits, spaces and hyphens, at most 64"

    def read(self, text: str) -> str:
        if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9 -]{0,63}", text):
            raise refuse(self, text)
        return text

    def show(self, value: str) -> str:
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9 -]{0,63}$"}


@dataclass(frozen=True, slots=True)
class OriginalKind:
    """The id of an original. Whether there is one by this id, only the store can tell."""

    @property
    def expects(self) -> str:
        return f"1 to {MOST_ID} bytes without control characters"

    def read(self, text: str) -> str:
        if not text or _unprintable(text) or len(text.encode()) > MOST_ID:
            raise refuse(self, text)
        return text

    def show(self, value: str) -> str:
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": MOST_ID}


@dataclass(frozen=True, slots=True)
class WordingKind:
    """The words of a text. Space round them means nothing."""

    @property
    def expects(self) -> str:
        return f"1 to {MOST_WORDS} characters, none of them control characters"

    def read(self, text: str) -> str:
        words = text.strip()
        if not words or len(words) > MOST_WORDS or _unprintable(words.replace("\n", "")):
            raise refuse(self, text)
        return words

    def show(self, value: str) -> str:
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": MOST_WORDS}


def _unprintable(text: str) -> bool:
    """Whether it has control characters, or halves of surrogate pairs, which UTF-8 has not."""
    return any(unicodedata.category(sign) in ("Cc", "Cs") for sign in text)


@dataclass(frozen=True, slots=True)
class LayerPart:
    """A part of a layer: the field it fills, its kind, and its spellings, of which one is shown."""

    field: str
    kind: Kind
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LayersKind:
    """One to four layers of one type, each a first part and then parts `name=value`."""

    make: type[Watermark | Text]
    first: LayerPart
    parts: tuple[LayerPart, ...]
    example: str

    @property
    def expects(self) -> str:
        names = ", ".join(part.names[0] for part in self.parts)
        return (
            f"1 to {MOST_LAYERS} layers separated by vertical bars, such as {self.example}; "
            f"its parts are {names}"
        )

    def read(self, text: str) -> tuple[Any, ...]:
        if len(text) > MOST_TEXT:
            raise BadValue(f"must have at most {MOST_TEXT} characters, got {len(text)}")
        layers = _split(text)
        if len(layers) > MOST_LAYERS:
            raise BadValue(f"must have 1 to {MOST_LAYERS} layers, got {len(layers)}")
        return tuple(self._read_layer(*layer) for layer in layers)

    def _read_layer(self, first: str, *others: str) -> Any:
        values = {self.first.field: _read_part(self.first, first)}
        known = {name: part for part in self.parts for name in part.names}
        for other in others:
            name, _, value = (word.strip() for word in other.partition("="))
            part = known.get(name.lower())
            if part is None:
                names = ", ".join(part.names[0] for part in self.parts)
                raise BadValue(
                    f"has no part {name[:64]!r}; there are {names} (a comma within "
                    f"{self.first.names[0]} is written \\,)",
                    nearest(name[:64], known),
                )
            if part.field in values:
                raise BadValue(f"{part.names[0]} is given twice")
            values[part.field] = _read_part(part, value)
        return self.make(**values)

    def show(self, value: tuple[Any, ...]) -> str:
        return "|".join(self._show_layer(layer) for layer in value)

    def _show_layer(self, layer: Watermark | Text) -> str:
        defaults = {field.name: field.default for field in fields(self.make)}
        shown = [_escape(self.first.kind.show(getattr(layer, self.first.field)))]
        for part in self.parts:
            value = getattr(layer, part.field)
            if value != defaults[part.field]:
                shown.append(f"{part.names[0]}={part.kind.show(value)}")
        return ",".join(shown)

    def schema(self) -> dict[str, Any]:
        # Its parts are checked when it is read.
        return {"type": "string", "minLength": 1, "maxLength": MOST_TEXT}


def _read_part(part: LayerPart, text: str) -> Any:
    try:
        return part.kind.read(text)
    except BadValue as error:
        raise BadValue(f"{part.names[0]} {error}", error.suggestion) from None


def _split(text: str) -> list[list[str]]:
    """The parts of each layer, with what backslashes made plain. Raises BadValue."""
    layers = [[""]]
    signs = iter(text)
    for sign in signs:
        if sign == "|":
            layers.append([""])
        elif sign == ",":
            layers[-1].append("")
        elif sign == "\\":
            plain = next(signs, None)
            if plain is None:
                raise BadValue("must not end in a backslash, which makes the next sign plain")
            layers[-1][-1] += "\n" if plain == "n" else plain
        else:
            layers[-1][-1] += sign
    return layers


def _escape(text: str) -> str:
    return re.sub(r"([\\,|])", r"\\\1", text).replace("\n", r"\n")


_OPACITY: Final = Number(_ZERO, _ONE)
_OFFSET: Final = LengthKind(Integer(-8192, 8192), Number(-_SIX_NINES, _SIX_NINES))
_PLACE: Final = (
    LayerPart("gravity", AnchorKind(), ("gravity", "g")),
    LayerPart("x", _OFFSET, ("x",)),
    LayerPart("y", _OFFSET, ("y",)),
)

WATERMARKS: Final = LayersKind(
    Watermark,
    LayerPart("original", OriginalKind(), ("id",)),
    (
        *_PLACE,
        LayerPart("scale", ShareKind(Number(Decimal("0.01"), _ONE)), ("scale",)),
        LayerPart("opacity", _OPACITY, ("opacity",)),
        LayerPart("blend", Choice(BLENDS, {"normal": "over"}), ("blend",)),
        LayerPart("tile", Flag(), ("tile",)),
        LayerPart("gap", Integer(0, 1000), ("gap",)),
    ),
    example="brand/logo.png,gravity=southeast,x=10,y=10,scale=0.2,opacity=0.6",
)
"""The kind of `watermark`: a tuple of `Watermark`."""

TEXTS: Final = LayersKind(
    Text,
    LayerPart("words", WordingKind(), ("words",)),
    (
        LayerPart("font", FontKind(), ("font",)),
        LayerPart("weight", Choice(("normal", "bold"), {}), ("weight",)),
        LayerPart("italic", Flag(), ("italic",)),
        LayerPart("size", Integer(6, 500), ("size",)),
        LayerPart("colour", ColourKind(), ("color", "colour")),
        LayerPart("align", Choice(("left", "center", "right"), {"centre": "center"}), ("align",)),
        LayerPart(
            "width", LengthKind(Integer(1, 8192), Number(Decimal("0.01"), _ONE)), ("width", "w")
        ),
        LayerPart("background", ColourKind(), ("bg", "background")),
        LayerPart("padding", Integer(0, 500), ("padding",)),
        LayerPart("outline", ColourKind(), ("outline",)),
        LayerPart("outline_width", Integer(1, 4), ("outline-width", "outline_width")),
        *_PLACE,
        LayerPart("opacity", _OPACITY, ("opacity",)),
    ),
    example="Hello world,size=32,color=fff,gravity=south",
)
"""The kind of `text`: a tuple of `Text`."""
