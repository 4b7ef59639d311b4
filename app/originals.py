"""Originals: which version of each there is now, known for a short time, and its bytes.

Equal questions are asked once, and equal downloads are shared. What a source does not tell, or not
soon, may be answered from what was known of it last; what it said is not there is not asked for
again at once.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Final

from app.errors import (
    InvalidRequest,
    OriginalChanged,
    OriginalMissing,
    ServiceError,
    SourceBusy,
    SourceFailed,
    SourceTimeout,
    SourceUnfit,
    StoreMisconfigured,
)
from app.flights import Flights
from app.identities import Identities
from app.sources import stored, web
from app.sources.base import Identity, Ref, Source
from app.stores.base import check_key
from app.subjects import Coverage

_KNOWN: Final = 20_000
"""Identities that are remembered, and originals that are known not to be there."""
_TROUBLED: Final = 5.0
"""Seconds for which a source that has failed to tell of an original is not waited for again."""
_UNTOLD: Final = (SourceFailed, SourceTimeout, StoreMisconfigured)
"""What says nothing of whether an original has changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """How long what is known is trusted. In seconds.

    For `trusted` a version is not asked for; for `revalidating` after that, it is asked for behind
    an answer with the last one; after that, the last one is answered with where the source has not
    told within `patience`, or fails. A URL that is `missing` is not asked for again for so long.
    """

    trusted: float
    revalidating: float = 0.0
    patience: float = 1.0
    missing: float = 0.0


class Originals:
    """The originals of all sources, by reference. `identities` are what other processes knew."""

    def __init__(
        self,
        sources: Mapping[str, Source],
        *,
        freshness: Freshness,
        identities: Identities | None = None,
    ) -> None:
        self._sources = sources
        self._freshness = freshness
        self._stored = identities
        self._identities: OrderedDict[Ref, tuple[Identity, float]] = OrderedDict()
        self._missing: OrderedDict[Ref, tuple[str, float]] = OrderedDict()
        self._asking: set[Ref] = set()
        self._troubled: dict[Ref, tuple[ServiceError, float]] = {}
        self._behind: set[asyncio.Task[Identity]] = set()
        self._identifying: Flights[Ref, Identity] = Flights()
        self._fetching: Flights[tuple[Ref, str], bytes] = Flights()

    async def identify(self, ref: Ref) -> Identity:
        """The version that there is now. Raises what `Source.identify` does."""
        now = time.monotonic()
        known = self._identities.get(ref)
        if known is not None and known[1] > now:
            return known[0]
        missing = self._missing.get(ref)
        if missing is not None and missing[1] > now:
            raise OriginalMissing(missing[0])
        return await self._identifying.join(ref, lambda: self._ask(ref, known and known[0]))

    async def identify_or_recall(self, ref: Ref) -> Identity:
        """The version that there is now, or the last one that was known, which is in `doubt`.

        Raises what `identify` does where nothing was known.
        """
        known = self._identities.get(ref)
        now = time.monotonic()
        if known is None or known[1] > now:
            try:
                return await self.identify(ref)
            except _UNTOLD as error:
                if _is_told(error):
                    raise
                recalled = await self._recall(ref)
                if recalled is None:
                    raise
                self._note_trouble(ref, error)
                return replace(recalled, doubt=error)
        if self._is_troubled(ref):
            return replace(known[0], doubt=self._troubled[ref][0])
        asking = asyncio.create_task(self.identify(ref))
        self._behind.add(asking)
        asking.add_done_callback(self._forget_asking)
        fresh = self._freshness
        soon = 0.0 if now < known[1] + fresh.revalidating else fresh.patience
        await asyncio.wait({asking}, timeout=soon)
        try:
            if asking.done():
                return asking.result()
            raise SourceTimeout(f"The source has not told within {soon:g} s what there is now")
        except _UNTOLD as error:
            if _is_told(error):
                raise
            if asking.done() or soon:
                self._note_trouble(ref, error)
            return replace(known[0], doubt=error)

    async def identify_named(
        self, ids: Sequence[str], param: str, *, recall: bool = False
    ) -> tuple[Identity, ...]:
        """Identify the originals that a parameter names, or `recall` what was known of them."""
        identify = self.identify_or_recall if recall else self.identify
        try:
            refs = [Ref(stored.KIND, check_key(name)) for name in ids]
            return tuple(await asyncio.gather(*map(identify, refs)))
        except (OriginalMissing, InvalidRequest) as error:
            raise type(error)(f"{param}: {error.detail}", param=param) from None

    async def fetch(self, identity: Identity) -> bytes:
        """That version, whole. Raises what `Source.fetch` does.

        A version in doubt is asked for first: where the source still fails, this raises why.
        """
        identity = await self._settle(identity)
        if identity.body is not None:
            return identity.body

        source = self._sources[identity.ref.kind]
        return await self._fetching.join(
            (identity.ref, identity.version), lambda: source.fetch(identity)
        )

    async def fetch_start(self, identity: Identity, size: int) -> bytes:
        """At least its first `size` bytes, or all of it."""
        identity = await self._settle(identity)
        if identity.body is not None:
            return identity.body
        return await self._sources[identity.ref.kind].fetch_start(identity, size)

    async def fetch_all(self, identities: Sequence[Identity]) -> list[bytes]:
        """Several, at the same time."""
        return list(await asyncio.gather(*map(self.fetch, identities)))

    def outdate(self, identity: Identity) -> None:
        """Take note that this version is no more. Another one that is known by now stays known."""
        known = self._identities.get(identity.ref)
        if known is not None and known[0].version == identity.version:
            self.forget(identity.ref)

    def forget(self, ref: Ref) -> None:
        """Ask for the original's version anew the next time."""
        self._identities.pop(ref, None)
        self._missing.pop(ref, None)
        self._troubled.pop(ref, None)
        self._asking.discard(ref)

    def forget_all(self, coverage: Coverage) -> None:
        """Ask anew for all that this is about."""
        for known in (self._identities, self._missing, self._asking):
            for ref in list(coverage.among(known)):
                self.forget(ref)

    def expire_all(self, coverage: Coverage | None) -> None:
        """Trust nothing that is known of these, or at all. It is kept for when sources fail."""
        for ref in list(self._identities if coverage is None else coverage.among(self._identities)):
            identity, _ = self._identities[ref]
            self._identities[ref] = (identity, 0.0)

    def fresh_for(self, ref: Ref) -> float:
        """For how many seconds more the original's version need not be asked for."""
        known = self._identities.get(ref)
        return 0.0 if known is None else max(0.0, known[1] - time.monotonic())

    async def close(self) -> None:
        """Give up what is asked behind answers."""
        for task in list(self._behind):
            task.cancel()
        await asyncio.gather(*self._behind, return_exceptions=True)

    async def _ask(self, ref: Ref, known: Identity | None) -> Identity:
        self._asking.add(ref)
        try:
            if known is None and ref.kind == web.KIND:
                # With what another process knew, the origin is asked for changes only.
                known = await self._recall(ref)
            found = await self._sources[ref.kind].identify(ref.name, known)
        except OriginalMissing as error:
            if ref in self._asking:
                self._remember_missing(ref, error.detail)
            raise
        else:
            if ref in self._asking:  # else it was replaced or deleted meanwhile
                self._remember(ref, found)
        finally:
            self._asking.discard(ref)
        return found

    async def _recall(self, ref: Ref) -> Identity | None:
        return await self._stored.recall(ref) if self._stored is not None else None

    async def _settle(self, identity: Identity) -> Identity:
        """The identity without its doubt. Raises OriginalChanged where it is another by now."""
        if identity.doubt is None:
            return identity
        # It may have been told since. Who has just failed to tell is not asked again at once.
        if identity.ref not in self._identifying and self._is_troubled(identity.ref):
            raise copy(identity.doubt).with_traceback(None)  # others may raise it in their words
        settled = await self.identify(identity.ref)
        if settled.version != identity.version:
            raise OriginalChanged("The original has been replaced")
        return settled

    def _is_troubled(self, ref: Ref) -> bool:
        trouble = self._troubled.get(ref)
        return trouble is not None and trouble[1] > time.monotonic()

    def _note_trouble(self, ref: Ref, error: ServiceError) -> None:
        now = time.monotonic()
        if len(self._troubled) >= _KNOWN:
            self._troubled = {r: t for r, t in self._troubled.items() if t[1] > now}
        self._troubled[ref] = (error.with_traceback(None), now + _TROUBLED)

    def _remember(self, ref: Ref, identity: Identity) -> None:
        until = time.monotonic() + self._freshness.trusted
        self._missing.pop(ref, None)
        self._troubled.pop(ref, None)
        self._identities[ref] = (replace(identity, body=None), until)
        self._identities.move_to_end(ref)
        while len(self._identities) > _KNOWN:
            self._identities.popitem(last=False)
        if self._stored is not None:
            self._stored.remember(identity)

    def _remember_missing(self, ref: Ref, detail: str) -> None:
        self._identities.pop(ref, None)
        if ref.kind == stored.KIND:
            # Whoever has just found it missing may be uploading it, to whichever replica; and a
            # store is asked cheaply.
            return
        if self._stored is not None:
            self._stored.erase(ref)
        self._missing[ref] = (detail, time.monotonic() + self._freshness.missing)
        self._missing.move_to_end(ref)
        while len(self._missing) > _KNOWN:
            self._missing.popitem(last=False)

    def _forget_asking(self, task: asyncio.Task[Identity]) -> None:
        self._behind.discard(task)
        if not task.cancelled():
            task.exception()  # seen: whoever needed it has had another answer


def _is_told(error: ServiceError) -> bool:
    """Whether an origin has told that it gives the original to nobody, or not to this service."""
    return isinstance(error, SourceUnfit) and not isinstance(error, SourceBusy)
