"""Writes results of jobs to their targets."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from enum import Enum
from typing import Final

import sqlalchemy as sa

from app.errors import (
    ServiceError,
    SourceFailed,
    SourceRefused,
    SourceTimeout,
    TargetFailed,
    TargetRefused,
    TargetRejected,
    may_pass,
)
from app.jobs import targets
from app.jobs.database import Connection, Database, upsert_all
from app.jobs.ids import new_id
from app.jobs.records import shown_target
from app.jobs.runner import Finished, Note
from app.jobs.schema import written
from app.jobs.targets import TargetKind
from app.outbound import Outbound
from app.purging import Purger
from app.sources import stored
from app.sources.base import Ref
from app.stores.base import ObjectStore, Stat

_FORGET_BEFORE: Final = written.delete().where(
    written.c.key == sa.bindparam("of"),
    (written.c.version == sa.bindparam("mark")) | (written.c.at < sa.bindparam("old")),
)
_LOOKED_UP: Final = 500
_AT_ONCE: Final = 4
"""Results of one job that are written at once."""
_UNDER_WAY: Final = "?"
"""How the marks begin that stand for the versions of results that are being written."""
_DOUBTED_FOR: Final = 900.0
_TOLD_WITHIN: Final = 30 * 86_400.0
"""Seconds within which a store has told of a version that is no longer there."""
_PUT_TIMEOUT: Final = 60.0
_S3_CODE: Final = re.compile(rb"<Code>([A-Za-z.]{1,64})</Code>")
"""What is wrong, in S3's answer. The rest of it may hold what was signed."""


class Writers:
    """Every kind of target. `open_bucket` gives the store of a bucket, `outbound` sends to URLs.

    `originals_at` is where the store of originals is, as the setting says it.
    """

    def __init__(
        self,
        *,
        originals: ObjectStore,
        originals_at: str,
        purger: Purger,
        database: Database,
        open_bucket: Callable[[str], ObjectStore],
        outbound: Outbound,
    ) -> None:
        self._originals = originals
        self._originals_at = originals_at
        self._purger = purger
        self._database = database
        self._open_bucket = open_bucket
        self._outbound = outbound
        self._buckets: dict[str, ObjectStore] = {}

    async def write(self, results: Sequence[Finished]) -> Note:
        own = [r.place for r in results if targets.kind_of(r.place) is TargetKind.ORIGINAL]
        # It is noted before it is there: the store may tell of it at once.
        mark = _UNDER_WAY + new_id()
        if own:
            await self._database.write(lambda tx: _begin(tx, own, mark))
        versions: dict[str, str] = {}
        gate = asyncio.Semaphore(_AT_ONCE)

        async def write(result: Finished) -> None:
            async with gate:
                version = await self._ways[targets.kind_of(result.place)](result)
                if version is not None:
                    versions[result.place] = version

        def note(tx: Connection) -> None:
            if versions:
                _note(tx, versions, mark)

        writing = [asyncio.create_task(write(result)) for result in results]
        try:
            await asyncio.gather(*writing)
        except BaseException:
            for task in writing:
                task.cancel()
            # Until they have ended, they may write.
            await asyncio.gather(*writing, return_exceptions=True)
            await self._database.write(note)
            raise
        return note

    def bucket(self, name: str) -> ObjectStore:
        """The store of a bucket. It stays open until this is closed."""
        if name not in self._buckets:
            self._buckets[name] = self._open_bucket(name)
        return self._buckets[name]

    async def close(self) -> None:
        """Let go of connections."""
        await self._outbound.close()
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
        await self._purger.purge_original(Ref(stored.KIND, key))
        return stat.version

    async def _write_bucket(self, result: Finished) -> None:
        # Fields may come to more than the template showed.
        targets.check_apart(result.place, originals=self._originals_at)
        bucket, key = targets.split_bucket(result.place)
        try:
            await self.bucket(bucket).write(key, result.data, content_type=result.media_type)
        except ServiceError as error:
            raise TargetFailed(f"{result.place}: {error.detail}", param="target") from error

    async def _write_url(self, result: Finished) -> None:
        shown = shown_target(result.place)
        try:
            reply = await self._outbound.send(
                "PUT",
                result.place,
                headers={"content-type": result.media_type},
                body=result.data,
                timeout=_PUT_TIMEOUT,
            )
        except SourceRefused as error:
            raise TargetRefused(f"{shown}: {error.detail}", param="target") from None
        except (SourceFailed, SourceTimeout) as error:
            raise TargetFailed(f"{shown}: {error.detail}", param="target") from None
        if 200 <= reply.status < 300:
            return
        detail = f"{shown} answered {reply.status}"
        if code := _S3_CODE.search(reply.body):
            detail += f" {code[1].decode()}"
        if may_pass(reply.status):
            raise TargetFailed(detail, param="target")
        raise TargetRejected(detail, param="target")


class Author(Enum):
    """Whose an object among the originals is."""

    US = "us"
    OTHERS = "others"
    UNKNOWN = "unknown"
    """A result is being written there, and its version is not known yet."""


def author_of(tx: Connection, key: str, version: str, *, now: float) -> Author:
    """Whether what is at a place among the originals, in this version, is a result of a job.

    Versions before the last are known for `_TOLD_WITHIN` seconds, as what the store tells of one
    may come after the next; the last is known for good. A write that has ended without a word is
    doubted for `_DOUBTED_FOR` seconds.
    """
    known = sa.select(written.c.version, written.c.at).where(written.c.key == key)
    rows = list(tx.execute(known))
    if any(row.version == version for row in rows):
        return Author.US
    doubted = now - _DOUBTED_FOR
    if any(row.version.startswith(_UNDER_WAY) and row.at > doubted for row in rows):
        return Author.UNKNOWN
    return Author.OTHERS


def own_among(tx: Connection, stats: Sequence[Stat], *, since: float, now: float) -> set[str]:
    """The keys of objects that are, or may be, results of jobs, written at `since` or later."""
    found: set[str] = set()
    for start in range(0, len(stats), _LOOKED_UP):
        part = {stat.key: stat.version for stat in stats[start : start + _LOOKED_UP]}
        query = sa.select(written).where(written.c.key.in_(part), written.c.at >= since)
        for row in tx.execute(query):
            doubted = row.version.startswith(_UNDER_WAY) and row.at > now - _DOUBTED_FOR
            if doubted or row.version == part[row.key]:
                found.add(row.key)
    return found


def _begin(tx: Connection, keys: Sequence[str], mark: str) -> None:
    now = time.time()
    rows = [{"key": key, "version": mark, "at": now} for key in dict.fromkeys(keys)]
    upsert_all(tx, written, rows)


def _note(tx: Connection, versions: Mapping[str, str], mark: str) -> None:
    now = time.time()
    rows = [{"key": key, "version": version, "at": now} for key, version in versions.items()]
    upsert_all(tx, written, rows)
    old = now - _TOLD_WITHIN
    tx.execute(_FORGET_BEFORE, [{"of": key, "mark": mark, "old": old} for key in versions])
