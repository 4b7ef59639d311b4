"""Transform: what to do with a picture, as a frozen value.

It is read from a query string or from a JSON body, normalised so that requests which ask for the
same result are equal, and printed in one canonical way, which is the middle of every cache key.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from decimal import Decimal
from typing import Any, Final, Literal
from urllib.parse import parse_qsl

from transforms.errors import InvalidOption
from transforms.options import BY_SPELLING, MAX_PADDING, MAX_SIDE, OPTIONS, Option
from transforms.values import (
    COMPASS,
    WHITE,
    BadValue,
    Colour,
    Extent,
    Gravity,
    Rect,
    Sides,
    nearest,
    round_half_up,
)

_ONE: Final = Decimal(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a service gives where a request is silent."""

    fit: str = "contain"
    background: Colour | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """One value for each row of `options.OPTIONS`; the rows say what each means.

    `fm` may also be `auto` (JPEG, or PNG where the result is transparent) or `same` (the original's
    format): that is what negotiation has resolved, and a request cannot say it.
    """

    w: int | None
    h: int | None
    fit: str | None
    enlarge: bool
    dpr: Decimal
    min_w: int | None
    min_h: int | None
    max_w: int | None
    max_h: int | None
    crop: Rect | None
    gravity: Gravity
    extent: Extent | None
    padding: Sides
    background: Colour | None
    rotate: int
    flip: str | None
    orient: str
    page: int
    fm: str | None
    auto: str
    q: int | None
    lossless: bool
    effort: int
    progressive: bool
    meta: str

    @classmethod
    def from_query(
        cls,
        pairs: str | Iterable[tuple[str, str]],
        *,
        defaults: Defaults | None = None,
        unknown: Literal["ignore", "refuse"] = "ignore",
    ) -> Transform:
        """Read a query string, or its decoded pairs.

        Raises InvalidOption for a bad value, for a known name that is given twice, also under two
        spellings, and for an unknown name where those are refused.
        """
        if isinstance(pairs, str):
            pairs = parse_qsl(pairs, keep_blank_values=True)
        known = []
        for name, text in pairs:
            if name in BY_SPELLING:
                known.append((name, text))
            elif unknown == "refuse":
                raise _unknown(name)
        return cls._read(known, defaults or Defaults())

    @classmethod
    def from_mapping(
        cls, body: Mapping[str, Any], *, defaults: Defaults | None = None
    ) -> Transform:
        """Read a JSON object strictly: a name that is not in the table is an InvalidOption too."""
        pairs = []
        for name, value in body.items():
            if name not in BY_SPELLING:
                raise _unknown(name)
            if isinstance(value, float) and value.is_integer():
                value = int(value)  # noqa: PLW2901 - JSON has one kind of number: 200.0 is 200
            if value is not None:
                pairs.append((name, _as_text(name, value)))
        return cls._read(pairs, defaults or Defaults())

    @classmethod
    def _read(cls, pairs: Iterable[tuple[str, str]], defaults: Defaults) -> Transform:
        values = dict(_TABLE_DEFAULTS)
        seen: dict[str, str] = {}
        for spelling, text in pairs:
            option = BY_SPELLING[spelling]
            if option.name in seen:
                raise InvalidOption(
                    option.name,
                    f"{option.name} is given twice"
                    if seen[option.name] == spelling
                    else f"{option.name} is given twice, as {seen[option.name]} and as {spelling}",
                )
            seen[option.name] = spelling
            values[option.field] = _read_value(option, spelling, text)
        return _normalise(cls(**values), defaults)

    def fold_dpr(self) -> Transform:
        """Multiply the sizes by dpr. Where there is neither w nor h, the plan does it."""
        if self.dpr == 1 or (self.w is None and self.h is None):
            return self
        sides = (self.padding.top, self.padding.right, self.padding.bottom, self.padding.left)
        return replace(
            self,
            w=self._scaled("w", self.w),
            h=self._scaled("h", self.h),
            min_w=self._scaled("min-w", self.min_w),
            min_h=self._scaled("min-h", self.min_h),
            max_w=self._scaled("max-w", self.max_w),
            max_h=self._scaled("max-h", self.max_h),
            extent=None
            if self.extent is None
            else Extent(
                self._scaled("extent", self.extent.width) or 1,
                self._scaled("extent", self.extent.height) or 1,
            ),
            padding=Sides(
                *(self._scaled("padding", side, low=0, high=MAX_PADDING) or 0 for side in sides)
            ),
            dpr=_ONE,
        )

    def _scaled(
        self, name: str, side: int | None, *, low: int = 1, high: int = MAX_SIDE
    ) -> int | None:
        if side is None:
            return None
        scaled = max(low, round_half_up(side * self.dpr))
        if scaled > high:
            raise InvalidOption(name, f"{name} times dpr must be at most {high}, got {scaled}")
        return scaled

    def with_output(self, fm: str, *, defaults: Defaults | None = None) -> Transform:
        """This transform with its output settled: a row of `OUTPUTS`, `auto` or `same`."""
        background = self.background
        if fm == "jpeg" and background is None and not self.framed and defaults is not None:
            background = defaults.background  # JPEG holds no transparency: this shines through
        return replace(self, fm=fm, auto="format", background=background)

    @property
    def framed(self) -> bool:
        """Whether there is a canvas: where it has no colour, it is white."""
        return self.fit == "contain" or self.extent is not None or self.padding != Sides()

    @property
    def canonical(self) -> str:
        """The one text of this value: `name=value` of all that is not default, sorted."""
        return "&".join(f"{name}={text}" for name, text in self.items())

    def items(self) -> list[tuple[str, str]]:
        """The names and texts of all that is not default, sorted."""
        shown = []
        for option in OPTIONS:
            value = getattr(self, option.field)
            if value != option.default:
                shown.append((option.name, option.kind.show(value)))
        return sorted(shown)


def _normalise(read: Transform, defaults: Defaults) -> Transform:
    """Settle what is absent and drop what has no effect, so that equal requests are equal."""
    folded = read.fold_dpr()
    both = folded.w is not None and folded.h is not None
    fit = folded.fit
    if folded.w is None and folded.h is None:
        fit = None
    elif both:
        fit = fit or defaults.fit
    elif fit != "fill":
        fit = "inside"
    placed = fit in ("contain", "cover") or any((folded.extent, folded.min_w, folded.min_h))
    folded = replace(folded, fit=fit)
    background = folded.background
    if folded.framed:
        colour = background or defaults.background or WHITE
        background = None if colour == WHITE else colour
    return replace(
        folded,
        gravity=folded.gravity if placed else COMPASS["center"],
        background=background,
        auto=folded.auto if folded.fm is None else "format",
    )


def _unknown(name: str) -> InvalidOption:
    meant = nearest(name, BY_SPELLING)
    hint = f"; did you mean {meant}?" if meant else ""
    return InvalidOption(name, f"{name[:64]} is not a parameter{hint}", suggestion=meant)


def _as_text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) < 10**18:
        return str(value)
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f") if math.isfinite(value) else str(value)
    if isinstance(value, list) and all(isinstance(part, (int, float)) for part in value):
        return ",".join(_as_text(name, part) for part in value)
    raise InvalidOption(name, f"{name} must be {BY_SPELLING[name].kind.expects}")


def _read_value(option: Option, spelling: str, text: str) -> Any:
    try:
        return option.kind.read(text)
    except BadValue as error:
        message = f"{spelling} {error}"
        if error.suggestion:
            message += f"; did you mean {error.suggestion}?"
        raise InvalidOption(option.name, message, suggestion=error.suggestion) from None


_TABLE_DEFAULTS: Final = {option.field: option.default for option in OPTIONS}

if {field.name for field in fields(Transform)} != set(_TABLE_DEFAULTS):
    raise AssertionError("Transform and the table of options differ")
