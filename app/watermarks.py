"""Watermarks: fetched and decoded once, for the many pictures that they are laid on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from app.admission import Lane
from app.bitmaps import BitmapTier
from app.errors import naming
from app.executor import Executor
from app.flights import Flights
from app.keys import Keyed
from app.originals import Originals
from app.sources.base import Identity
from app.telemetry import Timings
from transforms import pipeline
from transforms.bitmap import AS_BITMAP, Bitmap


class Watermarks:
    """The bitmaps of watermarks, by original and version."""

    def __init__(self, originals: Originals, executor: Executor) -> None:
        self._originals = originals
        self._executor = executor
        self._bitmaps = BitmapTier()
        self._decoding: Flights[tuple[Identity, bool], Bitmap] = Flights()

    async def fetch_all(self, keyeds: Iterable[Keyed], lane: Lane) -> dict[Identity, Bitmap]:
        """The bitmaps of all watermarks. Those not kept are decoded, equal ones at once together.

        What waits for an answer does not wait in the lane of jobs.
        """
        identities = list(dict.fromkeys(mark for keyed in keyeds for mark in keyed.marks))

        async def fetch(identity: Identity) -> Bitmap:
            kept = self._bitmaps.get(identity)
            if kept is not None:
                return kept
            return await self._decoding.join(
                (identity, lane is Lane.JOBS), partial(self._decode, identity, lane)
            )

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(fetch(identity)) for identity in identities]
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        return {mark: task.result() for mark, task in zip(identities, tasks, strict=True)}

    async def _decode(self, identity: Identity, lane: Lane) -> Bitmap:
        with naming("watermark"):
            data = await self._originals.fetch(identity)
            bitmap, _ = await self._executor.run(
                pipeline.make_bitmap, data, [AS_BITMAP], lane, Timings()
            )
        self._bitmaps.put(identity, bitmap)
        return bitmap
