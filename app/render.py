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
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, TypeVar

import structlog

from app.admission import Lane
from app.cache import MemoryTier, Rendered
from app.claims import Claims, RenderedElsewhere
from app.errors import OriginalChanged, OriginalTooLarge, naming, problem_of
from app.executor import Executor
from app.flights import Flights
from app.keys import UPLOAD, Fetched, Keyed, key_of
from app.originals import Originals
from app.pressure import eased_key
from app.purges import Purges, Verdict
from app.refreshing import Refreshing
from app.refusals import Refusals
from app.results import StoredTier
from app.sources.base import Identity, Ref
from app.subjects import Coverage
from app.telemetry import Metrics, Timings, note
from app.watermarks import Watermarks
from transforms import pipeline
from transforms.errors import InvalidOption
from transforms.pipeline import Result, Stop, Work
from transforms.transform import Transform

log = structlog.get_logger(__name__)

T = TypeVar("T")
_Flight = tuple[float | str | None, ...]

_OUTDATED: Final = 10_000
_TRIES: Final = 3
"""How often an original may change under a request before it is told so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A result, the tier that had it (`memory`, `stored` or `render`), and how long it took.

    It is `stale` where it may be outdated: something has been purged softly, or cannot be asked.
    """

    rendered: Rendered
    tier: str
    timings: Timings
    stale: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Made:
    """What a render has made, or had from the replica that did."""

    results: list[Rendered]
    timings: Timings
    tier: str = "render"


class Renderer:
    """Runs requests along the path. One for each process."""

    def __init__(
        self,
        *,
        originals: Originals,
        memory_tier: MemoryTier,
        stored_tier: StoredTier,
        executor: Executor,
        max_bytes: int,
        max_seconds: float,
        pressure_effort: int | None = None,
        metrics: Metrics,
        purges: Purges,
        claims: Claims,
        refusals: Refusals,
    ) -> None:
        self.originals = originals
        self._memory_tier = memory_tier
        self._stored_tier = stored_tier
        self.executor = executor
        self._watermarks = Watermarks(originals, executor)
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._pressure_effort = pressure_effort
        self._metrics = metrics
        self._purges = purges
        self._claims = claims
        self._refusals = refusals
        self._rendering: Flights[_Flight, _Made] = Flights()
        self._to_keep: dict[_Flight, Sequence[Keyed]] = {}
        """Renders under way whose results may be kept: a purge takes them out."""
        self._refreshing = Refreshing()
        self._outdated: set[str] = set()
        """Keys whose stored results are to be written over."""

    async def identify(
        self, ref: Ref, transform: Transform, *, preset: str | None = None, recall: bool = False
    ) -> Keyed:
        """Steps 1 and 2. The transform's output must be settled (`Transform.with_output`).

        With `recall`, what a source does not tell is taken as it was known last.
        """
        originals = self.originals
        identify = originals.identify_or_recall if recall else originals.identify
        keyed = await self.key(await identify(ref), transform, recall=recall)
        return replace(keyed, preset=preset)

    async def key(self, identity: Identity, transform: Transform, *, recall: bool = False) -> Keyed:
        """Step 2, where the first original has been identified."""
        identify = partial(self.originals.identify_named, recall=recall)
        others = await identify(transform.merge or (), "merge")
        marks = await identify(transform.mark_ids, "watermark")
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
                    for identity in keyed.identities:
                        self.originals.outdate(identity)
                if attempt == _TRIES:
                    raise
                keyeds = [
                    await self.identify(k.identity.ref, k.transform, preset=k.preset)
                    for k in keyeds
                ]
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
        self.executor.check(Lane.INTERACTIVE)
        self._check_bytes(keyed)
        data = await self.originals.fetch(keyed.identity)
        others = await self.originals.fetch_all(keyed.others)
        header = await self.executor.look(data, page=keyed.transform.page or 0)
        return Fetched(keyed=keyed, data=data, others=others, header=header)

    def plan(self, fetched: Fetched, transform: Transform) -> Work:
        """The work that a transform of these originals comes to. Blocks for a short time.

        Raises what `pipeline.prepare` does.
        """
        return self.executor.plan(
            fetched.data, transform, others=fetched.others, header=fetched.header
        )

    def check_time(self, work: Work) -> None:
        """Raise InvalidOption for what a render is refused for: that it would take too long."""
        self.executor.check_time(work)

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
        bitmaps = await self._watermarks.fetch_all([fetched.keyed], lane)
        made, _ = await self.executor.run(
            make,
            fetched.data,
            [transform],
            lane,
            Timings(),
            merged=[fetched.others],
            marks=[{mark.ref.name: bitmap for mark, bitmap in bitmaps.items()}],
        )
        return made

    async def is_kept(self, keyed: Keyed) -> bool:
        """Whether the result is stored, and nothing of it has been purged since.

        Raises what `ObjectStore.stat` does.
        """
        at = await self._stored_tier.stored_at(keyed.key, keyed.identity.ref, keyed.fm)
        if at is None:
            return False
        return self._purges.verdict(keyed.refs, keyed.preset, at) is Verdict.FRESH

    def withdraw(self, coverage: Coverage) -> None:
        """Keep nothing of the renders under way that this is about."""
        for flight, keyeds in list(self._to_keep.items()):
            refs = {ref for keyed in keyeds for ref in keyed.refs}
            presets = {keyed.preset for keyed in keyeds}
            # Of one original, so what takes one of these results out takes all of them.
            if presets & coverage.presets or any(ref in coverage for ref in refs):
                del self._to_keep[flight]
        self._refreshing.withdraw(coverage)

    async def close(self) -> None:
        """Give up what is made anew behind answers."""
        await self._refreshing.close()

    async def _answer_all(
        self, keyeds: Sequence[Keyed], lane: Lane, seconds: float
    ) -> list[Answer]:
        found: dict[str, Answer] = {}
        for keyed in keyeds:
            if answer := await self._find(keyed, lane):
                found[keyed.key] = answer
        by_page: dict[int, dict[str, Keyed]] = {}
        for keyed in keyeds:
            if keyed.key not in found:
                self._refusals.check(keyed.key)
                by_page.setdefault(keyed.transform.page or 0, {})[keyed.key] = keyed
        for missing in by_page.values():
            began = time.perf_counter()
            made = await self._join(list(missing.values()), lane, seconds)
            timings = Timings()
            timings.take(made.timings)
            timings.add("total", time.perf_counter() - began)
            for key, rendered in zip(missing, made.results, strict=True):
                answer = Answer(rendered=rendered, tier=made.tier, timings=timings)
                found[key] = self._counted(answer)
        return [found[keyed.key] for keyed in keyeds]

    async def _join(self, keyeds: list[Keyed], lane: Lane, seconds: float) -> _Made:
        flight = _flight([keyed.key for keyed in keyeds], lane, seconds)
        if flight not in self._rendering:
            # Where the queue is full already nothing is begun, least of all a download.
            self.executor.check(lane)
        return await self._rendering.join(
            flight, partial(self._render, keyeds, lane, seconds, flight)
        )

    async def _find(self, keyed: Keyed, lane: Lane) -> Answer | None:
        """Step 3: what the tiers have. What is stale there is made anew behind the answer.

        A job waits for the new one: what it has it may write elsewhere.
        """
        waits = lane is Lane.JOBS
        timings = Timings()
        if rendered := self._memory_tier.get(keyed.key):
            return self._found(keyed, rendered, "memory", timings, stale=keyed.doubtful)
        if not waits and (rendered := self._refreshing.get(keyed.key)):
            return self._found(keyed, rendered, "stored", timings, stale=True)
        if (
            keyed.identity.ref.kind == UPLOAD
            or _flight([keyed.key], Lane.INTERACTIVE, 0) in self._rendering
        ):
            return None
        with timings.measure("stored"):
            rendered = await self._stored_tier.get(keyed.key, keyed.identity, keyed.fm)
        verdict = Verdict.STALE
        if rendered is None:
            rendered = self._memory_tier.get_expired(keyed.key)
        elif rendered.stored_at is not None:
            verdict = self._purges.verdict(keyed.refs, keyed.preset, rendered.stored_at)
        if rendered is None:
            return None
        rendered = replace(rendered, others=keyed.refs[1:])
        if verdict is Verdict.FRESH:
            if not waits:
                self._memory_tier.put(rendered)
            return self._found(keyed, rendered, "stored", timings, stale=keyed.doubtful)
        if len(self._outdated) >= _OUTDATED:
            self._outdated.clear()  # what it named is then written once more than it need be
        self._outdated.add(keyed.key)
        if waits or verdict is Verdict.GONE:
            return None
        refresh = partial(self._join, [keyed], Lane.API, self._max_seconds)
        self._refreshing.start(rendered, keyed, refresh)
        return self._found(keyed, rendered, "stored", timings, stale=True)

    def _found(
        self, keyed: Keyed, rendered: Rendered, tier: str, timings: Timings, *, stale: bool
    ) -> Answer:
        if keyed.preset is not None:
            self._memory_tier.label(keyed.key, keyed.preset)
        return self._counted(Answer(rendered=rendered, tier=tier, timings=timings, stale=stale))

    def _counted(self, answer: Answer) -> Answer:
        self._metrics.results.labels(answer.tier).inc()
        note(tier=answer.tier, format=answer.rendered.format.name)
        return answer

    async def _render(
        self, keyeds: Sequence[Keyed], lane: Lane, seconds: float, flight: _Flight
    ) -> _Made:
        timings = Timings()
        self._to_keep[flight] = keyeds
        try:
            made = await self._render_measured(keyeds, lane, seconds, timings)
            for keyed, rendered in zip(keyeds, made, strict=True):
                if flight in self._to_keep:  # and not purged meanwhile
                    await self._keep(keyed, rendered, lane)
                else:
                    self._claims.release(keyed)
                    self._outdated.discard(keyed.key)
        except RenderedElsewhere as elsewhere:
            rendered = replace(elsewhere.rendered, others=keyeds[0].refs[1:])
            if flight in self._to_keep:
                self._memory_tier.put(rendered)
            return _Made(results=[rendered], timings=timings, tier="stored")
        except BaseException as error:
            for keyed in keyeds:
                self._claims.release(keyed)
                self._outdated.discard(keyed.key)
                self._refusals.remember(keyed.key, error)
            if isinstance(error, Exception):
                problem = problem_of(error)
                self._metrics.render_failures.labels(problem.code if problem else "internal").inc()
            raise
        finally:
            self._to_keep.pop(flight, None)
            for stage, taken in timings.items():
                self._metrics.stage_seconds.labels(stage).observe(taken)
        return _Made(results=made, timings=timings)

    async def _render_measured(
        self, keyeds: Sequence[Keyed], lane: Lane, seconds: float, timings: Timings
    ) -> list[Rendered]:
        first = keyeds[0]
        for keyed in keyeds:
            self._check_bytes(keyed)
        with timings.measure("fetch"):
            data = await self.originals.fetch(first.identity)
            with naming("merge"):
                others = {k.others: await self.originals.fetch_all(k.others) for k in keyeds}
            bitmaps = await self._watermarks.fetch_all(keyeds, lane)

        transforms = [keyed.transform for keyed in keyeds]
        merged = [others[keyed.others] for keyed in keyeds]
        marks = [{mark.ref.name: bitmaps[mark] for mark in keyed.marks} for keyed in keyeds]
        # Of what is outdated, the store has a result that is not the one to wait for.
        shared = (
            len(keyeds) == 1
            and lane is not Lane.JOBS
            and first.identity.ref.kind != UPLOAD
            and first.key not in self._outdated
        )
        results, works = await self.executor.run(
            pipeline.run_all,
            data,
            transforms,
            lane,
            timings,
            seconds=seconds,
            merged=merged,
            marks=marks,
            claim=partial(self._claims.make, first, timings) if shared else None,
            # Whoever posts waits for longer, and keeps what is answered.
            least_effort=self._pressure_effort if lane is Lane.INTERACTIVE else None,
        )
        self._metrics.rendered_bytes.inc(len(data))
        return [
            self._rendered(keyed, work, result, timings)
            for keyed, work, result in zip(keyeds, works, results, strict=True)
        ]

    def _rendered(self, keyed: Keyed, work: Work, result: Result, timings: Timings) -> Rendered:
        timings.add_in_turn({"decode": result.decode_seconds, "encode": result.encode_seconds})
        self._metrics.saved_bytes.inc(max(0, keyed.identity.size - len(result.data)))
        reduced = work.transform.effort < keyed.transform.effort
        pressed = f"effort {work.transform.effort} under pressure" if reduced else None
        if said := ", ".join(filter(None, (result.choice, pressed))):
            timings.describe("encode", said)
        self._metrics.renders.labels(work.header.format.name, result.format.name).inc()
        return Rendered(
            key=eased_key(keyed.key) if reduced else keyed.key,
            ref=keyed.identity.ref,
            others=keyed.refs[1:],
            data=result.data,
            format=result.format,
            modified=keyed.identity.modified,
            reduced=reduced,
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

    async def _keep(self, keyed: Keyed, rendered: Rendered, lane: Lane) -> None:
        over = keyed.key in self._outdated
        self._outdated.discard(keyed.key)
        if rendered.reduced:
            self._claims.release(keyed)
            return
        if lane is Lane.JOBS:
            # A job has ended when its result is there for all replicas; in this one's memory it
            # would only be in the way of what is asked for.
            await self._stored_tier.put(rendered, keyed.fm, over=over)
            return
        self._memory_tier.put(rendered)
        if keyed.preset is not None:
            self._memory_tier.label(rendered.key, keyed.preset)
        if rendered.ref.kind != UPLOAD:
            release = partial(self._claims.release, keyed)
            self._stored_tier.put_later(rendered, keyed.fm, over=over, after=release)


def _flight(keys: Iterable[str], lane: Lane, seconds: float) -> _Flight:
    """What tells renders under way apart.

    Who waits for an answer does not wait in the lane of jobs, nor fails because a job does.
    """
    return (seconds if lane is Lane.JOBS else None, *keys)
