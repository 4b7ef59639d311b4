"""The kinds of value that a parameter can take: how each is read, printed and described.

A kind turns text into a value and back. Printing is canonical: equal values print equally, and
what is printed reads back as the same value.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, Protocol

import webcolors

_DECIMAL = re.compile(r"\d{1,6}(\.\d{1,6})?|\.\d{1,6}", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_HEX = re.compile(r"#?([0-9a-f]{3}|[0-9a-f]{4}|[0-9a-f]{6}|[0-9a-f]{8})", re.ASCII)
_RGB = re.compile(r"rgba?\(([0-9., %]+)\)", re.ASCII)


def nearest(text: str, known: Mapping[str, Any] | list[str] | tuple[str, ...]) -> str | None:
    """The known word that the text was most likely meant to be."""
    found = difflib.get_close_matches(text.lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


class BadValue(ValueError):
    """The text is not a value of this kind. The message completes the sentence "NAME ..."."""

    def __init__(self, message: str, suggestion: str | None = None) -> None:
        super().__init__(message)
        self.suggestion = suggestion


class Kind(Protocol):
    """One kind of value."""

    @property
    def expects(self) -> str:
        """What a value must look like, to complete "must be ..."."""

    def read(self, text: str) -> Any:
        """The value that the text stands for. Raises BadValue."""

    def show(self, value: Any) -> str:
        """The canonical text of a value."""

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of the value in a job or a POST body."""


def _refuse(kind: Kind, text: str, suggestion: str | None = None) -> BadValue:
    shown = text[:64] if text.isascii() and text.isalnum() else repr(text[:64])
    return BadValue(f"must be {kind.expects}, got {shown}", suggestion)


def show_decimal(value: Decimal) -> str:
    """A decimal without exponent and without trailing zeros."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def round_half_up(value: Decimal) -> int:
    """The nearest integer; a half goes up."""
    return int(value.to_integral_value(ROUND_HALF_UP))


@dataclass(frozen=True, slots=True)
class Integer:
    """A whole number between two bounds, both included."""

    low: int
    high: int

    @property
    def expects(self) -> str:
        return f"{self.low} to {self.high}"

    def read(self, text: str) -> int:
        if not _INTEGER.fullmatch(text) or not self.low <= int(text) <= self.high:
            raise _refuse(self, text)
        return int(text)

    def show(self, value: int) -> str:
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Number:
    """A decimal number between two bounds, both included, with at most six places."""

    low: Decimal
    high: Decimal

    @property
    def expects(self) -> str:
        return f"{show_decimal(self.low)} to {show_decimal(self.high)}"

    def read(self, text: str) -> Decimal:
        if not _DECIMAL.fullmatch(text) or not self.low <= Decimal(text) <= self.high:
            raise _refuse(self, text)
        return Decimal(text).normalize()

    def show(self, value: Decimal) -> str:
        return show_decimal(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "number", "minimum": float(self.low), "maximum": float(self.high)}


@dataclass(frozen=True, slots=True)
class Choice:
    """One word of a few. Other spellings of a word are accepted and never printed."""

    words: tuple[str, ...]
    aliases: Mapping[str, str]

    @property
    def expects(self) -> str:
        return "one of " + ", ".join(self.words)

    def read(self, text: str) -> str:
        word = text.lower()
        word = self.aliases.get(word, word)
        if word not in self.words:
            raise _refuse(self, text, nearest(text, [*self.words, *self.aliases]))
        return word

    def show(self, value: str) -> str:
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": [*self.words, *self.aliases]}


_YES: Final = ("1", "true", "yes", "on", "")
_NO: Final = ("0", "false", "no", "off")


@dataclass(frozen=True, slots=True)
class Flag:
    """Yes or no. A name without a value, as in `?enlarge`, means yes."""

    @property
    def expects(self) -> str:
        return "0 or 1"

    def read(self, text: str) -> bool:
        word = text.lower()
        if word not in _YES and word not in _NO:
            raise _refuse(self, text)
        return word in _YES

    def show(self, value: bool) -> str:  # noqa: FBT001 - the value of a flag is a truth value
        return "1" if value else "0"

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Angle:
    """A quarter turn clockwise, in degrees. Whole turns and negative angles fold into 0 to 270."""

    @property
    def expects(self) -> str:
        return "a multiple of 90"

    def read(self, text: str) -> int:
        if not _INTEGER.fullmatch(text) or int(text) % 90:
            raise _refuse(self, text)
        return int(text) % 360

    def show(self, value: int) -> str:
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "multipleOf": 90}


@dataclass(frozen=True, slots=True)
class Colour:
    """An sRGB colour: red, green, blue and alpha, each 0..255."""

    red: int
    green: int
    blue: int
    alpha: int = 255

    @property
    def opaque(self) -> bool:
        """Whether nothing shines through."""
        return self.alpha == 255


WHITE: Final = Colour(255, 255, 255)
TRANSPARENT: Final = Colour(0, 0, 0, 0)


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
        if match := _HEX.fullmatch(word):
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
            raise _refuse(self, text, nearest(word, webcolors.names())) from None
        return Colour(named.red, named.green, named.blue)

    def _read_rgb(self, text: str, inner: str) -> Colour:
        parts = [part.strip() for part in re.split(r"[ ,]+", inner.strip())]
        if len(parts) not in (3, 4) or not all(_INTEGER.fullmatch(part) for part in parts[:3]):
            raise _refuse(self, text)
        channels = [int(part) for part in parts[:3]]
        alpha = 255
        if len(parts) == 4:
            if not _DECIMAL.fullmatch(parts[3]) or Decimal(parts[3]) > 1:
                raise _refuse(self, text)
            alpha = round_half_up(Decimal(parts[3]) * 255)
        if not all(0 <= channel <= 255 for channel in channels):
            raise _refuse(self, text)
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


@dataclass(frozen=True, slots=True)
class Gravity:
    """Where a picture is held: by a point (x and y, each 0..1) or by what is in it."""

    x: Decimal = Decimal("0.5")
    y: Decimal = Decimal("0.5")
    interest: str | None = None

    @property
    def by_content(self) -> bool:
        """Whether the pixels decide (`attention`, `entropy`)."""
        return self.interest is not None


_HALF, _ONE, _ZERO = Decimal("0.5"), Decimal(1), Decimal(0)
COMPASS: Final[Mapping[str, Gravity]] = {
    "center": Gravity(_HALF, _HALF),
    "north": Gravity(_HALF, _ZERO),
    "south": Gravity(_HALF, _ONE),
    "east": Gravity(_ONE, _HALF),
    "west": Gravity(_ZERO, _HALF),
    "northeast": Gravity(_ONE, _ZERO),
    "northwest": Gravity(_ZERO, _ZERO),
    "southeast": Gravity(_ONE, _ONE),
    "southwest": Gravity(_ZERO, _ONE),
}
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
    """A compass point, `x,y` in 0..1, `attention` or `entropy`."""

    @property
    def expects(self) -> str:
        return f"{', '.join(COMPASS)}, x,y in 0..1, attention or entropy"

    def read(self, text: str) -> Gravity:
        word = text.strip().lower()
        word = _GRAVITY_ALIASES.get(word, word)
        if word in COMPASS:
            return COMPASS[word]
        if word in INTERESTS:
            return Gravity(interest=word)
        parts = word.split(",")
        if len(parts) == 2 and all(_DECIMAL.fullmatch(p) and Decimal(p) <= 1 for p in parts):
            return Gravity(Decimal(parts[0]).normalize(), Decimal(parts[1]).normalize())
        known = [*COMPASS, *_GRAVITY_ALIASES, *INTERESTS]
        raise _refuse(self, text, nearest(word, known))

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


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle of the upright picture: in pixels, or in fractions of its width and height."""

    x: Decimal
    y: Decimal
    width: Decimal
    height: Decimal
    fractional: bool


@dataclass(frozen=True, slots=True)
class RectKind:
    """`x,y,width,height`: whole numbers are pixels; with a decimal point, fractions in 0..1."""

    @property
    def expects(self) -> str:
        return "x,y,width,height in whole pixels, or with a decimal point in fractions 0..1"

    def read(self, text: str) -> Rect:
        parts = text.strip().split(",")
        if len(parts) != 4 or not all(_DECIMAL.fullmatch(part) for part in parts):
            raise _refuse(self, text)
        x, y, width, height = (Decimal(part) for part in parts)
        fractional = "." in text
        if not (width and height) or (fractional and max(x, y, width, height) > 1):
            raise _refuse(self, text)
        return Rect(x.normalize(), y.normalize(), width.normalize(), height.normalize(), fractional)

    def show(self, value: Rect) -> str:
        parts = [show_decimal(part) for part in (value.x, value.y, value.width, value.height)]
        if value.fractional and not any("." in part for part in parts):
            parts[0] += ".0"
        return ",".join(parts)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": 64, "pattern": r"^[0-9.]+(,[0-9.]+){3}$"}


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of a canvas in pixels."""

    width: int
    height: int


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
            raise _refuse(self, text) from None
        return Extent(width, height)

    def show(self, value: Extent) -> str:
        return f"{value.width}x{value.height}"

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^[0-9]{1,5}[x,][0-9]{1,5}$"}


@dataclass(frozen=True, slots=True)
class Sides:
    """Widths of the four sides of a frame in pixels."""

    top: int = 0
    right: int = 0
    bottom: int = 0
    left: int = 0


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
            raise _refuse(self, text) from None
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
                raise _refuse(self, text)

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
