"""The kinds of value that have parts: colours, places, sizes and lists of settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, Final

import webcolors

from transforms.kinds import (
    DECIMAL,
    INTEGER,
    BadValue,
    Integer,
    Kind,
    Scalable,
    nearest,
    refuse,
    round_half_up,
    show_decimal,
)
from transforms.values import (
    COMPASS,
    TRANSPARENT,
    AutoQuality,
    Colour,
    Extent,
    Gravity,
    Rect,
    Sides,
    Tile,
)

_HEX_DIGITS: Final = re.compile(r"#?([0-9a-f]{3}|[0-9a-f]{4}|[0-9a-f]{6}|[0-9a-f]{8})", re.ASCII)
_RGB: Final = re.compile(r"rgba?\(([0-9., %]+)\)", re.ASCII)
_COMMA: Final = re.compile(r",(?![^(]*\))")
"""A comma that is not within the brackets of rgb()."""


def split_unescaped(text: str, separator: str) -> list[str]:
    """Split at a separator of one sign; a backslash makes the sign after it plain."""
    parts = [""]
    signs = iter(text)
    for sign in signs:
        if sign == "\\":
            parts[-1] += next(signs, "")
        elif sign == separator:
            parts.append("")
        else:
            parts[-1] += sign
    return parts


@dataclass(frozen=True, slots=True)
class ColourKind:
    """A CSS colour name, hex digits (3, 4, 6 or 8), `rgb(r,g,b)`, `rgb(r,g,b,a)` or `none`."""

    @property
    def expects(self) -> str:
        return "a CSS colour name, hex digits (fff, ffff, ffffff, ffffffff), rgb(r,g,b) or none"

    def read(self, text: str) -> Colour:
        word = text.strip().lower()
        if word in ("none", "transparent"):
            return TRANSPARENT
        if match := _HEX_DIGITS.fullmatch(word):
            digits = match[1] if len(match[1]) >= 6 else "".join(d * 2 for d in match[1])
            red, green, blue, *alpha = bytes.fromhex(digits)
            return self._whole(Colour(red, green, blue, alpha[0] if alpha else 255))
        if match := _RGB.fullmatch(word):
            return self._read_rgb(text, match[1])
        if word == "rebeccapurple":  # CSS 4; the library stops at CSS 3
            return Colour(102, 51, 153)
        try:
            named = webcolors.name_to_rgb(word)
        except ValueError:
            raise refuse(self, text, nearest(word, webcolors.names())) from None
        return Colour(named.red, named.green, named.blue)

    def _read_rgb(self, text: str, inner: str) -> Colour:
        parts = [part.strip() for part in re.split(r"[ ,]+", inner.strip())]
        if len(parts) not in (3, 4) or not all(INTEGER.fullmatch(part) for part in parts[:3]):
            raise refuse(self, text)
        channels = [int(part) for part in parts[:3]]
        alpha = 255
        if len(parts) == 4:
            if not DECIMAL.fullmatch(parts[3]) or Decimal(parts[3]) > 1:
                raise refuse(self, text)
            alpha = round_half_up(Decimal(parts[3]) * 255)
        if not all(0 <= channel <= 255 for channel in channels):
            raise refuse(self, text)
        red, green, blue = channels
        return self._whole(Colour(red, green, blue, alpha))

    @staticmethod
    def _whole(colour: Colour) -> Colour:
        # What cannot be seen has no colour, so that it has one name.
        return colour if colour.alpha else TRANSPARENT

    def show(self, value: Colour) -> str:
        if value == TRANSPARENT:
            return "none"
        digits = f"{value.red:02x}{value.green:02x}{value.blue:02x}"
        return digits if value.opaque else f"{digits}{value.alpha:02x}"

    def schema(self) -> dict[str, Any]:
        return {
            "type": "string",
            "maxLength": 64,
            "pattern": r"^(#?([0-9a-fA-F]{3}|[0-9a-fA-F]{4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})"
            r"|rgba?\([0-9., %]+\)|[A-Za-z]+)$",
        }


_MOST_POINTS: Final = 8
INTERESTS: Final = ("attention", "entropy")
_GRAVITY_ALIASES: Final = {
    "centre": "center",
    "middle": "center",
    "c": "center",
    "n": "north",
    "top": "north",
    "s": "south",
    "bottom": "south",
    "e": "east",
    "right": "east",
    "w": "west",
    "left": "west",
    "ne": "northeast",
    "nw": "northwest",
    "se": "southeast",
    "sw": "southwest",
    "smart": "attention",
}  # fmt: skip - a table reads better in columns


@dataclass(frozen=True, slots=True)
class GravityKind:
    """A compass point, one to eight points `x,y` in 0..1, `attention` or `entropy`.

    Several points mean the middle of the box round them: a window placed there shows all of them,
    or as many as it can.
    """

    @property
    def expects(self) -> str:
        return f"{', '.join(COMPASS)}, x,y (or several, x,y,x,y) in 0..1, attention or entropy"

    def read(self, text: str) -> Gravity:
        word = text.strip().lower()
        word = _GRAVITY_ALIASES.get(word, word)
        if word in COMPASS:
            return COMPASS[word]
        if word in INTERESTS:
            return Gravity(interest=word)
        parts = word.split(",")
        if len(parts) in range(2, 2 * _MOST_POINTS + 1, 2) and all(
            DECIMAL.fullmatch(part) and Decimal(part) <= 1 for part in parts
        ):
            points = [Decimal(part) for part in parts]
            return Gravity(_middle(points[0::2]), _middle(points[1::2]))
        known = [*COMPASS, *_GRAVITY_ALIASES, *INTERESTS]
        raise refuse(self, text, nearest(word, known))

    def show(self, value: Gravity) -> str:
        if value.interest:
            return value.interest
        for name, gravity in COMPASS.items():
            if gravity == value:
                return name
        return f"{show_decimal(value.x)},{show_decimal(value.y)}"

    def schema(self) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "string", "enum": [*COMPASS, *_GRAVITY_ALIASES, *INTERESTS]},
                {"type": "string", "pattern": r"^(0(\.\d{1,6})?|1),(0(\.\d{1,6})?|1)$"},
            ]
        }


def _middle(values: list[Decimal]) -> Decimal:
    return ((min(values) + max(values)) / 2).quantize(Decimal("0.000001")).normalize() + 0


@dataclass(frozen=True, slots=True)
class RectKind:
    """`x,y,width,height`: whole numbers are pixels; with a decimal point, fractions in 0..1."""

    @property
    def expects(self) -> str:
        return "x,y,width,height in whole pixels, or with a decimal point in fractions 0..1"

    def read(self, text: str) -> Rect:
        parts = text.strip().split(",")
        if len(parts) != 4 or not all(DECIMAL.fullmatch(part) for part in parts):
            raise refuse(self, text)
        x, y, width, height = (Decimal(part) for part in parts)
        fractional = "." in text
        if not (width and height) or (fractional and max(x, y, width, height) > 1):
            raise refuse(self, text)
        return Rect(x.normalize(), y.normalize(), width.normalize(), height.normalize(), fractional)

    def show(self, value: Rect) -> str:
        parts = [show_decimal(part) for part in (value.x, value.y, value.width, value.height)]
        if value.fractional and not any("." in part for part in parts):
            parts[0] += ".0"
        return ",".join(parts)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": 64, "pattern": r"^[0-9.]+(,[0-9.]+){3}$"}


@dataclass(frozen=True, slots=True)
class ExtentKind:
    """`WIDTHxHEIGHT` in pixels."""

    side: Integer

    @property
    def expects(self) -> str:
        return f"WIDTHxHEIGHT, each {self.side.expects}"

    def read(self, text: str) -> Extent:
        parts = re.split("[x,]", text.strip().lower())
        try:
            width, height = (self.side.read(part) for part in parts)
        except ValueError:
            raise refuse(self, text) from None
        return Extent(width, height)

    def show(self, value: Extent) -> str:
        return f"{value.width}x{value.height}"

    def times(self, value: Extent, factor: Decimal) -> Extent:
        return Extent(self.side.times(value.width, factor), self.side.times(value.height, factor))

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]{1,5}[x,][0-9]{1,5}$"}


@dataclass(frozen=True, slots=True)
class SidesKind:
    """One to four widths in the order of CSS: top, right, bottom, left."""

    side: Integer

    @property
    def expects(self) -> str:
        return f"1 to 4 numbers (top,right,bottom,left), each {self.side.expects}"

    def read(self, text: str) -> Sides:
        parts = text.strip().split(",")
        try:
            widths = [self.side.read(part) for part in parts]
        except ValueError:
            raise refuse(self, text) from None
        match widths:
            case [every]:
                return Sides(every, every, every, every)
            case [vertical, horizontal]:
                return Sides(vertical, horizontal, vertical, horizontal)
            case [top, horizontal, bottom]:
                return Sides(top, horizontal, bottom, horizontal)
            case [top, right, bottom, left]:
                return Sides(top, right, bottom, left)
            case _:
                raise refuse(self, text)

    def times(self, value: Sides, factor: Decimal) -> Sides:
        sides = (value.top, value.right, value.bottom, value.left)
        return Sides(*(self.side.times(side, factor) for side in sides))

    def show(self, value: Sides) -> str:
        sides = (value.top, value.right, value.bottom, value.left)
        if len(set(sides)) == 1:
            return str(value.top)
        return ",".join(str(side) for side in sides)

    def schema(self) -> dict[str, Any]:
        return {
            "anyOf": [
                self.side.schema(),
                {"type": "string", "pattern": r"^[0-9]{1,4}(,[0-9]{1,4}){0,3}$"},
            ]
        }


@dataclass(frozen=True, slots=True)
class Either:
    """One of a few words, or a value of another kind. A name without a value means `empty`."""

    words: tuple[str, ...]
    other: Kind
    aliases: Mapping[str, str]
    empty: str | None = None

    @property
    def expects(self) -> str:
        return f"{', '.join(self.words)} or {self.other.expects}"

    def read(self, text: str) -> Any:
        word = text.strip().lower()
        if not word and self.empty is not None:
            return self.empty
        word = self.aliases.get(word, word)
        if word in self.words:
            return word
        try:
            return self.other.read(text)
        except BadValue as error:
            raise refuse(self, text, error.suggestion) from None

    def show(self, value: Any) -> str:
        return value if isinstance(value, str) else self.other.show(value)

    def times(self, value: Any, factor: Decimal) -> Any:
        if isinstance(value, str) or not isinstance(self.other, Scalable):
            return value
        return self.other.times(value, factor)

    def schema(self) -> dict[str, Any]:
        words = {"type": "string", "enum": [*self.words, *self.aliases]}
        return {"anyOf": [words, self.other.schema()]}


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of a list: the field of the value that it fills, and its kind."""

    field: str
    kind: Kind
    is_length: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """Values of several kinds, separated by commas. Those with a default may be missing at the end.

    `make` is the dataclass of the whole; its fields without a default are `required`.
    """

    make: Callable[..., Any]
    parts: tuple[Part, ...]
    required: int

    @property
    def expects(self) -> str:
        names = [part.field for part in self.parts]
        listed = ",".join(names[: self.required])
        for name in names[self.required :]:
            listed += f"[,{name}]" if listed else f"[{name}"
        listed += "]" if not self.required else ""
        meanings = "; ".join(f"{part.field}: {part.kind.expects}" for part in self.parts)
        return f"{listed} ({meanings})"

    def read(self, text: str) -> Any:
        given = _COMMA.split(text.strip()) if text.strip() else []
        if not self.required <= len(given) <= len(self.parts):
            raise refuse(self, text)
        values = {}
        for part, word in zip(self.parts, given, strict=False):
            try:
                values[part.field] = part.kind.read(word.strip())
            except BadValue as error:
                raise BadValue(f"has a {part.field} that {error}", error.suggestion) from None
        return self.make(**values)

    def show(self, value: Any) -> str:
        defaults = {field.name: field.default for field in fields(value)}
        shown = list(self.parts)
        while len(shown) > max(self.required, 1):
            last = shown[-1].field
            if getattr(value, last) != defaults[last]:
                break
            shown.pop()
        return ",".join(part.kind.show(getattr(value, part.field)) for part in shown)

    def times(self, value: Any, factor: Decimal) -> Any:
        fields = {part.field: getattr(value, part.field) for part in self.parts}
        for part in self.parts:
            if part.is_length and isinstance(part.kind, Scalable):
                fields[part.field] = part.kind.times(fields[part.field], factor)
        return self.make(**fields)

    def schema(self) -> dict[str, Any]:
        # Commas make it a string; its parts are checked when it is read.
        return {"type": "string", "maxLength": 128, "pattern": r"^[0-9A-Za-z#(),. %+-]*$"}


@dataclass(frozen=True, slots=True)
class TileKind:
    """`COLUMNSxROWS,column,row`: which of so many equal parts, both places from 0."""

    most: int

    @property
    def expects(self) -> str:
        return f"COLUMNSxROWS,column,row, such as 3x2,0,1: at most {self.most} each, places from 0"

    def read(self, text: str) -> Tile:
        parts = re.split("[x,]", text.strip().lower())
        if len(parts) != 4 or not all(part.isascii() and part.isdigit() for part in parts):
            raise refuse(self, text)
        columns, rows, column, row = (int(part[:6]) for part in parts)
        if not (column < columns <= self.most and row < rows <= self.most):
            raise refuse(self, text)
        return Tile(columns, rows, column, row)

    def show(self, value: Tile) -> str:
        return f"{value.columns}x{value.rows},{value.column},{value.row}"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]{1,3}x[0-9]{1,3},[0-9]{1,3},[0-9]{1,3}$"}


@dataclass(frozen=True, slots=True)
class QualityKind:
    """1 to 100, or `auto`, `auto:TARGET`: the lowest that is that much like the picture."""

    targets: Integer

    @property
    def expects(self) -> str:
        return f"1 to 100, or auto, or auto:TARGET with a target of {self.targets.expects}"

    def read(self, text: str) -> int | AutoQuality:
        word, colon, target = text.strip().lower().partition(":")
        if word != "auto":
            try:
                return Integer(1, 100).read(text)
            except BadValue:
                raise refuse(self, text) from None
        if not colon:
            return AutoQuality()
        try:
            return AutoQuality(self.targets.read(target))
        except BadValue:
            raise refuse(self, text) from None

    def show(self, value: int | AutoQuality) -> str:
        return f"auto:{value.target}" if isinstance(value, AutoQuality) else str(value)

    def schema(self) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 100},
                {"type": "string", "pattern": r"^auto(:(5[0-9]|[6-8][0-9]|9[0-5]))?$"},
            ]
        }


@dataclass(frozen=True, slots=True)
class WordsKind:
    """Some words of a few, separated by commas; of some groups, one at most."""

    alternatives: tuple[str, ...]
    additions: tuple[str, ...]

    @property
    def expects(self) -> str:
        return f"one of {', '.join(self.alternatives)}, and perhaps {', '.join(self.additions)}"

    def read(self, text: str) -> tuple[str, ...]:
        words = [word.strip() for word in text.lower().split(",")]
        chosen = [word for word in words if word in self.alternatives]
        known = [*self.alternatives, *self.additions]
        for word in words:
            if word not in known:
                raise refuse(self, text, nearest(word, known))
        if len(chosen) > 1 or len(set(words)) < len(words):
            raise refuse(self, text)
        return (*(chosen or self.alternatives[:1]), *sorted(set(words) - set(chosen)))

    def show(self, value: tuple[str, ...]) -> str:
        return ",".join(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": [*self.alternatives, *self.additions]}


def _is_name(text: str) -> bool:
    """Whether it can be an id: not empty, and text that UTF-8 has, without halves of surrogates."""
    return bool(text) and not any("\ud800" <= sign <= "\udfff" for sign in text)


@dataclass(frozen=True, slots=True)
class IdsKind:
    """Ids of originals in the store, separated by `|`; a backslash makes the next sign plain."""

    most: int

    @property
    def expects(self) -> str:
        return f"1 to {self.most} ids of originals, separated by |"

    def read(self, text: str) -> tuple[str, ...]:
        ids = tuple(split_unescaped(text, "|"))
        if not 1 <= len(ids) <= self.most or not all(map(_is_name, ids)):
            raise refuse(self, text)
        return ids

    def show(self, value: tuple[str, ...]) -> str:
        return "|".join(re.sub(r"([\\|])", r"\\\1", part) for part in value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 1, "maxLength": 4096}
