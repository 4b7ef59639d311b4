"""The one path from a source and a transform to the bytes of a result.

    1  identify   the original's version, known for a short time
    2  key        digest(version, canonical transform, format, engine epoch): the strong ETag
    3  answer     the memory tier, or the stored tier
    4  join       an equal render that is under way; who waits is counted
    5  fetch      the original, under a byte cap and a deadline; equal ones share one download
    6  look       its header; what is too large is refused before a processor is taken
    7  enter      admission: is the estimated wait within this lane's budget?
    8  run        in a thread, with a deadline that stops libvips
    9  keep       in memory now, in the stored tier behind the answer, of jobs before it

GET, POST, jobs and the command line all come through here. A processor is held in step 8 and
nowhere else: neither a slow origin nor a slow client can hold one. Several results of one original
take the path together (`answer_all`): one download, one decode, one processor.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

from app.admission import Admission, Lane
from app.bitmaps import BitmapTier
from app.cache import MemoryTier, Rendered
from app.children import Child, Children
from app.engine import Engine
from app.errors import OriginalChanged, OriginalTooLarge, naming, problem_of
from app.flights import Flights
from app.keys import UPLOAD, Fetched, Keyed, key_of
from app.originals import Originals
from app.refusals import check_seconds
from app.results import StoredTier
from app.sources.base import Identity, Ref
from app.telemetry import Metrics, Timings, note
from transforms import pipeline
from transforms.bitmap import AS_BITMAP, Bitmap
from transforms.cost import estimate_all
from transforms.errors import InvalidOption, UnsupportedFormat
from transforms.formats import SNIFFED_BYTES, sniff
from transforms.inspect import Header, header_of_leaf, look
from transforms.limits import Limits
from transforms.pipeline import Result, Stop, Work
from transforms.transform import Transform

T = TypeVar("T")
_Flight = tuple[float | str | None, ...]

_TRIES: Final = 3
"""How often an original may change under a request before it is told so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A result, the tier that had it (`memory`, `stored` or `render`), and how long it took."""

    rendered: Rendered
    tier: str
    timings: Timings


class Renderer:
    """Runs requests along the path. One for each process."""

    def __init__(
        self,
        *,
        originals: Originals,
        memory_tier: MemoryTier,
        stored_tier: StoredTier,
        admission: Admission,
        engine: Engine,
        children: Children | None,
        limits: Limits,
        max_bytes: int,
        max_seconds: float,
        metrics: Metrics,
    ) -> None:
        self.originals = originals
        self._memory_tier = memory_tier
        self._stored_tier = stored_tier
        self._admission = admission
        self._engine = engine
        self._children = children
        self._limits = limits
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._metrics = metrics
        self._rendering: Flights[_Flight, tuple[list[Rendered], Timings]] = Flights()
        self._bitmaps = BitmapTier()
        self._decoding: Flights[tuple[Identity, bool], Bitmap] = Flights()
        self._to_keep: dict[_Flight, tuple[Ref, ...]] = {}
        """Renders under way whose results may be kept: a purge takes an original's out."""

    async def identify(self, ref: Ref, transform: Transform) -> Keyed:
        """Steps 1 and 2. The transform's output must be settled (`Transform.with_output`)."""
        identity = await self.originals.identify(ref)
        return await self.key(identity, transform)

    async def key(self, identity: Identity, transform: Transform) -> Keyed:
        """Step 2, where the first original has been identified."""
        others = await self.originals.identify_named(transform.merge or (), "merge")
        marks = await self.originals.identify_named(transform.mark_ids, "watermark")
        key = key_of(transform, identity, *others, *marks)
        return Keyed(identity=identity, transform=transform, key=key, others=others, marks=marks)

    async def answer(self, keyed: Keyed, *, lane: Lane) -> Answer:
        """Steps 3 to 9. Raises what any of them raises; see `app.errors`."""
        (answer,) = await self.answer_all([keyed], lane=lane)
        return answer

    async def answer_all(
        self, keyeds: Sequence[Keyed], *, lane: Lane, seconds: float | None = None
    ) -> list[Answer]:
        """Steps 3 to 9 for several results of one original, which is fetched and decoded once.

        `seconds` bounds the render where that is not what bounds every one.
        """
        for attempt in range(1, _TRIES + 1):
            try:
                return await self._answer_all(keyeds, lane, seconds or self._max_seconds)
            except OriginalChanged:
                for keyed in keyeds:
                    for ref in keyed.refs:
                        self.originals.forget(ref)
                if attempt == _TRIES:
                    raise
                keyeds = [await self.identify(k.identity.ref, k.transform) for k in keyeds]
        raise AssertionError("unreachable")

    async def render_upload(self, data: bytes, transform: Transform, *, lane: Lane) -> Answer:
        """Render bytes that came with the request. Nothing of them is stored."""
        version = hashlib.sha256(data).hexdigest()
        identity = Identity(ref=Ref(UPLOAD, version), version=version, size=len(data), body=data)
        keyed = await self.key(identity, transform)
        (answer,) = await self._answer_all([keyed], lane, self._max_seconds)
        return answer

    async def explain(self, keyed: Keyed) -> Work:
        """The work that a request comes to. Downloads the originals; renders nothing."""
        fetched = await self.fetch(keyed)
        return await asyncio.to_thread(self.plan, fetched, keyed.transform)

    async def fetch(self, keyed: Keyed) -> Fetched:
        """Steps 5 and 6: the originals of a request, but for its watermarks, and a header."""
        self._admission.check(Lane.INTERACTIVE)
        self._check_bytes(keyed)
        data = await self.originals.fetch(keyed.identity)
        others = await self.originals.fetch_all(keyed.others)
        header = await self.look(data, page=keyed.transform.page or 0)
        return Fetched(keyed=keyed, data=data, others=others, header=header)

    def plan(self, fetched: Fetched, transform: Transform) -> Work:
        """The work that a transform of these originals comes to. Blocks for a short time.

        Raises what `pipeline.prepare` does.
        """
        return pipeline.prepare(
            fetched.data, transform, self._limits, others=fetched.others, header=fetched.header
        )

    def check_time(self, work: Work) -> None:
        """Raise InvalidOption for what a render is refused for: that it would take too long."""
        check_seconds(estimate_all([work]), self._max_seconds, Lane.INTERACTIVE)

    def refusal_of(self, work: Work) -> InvalidOption | None:
        """What `check_time` raises, if anything."""
        try:
            self.check_time(work)
        except InvalidOption as error:
            return error
        return None

    async def make(
        self,
        make: Callable[[bytes, Sequence[Work], Stop], T],
        fetched: Fetched,
        transform: Transform,
        *,
        lane: Lane,
    ) -> T:
        """Steps 6 to 8 for something else than a result, of originals that are there."""
        bitmaps = await self._fetch_marks([fetched.keyed], lane)
        made, _ = await self.run(
            make,
            fetched.data,
            [transform],
            lane,
            Timings(),
            merged=[fetched.others],
            marks=[{mark.ref.name: bitmap for mark, bitmap in bitmaps.items()}],
        )
        return made

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

    async def purge(self, ref: Ref) -> int:
        """Remove every result of an original from every tier of this replica."""
        self.originals.forget(ref)
        self._to_keep = {flight: of for flight, of in self._to_keep.items() if ref not in of}
        return self._memory_tier.purge(ref) + await self._stored_tier.purge(ref)

    async def _answer_all(
        self, keyeds: Sequence[Keyed], lane: Lane, seconds: float
    ) -> list[Answer]:
        found: dict[str, Answer] = {}
        for keyed in keyeds:
            if answer := await self._find(keyed):
                found[keyed.key] = answer
        by_page: dict[int, dict[str, Keyed]] = {}
        for keyed in keyeds:
            if keyed.key not in found:
                by_page.setdefault(keyed.transform.page or 0, {})[keyed.key] = keyed
        for missing in by_page.values():
            began = time.perf_counter()
            flight = _flight(missing, lane, seconds)
            made, shared = await self._rendering.join(
                flight, partial(self._render, list(missing.values()), lane, seconds, flight)
            )
            timings = Timings()
            timings.take(shared)
            timings.add("total", time.perf_counter() - began)
            for rendered in made:
                answer = Answer(rendered=rendered, tier="render", timings=timings)
                found[rendered.key] = self._counted(answer)
        return [found[keyed.key] for keyed in keyeds]

    async def _find(self, keyed: Keyed) -> Answer | None:
        """Step 3: what the tiers have."""
        timings = Timings()
        if rendered := self._memory_tier.get(keyed.key):
            return self._counted(Answer(rendered=rendered, tier="memory", timings=timings))
        if (
            keyed.identity.ref.kind == UPLOAD
            or _flight([keyed.key], Lane.INTERACTIVE, 0) in self._rendering
        ):
            return None
        with timings.measure("stored"):
            rendered = await self._stored_tier.get(keyed.key, keyed.identity, keyed.fm)
        if rendered is None:
            return None
        rendered = replace(rendered, others=keyed.refs[1:])
        self._memory_tier.put(rendered)
        return self._counted(Answer(rendered=rendered, tier="stored", timings=timings))

    def _counted(self, answer: Answer) -> Answer:
        self._metrics.results.labels(answer.tier).inc()
        note(tier=answer.tier, format=answer.rendered.format.name)
        return answer

    async def _render(
        self, keyeds: Sequence[Keyed], lane: Lane, seconds: float, flight: _Flight
    ) -> tuple[list[Rendered], Timings]:
        timings = Timings()
        # Of one original, so what takes one of these results out takes all of them.
        self._to_keep[flight] = tuple(ref for keyed in keyeds for ref in keyed.refs)
        try:
            made = await self._render_measured(keyeds, lane, seconds, timings)
        except Exception as error:
            problem = problem_of(error)
            self._metrics.render_failures.labels(problem.code if problem else "internal").inc()
            raise
        finally:
            kept = self._to_keep.pop(flight, None) is not None
            for stage, taken in timings.items():
                self._metrics.stage_seconds.labels(stage).observe(taken)
        if kept:
            for keyed, rendered in zip(keyeds, made, strict=True):
                await self._keep(rendered, keyed.fm, lane)
        return made, timings

    async def _render_measured(
        self, keyeds: Sequence[Keyed], lane: Lane, seconds: float, timings: Timings
    ) -> list[Rendered]:
        # Where the queue is full already, nothing is downloaded in vain.
        self._admission.check(lane)
        first = keyeds[0]
        for keyed in keyeds:
            self._check_bytes(keyed)
        with timings.measure("fetch"):
            data = await self.originals.fetch(first.identity)
            with naming("merge"):
                others = {k.others: await self.originals.fetch_all(k.others) for k in keyeds}
            bitmaps = await self._fetch_marks(keyeds, lane)

        transforms = [keyed.transform for keyed in keyeds]
        merged = [others[keyed.others] for keyed in keyeds]
        marks = [{mark.ref.name: bitmaps[mark] for mark in keyed.marks} for keyed in keyeds]
        results, works = await self.run(
            pipeline.run_all,
            data,
            transforms,
            lane,
            timings,
            seconds=seconds,
            merged=merged,
            marks=marks,
        )
        self._metrics.rendered_bytes.inc(len(data))
        return [
            self._rendered(keyed, work, result, timings)
            for keyed, work, result in zip(keyeds, works, results, strict=True)
        ]

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
    ) -> tuple[T, list[Work]]:
        """Steps 6 to 8: look, enter, run. A foreign document is drawn by its own process first."""
        async with AsyncExitStack() as stack:
            image_format = sniff(data[:SNIFFED_BYTES])
            child = header = None
            if image_format.foreign:
                page = transforms[0].page or 0
                with timings.measure("look"):
                    child = await stack.enter_async_context(
                        self._open_foreign(image_format.name, data, page=page)
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
            with timings.measure("queue"):
                ticket = await self._admission.enter(lane, cost)
            if child is not None:
                try:
                    with timings.measure("draw"):
                        data = await child.draw(pipeline.scale_to_draw(works, self._limits))
                except BaseException:
                    ticket.release(learn=False)
                    raise
            made = await self._engine.run(partial(make, data, works), ticket, timeout=seconds)
            return made, works

    def _open_foreign(
        self, name: str, data: bytes, *, page: int
    ) -> AbstractAsyncContextManager[Child]:
        if self._children is None:
            raise UnsupportedFormat(f"The original is {name}, which this service does not read")
        return self._children.open(name, data, page=page)

    def _rendered(self, keyed: Keyed, work: Work, result: Result, timings: Timings) -> Rendered:
        timings.add_in_turn({"decode": result.decode_seconds, "encode": result.encode_seconds})
        self._metrics.saved_bytes.inc(max(0, keyed.identity.size - len(result.data)))
        if result.choice:
            timings.describe("encode", result.choice)
        self._metrics.renders.labels(work.header.format.name, result.format.name).inc()
        return Rendered(
            key=keyed.key,
            ref=keyed.identity.ref,
            others=keyed.refs[1:],
            data=result.data,
            format=result.format,
            modified=keyed.identity.modified,
        )

    def _check_bytes(self, keyed: Keyed) -> None:
        """Refuse to hold more bytes of merged originals than those of the largest single one."""
        size = keyed.identity.size + sum(identity.size for identity in keyed.others)
        if keyed.others and size > self._max_bytes:
            raise OriginalTooLarge(
                f"merge: the originals have {size} bytes together; at most {self._max_bytes} are "
                "read",
                param="merge",
            )

    async def _keep(self, rendered: Rendered, fm: str, lane: Lane) -> None:
        if lane is Lane.JOBS:
            # A job has ended when its result is there for all replicas; in this one's memory it
            # would only be in the way of what is asked for.
            await self._stored_tier.put(rendered, fm)
            return
        self._memory_tier.put(rendered)
        if rendered.ref.kind != UPLOAD:
            self._stored_tier.put_later(rendered, fm)

    async def _fetch_marks(self, keyeds: Sequence[Keyed], lane: Lane) -> dict[Identity, Bitmap]:
        """The bitmaps of all watermarks. Those not kept are decoded, equal ones at once together.

        What waits for an answer does not wait in the lane of jobs.
        """
        identities = list(dict.fromkeys(mark for keyed in keyeds for mark in keyed.marks))

        async def fetch(identity: Identity) -> Bitmap:
            kept = self._bitmaps.get(identity)
            if kept is not None:
                return kept
            return await self._decoding.join(
                (identity, lane is Lane.JOBS), partial(self._decode_mark, identity, lane)
            )

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetch(identity)) for identity in identities]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {mark: task.result() for mark, task in zip(identities, tasks, strict=True)}

    async def _decode_mark(self, identity: Identity, lane: Lane) -> Bitmap:
        with naming("watermark"):
            data = await self.originals.fetch(identity)
            bitmap, _ = await self.run(pipeline.make_bitmap, data, [AS_BITMAP], lane, Timings())
        self._bitmaps.put(identity, bitmap)
        return bitmap


def _flight(keys: Iterable[str], lane: Lane, seconds: float) -> _Flight:
    """What tells renders under way apart.

    Who waits for an answer does not wait in the lane of jobs, nor fails because a job does.
    """
    return (seconds if lane is Lane.JOBS else None, *keys)
