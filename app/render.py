"""The one path from a source and a transform to the bytes of a result.

    1  identify   the original's version, known for a short time
    2  key        digest(version, canonical transform, format, engine epoch): the strong ETag
    3  answer     the memory tier, or the stored tier
    4  join       an equal render that is under way; who waits is counted
    5  fetch      the original, under a byte cap and a deadline; equal ones share one download
    6  look       its header; what is too large is refused before a processor is taken
    7  enter      admission: is the estimated wait within this lane's budget?
    8  run        in a thread, with a deadline that stops libvips
    9  keep       in memory now, in the stored tier behind the answer

GET, POST, jobs and the command line all come through here. A processor is held in step 8 and
nowhere else: neither a slow origin nor a slow client can hold one.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from app.admission import Admission, Lane
from app.cache import MemoryTier, Rendered
from app.engine import Engine
from app.errors import OriginalChanged, problem_of
from app.flights import Flights
from app.results import StoredTier
from app.sources.base import Identity, Ref, Source
from app.telemetry import Metrics, Timings
from transforms import pipeline
from transforms.cost import Cost, estimate
from transforms.errors import InvalidOption
from transforms.limits import Limits
from transforms.transform import Transform

_KNOWN: Final = 20_000
"""Identities that are remembered."""
_TRIES: Final = 3
"""How often an original may change under a request before it is told so."""
_USUAL_EFFORT: Final = 2
UPLOAD: Final = "upload"
"""The kind of an original that comes with the request itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """A request whose original has been identified: steps 1 and 2 are done."""

    identity: Identity
    transform: Transform
    key: str

    @property
    def fm(self) -> str:
        """The output that the transform was settled on."""
        return self.transform.fm or "auto"


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
        sources: Mapping[str, Source],
        memory_tier: MemoryTier,
        stored_tier: StoredTier,
        admission: Admission,
        engine: Engine,
        limits: Limits,
        freshness: float,
        max_seconds: float,
        metrics: Metrics,
    ) -> None:
        self._sources = sources
        self._memory_tier = memory_tier
        self._stored_tier = stored_tier
        self._admission = admission
        self._engine = engine
        self._limits = limits
        self._freshness = freshness
        self._max_seconds = max_seconds
        self._metrics = metrics
        self._identities: OrderedDict[Ref, tuple[Identity, float]] = OrderedDict()
        self._asking: set[Ref] = set()
        self._identifying: Flights[Ref, Identity] = Flights()
        self._fetching: Flights[tuple[Ref, str], bytes] = Flights()
        self._rendering: Flights[str, tuple[Rendered, Timings]] = Flights()
        self._to_keep: dict[str, Ref] = {}
        """Renders under way whose results may be kept: a purge takes its original's out."""

    async def identify(self, ref: Ref, transform: Transform) -> Keyed:
        """Steps 1 and 2. The transform's output must be settled (`Transform.with_output`)."""
        identity = await self._identify(ref)
        return Keyed(identity=identity, transform=transform, key=key_of(identity, transform))

    async def answer(self, keyed: Keyed, *, lane: Lane) -> Answer:
        """Steps 3 to 9. Raises what any of them raises; see `app.errors`."""
        for attempt in range(1, _TRIES + 1):
            try:
                return await self._answer(keyed, lane)
            except OriginalChanged:
                self.forget(keyed.identity.ref)
                if attempt == _TRIES:
                    raise
                keyed = await self.identify(keyed.identity.ref, keyed.transform)
        raise AssertionError("unreachable")

    async def render_upload(self, data: bytes, transform: Transform, *, lane: Lane) -> Answer:
        """Render bytes that came with the request. Nothing of them is stored."""
        version = hashlib.sha256(data).hexdigest()
        identity = Identity(ref=Ref(UPLOAD, version), version=version, size=len(data), body=data)
        keyed = Keyed(identity=identity, transform=transform, key=key_of(identity, transform))
        return await self._answer(keyed, lane)

    def forget(self, ref: Ref) -> None:
        """Ask for the original's version anew the next time."""
        self._identities.pop(ref, None)
        self._asking.discard(ref)

    async def purge(self, ref: Ref) -> int:
        """Remove every result of an original from every tier of this replica."""
        self.forget(ref)
        self._to_keep = {key: of for key, of in self._to_keep.items() if of != ref}
        return self._memory_tier.purge(ref) + await self._stored_tier.purge(ref)

    def fresh_for(self, ref: Ref) -> float:
        """For how many seconds more the original's version need not be asked for."""
        known = self._identities.get(ref)
        return 0.0 if known is None else max(0.0, known[1] - time.monotonic())

    async def _identify(self, ref: Ref) -> Identity:
        known = self._identities.get(ref)
        if known is not None and known[1] > time.monotonic():
            return known[0]

        async def ask() -> Identity:
            self._asking.add(ref)
            try:
                source = self._sources[ref.kind]
                found = await source.identify(ref.name, known[0] if known else None)
                if ref in self._asking:  # else it was replaced or deleted meanwhile
                    self._remember(ref, found)
            finally:
                self._asking.discard(ref)
            return found

        return await self._identifying.join(ref, ask)

    def _remember(self, ref: Ref, identity: Identity) -> None:
        until = time.monotonic() + self._freshness
        self._identities[ref] = (replace(identity, body=None), until)
        self._identities.move_to_end(ref)
        while len(self._identities) > _KNOWN:
            self._identities.popitem(last=False)

    async def _answer(self, keyed: Keyed, lane: Lane) -> Answer:
        timings = Timings()
        if found := self._memory_tier.get(keyed.key):
            return self._counted(Answer(rendered=found, tier="memory", timings=timings))
        if keyed.identity.ref.kind != UPLOAD and keyed.key not in self._rendering:
            with timings.measure("stored"):
                found = await self._stored_tier.get(keyed.key, keyed.identity, keyed.fm)
            if found:
                self._memory_tier.put(found)
                return self._counted(Answer(rendered=found, tier="stored", timings=timings))
        began = time.perf_counter()
        rendered, shared = await self._rendering.join(keyed.key, lambda: self._render(keyed, lane))
        for stage, seconds in shared.items():
            timings.add(stage, seconds)
        timings.add("total", time.perf_counter() - began)
        return self._counted(Answer(rendered=rendered, tier="render", timings=timings))

    def _counted(self, answer: Answer) -> Answer:
        self._metrics.results.labels(answer.tier).inc()
        return answer

    async def _render(self, keyed: Keyed, lane: Lane) -> tuple[Rendered, Timings]:
        timings = Timings()
        self._to_keep[keyed.key] = keyed.identity.ref
        try:
            rendered = await self._render_measured(keyed, lane, timings)
        except Exception as error:
            problem = problem_of(error)
            self._metrics.render_failures.labels(problem.code if problem else "internal").inc()
            raise
        finally:
            keep = self._to_keep.pop(keyed.key, None) is not None
            for stage, seconds in timings.items():
                self._metrics.stage_seconds.labels(stage).observe(seconds)
        if keep:
            self._keep(rendered, keyed.fm)
        return rendered, timings

    async def _render_measured(self, keyed: Keyed, lane: Lane, timings: Timings) -> Rendered:
        # Where the queue is full already, nothing is downloaded in vain.
        self._admission.check(lane)
        with timings.measure("fetch"):
            data = await self._fetch(keyed.identity)
        with timings.measure("look"):
            work = await asyncio.to_thread(pipeline.prepare, data, keyed.transform, self._limits)
        cost = estimate(work)
        self._check_cost(cost, keyed.transform)
        with timings.measure("queue"):
            ticket = await self._admission.enter(lane, cost)
        result = await self._engine.run(data, work, ticket)
        timings.add("decode", result.decode_seconds)
        timings.add("encode", result.encode_seconds)
        self._metrics.rendered_bytes.inc(len(data))
        self._metrics.renders.labels(work.header.format.name, result.format.name).inc()
        return Rendered(
            key=keyed.key,
            ref=keyed.identity.ref,
            data=result.data,
            format=result.format,
            modified=keyed.identity.modified,
        )

    def _check_cost(self, cost: Cost, transform: Transform) -> None:
        """Refuse what cannot be done in time: an encoder that is at work cannot be stopped."""
        if cost.seconds > self._max_seconds:
            param = "effort" if transform.effort > _USUAL_EFFORT else "w"
            raise InvalidOption(
                param,
                f"this would take about {cost.seconds:.0f} s, and at most {self._max_seconds:g} s "
                f"are spent on a render: ask for less effort, a smaller picture or another fm",
            )

    def _keep(self, rendered: Rendered, fm: str) -> None:
        self._memory_tier.put(rendered)
        if rendered.ref.kind != UPLOAD:
            self._stored_tier.put_later(rendered, fm)

    async def _fetch(self, identity: Identity) -> bytes:
        if identity.body is not None:
            return identity.body

        source = self._sources[identity.ref.kind]
        return await self._fetching.join(
            (identity.ref, identity.version), lambda: source.fetch(identity)
        )


def key_of(identity: Identity, transform: Transform) -> str:
    """The key of a result: what it is made of, and by which engine. 128 bits, hexadecimal."""
    parts = (
        identity.ref.kind,
        identity.ref.name,
        identity.version,
        transform.canonical,
        pipeline.EPOCH,
    )
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
