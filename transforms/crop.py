"""Crop: keep the window of the resized picture that the gravity chooses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transforms.load import settle

if TYPE_CHECKING:
    from transforms import libvips
    from transforms.pipeline import Work


def crop(image: libvips.Image, work: Work) -> libvips.Image:
    """Cut the resized picture to `plan.window_size`; `load` has seen to `crop=`."""
    plan = work.plan
    if not plan.crops:
        return image
    if plan.window is None:
        size = plan.window_size
        return settle(image, work).smartcrop(
            size.width, size.height, interesting=work.transform.gravity.interest
        )
    box = plan.window
    return image.extract_area(box.left, box.top, box.width, box.height)
