"""Dry runs: how many jobs a batch would be, of how many bytes, and how much work.

What cannot be known without looking at every original is estimated from some of them, taken evenly,
and said to be.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, TypeVar

from app.errors import Overloaded, Problem, ServiceError
from app.jobs.batch_spec import Plan
from app.jobs.batches import MOST_REJECTIONS
from app.jobs.entries import JobsOfBatch, read_each
from app.jobs.lines import LineReader, numbered
from app.jobs.origins import Origins
from app.jobs.records import Draft, Output, shown_problem
from app.jobs.spec import settled
from app.render import Renderer
from app.settings import Settings
from transforms.cost import estimate_all
from transforms.errors import TransformError

T = TypeVar("T")

_SAMPLED: Final = 50
_AT_ONCE: Final = 4
_SECONDS: Final = 20.0
"""For counting, and then for looking at the sample."""


@dataclass(slots=True)
class _Sample:
    """Values taken evenly from a sequence whose length is not known, at most twice `_SAMPLED`."""

    kept: list[Draft] = field(default_factory=list)
    _step: int = 1
    _seen: int = 0

    def offer(self, draft: Draft) -> None:
        if self._seen % self._step == 0:
            self.kept.append(draft)
            if len(self.kept) > 2 * _SAMPLED:
                self.kept = self.kept[::2]
                self._step *= 2
        self._seen += 1

    def taken(self) -> list[Draft]:
        count = len(self.kept)
        if count <= _SAMPLED:
            return self.kept
        return [self.kept[place * count // _SAMPLED] for place in range(_SAMPLED)]


@dataclass(slots=True)
class _Tally:
    jobs: int = 0
    results: int = 0
    rejected: int = 0
    skipped: int = 0
    rejections: list[dict[str, Any]] = field(default_factory=list)
    listed_bytes: int = 0
    sample: _Sample = field(default_factory=_Sample)
    complete: bool = True

    def count(self, draft: Draft) -> None:
        self.jobs += 1
        self.results += _results_of(draft.outputs)
        self.sample.offer(draft)

    def reject(self, rejection: dict[str, Any]) -> None:
        self.rejected += 1
        if len(self.rejections) < MOST_REJECTIONS:
            self.rejections.append(rejection)


class Estimator:
    """Tells what batches would come to."""

    def __init__(self, *, origins: Origins, renderer: Renderer, settings: Settings) -> None:
        self._origins = origins
        self._renderer = renderer
        self._settings = settings

    async def of_entries(self, entries: Sequence[Any], read: JobsOfBatch) -> dict[str, Any]:
        """Of entries that came with the request."""
        tally = _Tally()
        await _count(tally, enumerate(entries, start=1), read.read)
        return await self._told(tally)

    async def of_lines(self, chunks: AsyncIterator[bytes], read: JobsOfBatch) -> dict[str, Any]:
        """Of lines that come with the request."""
        tally = _Tally()
        lines = LineReader()
        async for chunk in chunks:
            await _count(tally, numbered(lines.feed(chunk)), read.read_line)
        await _count(tally, numbered(lines.end()), read.read_line)
        return await self._told(tally)

    async def of_origin(self, plan: Plan, read: JobsOfBatch) -> dict[str, Any]:
        """Of a manifest or a selection. Stops counting when that takes too long, and says so."""
        tally = _Tally()
        now = time.time()
        until = time.monotonic() + _SECONDS
        cursor = None
        while True:
            page = await self._origins.read_page(plan, read, cursor=cursor, since=now)
            for draft in page.drafts:
                tally.count(draft)
            for rejection in page.rejections:
                tally.reject(rejection)
            tally.skipped += page.skipped
            tally.listed_bytes += sum(page.sizes)
            cursor = page.cursor
            if cursor is None:
                break
            if time.monotonic() > until:
                tally.complete = False
                break
        return await self._told(tally)

    async def _told(self, tally: _Tally) -> dict[str, Any]:
        looked = await self._look_at(tally.sample.taken())
        known = [one for one in looked if one is not None]
        share = tally.jobs / len(known) if known else 0.0
        sizes = sum(size for size, _ in known)
        told: dict[str, Any] = {
            "dry_run": True,
            "jobs": tally.jobs,
            "results": tally.results,
            "rejected": tally.rejected,
            "skipped": tally.skipped,
            "bytes": tally.listed_bytes or round(sizes * share),
            "cpu_seconds": round(sum(seconds for _, seconds in known) * share, 3),
            "sampled": len(known),
            "unreadable": len(looked) - len(known),
            "scaled": ["cpu_seconds"] if tally.listed_bytes else ["bytes", "cpu_seconds"],
            "complete": tally.complete,
        }
        if share <= 1:
            told["scaled"] = []
        if tally.rejections:
            told["errors"] = tally.rejections
        return told

    async def _look_at(self, drafts: Sequence[Draft]) -> list[tuple[int, float] | None]:
        """Bytes and processor seconds of jobs; None where an original cannot be read."""
        gate = asyncio.Semaphore(_AT_ONCE)
        until = time.monotonic() + _SECONDS

        async def look(draft: Draft) -> tuple[int, float] | None:
            async with gate:
                if time.monotonic() > until:
                    return None
                try:
                    return await self._cost(draft)
                except Overloaded:
                    raise
                except (ServiceError, TransformError):
                    return None

        looking = [asyncio.create_task(look(draft)) for draft in drafts]
        try:
            return await asyncio.gather(*looking)
        finally:
            for task in looking:
                task.cancel()

    async def _cost(self, draft: Draft) -> tuple[int, float]:
        outputs = [Output.from_json(output) for output in json.loads(draft.outputs)]
        keyeds = [
            await self._renderer.identify(draft.source[0], settled(output, self._settings))
            for output in outputs
        ]
        # Together, so that they share one download.
        works = await asyncio.gather(*(self._renderer.explain(keyed) for keyed in keyeds))
        size = keyeds[0].identity.size + sum(other.size for other in keyeds[0].others)
        return size, estimate_all(works).seconds


async def _count(
    tally: _Tally, entries: Iterable[tuple[int, T]], read: Callable[[T, int], Draft | None]
) -> None:
    async for number, found in read_each(entries, read):
        if isinstance(found, Problem):
            tally.reject({"line": number, "problem": shown_problem(found)})
        else:
            tally.count(found)


@lru_cache(maxsize=256)
def _results_of(outputs: str) -> int:
    return len(json.loads(outputs))
