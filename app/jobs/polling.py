"""Looks through stores that tell nothing themselves, and takes in what was there before a rule.

A look goes from page to page, and how far it has come is in the ledger: whoever continues it begins
there. What has changed since the last look takes the way of all events.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from typing import Final

import structlog

from app.errors import Overloaded
from app.jobs import rules as rulebook
from app.jobs import sightings
from app.jobs.database import Connection, Database
from app.jobs.intake import Intake
from app.jobs.rules import Rule
from app.jobs.triggers import Change
from app.stores.base import ObjectStore, Stat

log = structlog.get_logger(__name__)

_PAGE: Final = 1000
_LEASE: Final = 120.0
"""Seconds for one page. After them, another process continues the look."""
_AGAIN: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far the looks of a rule have come: which look it is, and the last key of its last page.

    The first look is the one that meets what was there before the rule.
    """

    first: bool = True
    after: str = ""

    def as_text(self) -> str:
        """What the ledger keeps."""
        return json.dumps([self.first, self.after])

    @classmethod
    def from_text(cls, text: str | None) -> Cursor:
        """The opposite of `as_text`."""
        if text is None:
            return cls()
        first, after = json.loads(text)
        return cls(first=first, after=after)


class Poller:
    """Looks through the store of originals for rules that ask for it."""

    def __init__(self, *, database: Database, intake: Intake, originals: ObjectStore) -> None:
        self._database = database
        self._intake = intake
        self._originals = originals

    async def look(self) -> None:
        """Look through the store for every rule whose time has come. Raises what stores do."""
        while await self._database.read(lambda tx: rulebook.is_any_due(tx, now=time.time())):
            rule = await self._database.write(
                lambda tx: rulebook.claim(tx, until=time.time() + _LEASE, now=time.time())
            )
            if rule is not None:
                await self._look_through(rule)

    async def _look_through(self, rule: Rule) -> None:
        held: Rule | None = rule
        while held is not None:
            held = await self._look_at_page(held)

    async def _look_at_page(self, rule: Rule) -> Rule | None:
        """Act on the next page. Returns the rule as it is then, or None after the last."""
        cursor = Cursor.from_text(rule.cursor)
        page = await self._originals.list_page(rule.body.prefix, after=cursor.after, limit=_PAGE)
        wanted = [stat for stat in page if rule.matches(stat.key)]
        changes = await self._database.write(
            lambda tx: _changes(tx, rule, wanted, first=cursor.first, now=time.time())
        )
        try:
            await self._intake.act(changes, rules=[rule], outdated=not cursor.first)
        except Overloaded:
            # A result is being written among these: the page is looked at again.
            await self._move(rule, cursor, poll_at=time.time() + _AGAIN)
            return None
        if len(page) == _PAGE:
            reached = replace(cursor, after=page[-1].key)
            return await self._move(rule, reached, poll_at=time.time() + _LEASE)
        body = rule.body
        next_at = None if body.poll is None else time.time() + body.poll
        await self._move(rule, Cursor(first=False), poll_at=next_at)
        return None

    async def _move(self, rule: Rule, cursor: Cursor, *, poll_at: float | None) -> Rule | None:
        """Note how far the look has come. None where the rule was changed, or is another's."""
        text = cursor.as_text()
        moved = await self._database.write(
            lambda tx: rulebook.move(tx, rule, poll_at=poll_at, cursor=text)
        )
        return replace(rule, poll_at=poll_at, cursor=text) if moved else None


def _changes(
    tx: Connection, rule: Rule, page: list[Stat], *, first: bool, now: float
) -> list[Change]:
    """What is new or has changed. What was there before the rule is noted, unless it is wanted."""
    digests = {stat.key: sightings.digest_of(rule.id, rule.since, stat.key) for stat in page}
    known = sightings.find(tx, list(digests.values()))
    found: list[Change] = []
    same: list[str] = []
    for stat in page:
        change = Change(key=stat.key, version=stat.version)
        digest = digests[stat.key]
        if not change.sighting.follows(known.get(digest)):
            same.append(digest)
        elif first and not rule.body.backfill and not _is_since(stat, rule.since):
            sightings.note(tx, digest, change.sighting, now=now)
        else:
            found.append(change)
    sightings.renew(tx, same, now=now)
    return found


def _is_since(stat: Stat, since: float) -> bool:
    """Whether an object was written after a time. Stores tell whole seconds."""
    return stat.modified is not None and stat.modified.timestamp() >= math.floor(since)
