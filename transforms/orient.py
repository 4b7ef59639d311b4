"""Orient: lay the resized picture down as the EXIF tag, `flip` and `rotate` say together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transforms.geometry import Turn
from transforms.load import settle

if TYPE_CHECKING:
    from transforms import libvips
    from transforms.pipeline import Work


def orient(image: libvips.Image, work: Work) -> libvips.Image:
    """Mirror, then turn. The picture is small by now, which is why this comes after the resize."""
    turn = work.plan.turn
    if turn == Turn():
        return image
    if turn.quarters:
        image = settle(image, work)  # rows become columns: the decoder cannot stream that
    if turn.mirrored:
        image = image.fliphor()
    return image.rot(f"d{turn.quarters * 90}") if turn.quarters else image
