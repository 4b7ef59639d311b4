"""The simple kinds of value that a parameter can take: how each is read, printed and described.

A kind turns text into a value and back. Printing is canonical: equal values print equally, and
what is printed reads back as the same value. `transforms.compounds` has the kinds made of several.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, Protocol, runtime_checkable

DECIMAL: Final = re.compile(r"\d{1,6}(\.\d{1,6})?|\.\d{1,6}", re.ASCII)
INTEGER: Final = re.compile(r"[+-]?\d{1,9}", re.ASCII)
_SIGNED: Final = re.compile(rf"[+-]?({DECIMAL.pattern})", re.ASCII)
_SIX_PLACES: Final = Decimal("0.000001")
_BYTES: Final = re.compile(r"(\d{1,9}|\d{1,6}\.\d{1,3})(k|kb|m|mb)?", re.ASCII)


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


@runtime_checkable
class Scalable(Protocol):
    """A kind of length in pixels, which grows with the device pixel ratio."""

    def times(self, value: Any, factor: Decimal) -> Any:
        """The value with all its lengths multiplied. Raises BadValue where one is too large."""


def refuse(kind: Kind, text: str, suggestion: str | None = None) -> BadValue:
    """The error that says what a value of this kind must look like."""
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
        if not INTEGER.fullmatch(text) or not self.low <= int(text) <= self.high:
            raise refuse(self, text)
        return int(text)

    def show(self, value: int) -> str:
        return str(value)

    def times(self, value: int, factor: Decimal) -> int:
        scaled = max(self.low, round_half_up(value * factor))
        if scaled > self.high:
            raise BadValue(f"times dpr must be at most {self.high}, got {scaled}")
        return scaled

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}


@dataclass(frozen=True, slots=True)
class Number:
    """A decimal number between two bounds, both included, with at most six places.

    `empty` is what a name without a value means, as in `?sepia`, if anything.
    """

    low: Decimal
    high: Decimal
    empty: Decimal | None = None

    @property
    def expects(self) -> str:
        return f"{show_decimal(self.low)} to {show_decimal(self.high)}"

    def read(self, text: str) -> Decimal:
        if not text and self.empty is not None:
            return self.empty
        pattern = _SIGNED if self.low < 0 else DECIMAL
        if not pattern.fullmatch(text) or not self.low <= Decimal(text) <= self.high:
            raise refuse(self, text)
        return Decimal(text).normalize() + 0  # minus zero is zero

    def show(self, value: Decimal) -> str:
        return show_decimal(value)

    def times(self, value: Decimal, factor: Decimal) -> Decimal:
        scaled = max(self.low, value * factor)
        if scaled > self.high:
            raise BadValue(
                f"times dpr must be at most {show_decimal(self.high)}, got {show_decimal(scaled)}"
            )
        return scaled.quantize(_SIX_PLACES).normalize() + 0

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
            raise refuse(self, text, nearest(text, [*self.words, *self.aliases]))
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
            raise refuse(self, text)
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
        if not INTEGER.fullmatch(text) or int(text) % 90:
            raise refuse(self, text)
        return int(text) % 360

    def show(self, value: int) -> str:
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "multipleOf": 90}


@dataclass(frozen=True, slots=True)
class Bytes:
    """A number of bytes, perhaps in thousands (`k`) or millions (`m`)."""

    low: int
    high: int

    @property
    def expects(self) -> str:
        return f"{self.low} to {self.high} bytes, such as 50000, 50k or 1.5m"

    def read(self, text: str) -> int:
        match = _BYTES.fullmatch(text.strip().lower())
        if not match:
            raise refuse(self, text)
        unit = {"k": 1_000, "m": 1_000_000}.get((match[2] or "")[:1], 1)
        size = round_half_up(Decimal(match[1]) * unit)
        if not self.low <= size <= self.high:
            raise refuse(self, text)
        return size

    def show(self, value: int) -> str:
        return str(value)

    def schema(self) -> dict[str, Any]:
        return {
            "anyOf": [
                {"type": "integer", "minimum": self.low, "maximum": self.high},
                {"type": "string", "pattern": r"^[0-9]{1,6}(\.[0-9]{1,3})?([kKmM][bB]?)?$"},
            ]
        }
