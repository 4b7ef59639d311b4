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
from urllib.parse import parse_qsl, quote

from transforms.compounds import Either, QualityKind
from transforms.errors import InvalidOption
from transforms.kinds import (
    Angle,
    BadValue,
    Bytes,
    Choice,
    Flag,
    Integer,
    Kind,
    Number,
    Scalable,
    nearest,
)
from transforms.layers import Text, Watermark
from transforms.options import BY_SPELLING, OPTIONS, Option
from transforms.values import (
    COMPASS,
    WHITE,
    AutoQuality,
    Border,
    Colour,
    Duotone,
    Extent,
    Gravity,
    Level,
    Rect,
    Shadow,
    Sharpen,
    Sides,
    Tile,
    Trim,
)

_ONE: Final = Decimal(1)
_READABLE: Final = ",:|/()"
"""What stands for itself in a value of the canonical text, beside letters, digits and `_.-~`."""


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
    trim: Trim | None
    gravity: Gravity
    extent: Extent | None
    padding: Sides
    background: Colour | str | None
    border: Border | None
    round: int | str | None
    shadow: Shadow | None
    rotate: int
    flip: str | None
    orient: str
    normalize: bool
    level: Level | None
    gamma: Decimal
    brightness: Decimal
    contrast: Decimal
    saturation: Decimal
    hue: Decimal
    grayscale: bool
    sepia: Decimal
    tint: Colour | None
    duotone: Duotone | None
    invert: bool
    sketch: bool
    charcoal: Decimal | None
    pixelate: int | None
    blur: Decimal | None
    sharpen: Sharpen | None
    opacity: Decimal
    watermark: tuple[Watermark, ...] | None
    text: tuple[Text, ...] | None
    layer_dpr: Decimal
    merge: tuple[str, ...] | None
    across: int | None
    cell: Extent | None
    gap: int
    tile: Tile | None
    page: int | None
    frames: int | None
    fm: str | None
    auto: tuple[str, ...]
    q: int | AutoQuality | None
    max_bytes: int | None
    lossless: bool
    effort: int
    progressive: bool
    hdr: str
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
        """Multiply the lengths by dpr; those within layers are by `layer_dpr`.

        Where there is neither w nor h the plan does it.
        """
        if self.dpr == 1 or (self.w is None and self.h is None):
            return self
        folded: dict[str, Any] = {"dpr": _ONE}
        for option in OPTIONS:
            value = getattr(self, option.field)
            within = option.name == "layer-dpr" and self.layers
            given = option.is_length and value != option.default
            if (within or given) and isinstance(option.kind, Scalable):
                try:
                    folded[option.field] = option.kind.times(value, self.dpr)
                except BadValue as error:
                    raise InvalidOption(option.name, f"{option.name} {error}") from None
        return replace(self, **folded)

    def with_output(self, fm: str, *, defaults: Defaults | None = None) -> Transform:
        """This transform with its output settled: a row of `OUTPUTS`, `auto` or `same`."""
        background = self.background
        if fm == "jpeg" and background is None and not self.framed and defaults is not None:
            background = defaults.background  # JPEG holds no transparency: this shines through
        auto = _settled(self.auto, "format") if self.fm is None else self.auto
        return replace(self, fm=fm, auto=auto, background=background)

    @property
    def framed(self) -> bool:
        """Whether there is a canvas: where it has no colour, it is white."""
        return self.fit == "contain" or self.extent is not None or self.padding != Sides()

    @property
    def adjustments(self) -> int:
        """How many changes of tone and colour and effects there are."""
        return sum(map(self.adjusts, _ADJUSTMENTS))

    def adjusts(self, name: str) -> bool:
        """Whether it makes the change of this name, which is that of a field."""
        return bool(getattr(self, name) != _TABLE_DEFAULTS[name])

    @property
    def decorates(self) -> bool:
        """Whether there is more to do than to cut the picture and lay it on one colour."""
        return bool(self.adjustments) or any(
            (self.border, self.round, self.shadow, self.layers, isinstance(self.background, str))
        )

    @property
    def pixels_only(self) -> Transform:
        """This transform without what concerns the encoder alone: equal ones have equal pixels."""
        return replace(self, **{name: _TABLE_DEFAULTS[name] for name in _ENCODINGS})

    @property
    def layers(self) -> tuple[Watermark | Text, ...]:
        """What is laid over the picture, in order: watermarks, then text."""
        return (*(self.watermark or ()), *(self.text or ()))

    @property
    def mark_ids(self) -> tuple[str, ...]:
        """The ids of the watermarks, each once."""
        return tuple(dict.fromkeys(mark.original for mark in self.watermark or ()))

    @property
    def canonical(self) -> str:
        """The one text of this value: `name=value` of all that is not default, sorted.

        It is a query string (WHATWG URL, 5.2), so that no text or id can pass for a parameter:
        `from_query` reads it back as this value, where it has the defaults that this was read with.
        """
        return "&".join(f"{name}={quote(text, safe=_READABLE)}" for name, text in self.items())

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
    if not folded.layers:
        folded = replace(folded, layer_dpr=_ONE)
    placed = fit in ("contain", "cover") or any((folded.extent, folded.min_w, folded.min_h))
    folded = replace(folded, fit=fit)
    background = folded.background
    if folded.framed:
        usual = defaults.background or WHITE
        colour = background or usual
        # White goes without saying only where it would be white that is read back.
        background = None if colour == usual == WHITE else colour
    if folded.merge is None:
        folded = replace(folded, across=None, cell=None, gap=0)
    else:
        folded = replace(folded, page=None, frames=None)  # of each, its first is merged
    return replace(
        folded,
        gravity=folded.gravity if placed else COMPASS["center"],
        background=background,
        auto=folded.auto if folded.fm is None else _settled(folded.auto, "none"),
    )


def _settled(auto: tuple[str, ...], chosen: str) -> tuple[str, ...]:
    """What is left of `auto` when the format is known: `none` where the request has named it."""
    return (chosen, "smaller") if "smaller" in auto else ("format",)


def _unknown(name: str) -> InvalidOption:
    meant = nearest(name, BY_SPELLING)
    hint = f"; did you mean {meant}?" if meant else ""
    return InvalidOption(name, f"{name[:64]} is not a parameter{hint}", suggestion=meant)


def _as_text(name: str, value: Any) -> str:
    kind = BY_SPELLING[name].kind
    if isinstance(value, bool):
        if not isinstance(kind, Flag):
            raise InvalidOption(name, f"{name} must be {kind.expects}, got {str(value).lower()}")
        return "1" if value else "0"
    if isinstance(value, str):
        return value
    if isinstance(value, int) and abs(value) < 10**18:
        return str(value)
    if isinstance(value, float):
        return format(Decimal(repr(value)), "f") if math.isfinite(value) else str(value)
    if isinstance(value, list):
        if _takes_list(kind) and value and all(type(part) in (int, float) for part in value):
            return ",".join(_as_text(name, part) for part in value)
        raise InvalidOption(name, f"{name} must be {kind.expects}, got a list")
    raise InvalidOption(name, f"{name} must be {kind.expects}")


def _takes_list(kind: Kind) -> bool:
    """Whether a value may be numbers separated by commas, which JSON has as a list."""
    if isinstance(kind, Either):
        return _takes_list(kind.other)
    return not isinstance(kind, (Angle, Bytes, Choice, Flag, Integer, Number, QualityKind))


def _read_value(option: Option, spelling: str, text: str) -> Any:
    try:
        return option.kind.read(text)
    except BadValue as error:
        message = f"{spelling} {error}"
        if error.suggestion:
            message += f"; did you mean {error.suggestion}?"
        raise InvalidOption(option.name, message, suggestion=error.suggestion) from None


_TABLE_DEFAULTS: Final = {option.field: option.default for option in OPTIONS}

_ADJUSTMENTS: Final = tuple(o.field for o in OPTIONS if o.step in ("tone", "effects"))
_ENCODINGS: Final = tuple(o.field for o in OPTIONS if o.step == "encode")

if {field.name for field in fields(Transform)} != set(_TABLE_DEFAULTS):
    raise AssertionError("Transform and the table of options differ")
