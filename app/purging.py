"""Purging: what is purged here goes from every tier, of this replica and of all others."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Final

import structlog

from app.cache import MemoryTier
from app.cdn import PurgeHook
from app.errors import ServiceError
from app.identities import Identities
from app.originals import Originals
from app.purges import Purges
from app.render import Renderer
from app.results import StoredTier
from app.sources.base import Ref
from app.subjects import Coverage, Purge, purge_of
from app.tags import tag_of_subject
from app.telemetry import Metrics

log = structlog.get_logger(__name__)

_SHOWN: Final = 10
"""Tags that the log tells of one purge."""
_AT_ONCE: Final = 16
"""Originals whose results are deleted at once."""


class Purger:
    """Purges, and does what other replicas tell of theirs."""

    def __init__(
        self,
        *,
        originals: Originals,
        identities: Identities | None,
        renderer: Renderer,
        memory_tier: MemoryTier,
        stored_tier: StoredTier,
        purges: Purges,
        hook: PurgeHook | None,
        metrics: Metrics,
    ) -> None:
        self._originals = originals
        self._identities = identities
        self._renderer = renderer
        self._memory_tier = memory_tier
        self._stored_tier = stored_tier
        self._purges = purges
        self._hook = hook
        self._metrics = metrics

    async def purge_original(self, ref: Ref) -> int:
        """Remove every result that an original is in. Returns how many were stored."""
        return await self.purge([purge_of(ref)])

    def drop_all(self) -> None:
        """Use nothing any more that is in memory: purges may have been missed."""
        self._memory_tier.clear()
        self._originals.expire_all(None)

    def drop(self, ref: Ref) -> None:
        """Use nothing any more of what is known here of an original: it is new."""
        self._drop([purge_of(ref)])

    async def purge(self, purges: Sequence[Purge]) -> int:
        """Purge all of these. Returns how many results were removed from the store.

        When this returns, nothing of it is used here any more, and every replica that runs hears of
        it within a second. Raises what `ObjectStore` does: then it is to be repeated.
        """
        hard = Coverage.of(purge for purge in purges if not purge.soft)
        self._drop(purges)
        # Others hear of it first, so that they write nothing behind what is deleted next.
        await self._purges.tell(purges)
        count = await self._delete({*hard.refs, *self._stored_tier.written_among(hard)})
        self._drop(purges)  # and what has come back into memory in the meantime
        self._tell_caches(purges)
        for purge in purges:
            self._metrics.purges.labels(purge.subject.kind, "here").inc()
        log.info(
            "purged",
            tags=[tag_of_subject(purge.subject) for purge in purges[:_SHOWN]],
            purges=len(purges),
            objects=count,
        )
        return count

    async def hear(self, purges: Sequence[Purge]) -> None:
        """Do what another replica tells, which deletes what is stored.

        What this one has written of late, or is writing, it deletes itself.
        """
        self._drop(purges)
        hard = Coverage.of(purge for purge in purges if not purge.soft)
        written = self._stored_tier.written_among(hard)
        if written:
            try:
                await self._delete(written)
            except ServiceError as error:
                log.warning("results_not_purged", error=error.detail)
        for purge in purges:
            self._metrics.purges.labels(purge.subject.kind, "elsewhere").inc()

    def _tell_caches(self, purges: Sequence[Purge]) -> None:
        """Have the caches before this service purge, and again when every replica has heard.

        Until then they may have an old result of one that has not.
        """
        if self._hook is None:
            return
        for soft in (False, True):
            tags = [tag_of_subject(p.subject) for p in purges if p.soft is soft]
            if tags:
                self._hook.tell(tags, soft=soft)
                if self._purges.poll:
                    self._hook.tell_later(tags, soft=soft, seconds=2 * self._purges.poll + 1)

    def _drop(self, purges: Sequence[Purge]) -> None:
        """Use nothing of it any more that is in memory or under way."""
        hard = Coverage.of(purge for purge in purges if not purge.soft)
        soft = Coverage.of(purge for purge in purges if purge.soft)
        if self._identities is not None:
            self._identities.forget_all(hard)
        self._originals.forget_all(hard)
        self._originals.expire_all(soft)
        self._renderer.withdraw(hard)
        self._memory_tier.purge(hard)
        self._memory_tier.expire(soft)

    async def _delete(self, refs: Collection[Ref]) -> int:
        gate = asyncio.Semaphore(_AT_ONCE)

        async def delete(ref: Ref) -> int:
            async with gate:
                return await self._stored_tier.purge(ref)

        return sum(await asyncio.gather(*map(delete, refs)))
