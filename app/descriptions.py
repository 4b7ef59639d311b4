"""Descriptions: what is told of an original, read from as little of it as will do."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from app.admission import Lane
from app.cache import MemoryTier, Rendered
from app.colours import pack, unpack
from app.flights import Flights
from app.keys import Fetched, Keyed
from app.render import Renderer
from app.sources.base import Identity, Ref
from app.telemetry import Timings
from transforms import describe, pipeline
from transforms.describe import Colours, Description, Facts
from transforms.errors import BrokenImage
from transforms.formats import SNIFFED_BYTES, Format, sniff
from transforms.transform import Transform

JSON: Final = Format(name="json", media_type="application/json", extension="json", alpha=False)

_START: Final = 256 * 1024
"""Bytes in which nearly every header lies, metadata included."""
_HEADERS_FIRST: Final = ("jpeg", "png", "avif")
"""Formats that say everything at their beginning: of others, frames or pages must be counted."""
_EPOCH: Final = "1"
"""Raise it when the same original is described otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is asked of an original: whether to look at its pixels, and to tell where it was made.

    The key names the answer, on every replica alike.
    """

    identity: Identity
    colours: bool
    place: bool

    @property
    def key(self) -> str:
        """128 bits, hexadecimal."""
        ref = self.identity.ref
        parts = (ref.kind, ref.name, self.identity.version, pipeline.EPOCH, _EPOCH)
        flags = f"{self.colours:d}{self.place:d}"
        return hashlib.sha256("\n".join(("describe", flags, *parts)).encode()).hexdigest()[:32]


class Describer:
    """Describes originals, on the same path as renders: one download, one processor, one queue."""

    def __init__(self, renderer: Renderer, memory_tier: MemoryTier) -> None:
        self._renderer = renderer
        self._memory_tier = memory_tier
        self._describing: Flights[str, Description] = Flights()
        self._seeing: Flights[str, Colours] = Flights()

    async def identify(self, ref: Ref, *, colours: bool, place: bool) -> Asked:
        """Ask for the version that there is now."""
        identity = await self._renderer.originals.identify(ref)
        return Asked(identity=identity, colours=colours, place=place)

    async def describe(self, asked: Asked, *, lane: Lane) -> Description:
        """Read the header, and where colours are asked for, decode a small picture.

        Equal questions at once are answered together.
        """
        return await self._describing.join(asked.key, lambda: self._describe(asked, lane))

    async def _describe(self, asked: Asked, lane: Lane) -> Description:
        if not asked.colours:
            return Description(facts=await self._read(asked))
        data = await self._renderer.originals.fetch(asked.identity)
        foreign = sniff(data[:SNIFFED_BYTES]).foreign
        facts = None if foreign else await self._facts(data)

        async def see() -> Colours:
            nonlocal facts
            seen, (work,) = await self._renderer.executor.run(
                describe.see_colours, data, [describe.SMALL], lane, Timings()
            )
            # Of a foreign document the process that has drawn it has told the header, too.
            if facts is None:
                facts = await asyncio.to_thread(describe.facts_of, work.header, data)
            return seen

        keyed = await self._renderer.key(asked.identity, describe.SMALL)
        colours = await self._see(keyed, see)
        return Description(facts=facts or await self._facts(data), colours=colours)

    async def see(self, fetched: Fetched, transform: Transform, *, lane: Lane) -> Colours:
        """The colours of a result, from memory where they are there, else from a small picture."""
        small = describe.miniature(transform)

        def see() -> Awaitable[Colours]:
            return self._renderer.make(describe.see_colours, fetched, small, lane=lane)

        return await self._see(await self._renderer.key(fetched.keyed.identity, small), see)

    async def _see(self, keyed: Keyed, see: Callable[[], Awaitable[Colours]]) -> Colours:
        """Colours are kept by what they are of: their original, and how it is transformed."""
        key = hashlib.sha256(f"colours\n{_EPOCH}\n{keyed.key}".encode()).hexdigest()[:32]
        if found := self._memory_tier.get(key):
            return unpack(found.data)
        colours = await self._seeing.join(key, see)
        first, *others = keyed.refs
        self._memory_tier.put(
            Rendered(
                key=key,
                ref=first,
                others=tuple(others),
                data=pack(colours),
                format=JSON,
                modified=keyed.identity.modified,
            )
        )
        return colours

    async def answer(self, asked: Asked, *, lane: Lane) -> Rendered:
        """The description as JSON, from memory where it is there."""
        if found := self._memory_tier.get(asked.key):
            return found
        description = await self.describe(asked, lane=lane)
        told = description.as_json(place=asked.place)
        rendered = Rendered(
            key=asked.key,
            ref=asked.identity.ref,
            data=json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode(),
            format=JSON,
            modified=asked.identity.modified,
        )
        if not asked.place:
            self._memory_tier.put(rendered)
        return rendered

    async def _read(self, asked: Asked) -> Facts:
        identity, originals = asked.identity, self._renderer.originals
        start = await originals.fetch_start(identity, _START)
        if sniff(start[:SNIFFED_BYTES]).name in _HEADERS_FIRST:
            try:
                return await asyncio.to_thread(describe.read_facts, start, length=identity.size)
            except BrokenImage:
                pass  # its header is longer than that, or it is broken: all of it will tell
        return await self._facts(await originals.fetch(identity))

    async def _facts(self, data: bytes) -> Facts:
        header = await self._renderer.executor.look(data)
        if header.format.foreign:
            return await asyncio.to_thread(describe.facts_of, header, data)
        return await asyncio.to_thread(describe.read_facts, data)
