"""Classes of jobs that wait: by their label, or all of them.

What counts is the table of pauses, which `attempts.begin` asks. That a job is marked as paused too
keeps it out of the way of those that are due; the marks follow the table, some jobs at a time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import sqlalchemy as sa
from pydantic import Field

from app.jobs import ledger
from app.jobs.bodies import Body, Label
from app.jobs.database import Connection, Database, insert_once
from app.jobs.ledger import ALL_LABELS
from app.jobs.queues import JobQueue
from app.jobs.records import shown_time
from app.jobs.schema import DUE, PAUSED, jobs, pauses

_CHUNK: Final = 500
"""Jobs that are marked in one transaction: others write in between."""


class PauseBody(Body):
    """Which jobs begin no more, or begin again."""

    label: Label | None = Field(None, description="Jobs with this label; without it, all jobs.")

    @property
    def paused_label(self) -> str:
        """As it is in the table."""
        return ALL_LABELS if self.label is None else self.label


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """A label whose jobs do not begin, `*` for all, and since when."""

    label: str
    since: float

    def as_json(self) -> dict[str, Any]:
        """What a client is told."""
        return {"label": self.label, "since": shown_time(self.since)}


class Pauses:
    """Pauses and resumes. What runs already is left to end."""

    def __init__(self, database: Database, queue: JobQueue) -> None:
        self._database = database
        self._queue = queue

    async def pause(self, label: str) -> int:
        """Let no more jobs of a label begin. Returns how many wait that were due before."""
        now = time.time()
        await self._database.write(lambda tx: insert_once(tx, pauses, label=label, since=now))
        held, after = 0, ""
        while True:
            # Looked for outside of the transaction that writes: it may be far between two.
            ids = await self._database.read(partial(_unmarked, label=label, after=after))
            held += await self._database.write(partial(self._hold, ids=ids))
            if len(ids) < _CHUNK:
                return held
            after = ids[-1]

    async def resume(self, label: str) -> int:
        """Let jobs of a label begin again. Returns how many do: some may be paused otherwise."""
        await self._database.write(
            lambda tx: tx.execute(pauses.delete().where(pauses.c.label == label))
        )
        return await self.release()

    async def release(self) -> int:
        """Bring jobs that are marked though nothing pauses them any more. Returns how many.

        Also for those that were accepted while their label was resumed.
        """
        released = 0
        while await self._database.read(lambda tx: _mismarked(tx, limit=1)):
            released += await self._database.write(self._release)
            self._queue.wake()
        return released

    async def find_all(self) -> list[Pause]:
        """Every pause, by label."""
        query = sa.select(pauses).order_by(pauses.c.label)
        return await self._database.read(
            lambda tx: [Pause(**row) for row in tx.execute(query).mappings()]
        )

    def _hold(self, tx: Connection, *, ids: list[str]) -> int:
        waiting = jobs.c.id.in_(ids) & sa.text(DUE)
        held = tx.execute(jobs.update().where(waiting).values(paused=True)).rowcount
        self._queue.cancel(tx, ids)
        return held

    def _release(self, tx: Connection) -> int:
        ids = _mismarked(tx, limit=_CHUNK)
        tx.execute(jobs.update().where(jobs.c.id.in_(ids), sa.text(PAUSED)).values(paused=False))
        self._queue.submit(tx, ledger.find_several(tx, ids))
        return len(ids)


def _unmarked(tx: Connection, *, label: str, after: str) -> list[str]:
    query = (
        sa.select(jobs.c.id)
        .where(sa.text(DUE), jobs.c.id > after)
        .order_by(jobs.c.id)
        .limit(_CHUNK)
    )
    if label != ALL_LABELS:
        query = query.where(jobs.c.label == label)
    return list(tx.execute(query).scalars())


def _mismarked(tx: Connection, *, limit: int) -> list[str]:
    stopped = ledger.paused_labels(tx)
    if ALL_LABELS in stopped:
        return []
    free = sa.or_(jobs.c.label.is_(None), jobs.c.label.not_in(stopped))
    query = sa.select(jobs.c.id).where(sa.text(PAUSED), free).limit(limit)
    return list(tx.execute(query).scalars())
