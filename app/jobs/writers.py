"""Writes results of jobs to their targets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import sqlalchemy as sa

from app.errors import ServiceError, TargetFailed
from app.jobs import targets
from app.jobs.database import Connection, Database, upsert
from app.jobs.runner import Finished
from app.jobs.schema import written
from app.jobs.targets import TargetKind
from app.render import Renderer
from app.sources import stored
from app.sources.base import Ref
from app.stores.base import ObjectStore, Stat

_LOOKED_UP: Final = 500
_AT_ONCE: Final = 4
"""Results of one job that are written at once."""


class Writers:
    """Every kind of target. `open_bucket` gives the store of a bucket."""

    def __init__(
        self,
        *,
        originals: ObjectStore,
        renderer: Renderer,
        database: Database,
        open_bucket: Callable[[str], ObjectStore],
    ) -> None:
        self._originals = originals
        self._renderer = renderer
        self._database = database
        self._open_bucket = open_bucket
        self._buckets: dict[str, ObjectStore] = {}

    async def write(self, results: Sequence[Finished]) -> None:
        own = [r.place for r in results if targets.kind_of(r.place) is TargetKind.ORIGINAL]
        # It is noted before it is there: the store may tell of it at once.
        if own:
            await self._database.write(lambda tx: _note(tx, dict.fromkeys(own)))
        versions: dict[str, str] = {}
        gate = asyncio.Semaphore(_AT_ONCE)

        async def write(result: Finished) -> None:
            async with gate:
                version = await self._ways[targets.kind_of(result.place)](result)
                if version is not None:
                    versions[result.place] = version

        writing = [asyncio.create_task(write(result)) for result in results]
        try:
            await asyncio.gather(*writing)
        finally:
            for task in writing:
                task.cancel()
            if versions:
                await self._database.write(lambda tx: _note(tx, versions))

    def bucket(self, name: str) -> ObjectStore:
        """The store of a bucket. It stays open until this is closed."""
        if name not in self._buckets:
            self._buckets[name] = self._open_bucket(name)
        return self._buckets[name]

    async def close(self) -> None:
        """Let go of connections."""
        for store in self._buckets.values():
            await store.close()

    @property
    def _ways(self) -> Mapping[TargetKind, Callable[[Finished], Awaitable[str | None]]]:
        return {
            TargetKind.ORIGINAL: self._write_original,
            TargetKind.BUCKET: self._write_bucket,
            TargetKind.URL: self._write_url,
        }

    async def _write_original(self, result: Finished) -> str:
        key = result.place
        stat = await self._originals.write(key, result.data, content_type=result.media_type)
        await self._renderer.purge(Ref(stored.KIND, key))
        return stat.version

    async def _write_bucket(self, result: Finished) -> None:
        bucket, key = targets.split_bucket(result.place)
        try:
            await self.bucket(bucket).write(key, result.data, content_type=result.media_type)
        except ServiceError as error:
            raise TargetFailed(f"{result.place}: {error.detail}", param="target") from error

    async def _write_url(self, result: Finished) -> None:
        raise TargetFailed("URLs")


def is_own(tx: Connection, key: str, version: str | None) -> bool:
    """Whether what is at a place among the originals, in this version, is a result of a job."""
    row = tx.execute(sa.select(written.c.version).where(written.c.key == key)).first()
    if row is None:
        return False
    return row.version is None or version is None or row.version == version


def own_among(tx: Connection, stats: Sequence[Stat], *, since: float = 0.0) -> set[str]:
    """The keys of those objects that are results of jobs, written at this time or later."""
    found: set[str] = set()
    for start in range(0, len(stats), _LOOKED_UP):
        part = {stat.key: stat.version for stat in stats[start : start + _LOOKED_UP]}
        query = sa.select(written.c.key, written.c.version)
        query = query.where(written.c.key.in_(part), written.c.at >= since)
        for key, version in tx.execute(query):
            if version is None or version == part[key]:
                found.add(key)
    return found


def _note(tx: Connection, versions: Mapping[str, str | None]) -> None:
    for key, version in versions.items():
        upsert(tx, written, key=key, version=version, at=time.time())
