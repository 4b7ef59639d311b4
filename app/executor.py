"""Execution: steps 6 to 8 of the path. Look at an original, enter, run.

What runs may be a render, or anything else that takes a processor's time on an original.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import chain
from typing import TypeVar

from app.admission import Admission, Lane, Reason
from app.children import Child, Children
from app.engine import Engine
from app.errors import Overloaded
from app.pressure import PRESSED, ease
from app.refusals import check_seconds
from app.telemetry import Timings
from transforms import pipeline
from transforms.bitmap import Bitmap
from transforms.cost import estimate_all
from transforms.errors import UnsupportedFormat
from transforms.formats import SNIFFED_BYTES, sniff
from transforms.inspect import Header, header_of_leaf, look
from transforms.limits import Limits
from transforms.pipeline import Stop, Work
from transforms.transform import Transform

T = TypeVar("T")


class Executor:
    """Runs work on originals that are there, within what this process may use.

    `max_seconds` bound what is not told another bound.
    """

    def __init__(
        self,
        *,
        admission: Admission,
        engine: Engine,
        children: Children | None,
        limits: Limits,
        max_seconds: float,
    ) -> None:
        self._admission = admission
        self._engine = engine
        self._children = children
        self._limits = limits
        self._max_seconds = max_seconds

    def check(self, lane: Lane) -> None:
        """Raise Overloaded where nothing would be admitted now, before anything is fetched."""
        self._admission.check(lane)

    def plan(
        self, data: bytes, transform: Transform, *, others: Sequence[bytes], header: Header
    ) -> Work:
        """The work that a transform of these originals comes to. Blocks for a short time.

        Raises what `pipeline.prepare` does.
        """
        return pipeline.prepare(data, transform, self._limits, others=others, header=header)

    def check_time(self, work: Work) -> None:
        """Raise InvalidOption for what a render is refused for: that it would take too long."""
        check_seconds(estimate_all([work]), self._max_seconds, Lane.INTERACTIVE)

    async def look(self, data: bytes, *, page: int = 0) -> Header:
        """Read the header of an original, and check it against the limits.

        Raises BrokenImage, UnsupportedFormat, SourceTooLarge, Overloaded.
        """
        image_format = sniff(data[:SNIFFED_BYTES])
        if image_format.foreign:
            async with self._open_foreign(image_format.name, data, page=page) as child:
                header = header_of_leaf(image_format, child.leaf)
        else:
            header = await asyncio.to_thread(look, data)
        self._limits.check_original(header, page=0, frames=1)
        return header

    async def run(
        self,
        make: Callable[[bytes, Sequence[Work], Stop], T],
        data: bytes,
        transforms: Sequence[Transform],
        lane: Lane,
        timings: Timings,
        *,
        seconds: float | None = None,
        merged: Sequence[Sequence[bytes]] | None = None,
        marks: Sequence[Mapping[str, Bitmap]] | None = None,
        least_effort: int | None = None,
        claim: Callable[[float], Awaitable[None]] | None = None,
    ) -> tuple[T, list[Work]]:
        """Steps 6 to 8: look, enter, run. A foreign document is drawn by its own process first.

        Under pressure encoders make do with `least_effort` where that saves much. `claim` is told
        the estimate before a processor is waited for, and may call the render off.
        """
        async with AsyncExitStack() as stack:
            image_format = sniff(data[:SNIFFED_BYTES])
            child = header = None
            if image_format.foreign:
                page = transforms[0].page or 0
                with timings.measure("look"):
                    child = await stack.enter_async_context(
                        self._open_foreign(image_format.name, data, page=page, lane=lane)
                    )
                header = header_of_leaf(image_format, child.leaf)

            def prepare() -> list[Work]:
                return [
                    pipeline.prepare(
                        data,
                        transform,
                        self._limits,
                        others=merged[number] if merged else (),
                        marks=marks[number] if marks else None,
                        header=header,
                    )
                    for number, transform in enumerate(transforms)
                ]

            with timings.measure("look"):
                works = await asyncio.to_thread(prepare)
            cost = estimate_all(works)
            seconds = seconds or self._max_seconds
            check_seconds(cost, seconds, lane)
            if claim is not None and child is None:  # one that waits would hold its process
                await claim(cost.seconds)
            if least_effort is not None and self._admission.is_pressed(lane, share=PRESSED):
                works, cost = ease(works, cost, effort=least_effort)
            with timings.measure("queue"):
                held = len(data) + sum(map(len, chain.from_iterable(merged or ())))
                ticket = await self._admission.enter(lane, cost, held=held)
            if child is not None:
                try:
                    with timings.measure("draw"):
                        data = await child.draw(pipeline.scale_to_draw(works, self._limits))
                except BaseException:
                    ticket.release(learn=False)
                    raise
            made = await self._engine.run(partial(make, data, works), ticket, timeout=seconds)
            return made, works

    @asynccontextmanager
    async def _open_foreign(
        self, name: str, data: bytes, *, page: int, lane: Lane = Lane.INTERACTIVE
    ) -> AsyncIterator[Child]:
        if self._children is None:
            raise UnsupportedFormat(f"The original is {name}, which this service does not read")
        async with AsyncExitStack() as stack:
            try:
                child = await stack.enter_async_context(self._children.open(name, data, page=page))
            except Overloaded:
                self._admission.note_shed(lane, Reason.DOCUMENTS)
                raise
            yield child
