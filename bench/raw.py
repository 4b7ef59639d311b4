"""The floor of rendering: the same results by the shortest way through libvips.

As a process it renders in threads, from bytes that are in memory, and does nothing else.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyvips

from bench.service import serve_jobs

_ANY: Final = 10_000_000
"""A side that is not bounded."""
_WHITE: Final = [255, 255, 255]


def contain(data: bytes) -> bytes:
    image = _opaque(_thumbnail(data, 200, height=200))
    return _jpeg(image.gravity("centre", 200, 200, extend="white"))


def cover(data: bytes) -> bytes:
    return _jpeg(_opaque(_thumbnail(data, 200, height=200, crop="centre")))


def wide(data: bytes) -> bytes:
    return _jpeg(_opaque(_thumbnail(data, 800, height=_ANY)))


def webp(data: bytes) -> bytes:
    result: bytes = _thumbnail(data, 200, height=_ANY).webpsave_buffer(Q=80, effort=2, keep="none")
    return result


def _thumbnail(data: bytes, width: int, **options: Any) -> pyvips.Image:
    image = pyvips.Image.thumbnail_buffer(data, width, size="down", fail_on="error", **options)
    if image.get_typeof("icc-profile-data"):
        # `output_profile` would also convert what has no profile, at several times the cost.
        return image.icc_transform("srgb", embedded=True, intent="relative")
    return image


def _opaque(image: pyvips.Image) -> pyvips.Image:
    return image.flatten(background=_WHITE) if image.hasalpha() else image


def _jpeg(image: pyvips.Image) -> bytes:
    result: bytes = image.jpegsave_buffer(Q=80, optimize_coding=True, keep="none")
    return result


OPERATIONS: Final[dict[str, tuple[str, Callable[[bytes], bytes]]]] = {
    "contain 200x200 jpeg": ("w=200&h=200&fm=jpeg", contain),
    "cover 200x200 jpeg": ("w=200&h=200&fit=cover&fm=jpeg", cover),
    "w=800 jpeg": ("w=800&fm=jpeg", wide),
    "w=200 webp": ("w=200&fm=webp&effort=2", webp),
}
"""The query by which the service is asked, and the same in libvips."""
READ: Final = "read"
"""Reading the files, which is no part of rendering, though a service has to do it."""


def compare(first: bytes, second: bytes) -> float:
    """By how much two results differ, as the mean of 0..255. Raises where their sizes do."""
    images = [pyvips.Image.new_from_buffer(data, "") for data in (first, second)]
    sizes = [(image.width, image.height, image.bands) for image in images]
    if any(abs(a - b) > 1 for a, b in zip(*sizes, strict=True)):
        raise RuntimeError(f"the results to compare have the sizes {sizes}")
    width, height = (min(side) for side in list(zip(*sizes, strict=True))[:2])
    one, other = (image.crop(0, 0, width, height) for image in images)
    return float((one - other).abs().avg())


class Raw:
    """Renders files in threads. Each is read once, before it counts."""

    def __init__(self) -> None:
        self._files: dict[str, bytes] = {}

    def do(self, job: dict[str, Any]) -> dict[str, Any]:
        waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        operation: Callable[[Any], Any]
        if job["operation"] == READ:
            operation = Path.read_bytes
            for name in job["files"]:
                waiting.put(Path(name))
        else:
            operation = OPERATIONS[job["operation"]][1]
            for name in job["files"]:
                if name not in self._files:
                    self._files[name] = Path(name).read_bytes()
                waiting.put(self._files[name])
        failures: list[str] = []

        def work() -> None:
            while True:
                try:
                    given = waiting.get_nowait()
                except queue.Empty:
                    return
                try:
                    operation(given)
                except pyvips.Error as error:
                    failures.append(str(error))

        threads = [threading.Thread(target=work) for _ in range(job["threads"])]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"failures": failures}


if __name__ == "__main__":
    pyvips.cache_set_max(0)
    serve_jobs(Raw().do)
