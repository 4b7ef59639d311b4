"""Load: open the original no larger than the result needs.

JPEG and WebP can be decoded at a fraction of their size for a fraction of the time. The region to
use is mapped into the shrunk picture, so a crop, a turn or a focal point keeps the gain.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from transforms import libvips
from transforms.geometry import Box, Plan, Size
from transforms.inspect import broken

if TYPE_CHECKING:
    from transforms.pipeline import Work

_LOADERS: Final = {
    "jpeg": libvips.Image.jpegload_buffer,
    "png": libvips.Image.pngload_buffer,
    "webp": libvips.Image.webpload_buffer,
    "avif": libvips.Image.heifload_buffer,
    "gif": libvips.Image.gifload_buffer,
    "tiff": libvips.Image.tiffload_buffer,
}
_JPEG_SHRINKS: Final = (8.0, 4.0, 2.0)
_PAGED: Final = ("webp", "avif", "gif", "tiff")


def load(data: bytes, work: Work) -> libvips.Image:
    """Open the region of the original that is used, perhaps shrunk. Nothing is decoded yet."""
    name = work.header.format.name
    # A cut or damaged file is an error, never half a picture.
    options: dict[str, Any] = {"access": "sequential", "fail_on": "error"}
    if name in _PAGED and work.transform.page:
        options["page"] = work.transform.page
    shrink = shrink_on_load(name, work.plan)
    if shrink > 1:
        options |= {"shrink": int(shrink)} if name == "jpeg" else {"scale": 1 / shrink}
    try:
        image = _LOADERS[name](data, **options)
    except libvips.Error as error:
        raise broken(work.header.format, error) from None
    box = map_region(work.plan.region, work.plan.stored, Size(image.width, image.height))
    if box.size == Size(image.width, image.height):
        return image
    return image.extract_area(box.left, box.top, box.width, box.height)


def settle(image: libvips.Image, work: Work) -> libvips.Image:
    """Compute the pixels so far, into memory. Raises BrokenImage: only decoding can fail here."""
    try:
        return image.copy_memory()
    except libvips.Error as error:
        raise broken(work.header.format, error) from None


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
