"""Originals by id: objects of the store of originals."""

from __future__ import annotations

import asyncio
from typing import Final

from app.downloads import Downloads
from app.errors import OriginalTooLarge, SourceFailed, SourceTimeout
from app.sources.base import Identity, Ref, receive
from app.stores.base import ObjectStore, check_key
from transforms.limits import Limits

KIND: Final = "id"
_TRIES: Final = 2
_PIECE: Final = 1 << 22
"""Bytes of an original that are read at a time, where the whole is wanted in memory anyway."""


class StoredSource:
    """Finds and fetches what is in an object store."""

    def __init__(
        self,
        store: ObjectStore,
        *,
        downloads: Downloads,
        cap: int,
        limits: Limits,
        timeout: float,
    ) -> None:
        self._store = store
        self._downloads = downloads
        self._cap = cap
        self._limits = limits
        self._timeout = timeout

    async def identify(self, name: str, known: Identity | None) -> Identity:
        del known  # asking is as cheap as asking for changes
        try:
            async with asyncio.timeout(self._timeout):
                stat = await self._store.stat(check_key(name))
        except TimeoutError:
            raise SourceTimeout(f"The store did not answer within {self._timeout:g} s") from None
        return Identity(
            ref=Ref(KIND, name), version=stat.version, size=stat.size, modified=stat.modified
        )

    async def fetch(self, identity: Identity) -> bytes:
        if identity.size > self._cap:
            raise OriginalTooLarge(
                f"The original has {identity.size} bytes; at most {self._cap} are read"
            )
        with self._downloads.counted(KIND):
            return await self._fetch_within(identity)

    async def fetch_start(self, identity: Identity, size: int) -> bytes:
        name, version = identity.ref.name, identity.version
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._downloads.slot(size),
                self._store.read(name, start=0, stop=size, version=version) as reading,
            ):
                return b"".join([chunk async for chunk in reading.chunks])
        except TimeoutError:
            raise SourceTimeout(f"The original did not arrive within {self._timeout:g} s") from None

    async def _fetch_within(self, identity: Identity) -> bytes:
        try:
            async with asyncio.timeout(self._timeout), self._downloads.slot(identity.size):
                return await self._fetch(identity)
        except TimeoutError:
            raise SourceTimeout(f"The original did not arrive within {self._timeout:g} s") from None

    async def _fetch(self, identity: Identity) -> bytes:
        for attempt in range(1, _TRIES + 1):
            try:
                async with self._store.read(
                    identity.ref.name, version=identity.version, piece=_PIECE
                ) as reading:
                    body = await receive(reading.chunks, cap=self._cap, limits=self._limits)
            except SourceFailed:
                # A body that was cut is not retried by the store's client: once more, from the
                # start, within the same deadline.
                if attempt == _TRIES:
                    raise
            else:
                self._downloads.count_bytes(KIND, len(body))
                return body
        raise AssertionError("unreachable")
