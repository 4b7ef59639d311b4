"""Jobs that have failed for good: looked at, tried again, or forgotten. Many are taken in pages.

And the quarantine: versions of originals that have ended their workers, until they are let out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal

import sqlalchemy as sa
from pydantic import Field

from app.errors import InvalidRequest, RecordMissing
from app.jobs import ledger
from app.jobs.batches import IS_OF_OPEN
from app.jobs.bodies import Body, Label
from app.jobs.database import Connection, Database
from app.jobs.queues import JobQueue
from app.jobs.records import Job, State, shown_source, shown_time
from app.jobs.schema import attempts, jobs, quarantine
from app.sources.base import Ref

CODE: Final = r"^[a-z0-9_]{1,64}$"
_PAGE: Final = 200
"""Jobs that are changed in one transaction: others write in between."""
MOST_AT_ONCE: Final = 10_000
"""Jobs that one request changes."""


class ChoiceBody(Body):
    """Which dead letters: by their ids, by what they have in common, or all of them."""

    ids: list[Annotated[str, Field(max_length=64)]] | None = Field(
        None, min_length=1, max_length=1000, description="These jobs."
    )
    label: Label | None = Field(None, description="Those with this label.")
    code: str | None = Field(
        None, pattern=CODE, description="Those that ended in a problem of this code."
    )
    batch: str | None = Field(None, max_length=64, description="Those of this batch.")
    all: Literal[True] | None = Field(None, description="Every dead letter.")

    def choice(self) -> Choice:
        """What is chosen. Raises InvalidRequest where that is nothing, or not clear."""
        filters = any(part is not None for part in (self.label, self.code, self.batch))
        ways = (self.ids is not None, filters, self.all is not None)
        if sum(ways) != 1:
            raise InvalidRequest(
                "Choose by ids, or by label, code and batch, or all: true", param="ids"
            )
        return Choice(
            ids=None if self.ids is None else tuple(self.ids),
            label=self.label,
            code=self.code,
            batch_id=self.batch,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Dead letters that have all of this in common."""

    ids: tuple[str, ...] | None = None
    label: str | None = None
    code: str | None = None
    batch_id: str | None = None

    @property
    def condition(self) -> sa.ColumnElement[bool]:
        """As a condition on jobs."""
        parts: list[sa.ColumnElement[bool]] = [jobs.c.state == State.FAILED]
        if self.ids is not None:
            parts.append(jobs.c.id.in_(self.ids))
        if self.label is not None:
            parts.append(jobs.c.label == self.label)
        if self.batch_id is not None:
            parts.append(jobs.c.batch_id == self.batch_id)
        if self.code is not None:
            # In a text within the JSON the quotes would have backslashes.
            parts.append(jobs.c.error.contains(f'"code": "{self.code}"', autoescape=True))
        return sa.and_(*parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """A job that has failed, with its attempts as they are shown."""

    job: Job
    attempts: list[dict[str, Any]]


class DeadLetters:
    """The dead letters of a ledger."""

    def __init__(self, database: Database, queue: JobQueue) -> None:
        self._database = database
        self._queue = queue

    async def find_page(
        self, choice: Choice, *, limit: int, before: str | None = None
    ) -> list[Job]:
        """Dead letters from the newest to the oldest, those older than the id `before`."""
        query = sa.select(jobs.c.id).where(choice.condition).order_by(jobs.c.id.desc())
        if before is not None:
            query = query.where(jobs.c.id < before)

        def find(tx: Connection) -> list[Job]:
            return ledger.find_several(tx, list(tx.execute(query.limit(limit)).scalars()))

        return await self._database.read(find)

    async def find(self, job_id: str) -> DeadLetter:
        """A dead letter. Raises RecordMissing."""
        return await self._database.read(lambda tx: _find(tx, job_id))

    async def redrive(self, choice: Choice) -> tuple[int, bool]:
        """Queue dead letters anew. Returns how many, and whether there may be more."""

        def again(tx: Connection, ids: list[str]) -> None:
            queued = [ledger.queue_again(tx, job_id, now=time.time()) for job_id in ids]
            self._queue.submit(tx, [job for job in queued if job is not None])

        done = await self._take(choice.condition, again)
        self._queue.wake()
        return done

    async def purge(self, choice: Choice) -> tuple[int, bool]:
        """Forget dead letters. Returns how many, and whether there may be more.

        Those of a batch that has not ended stay: it ends by what its jobs have come to.
        """

        def forget(tx: Connection, ids: list[str]) -> None:
            tx.execute(attempts.delete().where(attempts.c.job_id.in_(ids)))
            tx.execute(jobs.delete().where(jobs.c.id.in_(ids)))

        return await self._take(choice.condition & ~IS_OF_OPEN, forget)

    async def _take(
        self, chosen: sa.ColumnElement[bool], act: Callable[[Connection, list[str]], None]
    ) -> tuple[int, bool]:
        """Act on what is chosen, page after page, each in a transaction of its own."""
        taken, after = 0, ""
        while taken < MOST_AT_ONCE:
            # One that fails again meanwhile is not met a second time.
            query = (
                sa.select(jobs.c.id)
                .where(chosen, jobs.c.id > after)
                .order_by(jobs.c.id)
                .limit(_PAGE)
                .with_for_update(of=jobs)
            )

            def act_on_page(tx: Connection, query: sa.Select[Any] = query) -> list[str]:
                ids = list(tx.execute(query).scalars())
                act(tx, ids)
                return ids

            ids = await self._database.write(act_on_page)
            taken += len(ids)
            if len(ids) < _PAGE:
                return taken, False
            after = ids[-1]
        return taken, True


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A version of an original that jobs do not render, and the job that was its last."""

    digest: str
    source: str
    job_id: str
    since: float

    def as_json(self) -> dict[str, Any]:
        """What a client is told."""
        refs = [Ref(kind, name) for kind, name in json.loads(self.source)]
        return {
            "digest": self.digest,
            "source": shown_source(refs),
            "job": self.job_id,
            "since": shown_time(self.since),
        }


def find_quarantined(tx: Connection, *, limit: int, after: str | None = None) -> list[Quarantined]:
    """What is in quarantine, by digest: those after the digest `after`."""
    query = sa.select(quarantine).order_by(quarantine.c.digest).limit(limit)
    if after is not None:
        query = query.where(quarantine.c.digest > after)
    return [Quarantined(**row) for row in tx.execute(query).mappings()]


def release(tx: Connection, digest: str) -> None:
    """Let a version out of quarantine. Raises RecordMissing."""
    if not tx.execute(quarantine.delete().where(quarantine.c.digest == digest)).rowcount:
        raise RecordMissing(f"There is nothing in quarantine under {digest[:64]!r}")


def _find(tx: Connection, job_id: str) -> DeadLetter:
    job = ledger.find(tx, job_id)
    if job.state is not State.FAILED:
        raise RecordMissing(f"The job is {job.state}: it is no dead letter")
    query = sa.select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
    return DeadLetter(
        job=job, attempts=[_shown_attempt(row) for row in tx.execute(query).mappings()]
    )


def _shown_attempt(row: Any) -> dict[str, Any]:
    shown = {
        "number": row["number"],
        "worker": row["worker"],
        "started_at": shown_time(row["started_at"]),
        "ended_at": shown_time(row["ended_at"]),
        "outcome": row["outcome"],
        "error": None if row["error"] is None else json.loads(row["error"]),
    }
    return {name: value for name, value in shown.items() if value is not None}
