"""HDR: the gain map of an Ultra HDR original, laid as its picture is and put into the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from transforms import libvips
from transforms.crop import extract
from transforms.gainmap import attach_gain_map, find_gain_map, gain_map_size
from transforms.load import map_region
from transforms.orient import lay
from transforms.shapes import Size

if TYPE_CHECKING:
    from transforms.formats import Format
    from transforms.pipeline import Stop, Work

_QUALITY: Final = 85


def keep_gain_map(
    data: bytes, image_format: Format, work: Work, stop: Stop
) -> Callable[[bytes], bytes]:
    """What gives a finished JPEG the gain map of its original, laid as the picture is.

    Where anything has changed the picture's light the bytes stay as they are: the map would be of
    another picture.
    """
    kept = image_format.name == work.header.format.name == "jpeg" and work.transform.hdr == "keep"
    plan = work.plan
    if not kept or work.mosaic or work.transform.decorates or plan.frames:
        return bytes
    found = find_gain_map(data)
    if found is None:
        return bytes
    try:
        gains = libvips.Image.jpegload_buffer(found.data, fail_on="error").copy()
        gains.remove("icc-profile-data")  # its values are no colours
        box = map_region(plan.region, plan.stored, found.size)
        size = gain_map_size(plan.stored, found.size, plan.stored_scaled)
        gains = gains.extract_area(box.left, box.top, box.width, box.height)
        gains = gains.thumbnail_image(size.width, height=size.height, size="force", no_rotate=True)
        gains = lay(gains.copy_memory(), plan.turn)
        if plan.window is not None and plan.crops:
            gains = extract(gains, map_region(plan.window, plan.scaled, _size(gains)))
        if plan.tile is not None:
            gains = extract(gains, map_region(plan.tile, plan.whole, _size(gains)))
        stop.watch(gains)
        subsampling = "off" if gains.bands == 3 else "auto"
        encoded = gains.jpegsave_buffer(Q=_QUALITY, keep="none", subsample_mode=subsampling)
    except libvips.Error:
        stop.check()
        return bytes  # a map that is broken is no reason to refuse the picture
    return lambda primary: attach_gain_map(primary, encoded, found)


def _size(image: libvips.Image) -> Size:
    return Size(image.width, image.height)
