"""The values that parameters of a transform can have. Each is frozen; lengths are in pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Final


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


@dataclass(frozen=True, slots=True)
class Rect:
    """A rectangle of the upright picture: in pixels, or in fractions of its width and height."""

    x: Decimal
    y: Decimal
    width: Decimal
    height: Decimal
    fractional: bool


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of a canvas in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Sides:
    """Widths of the four sides of a frame in pixels."""

    top: int = 0
    right: int = 0
    bottom: int = 0
    left: int = 0


@dataclass(frozen=True, slots=True)
class Trim:
    """What counts as border: what differs by at most `threshold` (0..255) from a colour.

    Without a colour, it is that of the top left pixel.
    """

    threshold: int = 10
    colour: Colour | None = None


@dataclass(frozen=True, slots=True)
class Tile:
    """One of `columns` x `rows` equal parts of a picture; both places count from 0."""

    columns: int
    rows: int
    column: int
    row: int


@dataclass(frozen=True, slots=True)
class Border:
    """A line of this width round the picture."""

    width: int
    colour: Colour = Colour(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Shadow:
    """A shadow, as CSS `box-shadow` has it: its offset, its blur and its colour."""

    x: int = 0
    y: int = 4
    blur: int = 12
    colour: Colour = Colour(0, 0, 0, 128)


@dataclass(frozen=True, slots=True)
class Level:
    """What becomes black and what white, in percent of full scale, and the gamma between them."""

    black: Decimal
    white: Decimal
    gamma: Decimal = Decimal(1)


@dataclass(frozen=True, slots=True)
class Sharpen:
    """An unsharp mask: the blur's sigma, how much is added, and from which difference on (0..1)."""

    sigma: Decimal = Decimal(1)
    amount: Decimal = Decimal(1)
    threshold: Decimal = Decimal("0.02")


@dataclass(frozen=True, slots=True)
class Duotone:
    """The colours that black and white become."""

    dark: Colour
    light: Colour


@dataclass(frozen=True, slots=True)
class AutoQuality:
    """The lowest quality that is as like the picture as `target` (0..100) says."""

    target: int = 80
