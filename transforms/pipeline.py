"""The pipeline: the steps from an original's bytes to a result's bytes, in order.

`inspect.look` and `geometry.plan` come first and cost next to nothing, so that a caller can refuse
or price a render before any pixel is touched; `prepare` does both. `run` does the work.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from transforms import geometry, libvips
from transforms.canvas import canvas
from transforms.colour import to_srgb
from transforms.crop import crop
from transforms.encode import choose_format, encode
from transforms.errors import BrokenImage, Stopped
from transforms.formats import Format
from transforms.inspect import Header, look
from transforms.limits import Limits
from transforms.load import load, settle
from transforms.orient import orient
from transforms.resize import resize
from transforms.transform import Transform

EPOCH: Final = "1-{}.{}.{}".format(*libvips.VERSION)
"""Names this engine's results. Raise the first number when the same request gives other pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One render, before it runs: what the original is, what to do, and where every pixel goes."""

    header: Header
    transform: Transform
    plan: geometry.Plan


Step = Callable[[libvips.Image, Work], libvips.Image]

STEPS: Final[tuple[Step, ...]] = (
    resize,
    to_srgb,
    orient,
    crop,
    canvas,
)
"""What happens between `load` and `encode`. `load` has shrunk and cropped; see there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The bytes made, with their format, size in pixels and what they cost in seconds."""

    data: bytes
    format: Format
    width: int
    height: int
    decode_seconds: float
    encode_seconds: float


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


def prepare(data: bytes, transform: Transform, limits: Limits) -> Work:
    """Read the header, check it against the limits and plan every size. Decodes nothing.

    Raises BrokenImage, UnsupportedFormat, SourceTooLarge, InvalidOption.
    """
    header = look(data)
    limits.check_original(header, page=transform.page)
    if transform.page:
        header = look(data, page=transform.page)  # pages may differ in size
        limits.check_size(header.size)
    plan = geometry.plan(header.size, transform, orientation=header.orientation)
    limits.check_result(plan)
    return Work(header=header, transform=transform, plan=plan)


def run(data: bytes, work: Work, stop: Stop | None = None) -> Result:
    """Decode, transform and encode. Blocks for as long as that takes.

    Raises BrokenImage where the original turns out to be damaged, and Stopped.
    """
    stop = stop or Stop()
    started = time.perf_counter()
    try:
        image = load(data, work)
        stop.watch(image)
        for step in STEPS:
            image = step(image, work)
        stop.watch(image)
        # Decoding ends here: what fails before is the original's fault, what fails later is not.
        image = settle(image, work)
    except BrokenImage:
        stop.check()  # a stopped decoder complains as a broken original does
        raise
    finally:
        stop.forget()
    decoded = time.perf_counter()
    image_format = choose_format(image, work)
    try:
        encoded = encode(image, image_format, work, stop)
    except libvips.Error:
        stop.check()  # a stopped encoder complains too
        raise
    finally:
        stop.forget()
    return Result(
        data=encoded,
        format=image_format,
        width=image.width,
        height=image.height,
        decode_seconds=decoded - started,
        encode_seconds=time.perf_counter() - decoded,
    )


__all__ = ["EPOCH", "STEPS", "BrokenImage", "Result", "Stop", "Work", "prepare", "run"]
