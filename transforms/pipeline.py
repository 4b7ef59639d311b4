"""The pipeline: the steps from an original's bytes to a result's bytes, in order.

`inspect.look` and `geometry.plan` come first and cost next to nothing, so that a caller can refuse
or price a render before any pixel is touched; `prepare` does both. `run` does the work, for one
result or for several of the same original, which is then decoded once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Final

from transforms import geometry, libvips
from transforms.adjust import adjust
from transforms.bitmap import Bitmap
from transforms.canvas import canvas
from transforms.colour import to_srgb
from transforms.crop import crop, find_window, tile
from transforms.decisions import Decisions
from transforms.encode import choose_format, encode
from transforms.errors import BrokenImage, Stopped, UnsupportedFormat, naming
from transforms.foreign_raster import drawn
from transforms.formats import FORMATS, SNIFFED_BYTES, Format, sniff
from transforms.frame import frame
from transforms.hdr import keep_gain_map
from transforms.inspect import Header, look
from transforms.limits import Limits
from transforms.load import Opened, map_region, open_original, settle
from transforms.mosaic import Mosaic, join, plan_mosaic
from transforms.orient import orient
from transforms.overlay import Mark, draw_marks, overlay
from transforms.resize import resize
from transforms.shapes import EXIF_TURNS, Size, Turn
from transforms.transform import Transform
from transforms.trim import find_content

_PIECE: Final = Transform.from_query("enlarge=1&frames=1")
"""How an original is rendered that is merged with others: in the size of its place."""

EPOCH: Final = "4-{}.{}.{}".format(*libvips.VERSION)
"""Names this engine's results. Raise the first number when the same request gives other pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One of several originals that are merged: its bytes, and how it is rendered."""

    data: bytes
    header: Header


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One render, before it runs: what the original is, what to do, and where every pixel goes.

    `frames` of the original are used, from the transform's page on. `marks` are the bitmaps of its
    watermarks by id. `drawn` is what is laid over every frame, once it has been drawn. `decisions`
    are those of its first frame.
    """

    header: Header
    transform: Transform
    plan: geometry.Plan
    limits: Limits
    frames: int = 1
    pieces: tuple[Piece, ...] = ()
    mosaic: Mosaic | None = None
    marks: Mapping[str, Bitmap] = field(default_factory=dict)
    drawn: tuple[Mark, ...] = ()
    decisions: Decisions = field(default_factory=Decisions)


Step = Callable[[libvips.Image, Work], libvips.Image]

LAY_DOWN: Final[tuple[Step, ...]] = (resize, to_srgb, orient)
"""From what `load` has opened to the whole picture in its size, upright and in sRGB."""

FINISH: Final[tuple[Step, ...]] = (crop, adjust, canvas, overlay, frame)
"""From there to the finished picture, of which `tile` may take a part before it is encoded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The bytes made, with their format, size in pixels and what they cost in seconds.

    `reached` tells whether the quality reaches what was aimed at, a size or a likeness; it is None
    where neither was.
    """

    data: bytes
    format: Format
    width: int
    height: int
    decode_seconds: float
    encode_seconds: float
    quality: int | None = None
    reached: bool | None = None

    @property
    def choice(self) -> str | None:
        """The quality where it was chosen, in the words of a request."""
        if self.reached is None:
            return None
        return f"q={self.quality}" if self.reached else f"q={self.quality} misses the target"


class Stop:
    """Lets another thread end a render. A stop is noticed at the next strip of pixels."""

    __slots__ = ("_images", "requested")

    def __init__(self) -> None:
        self._images: list[libvips.Image] = []
        self.requested = False

    def request(self) -> None:
        """Ask the render to end. Harmless when it has ended, or has not begun."""
        self.requested = True
        for image in self._images:
            image.set_kill(True)

    def watch(self, image: libvips.Image) -> None:
        """Have this image end too. Raises Stopped where that has been asked for already."""
        self._images.append(image)
        self.check()

    def check(self) -> None:
        """Raise Stopped where a stop has been asked for."""
        if self.requested:
            raise Stopped("The render was stopped")

    def forget(self) -> None:
        """Let go of the images."""
        self._images = []


def prepare(
    data: bytes,
    transform: Transform,
    limits: Limits,
    *,
    others: Sequence[bytes] = (),
    marks: Mapping[str, Bitmap] | None = None,
    header: Header | None = None,
) -> Work:
    """Read the header, check it against the limits and plan every size. Decodes nothing.

    `others` are the originals to merge with the first, and `header` is given where it is known: of
    an original whose `data` are another decoder's pixels. Raises BrokenImage, UnsupportedFormat,
    SourceTooLarge, InvalidOption.
    """
    page = transform.page or 0
    header = header or look(data)
    frames = _frames_used(header, transform)
    limits.check_original(header, page=page, frames=frames)
    if page and not header.format.foreign:
        header = replace(look(data, page=page), pages=header.pages)  # pages may differ in size
        limits.check_size(header.size)
    pieces: tuple[Piece, ...] = ()
    mosaic = None
    if others:
        with naming("merge"):
            merged = [_look_at_piece(other) for other in others]
        pieces = (_look_at_piece(data), *merged)
        mosaic = plan_mosaic([upright(piece.header) for piece in pieces], transform)
        limits.check_merged([piece.header.size for piece in pieces], mosaic.size)
        header = replace(header, size=mosaic.size, orientation=1, pages=1, interpretation="srgb")
    plan = geometry.plan(
        header.size, transform, orientation=header.orientation, scalable=header.scalable
    )
    limits.check_result(plan, transform, frames=frames)
    return Work(
        header=header,
        transform=transform,
        plan=plan,
        limits=limits,
        frames=frames,
        pieces=pieces,
        mosaic=mosaic,
        marks=marks or {},
    )


def _look_at_piece(data: bytes) -> Piece:
    image_format = sniff(data[:SNIFFED_BYTES])
    if image_format.foreign:
        raise UnsupportedFormat(
            f"merge: an original is {image_format.name}, and only what this process decodes is "
            "merged",
            param="merge",
        )
    return Piece(data=data, header=look(data))


def upright(header: Header) -> Size:
    """The size of the original as its orientation tag says that it is seen."""
    return EXIF_TURNS.get(header.orientation, Turn()).apply(header.size)


def _frames_used(header: Header, transform: Transform) -> int:
    """How many frames: all that are asked for, where original and result can move, else one."""
    moves = header.animated and not transform.merge
    if not moves or (transform.page is not None and transform.frames is None):
        return 1
    fm = transform.fm or "auto"
    if fm in FORMATS and not FORMATS[fm].animated:
        return 1
    left = max(1, header.pages - (transform.page or 0))
    return min(transform.frames or left, left)


def run(data: bytes, work: Work, stop: Stop | None = None) -> Result:
    """Decode, transform and encode. Blocks for as long as that takes.

    Raises BrokenImage where the original turns out to be damaged, InvalidOption where that shows
    only in its pixels, and Stopped.
    """
    (result,) = run_all(data, [work], stop)
    return result


def run_all(data: bytes, works: Sequence[Work], stop: Stop | None = None) -> list[Result]:
    """Make several results of one original, which is decoded once for each group of frames.

    What separate renders give is met within 1.5 steps of 255 on average, and more at single pixels:
    the smaller results are made of the larger, where a decoder would have shrunk the original.
    Raises as `run` does.
    """
    stop = stop or Stop()
    groups: dict[tuple[object, ...], list[int]] = {}
    for number, work in enumerate(works):
        groups.setdefault(_opened_alike(work), []).append(number)
    results: dict[int, Result] = {}
    for numbers in groups.values():
        made = _run_group(data, [works[number] for number in numbers], stop)
        results.update(zip(numbers, made, strict=True))
    return [results[number] for number in range(len(works))]


def make_picture(data: bytes, works: Sequence[Work], stop: Stop) -> libvips.Image:
    """The finished pixels of one work in memory: 8-bit grey or sRGB. Raises as `run` does."""
    (work,) = works
    try:
        image, _ = _develop(_open(data, works, stop), work, stop)
    except BrokenImage:
        stop.check()
        raise
    finally:
        stop.forget()
    return image


def make_bitmap(data: bytes, works: Sequence[Work], stop: Stop) -> Bitmap:
    """A watermark as it is kept, of the one work with `AS_BITMAP`. Raises as `run` does."""
    image = _with_bands(make_picture(data, works, stop), 4).copy_memory()
    return Bitmap(image=image, size=upright(works[0].header))


def _opened_alike(work: Work) -> tuple[object, ...]:
    """Equal for works that can be made of an original that is opened once."""
    transform = work.transform
    # Which others they are tells their bytes: the ids are the caller's, and mean nothing here.
    others = tuple(piece.data for piece in work.pieces[1:])
    merged = (work.mosaic, transform.background, others) if work.mosaic else ()
    return (transform.page or 0, work.frames, *merged)


def _run_group(data: bytes, works: Sequence[Work], stop: Stop) -> Iterator[Result]:
    opened: Opened | None = None
    finished: dict[Transform, tuple[libvips.Image, Work]] = {}
    for work in works:
        began = time.perf_counter()
        pixels = work.transform.pixels_only
        if work.frames == 1:
            pixels = replace(pixels, tile=None)
        try:
            opened = opened or _open(data, works, stop)
            if pixels not in finished:
                finished[pixels] = _develop(opened, work, stop)
        except BrokenImage:
            stop.check()  # a stopped decoder complains as a broken original does
            raise
        finally:
            stop.forget()
        image, seen = finished[pixels]
        tile_box = geometry.find_tile(work.transform.tile, seen.plan.whole)
        seen = replace(seen, transform=work.transform, plan=replace(seen.plan, tile=tile_box))
        yield _encode(image, seen, data, began, stop)


def _open(data: bytes, works: Sequence[Work], stop: Stop) -> Opened:
    if works[0].mosaic is not None:
        return Opened(_join(works, stop), 1)
    return open_original(data, works, stop.watch)


def _join(works: Sequence[Work], stop: Stop) -> libvips.Image:
    """The merged picture, no larger than the largest result needs."""
    first = works[0]
    mosaic, background = first.mosaic, first.transform.background
    assert mosaic is not None  # noqa: S101 - the caller has looked
    whole = mosaic.size
    scale = min(Fraction(1), max(_exact_scale_of(work.plan) for work in works))
    size = geometry.scale_size(whole, scale)
    boxes = [map_region(box, whole, size) for box in mosaic.boxes]
    pictures = []
    for number, (piece, box) in enumerate(zip(first.pieces, boxes, strict=True)):
        with naming("merge") if number else nullcontext():
            pictures.append(_lay_piece(piece, box.size, first.limits, stop))
    return join(pictures, boxes, size, background if not isinstance(background, str) else None)


def _lay_piece(piece: Piece, size: Size, limits: Limits, stop: Stop) -> libvips.Image:
    # A part of a whole may be larger than what can be asked for by itself.
    transform = replace(_PIECE, w=size.width, h=size.height, fit="fill")
    plan = geometry.plan(piece.header.size, transform, orientation=piece.header.orientation)
    work = Work(header=piece.header, transform=transform, plan=plan, limits=limits)
    image = open_original(piece.data, [work]).region(0, work.plan)
    stop.watch(image)
    for step in LAY_DOWN:
        image = step(image, work)
    return settle(image, piece.header)


def _develop(opened: Opened, work: Work, stop: Stop) -> tuple[libvips.Image, Work]:
    """The finished pixels in memory, and the work as it turned out."""
    work = replace(work, decisions=Decisions())
    if work.transform.trim is not None:
        work = _trim(opened, work)
    pictures = [
        _lay_down(opened.region(number, work.plan), work, stop) for number in range(work.frames)
    ]
    if work.plan.window is None:
        # The first frame decides for all: a window that jumps about is worse than a poor one.
        pictures[0] = settle(pictures[0], work.header)
        window = find_window(pictures[0], work)
        work = replace(work, plan=replace(work.plan, window=window))
    laid = replace(work, drawn=draw_marks(work)) if work.transform.layers else work
    finished = [_finish(picture, laid, stop) for picture in pictures]
    if len(finished) == 1:
        return finished[0], work
    return _join_frames([tile(one, work) for one in finished], opened.image, work), work


def _lay_down(image: libvips.Image, work: Work, stop: Stop) -> libvips.Image:
    for step in LAY_DOWN:
        image = step(image, work)
    stop.watch(image)
    return image


def _finish(image: libvips.Image, work: Work, stop: Stop) -> libvips.Image:
    if work.transform.decorates:
        # What looks at pixels twice, or out of order, cannot do so while they are being decoded.
        image = settle(crop(image, work), work.header)
        for step in FINISH[1:]:
            image = step(image, work)
    else:
        for step in FINISH:
            image = step(image, work)
    stop.watch(image)
    # Decoding ends here: what fails before is the original's fault, what fails later is not.
    return settle(image, work.header)


def _trim(opened: Opened, work: Work) -> Work:
    """The work with the plan for what is left when the border is gone."""
    header, transform = work.header, work.transform
    assert transform.trim is not None  # noqa: S101 - the caller has looked
    content = find_content(map(opened.frame, range(opened.frames)), transform.trim)
    if content is None:
        return work
    trimmed = map_region(content, opened.size, header.size)
    plan = geometry.plan(
        header.size,
        transform,
        orientation=header.orientation,
        trimmed=trimmed,
        scalable=header.scalable,
    )
    work.limits.check_result(plan, transform, frames=work.frames)
    return replace(work, plan=plan)


def _join_frames(
    frames: Sequence[libvips.Image], strip: libvips.Image, work: Work
) -> libvips.Image:
    """The frames one above the other, as libvips' encoders of animations want them."""
    bands = max(frame.bands for frame in frames)
    if bands > min(frame.bands for frame in frames):
        frames = [_with_bands(frame, bands) for frame in frames]
    joined = libvips.Image.arrayjoin(list(frames), across=1).copy()
    kinds = libvips.MetadataType
    joined.set_type(kinds.INTEGER, "page-height", frames[0].height)
    start = work.transform.page or 0
    if strip.get_typeof("delay"):
        delays = list(strip.get("delay"))
        chosen = delays[start : start + work.frames] if len(delays) > work.frames else delays
        joined.set_type(kinds.INTEGERS, "delay", chosen)
    if strip.get_typeof("loop"):
        joined.set_type(kinds.INTEGER, "loop", strip.get("loop"))
    return joined.copy_memory()


def _with_bands(image: libvips.Image, bands: int) -> libvips.Image:
    if bands >= 3 > image.bands:
        image = image.colourspace("srgb")
    return image if image.bands == bands else image.addalpha()


def _encode(image: libvips.Image, work: Work, data: bytes, began: float, stop: Stop) -> Result:
    decoded = time.perf_counter()
    if work.frames == 1:
        image = tile(image, work)
    image_format = choose_format(image, work)
    try:
        attach = keep_gain_map(data, image_format, work, stop)
        encoded = encode(image, image_format, work, data, stop, attach=attach)
    except libvips.Error:
        stop.check()  # a stopped encoder complains too
        raise
    finally:
        stop.forget()
    return Result(
        data=encoded.data,
        format=encoded.format,
        width=image.width,
        height=work.plan.result.height,
        decode_seconds=decoded - began,
        encode_seconds=time.perf_counter() - decoded,
        quality=encoded.quality,
        reached=encoded.reached,
    )


def scale_to_draw(works: Sequence[Work], limits: Limits) -> float:
    """At which scale of its own size a foreign document must be drawn for these works.

    Raises SourceTooLarge where that is more pixels than are decoded.
    """
    header = works[0].header
    scale = max(scale_of(work.plan) for work in works)
    scale = scale if header.scalable else min(1.0, scale)
    limits.check_size(drawn(header.size, scale))
    return scale


def scale_of(plan: geometry.Plan) -> float:
    """By how much the region is resized, the larger of across and down."""
    return float(_exact_scale_of(plan))


def _exact_scale_of(plan: geometry.Plan) -> Fraction:
    scaled, region = plan.stored_scaled, plan.region
    return max(Fraction(scaled.width, region.width), Fraction(scaled.height, region.height))
