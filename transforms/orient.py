"""Orient: lay the resized picture down as the EXIF tag, `flip` and `rotate` say together."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transforms.load import settle
from transforms.shapes import Turn

if TYPE_CHECKING:
    from transforms import libvips
    from transforms.pipeline import Work


def orient(image: libvips.Image, work: Work) -> libvips.Image:
    """Mirror, then turn. The picture is small by now, which is why this comes after the resize."""
    turn = work.plan.turn
    if turn == Turn():
        return image
    if turn.quarters:
        image = settle(image, work.header)  # rows become columns: the decoder cannot stream that
    return lay(image, turn)


def lay(image: libvips.Image, turn: Turn) -> libvips.Image:
    """Mirror and turn an image, which is in memory if it is turned."""
    if turn.mirrored:
        image = image.fliphor()
    return image.rot(f"d{turn.quarters * 90}") if turn.quarters else image
