"""Load: open the original no larger than the results need.

JPEG and WebP can be decoded at a fraction of their size for a fraction of the time. The region to
use is mapped into the shrunk picture, so a crop, a turn or a focal point keeps the gain.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from transforms import libvips
from transforms.inspect import broken
from transforms.shapes import Box, Size

if TYPE_CHECKING:
    from transforms.geometry import Plan
    from transforms.inspect import Header
    from transforms.pipeline import Work

LOADERS: Final = {
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
_NEARLY: Final = 1.3
"""A result is made of the smallest one that has this many times its pixels across and down.

The steps of a usual ladder are 4/3 and 3/2, and the fewer pixels are read, the better.
"""

_MOST_STEPS: Final = 3
"""From the original to a result. Lanczos loses so little that the third hardly shows."""

Watch = Callable[[libvips.Image], None]
"""Is shown each image before its pixels are computed, so that it can be stopped."""


@dataclass(frozen=True, slots=True)
class Opened:
    """An original as it was opened.

    Of an animation, the frames stand one above the other. `image` is in memory, except where it is
    used only once: then it is not yet decoded. `rungs` are regions of the original at the sizes
    that results need, in memory.
    """

    image: libvips.Image
    frames: int
    rungs: Mapping[tuple[Box, Size], libvips.Image] = field(default_factory=dict)

    @property
    def size(self) -> Size:
        """The size of one frame as opened."""
        return Size(self.image.width, self.image.height // self.frames)

    def frame(self, number: int) -> libvips.Image:
        """One frame of the picture."""
        if self.frames == 1:
            return self.image
        size = self.size
        return self.image.extract_area(0, number * size.height, size.width, size.height)

    def region(self, number: int, plan: Plan) -> libvips.Image:
        """What the plan uses of a frame, with at least the pixels that it needs, or all."""
        rung = self.rungs.get((plan.region, plan.stored_scaled))
        return rung or _cut(self.frame(number), plan.region, plan.stored)


def open_original(data: bytes, works: Sequence[Work], watch: Watch | None = None) -> Opened:
    """Open an original for one or several results, which use the same page and frames.

    For one, nothing is decoded yet. Raises BrokenImage.
    """
    first = works[0]
    name = first.header.format.name
    trims = any(work.transform.trim for work in works)
    shrink = 1.0 if trims else min(shrink_on_load(name, work.plan) for work in works)
    image = _open(data, first, shrink)
    if watch is not None:
        watch(image)
    if trims or first.frames > 1:
        return Opened(settle(image, first.header), first.frames)
    if len(works) == 1:
        return Opened(image, 1)
    ladder = plan_ladder([(work.plan.region, work.plan.stored_scaled) for work in works])
    if sum(above is None for above in ladder.values()) > 1:
        image = settle(image, first.header)
    rungs: dict[tuple[Box, Size], libvips.Image] = {}
    for (region, size), above in ladder.items():
        if above is None:
            rung = scale(_cut(image, region, first.plan.stored), size)
        else:
            rung = _step_down(rungs[region, above], size)
        rungs[region, size] = settle(rung, first.header)
    return Opened(image, 1, rungs)


def plan_ladder(
    wanted: Iterable[tuple[Box, Size]],
) -> dict[tuple[Box, Size], Size | None]:
    """For regions and the sizes they are resized to: which larger size each is made of.

    The larger come first. None means the original.
    """
    ladder: dict[tuple[Box, Size], Size | None] = {}
    steps: dict[tuple[Box, Size], int] = {}
    for region, size in sorted(set(wanted), key=lambda pair: pair[1].pixels, reverse=True):
        above = [
            larger
            for other, larger in ladder
            if other == region
            and _suffices(larger, size)
            and not _grown(larger, region)
            and steps[other, larger] < _MOST_STEPS
        ]
        nearest = above[-1] if above else None
        ladder[region, size] = nearest
        steps[region, size] = 1 + steps[region, nearest] if nearest else 0
    return ladder


def _suffices(larger: Size, size: Size) -> bool:
    return min(larger.width / size.width, larger.height / size.height) >= _NEARLY


def _grown(size: Size, region: Box) -> bool:
    return size.width > region.width or size.height > region.height


def scale(image: libvips.Image, size: Size) -> libvips.Image:
    """Scale to a size in pixels. CMYK, Lab and 16-bit pictures are imported on the way."""
    return image.thumbnail_image(size.width, height=size.height, size="force", no_rotate=True)


def _step_down(rung: libvips.Image, size: Size) -> libvips.Image:
    """Scale a rung, which has been imported, to a smaller one."""
    if rung.hasalpha():
        return scale(rung, size)  # colours are weighed by their alpha
    return rung.resize(size.width / rung.width, vscale=size.height / rung.height)


def _cut(image: libvips.Image, region: Box, stored: Size) -> libvips.Image:
    """The part of a picture, which may have been shrunk, where a region of the stored one lies."""
    box = map_region(region, stored, _size(image))
    if box.size == _size(image):
        return image
    return image.extract_area(box.left, box.top, box.width, box.height)


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
        return LOADERS.get(name, LOADERS["tiff"])(data, **options)
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
