"""What a change of an original sets off, as functions of a connection in a transaction.

The jobs are written down together with the note that the change has been seen: once for each rule,
whoever tells of it and however often. Results of jobs set off nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from app.errors import ServiceError
from app.jobs import ledger, sightings
from app.jobs.database import Connection
from app.jobs.queues import JobQueue
from app.jobs.records import Draft
from app.jobs.rules import Rule, matching
from app.jobs.sightings import Sighting
from app.jobs.spec import SpecReader
from app.jobs.writers import Author, author_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An original that was written, or removed where it has no version."""

    key: str
    version: str | None
    sequencer: str | None = None

    @property
    def sighting(self) -> Sighting:
        """What is noted of it."""
        return Sighting(version=self.version, sequencer=self.sequencer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How many jobs were made, and which changes cannot be judged yet: see `Author.UNKNOWN`."""

    jobs: int
    undecided: list[Change]


def apply(
    tx: Connection,
    changes: Sequence[Change],
    rules: Sequence[Rule],
    *,
    reader: SpecReader,
    queue: JobQueue,
    now: float,
) -> Outcome:
    """Make the jobs that rules ask for."""
    drafts: list[Draft] = []
    undecided: list[Change] = []
    for change in changes:
        author = _author(tx, change, now=now)
        if author is Author.UNKNOWN:
            undecided.append(change)
            continue
        for rule in matching(rules, change.key):
            digest = sightings.digest_of(rule.id, rule.since, change.key)
            news = sightings.note(tx, digest, change.sighting, now=now)
            if news and author is Author.OTHERS and change.version is not None:
                drafts += _drafts(rule, change.key, reader, now=now)
    queue.submit(tx, ledger.insert(tx, drafts, now=now))
    return Outcome(jobs=len(drafts), undecided=undecided)


def outdated(
    tx: Connection, changes: Sequence[Change], rules: Sequence[Rule], *, now: float
) -> list[str]:
    """The originals whose results are of before. Those of a change that was seen are of after."""
    found: list[str] = []
    for change in changes:
        if _author(tx, change, now=now) is not Author.OTHERS:
            continue  # whoever writes a result removes what was made of the one before
        digests = [
            sightings.digest_of(rule.id, rule.since, change.key)
            for rule in matching(rules, change.key)
        ]
        known = sightings.find(tx, digests)
        if not digests or any(change.sighting.follows(known.get(digest)) for digest in digests):
            found.append(change.key)
    return list(dict.fromkeys(found))


def _author(tx: Connection, change: Change, *, now: float) -> Author:
    if change.version is None:
        return Author.OTHERS
    return author_of(tx, change.key, change.version, now=now)


def _drafts(rule: Rule, key: str, reader: SpecReader, *, now: float) -> list[Draft]:
    try:
        return [rule.draft(reader, key, now=now)]
    except ServiceError as error:
        # The settings, or the presets, are no longer those with which the rule was made.
        log.warning("rule_unusable", rule=rule.id, id=key, error=error.detail)
        return []
