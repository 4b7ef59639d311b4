"""Kits: all that a page needs to show one picture at every size, in one answer.

A ladder of widths that stops where the original does, in each format, with the sizes that keep the
page from jumping, a placeholder until the picture is there, and the HTML that says it all.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from transforms.describe import Colours
from transforms.formats import FORMATS
from transforms.shapes import Size
from transforms.transform import Transform

WIDTHS: Final = (320, 480, 640, 960, 1280, 1920)
"""The ladder where a request names none, in pixels."""
MOST_WIDTHS: Final = 12
NEWER: Final = ("avif", "webp")
"""Formats that not every client shows, the smallest files first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One file of a kit: its transform with its output settled, its size in pixels, its URL."""

    transform: Transform
    size: Size
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Kit:
    """Variants by format, the one for every client last, each from narrow to wide."""

    variants: dict[str, list[Variant]]
    colours: Colours
    sizes: str
    alt: str

    @property
    def fallback(self) -> list[Variant]:
        """The files that every client shows."""
        return list(self.variants.values())[-1]

    def as_json(self) -> dict[str, Any]:
        """The kit as data: `html` is the picture element that uses all of it."""
        largest = self.fallback[-1]
        placeholder = {
            "dominant": _css(self.colours),
            "blurhash": self.colours.blurhash,
            "thumbhash": self.colours.thumbhash_text,
            "data_uri": self.colours.data_uri,
        }
        newer = [
            {"type": FORMATS[name].media_type, "srcset": _srcset(variants), "sizes": self.sizes}
            for name, variants in list(self.variants.items())[:-1]
        ]
        return {
            "width": largest.size.width,
            "height": largest.size.height,
            "aspect_ratio": round(largest.size.width / largest.size.height, 4),
            "widths": [variant.size.width for variant in self.fallback],
            "sources": newer,
            "img": {
                "src": largest.url,
                "srcset": _srcset(self.fallback),
                "sizes": self.sizes,
                "width": largest.size.width,
                "height": largest.size.height,
                "alt": self.alt,
            },
            "placeholder": placeholder,
            "html": self._html(newer),
        }

    def _html(self, newer: list[dict[str, str]]) -> str:
        largest = self.fallback[-1]
        lines = ["<picture>"]
        lines += [f"  <source{_attributes(source)}>" for source in newer]
        image = {
            "src": largest.url,
            "srcset": _srcset(self.fallback),
            "sizes": self.sizes,
            "width": str(largest.size.width),
            "height": str(largest.size.height),
            "alt": self.alt,
            "loading": "lazy",
            "decoding": "async",
            "style": f"background:{_css(self.colours)} url({self.colours.data_uri}) center/cover",
        }
        lines.append(f"  <img{_attributes(image)}>")
        return "\n".join([*lines, "</picture>"])


def _srcset(variants: Sequence[Variant]) -> str:
    return ", ".join(f"{variant.url} {variant.size.width}w" for variant in variants)


def _attributes(values: dict[str, str]) -> str:
    return "".join(f' {name}="{html.escape(value)}"' for name, value in values.items())


def _css(colours: Colours) -> str:
    colour = colours.dominant
    if colour.alpha == 0:
        return "transparent"
    return f"#{colour.red:02x}{colour.green:02x}{colour.blue:02x}"
