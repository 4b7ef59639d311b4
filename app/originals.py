"""Originals: which version of each there is now, known for a short time, and its bytes.

Equal questions are asked once, and equal downloads are shared.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from app.errors import InvalidRequest, OriginalMissing
from app.flights import Flights
from app.sources import stored
from app.sources.base import Identity, Ref, Source
from app.stores.base import check_key

_KNOWN: Final = 20_000
"""Identities that are remembered."""


class Originals:
    """The originals of all sources, by reference. `freshness` is in seconds."""

    def __init__(self, sources: Mapping[str, Source], *, freshness: float) -> None:
        self._sources = sources
        self._freshness = freshness
        self._identities: OrderedDict[Ref, tuple[Identity, float]] = OrderedDict()
        self._asking: set[Ref] = set()
        self._identifying: Flights[Ref, Identity] = Flights()
        self._fetching: Flights[tuple[Ref, str], bytes] = Flights()

    async def identify(self, ref: Ref) -> Identity:
        """The version that there is now. Raises what `Source.identify` does."""
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

    async def identify_named(self, ids: Sequence[str], param: str) -> tuple[Identity, ...]:
        """Identify the originals that a parameter names."""
        try:
            refs = [Ref(stored.KIND, check_key(name)) for name in ids]
            return tuple(await asyncio.gather(*map(self.identify, refs)))
        except (OriginalMissing, InvalidRequest) as error:
            raise type(error)(f"{param}: {error.detail}", param=param) from None

    async def fetch(self, identity: Identity) -> bytes:
        """That version, whole. Raises what `Source.fetch` does."""
        if identity.body is not None:
            return identity.body

        source = self._sources[identity.ref.kind]
        return await self._fetching.join(
            (identity.ref, identity.version), lambda: source.fetch(identity)
        )

    async def fetch_start(self, identity: Identity, size: int) -> bytes:
        """At least its first `size` bytes, or all of it."""
        if identity.body is not None:
            return identity.body
        return await self._sources[identity.ref.kind].fetch_start(identity, size)

    async def fetch_all(self, identities: Sequence[Identity]) -> list[bytes]:
        """Several, at the same time."""
        return list(await asyncio.gather(*map(self.fetch, identities)))

    def forget(self, ref: Ref) -> None:
        """Ask for the original's version anew the next time."""
        self._identities.pop(ref, None)
        self._asking.discard(ref)

    def fresh_for(self, ref: Ref) -> float:
        """For how many seconds more the original's version need not be asked for."""
        known = self._identities.get(ref)
        return 0.0 if known is None else max(0.0, known[1] - time.monotonic())

    def _remember(self, ref: Ref, identity: Identity) -> None:
        until = time.monotonic() + self._freshness
        self._identities[ref] = (replace(identity, body=None), until)
        self._identities.move_to_end(ref)
        while len(self._identities) > _KNOWN:
            self._identities.popitem(last=False)
