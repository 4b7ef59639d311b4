"""Purges: what is to be served no more, told to every replica without a database.

Whoever purges writes a note into the store of results: the notes are the generation of what they
name. Every replica asks once a second whether there is a new one (a HEAD of one object), and then
forgets what it is about: results in memory, versions, renders under way. So a purge reaches all
replicas within that second and what it takes to read a note.

    .pixelmill/purges/
      latest            written after each note: its version is what replicas look at
      log/<time>-<id>   one note each, in the order of their times; removed after ten minutes
      lasting/<digest>  one subject each whose results are not all deleted at once

Results of an original lie under a prefix of their own, and are deleted. Those of a preset, or of
all ids that begin with some text, cannot be found in the store: what was stored before the note was
is not used any more. Both times are those of the store's clock. The same goes for a soft purge,
after which results stay to be used until they are made anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, TypeVar

import structlog

from app.errors import OriginalMissing, ServiceError
from app.sources.base import Ref
from app.stores.base import ObjectStore, Stat
from app.subjects import Kind, Purge, Subject, purge_of

log = structlog.get_logger(__name__)

T = TypeVar("T")

_LATEST: Final = ".pixelmill/purges/latest"
_LOG: Final = ".pixelmill/purges/log/"
_LASTING: Final = ".pixelmill/purges/lasting/"
_JSON: Final = "application/json"
_OVERLAP: Final = 60.0
"""Seconds by which the clocks of replicas may differ, and for which a note may be on its way."""
_LOGGED_FOR: Final = 600.0
_SOFT_FOR: Final = timedelta(days=7)
"""How long results are used after a soft purge of their original. Then they are deleted."""
_CLEAN_EVERY: Final = 300.0
_AT_ONCE: Final = 16
_PAGE: Final = 1000
_OPEN_TIMEOUT: Final = 2.0
"""Seconds that a store may hold up the start."""


class Verdict(StrEnum):
    """What a stored result is worth: GONE is as if there were none."""

    FRESH = "fresh"
    STALE = "stale"
    GONE = "gone"


OnPurge = Callable[[Sequence[Purge]], Awaitable[None]]


class Purges:
    """Tells of purges, and hears of them. `poll` is in seconds; 0 hears of none.

    Without a store, a purge is this process's own.
    """

    def __init__(self, store: ObjectStore | None, *, poll: float) -> None:
        self._store = store
        self._poll = poll
        self._on_purge: OnPurge | None = None
        self._lasting: dict[Subject, tuple[Purge, datetime]] = {}
        self._prefixes: set[Subject] = set()
        self._seen: dict[str, float] = {}
        """Notes that are known, and when they were written by the clock of who wrote them."""
        self._latest: str | None = None
        self._cleaned = time.monotonic()
        self._gathered: list[Purge] = []
        self._telling: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    async def open(self, on_purge: OnPurge) -> None:
        """Begin to hear: `on_purge` is called with what other replicas have purged.

        What counts for less since before this replica is read first, if the store tells it soon.
        """
        self._on_purge = on_purge
        if self._store is None:
            return
        knows = False
        with suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_OPEN_TIMEOUT):
                await self._read_lasting(self._store)
                knows = True
        if self._poll:
            self._watching = asyncio.create_task(self._watch(self._store, knows=knows))

    async def close(self) -> None:
        """Hear no more."""
        if self._watching is not None:
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

    async def tell(self, purges: Sequence[Purge]) -> None:
        """Tell all replicas. Returns when it is written down. Raises what `ObjectStore.write` does.

        What comes while a note is being written goes into the next one: many originals may be
        replaced at once.
        """
        if self._store is None:
            for purge in purges:
                self._learn(purge, datetime.now(UTC))
            return
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell(self._store))
            self._telling.add_done_callback(_see)
        self._gathered += purges
        await asyncio.shield(self._telling)

    def verdict(self, refs: Collection[Ref], preset: str | None, stored_at: datetime) -> Verdict:
        """What a result is worth that was stored then, by the clock of the store."""
        if not self._lasting:
            return Verdict.FRESH
        subjects = [purge_of(ref).subject for ref in refs]
        subjects += [subject for subject in self._prefixes if subject.covers(refs)]
        if preset is not None:
            subjects.append(Subject(Kind.PRESET, preset))
        found = Verdict.FRESH
        for subject in subjects:
            purge, at = self._lasting.get(subject, (None, stored_at))
            if purge is not None and stored_at <= at:
                if not purge.soft:
                    return Verdict.GONE
                found = Verdict.STALE
        return found

    async def _tell(self, store: ObjectStore) -> None:
        async with self._writing:
            purges, self._gathered, self._telling = self._gathered, [], None
            now = time.time()
            key = f"{_LOG}{_digits(now)}-{secrets.token_hex(6)}"
            self._seen[key] = now
            await _each(lambda purge: self._write_lasting(store, purge), purges)
            await store.write(key, _note(purges), content_type=_JSON)
            at = (await store.stat(key)).modified or datetime.now(UTC)
            for purge in purges:
                self._learn(purge, at)
            # After the note: who sees this one change finds the note too.
            await store.write(_LATEST, key.encode(), content_type="text/plain")

    async def _write_lasting(self, store: ObjectStore, purge: Purge) -> None:
        key = _lasting_key(purge.subject)
        if purge.lasting:
            await store.write(key, _note([purge]), content_type=_JSON)
        elif purge.subject in self._lasting:
            await store.delete(key)

    def _learn(self, purge: Purge, at: datetime) -> None:
        subject = purge.subject
        if not purge.lasting:
            self._lasting.pop(subject, None)
            return
        self._lasting[subject] = (purge, at)
        if subject.kind is Kind.PREFIX:
            self._prefixes.add(subject)

    async def _watch(self, store: ObjectStore, *, knows: bool) -> None:
        hears = True
        while True:
            try:
                if not knows:
                    await self._read_lasting(store)
                    knows = True
                await self._look(store)
                if not hears:
                    log.info("purges_heard_again")
                hears = True
            except ServiceError as error:
                if hears:
                    log.warning("purges_unheard", error=error.detail)
                hears = False
            except Exception:
                log.exception("defect")
            await asyncio.sleep(self._poll)

    async def _look(self, store: ObjectStore) -> None:
        with suppress(OriginalMissing):
            latest = (await store.stat(_LATEST)).version
            if latest != self._latest:
                await self._read_log(store)
                self._latest = latest
        if time.monotonic() - self._cleaned > _CLEAN_EVERY:
            self._cleaned = time.monotonic()
            await self._clean(store)

    async def _read_log(self, store: ObjectStore) -> None:
        since = max(self._seen.values(), default=time.time()) - _OVERLAP
        fresh: list[Purge] = []
        async for stat in _listed(store, _LOG, after=f"{_LOG}{_digits(since)}"):
            if stat.key not in self._seen:
                for purge in await _read_note(store, stat.key):
                    self._learn(purge, stat.modified or datetime.now(UTC))
                    fresh.append(purge)
                self._seen[stat.key] = _written(stat.key)
        newest = max(self._seen.values(), default=since)
        self._seen = {key: at for key, at in self._seen.items() if at > newest - 2 * _OVERLAP}
        if fresh and self._on_purge is not None:
            await self._on_purge(fresh)

    async def _read_lasting(self, store: ObjectStore) -> None:
        async for stat in _listed(store, _LASTING):
            for purge in await _read_note(store, stat.key):
                self._learn(purge, stat.modified or datetime.now(UTC))

    async def _clean(self, store: ObjectStore) -> None:
        """Remove notes that every replica has read, and end soft purges that are over."""
        before = f"{_LOG}{_digits(time.time() - _LOGGED_FOR)}"
        old = [stat.key async for stat in _listed(store, _LOG, before=before)]
        await _each(store.delete, old)
        now = datetime.now(UTC)
        over = [
            Purge(subject, soft=False)
            for subject, (purge, at) in self._lasting.items()
            if purge.soft and subject.ref is not None and now - at > _SOFT_FOR
        ]
        if over and self._on_purge is not None:
            await self._on_purge(over)
            for purge in over:
                await self._write_lasting(store, purge)


def _lasting_key(subject: Subject) -> str:
    text = f"{subject.kind}\n{subject.name}"
    return f"{_LASTING}{hashlib.sha256(text.encode()).hexdigest()[:32]}"


async def _listed(
    store: ObjectStore, prefix: str, *, after: str = "", before: str = "~"
) -> AsyncIterator[Stat]:
    """The notes in the order of their keys, those from `before` on left out."""
    while True:
        page = await store.list_page(prefix, after=after, limit=_PAGE)
        for stat in page:
            if stat.key.removeprefix(prefix) >= before.removeprefix(prefix):
                return
            yield stat
        if len(page) < _PAGE:
            return
        after = page[-1].key


async def _read_note(store: ObjectStore, key: str) -> list[Purge]:
    try:
        async with store.read(key) as reading:
            data = b"".join([chunk async for chunk in reading.chunks])
    except OriginalMissing:
        return []  # it has been removed meanwhile
    return _read(data, key)


def _digits(seconds: float) -> str:
    return f"{int(seconds * 1000):013d}"


def _written(key: str) -> float:
    digits = key.removeprefix(_LOG).partition("-")[0]
    return int(digits) / 1000 if digits.isdigit() else 0.0


def _see(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # whoever waits is told, if anybody still does


async def _each(work: Callable[[T], Awaitable[None]], items: Sequence[T]) -> None:
    """Do it for all, several at once."""
    gate = asyncio.Semaphore(_AT_ONCE)

    async def do(item: T) -> None:
        async with gate:
            await work(item)

    await asyncio.gather(*map(do, items))


def _note(purges: Sequence[Purge]) -> bytes:
    lines = [{"kind": p.subject.kind, "name": p.subject.name, "soft": p.soft} for p in purges]
    return json.dumps(lines).encode()


def _read(data: bytes, key: str) -> list[Purge]:
    try:
        lines: list[dict[str, Any]] = json.loads(data)
        return [
            Purge(Subject(Kind(x["kind"]), str(x["name"])), soft=bool(x["soft"])) for x in lines
        ]
    except (ValueError, KeyError, TypeError):
        log.warning("purge_note_broken", key=key)
        return []
