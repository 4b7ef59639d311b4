"""How a batch comes along: its jobs by state, how fast they end, and when the last one will."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from app.jobs import batches
from app.jobs.database import Connection
from app.jobs.records import Batch, Job, Kind, State
from app.jobs.schema import jobs

_WINDOW: Final = 60.0
"""Seconds over which the rate is taken."""
_OPEN: Final = (State.QUEUED, State.RUNNING)
_DONE: Final = (State.SUCCEEDED, State.FAILED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Jobs by state, jobs that end in a second, and the seconds until the last one does.

    Of a batch that has ended, the rate is that of all of its time.
    """

    counts: dict[str, int]
    rate: float
    eta: float | None

    def as_json(self) -> dict[str, Any]:
        """What a client is told."""
        shown: dict[str, Any] = {"counts": self.counts, "rate": round(self.rate, 3)}
        if self.eta is not None:
            shown["eta"] = round(self.eta, 1)
        return shown


def find_progress(tx: Connection, batch: Batch, *, now: float) -> Progress:
    """How a batch comes along."""
    counts = batches.counts(tx, batch.id)
    if batch.finished_at is not None:
        taken = max(batch.finished_at - batch.created_at, 0.001)
        return Progress(counts=counts, rate=sum(counts[s] for s in _DONE) / taken, eta=None)
    since = max(now - _WINDOW, batch.created_at)
    query = (
        sa.select(sa.func.count())
        .select_from(jobs)
        .where(jobs.c.batch_id == batch.id, jobs.c.finished_at >= since)
        .where(jobs.c.state.in_(_DONE), jobs.c.kind == Kind.RENDER)
    )
    rate = tx.execute(query).scalar_one() / max(now - since, 1.0)
    left = sum(counts[state] for state in _OPEN)
    # While jobs are still added, nobody knows how many there will be.
    known = rate > 0 and batch.filled_at is not None
    return Progress(counts=counts, rate=rate, eta=left / rate if known else None)


def find_results(
    tx: Connection, batch_id: str, *, after: str, limit: int, state: State | None = None
) -> list[Job]:
    """Jobs of a batch in the order in which they were accepted: the next after an id."""
    query = (
        sa.select(jobs)
        .where(jobs.c.batch_id == batch_id, jobs.c.id > after, jobs.c.kind == Kind.RENDER)
        .order_by(jobs.c.id)
        .limit(limit)
    )
    if state is not None:
        query = query.where(jobs.c.state == state)
    return [Job.from_row(row) for row in tx.execute(query).mappings()]
