"""Bitmaps: watermarks as they are kept, decoded once and laid on many pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from transforms.transform import Transform

if TYPE_CHECKING:
    from transforms import libvips
    from transforms.shapes import Size

AS_BITMAP: Final = Transform.from_query("w=2048&h=2048&fit=inside&frames=1").with_output("png")
"""What a watermark is decoded with. A drawing is as sharp as it can be laid, nearly always."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bitmap:
    """The pixels of a watermark, and the size in pixels that it has by itself.

    `image` is in memory, 8-bit sRGB with alpha. It may be smaller than `size`, or larger where the
    original is a drawing.
    """

    image: libvips.Image
    size: Size

    @property
    def memory(self) -> int:
        """Bytes of pixels."""
        return int(self.image.width * self.image.height * self.image.bands)
