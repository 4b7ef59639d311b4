"""Crop: keep the window of the resized picture that the gravity chooses; of the end, a tile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transforms.shapes import Box

if TYPE_CHECKING:
    from transforms import libvips
    from transforms.pipeline import Work


def find_window(image: libvips.Image, work: Work) -> Box:
    """Where the pixels say that the window should be. The image must be in memory."""
    size = work.plan.window_size
    found = image.smartcrop(size.width, size.height, interesting=work.transform.gravity.interest)
    return Box(-found.xoffset, -found.yoffset, size.width, size.height)


def crop(image: libvips.Image, work: Work) -> libvips.Image:
    """Cut the resized picture to `plan.window`; `load` has seen to `crop=`."""
    plan = work.plan
    if not plan.crops or plan.window is None:
        return image
    return extract(image, plan.window)


def tile(image: libvips.Image, work: Work) -> libvips.Image:
    """Cut the finished picture to the one part of it that is asked for."""
    return image if work.plan.tile is None else extract(image, work.plan.tile)


def extract(image: libvips.Image, box: Box) -> libvips.Image:
    """The part of an image in a box."""
    return image.extract_area(box.left, box.top, box.width, box.height)
