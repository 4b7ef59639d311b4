"""Load: open the original no larger than the results need.

JPEG and WebP can be decoded at a fraction of their size for a fraction of the time. The region to
use is mapped into the shrunk picture, so a crop, a turn or a focal point keeps the gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from transforms import libvips
from transforms.inspect import broken
from transforms.shapes import Box, Size

if TYPE_CHECKING:
    from transforms.geometry import Plan
    from transforms.inspect import Header
    from transforms.pipeline import Work

_LOADERS: Final = {
    "jpeg": libvips.Image.jpegload_buffer,
    "png": libvips.Image.pngload_buffer,
    "webp": libvips.Image.webpload_buffer,
    "avif": libvips.Image.heifload_buffer,
    "gif": libvips.Image.gifload_buffer,
    "tiff": libvips.Image.tiffload_buffer,
}
"""Pixels of a foreign format arrive as a TIFF."""

_JPEG_SHRINKS: Final = (8.0, 4.0, 2.0)
_PAGED: Final = ("webp", "avif", "gif", "tiff")
_HALVINGS: Final = 3
"""How many times the pixels of an original are halved for the smaller of several results."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An original as it was opened: its pixels, and each time half of them.

    Of an animation, the frames stand one above the other. `levels` has one picture, not yet
    decoded, where there is one result to make of it; else they are in memory.
    """

    levels: tuple[libvips.Image, ...]
    frames: int

    @property
    def size(self) -> Size:
        """The size of one frame as opened."""
        return Size(self.levels[0].width, self.levels[0].height // self.frames)

    def frame(self, number: int, *, level: int = 0) -> libvips.Image:
        """One frame of the picture at one of its levels."""
        image = self.levels[level]
        if self.frames == 1:
            return image
        height = image.height // self.frames
        return image.extract_area(0, number * height, image.width, height)

    def region(self, number: int, plan: Plan) -> libvips.Image:
        """What the plan uses of a frame, with at least twice the pixels that it needs, or all."""
        target = plan.stored_scaled
        level = 0
        for smaller in range(1, len(self.levels)):
            box = map_region(plan.region, plan.stored, _size(self.levels[smaller]))
            if min(box.width / target.width, box.height / target.height) < 2:
                break
            level = smaller
        image = self.frame(number, level=level)
        box = map_region(plan.region, plan.stored, _size(image))
        if box.size == _size(image):
            return image
        return image.extract_area(box.left, box.top, box.width, box.height)


def open_original(data: bytes, works: Sequence[Work]) -> Opened:
    """Open an original for one or several results, which use the same page and frames.

    For one, nothing is decoded yet. Raises BrokenImage.
    """
    first = works[0]
    name = first.header.format.name
    trims = any(work.transform.trim for work in works)
    shrink = 1.0 if trims else min(shrink_on_load(name, work.plan) for work in works)
    image = _open(data, first, shrink)
    if len(works) == 1 and first.frames == 1 and not trims:
        return Opened((image,), 1)
    levels = [settle(image, first.header)]
    if first.frames == 1 and len(works) > 1:
        for _ in range(_HALVINGS):
            if min(levels[-1].width, levels[-1].height) < 4:
                break
            levels.append(levels[-1].resize(0.5, kernel="linear").copy_memory())
    return Opened(tuple(levels), first.frames)


def _open(data: bytes, work: Work, shrink: float) -> libvips.Image:
    header, transform = work.header, work.transform
    name = header.format.name
    # A cut or damaged file is an error, never half a picture.
    options: dict[str, Any] = {"access": "sequential", "fail_on": "error"}
    if name in _PAGED and transform.page:
        options["page"] = transform.page
    if work.frames > 1:
        options["n"] = work.frames
    if shrink > 1:
        options |= {"shrink": int(shrink)} if name == "jpeg" else {"scale": 1 / shrink}
    try:
        return _LOADERS.get(name, _LOADERS["tiff"])(data, **options)
    except libvips.Error as error:
        raise broken(header.format, error) from None


def settle(image: libvips.Image, header: Header) -> libvips.Image:
    """Compute the pixels so far, into memory. Raises BrokenImage: only decoding can fail here."""
    try:
        return image.copy_memory()
    except libvips.Error as error:
        raise broken(header.format, error) from None


def shrink_on_load(name: str, plan: Plan) -> float:
    """By how much to shrink while decoding.

    WebP's decoder scales to any size, and well. JPEG's drops detail by powers of two: at least
    twice the target is left, which the resize after it needs for a sharp result. So it is for any
    crop, whose edges would else take in what lies beside it.
    """
    region, target = plan.region.size, plan.stored_scaled
    shrink = min(region.width / target.width, region.height / target.height)
    if name == "webp" and region == plan.stored:
        return max(1.0, shrink)
    if name in ("jpeg", "webp"):
        return next((step for step in _JPEG_SHRINKS if shrink >= 2 * step), 1.0)
    return 1.0


def map_region(region: Box, stored: Size, loaded: Size) -> Box:
    """Where a box of the stored picture lies in the loaded one, at least one pixel large."""

    def edge(at: int, whole: int, shrunk: int) -> int:
        return (2 * at * shrunk + whole) // (2 * whole)

    left = min(edge(region.left, stored.width, loaded.width), loaded.width - 1)
    top = min(edge(region.top, stored.height, loaded.height), loaded.height - 1)
    right = edge(region.left + region.width, stored.width, loaded.width)
    bottom = edge(region.top + region.height, stored.height, loaded.height)
    return Box(left, top, max(1, right - left), max(1, bottom - top))


def _size(image: libvips.Image) -> Size:
    return Size(image.width, image.height)
