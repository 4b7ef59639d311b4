"""Renders of local files, without a service: what the command line does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from app.children import Children
from app.settings import Settings
from transforms import pipeline
from transforms.bitmap import AS_BITMAP, Bitmap
from transforms.formats import SNIFFED_BYTES, sniff
from transforms.inspect import Header, header_of_leaf
from transforms.pipeline import Result, Stop, Work
from transforms.transform import Transform


class Bench:
    """Renders one file after another. `read` gives the bytes of the originals that are named."""

    def __init__(self, settings: Settings, read: Callable[[str], bytes]) -> None:
        self._settings = settings
        self._read = read
        self._children = Children(
            seconds=settings.child_timeout, memory=int(settings.child_memory), limit=1
        )

    async def prepare(self, name: str, transforms: Sequence[Transform]) -> list[Work]:
        """Plan results of one file. Raises TransformError."""
        async with AsyncExitStack() as stack:
            _, works = await self._open(stack, name, transforms)
            return works

    async def run(self, name: str, transforms: Sequence[Transform]) -> list[Result]:
        """Make results of one file, from one decode. Raises TransformError."""
        async with AsyncExitStack() as stack:
            data, works = await self._open(stack, name, transforms)
            return pipeline.run_all(data, works)

    async def close(self) -> None:
        """End the process that foreign documents were drawn in."""
        await self._children.close()

    async def _open(
        self, stack: AsyncExitStack, name: str, transforms: Sequence[Transform]
    ) -> tuple[bytes, list[Work]]:
        data, limits = self._read(name), self._settings.limits
        image_format = sniff(data[:SNIFFED_BYTES])
        header: Header | None = None
        child = None
        if image_format.foreign:
            page = transforms[0].page or 0
            child = await stack.enter_async_context(
                self._children.open(image_format.name, data, page=page)
            )
            header = header_of_leaf(image_format, child.leaf)
        works = []
        for transform in transforms:
            others = [self._read(other) for other in transform.merge or ()]
            marks = {mark: await self._mark(mark) for mark in transform.mark_ids}
            works.append(
                pipeline.prepare(data, transform, limits, others=others, marks=marks, header=header)
            )
        if child is not None:
            data = await child.draw(pipeline.scale_to_draw(works, limits))
        return data, works

    async def _mark(self, name: str) -> Bitmap:
        async with AsyncExitStack() as stack:
            data, works = await self._open(stack, name, [AS_BITMAP])
            return pipeline.make_bitmap(data, works, Stop())
