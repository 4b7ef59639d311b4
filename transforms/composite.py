"""Composite: one picture laid over another (W3C Compositing 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transforms import libvips


def composite(below: libvips.Image, above: libvips.Image, blend: str = "over") -> libvips.Image:
    """Two 8-bit images of one size as one, with alpha."""
    # Between 8-bit images libvips cuts fractions off, which darkens what lies below by a step.
    return below.cast("float").composite2(above, blend).rint().cast("uchar")
