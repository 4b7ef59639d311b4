"""Purges: what is to be served no more, told to every replica without a database.

Whoever purges writes a note into the store of results: the notes are the generation of what they
name. Every replica asks once a second whether there is a new one (a HEAD of one object), and then
forgets what it is about: results in memory, versions, renders under way. So a purge reaches all
replicas within that second and what it takes to read a note.

    .pixelmill/purges/
      latest               names the note that was written last: its version is what is looked at
      log/<time>-<id>      one note each; removed after ten minutes
      lasting/<subject>    one subject each of which results are left that count for less

Stored results of an original lie under a prefix of their own, and are deleted. Those of a preset,
of ids that begin with some text, or in which an original is only a part, cannot be found by
listing: what was stored before the note was is not used any more. Both times are those of the
store's clock. The same goes for a soft purge, after which results are used until they have been
made anew; and for ten minutes for every purge, since another replica may read a result while it is
being deleted.
"""

from __future__ import annotations

import asyncio
import base64
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
_LOGGED_FOR: Final = timedelta(minutes=10)
_UNHEARD: Final = 300.0
"""Seconds after which a replica that has heard nothing may have missed a note."""
_LASTS: Final = timedelta(days=90)
"""How long a purge of one original counts. Its own results are deleted at once."""
_CLEAN_EVERY: Final = 300.0
_LONGEST_NAME: Final = 180
"""Characters of a subject in the name of a note. What is longer is read from the note."""
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
        self.poll = poll
        self._store = store
        self._on_purge: OnPurge | None = None
        self._on_loss: Callable[[], None] = lambda: None
        self._known: dict[Purge, datetime] = {}
        """What counts, and from when on by the store's clock."""
        self._prefixes: set[str] = set()
        self._seen: set[str] = set()
        self._latest: str | None = None
        self._heard = time.monotonic()
        self._cleaned = time.monotonic()
        self._gathered: list[Purge] = []
        self._telling: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._watching: asyncio.Task[None] | None = None

    async def open(self, on_purge: OnPurge, *, on_loss: Callable[[], None]) -> None:
        """Begin to hear: `on_purge` is called with what other replicas have purged.

        `on_loss` is called where some of it may have been missed: nothing in memory can be trusted.
        What counts since before this replica is read first, if the store tells it soon.
        """
        self._on_purge, self._on_loss = on_purge, on_loss
        if self._store is None:
            return
        knows = False
        with suppress(ServiceError, TimeoutError):
            async with asyncio.timeout(_OPEN_TIMEOUT):
                await self._read_lasting(self._store)
                knows = True
        if self.poll:
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
            return
        if self._telling is None:
            self._telling = asyncio.create_task(self._tell(self._store))
            self._telling.add_done_callback(_see)
        self._gathered += purges
        await asyncio.shield(self._telling)

    def verdict(self, refs: Collection[Ref], preset: str | None, stored_at: datetime) -> Verdict:
        """What a result is worth that was stored then, by the clock of the store."""
        if not self._known:
            return Verdict.FRESH
        subjects = [purge_of(ref).subject for ref in refs]
        subjects += [
            subject
            for subject in (Subject(Kind.PREFIX, prefix) for prefix in self._prefixes)
            if subject.covers(refs)
        ]
        if preset is not None:
            subjects.append(Subject(Kind.PRESET, preset))
        for soft, verdict in ((False, Verdict.GONE), (True, Verdict.STALE)):
            if any(self._counts(subject, soft, stored_at) for subject in subjects):
                return verdict
        return Verdict.FRESH

    def _counts(self, subject: Subject, soft: bool, stored_at: datetime) -> bool:  # noqa: FBT001 - a pair of both is asked for
        at = self._known.get(Purge(subject, soft=soft))
        return at is not None and stored_at <= at

    async def _tell(self, store: ObjectStore) -> None:
        async with self._writing:
            purges, self._gathered, self._telling = self._gathered, [], None
            key = f"{_LOG}{int(time.time() * 1000):013d}-{secrets.token_hex(6)}"
            self._seen.add(key)
            await _each(lambda purge: _write_lasting(store, purge), purges)
            await store.write(key, _note(purges), content_type=_JSON)
            self._learn(purges, (await store.stat(key)).modified)
            # After the note: who sees this one change finds the note too.
            await store.write(_LATEST, key.encode(), content_type="text/plain")

    def _learn(self, purges: Sequence[Purge], at: datetime | None) -> None:
        at = at or datetime.now(UTC)
        for purge in purges:
            self._known[purge] = max(at, self._known.get(purge, at))
            if purge.subject.kind is Kind.PREFIX:
                self._prefixes.add(purge.subject.name)

    async def _watch(self, store: ObjectStore, *, knows: bool) -> None:
        hears = True
        while True:
            try:
                if not knows:
                    await self._act(await self._read_lasting(store))
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
            await asyncio.sleep(self.poll)

    async def _look(self, store: ObjectStore) -> None:
        now = time.monotonic()
        if now - self._heard > _UNHEARD:
            # Notes may have come and gone.
            await self._read_lasting(store)
            self._on_loss()
        with suppress(OriginalMissing):
            latest = (await store.stat(_LATEST)).version
            if latest != self._latest:
                await self._read_log(store)
                self._latest = latest
        self._heard = now
        if now - self._cleaned > _CLEAN_EVERY:
            self._cleaned = now
            await self._clean(store)

    async def _read_log(self, store: ObjectStore) -> None:
        """Read the notes that are new, and act on each."""
        named = (await _read(store, _LATEST)).decode(errors="replace")
        listed = {stat.key: stat async for stat in _listed(store, _LOG)}
        for key, stat in listed.items():
            if key not in self._seen:
                await self._read_note(store, key, stat.modified)
        self._seen &= listed.keys() | {named}
        if named.startswith(_LOG) and named not in self._seen:
            # A store whose listings come late.
            with suppress(OriginalMissing):
                await self._read_note(store, named, (await store.stat(named)).modified)

    async def _read_note(self, store: ObjectStore, key: str, at: datetime | None) -> None:
        with suppress(OriginalMissing):  # it has been removed meanwhile
            purges = _purges_of(await _read(store, key), key)
            self._learn(purges, at)
            await self._act(purges)
        self._seen.add(key)

    async def _act(self, purges: Sequence[Purge]) -> None:
        if purges and self._on_purge is not None:
            await self._on_purge(purges)

    async def _read_lasting(self, store: ObjectStore) -> list[Purge]:
        found: list[Purge] = []
        async for stat in _listed(store, _LASTING):
            purges = _purges_named(stat.key)
            if purges is None:
                with suppress(OriginalMissing):
                    purges = _purges_of(await _read(store, stat.key), stat.key)
            self._learn(purges or [], stat.modified)
            found += purges or []
        return found

    async def _clean(self, store: ObjectStore) -> None:
        """Remove notes that every replica has read, and forget purges that no more count."""
        now = datetime.now(UTC)

        async def is_over(stat: Stat) -> bool:
            age = now - (stat.modified or now)
            if stat.key.startswith(_LOG):
                return age > _LOGGED_FOR
            return age > _LASTS and any(p.subject.ref for p in _purges_named(stat.key) or ())

        for folder in (_LOG, _LASTING):
            old = [stat.key async for stat in _listed(store, folder) if await is_over(stat)]
            await _each(store.delete, old)
        for purge, at in list(self._known.items()):
            counts_for = _LASTS if purge.lasting else _LOGGED_FOR
            if purge.subject.ref is not None and now - at > counts_for:
                del self._known[purge]


async def _write_lasting(store: ObjectStore, purge: Purge) -> None:
    if purge.lasting:
        await store.write(_lasting_key(purge), _note([purge]), content_type=_JSON)


def _lasting_key(purge: Purge) -> str:
    """The name of a note that lasts. It tells all of it, where the subject's name is not long."""
    name = base64.urlsafe_b64encode(purge.subject.name.encode()).decode().rstrip("=")
    if len(name) > _LONGEST_NAME:
        name = f"~{hashlib.sha256(purge.subject.name.encode()).hexdigest()[:32]}"
    return f"{_LASTING}{purge.subject.kind}.{'soft' if purge.soft else 'hard'}.{name}"


def _purges_named(key: str) -> list[Purge] | None:
    """What the name of a note tells, or None where the note itself must be read."""
    try:
        kind, softness, name = key.removeprefix(_LASTING).split(".")
        if name.startswith("~"):
            return None
        text = base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode()
        return [Purge(Subject(Kind(kind), text), soft=softness == "soft", lasting=True)]
    except ValueError:
        return None


async def _listed(store: ObjectStore, prefix: str) -> AsyncIterator[Stat]:
    after = ""
    while True:
        page = await store.list_page(prefix, after=after, limit=_PAGE)
        for stat in page:
            yield stat
        if len(page) < _PAGE:
            return
        after = page[-1].key


async def _read(store: ObjectStore, key: str) -> bytes:
    async with store.read(key) as reading:
        return b"".join([chunk async for chunk in reading.chunks])


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
    lines = [
        {
            "kind": purge.subject.kind,
            "name": purge.subject.name,
            "soft": purge.soft,
            "lasting": purge.lasting,
        }
        for purge in purges
    ]
    return json.dumps(lines).encode()


def _purges_of(data: bytes, key: str) -> list[Purge]:
    try:
        lines: list[dict[str, Any]] = json.loads(data)
        return [
            Purge(
                Subject(Kind(line["kind"]), str(line["name"])),
                soft=bool(line["soft"]),
                lasting=bool(line["lasting"]),
            )
            for line in lines
        ]
    except (ValueError, KeyError, TypeError):
        log.warning("purge_note_broken", key=key)
        return []
