"""How much work waits: in jobs, in time, and in seconds of what the workers there are can do."""

from __future__ import annotations

import time
from dataclasses import dataclass
from time import perf_counter
from typing import Any, Final

import sqlalchemy as sa

from app.jobs import ledger
from app.jobs.database import Connection, Database
from app.jobs.records import State
from app.jobs.schema import DUE, PAUSED, RUNNING, attempts, jobs
from app.telemetry import Metrics

_RECENT: Final = 200
"""Jobs that have ended last: how long they took is how long the next will take."""
_UNKNOWN: Final = 1.0
"""Seconds of a job where none has ended yet."""
_SHARE: Final = 0.01
"""Of the time, for measuring: it takes longer the more jobs are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The jobs that are due: how many, since when, and how long all of them take. In seconds."""

    depth: int
    age: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """Jobs by state, those that are paused, and those that are due."""

    counts: dict[str, int]
    paused: int
    due: Due

    def as_json(self) -> dict[str, Any]:
        """What a client is told."""
        return {
            "jobs": {**self.counts, "paused": self.paused},
            "depth": self.due.depth,
            "age_seconds": round(self.due.age, 3),
            "backlog_seconds": round(self.due.seconds, 3),
        }


class BacklogMeter:
    """Measures, and shows what it has measured last. `concurrency` is of this process's worker."""

    def __init__(self, database: Database, *, metrics: Metrics, concurrency: int) -> None:
        self._database = database
        self._metrics = metrics
        self._concurrency = concurrency
        self._again_at = 0.0

    async def measure(self) -> Backlog:
        """How much waits now."""
        now = time.time()
        return await self._database.read(
            lambda tx: measure(tx, concurrency=self._concurrency, now=now)
        )

    async def measure_due(self) -> Due:
        """How much is due now: that costs the same however many jobs are kept."""
        now = time.time()
        return await self._database.read(
            lambda tx: measure_due(tx, concurrency=self._concurrency, now=now)
        )

    async def show(self) -> None:
        """Bring the metrics up to date, unless that would take too much of the time."""
        began = perf_counter()
        if began < self._again_at:
            return
        backlog = await self.measure()
        ended = perf_counter()
        self._again_at = ended + (ended - began) / _SHARE
        for state, count in backlog.counts.items():
            self._metrics.jobs.labels(state).set(count)
        self._metrics.job_queue_depth.set(backlog.due.depth)
        self._metrics.job_queue_age_seconds.set(backlog.due.age)
        self._metrics.job_backlog_seconds.set(backlog.due.seconds)


def measure(tx: Connection, *, concurrency: int, now: float) -> Backlog:
    """How much waits."""
    paused = tx.execute(sa.select(sa.func.count()).select_from(jobs).where(sa.text(PAUSED)))
    return Backlog(
        counts=ledger.counts(tx),
        paused=paused.scalar_one(),
        due=measure_due(tx, concurrency=concurrency, now=now),
    )


def measure_due(tx: Connection, *, concurrency: int, now: float) -> Due:
    """How much is due. Jobs in hand are at least as many as run: other processes have workers too.

    An attempt's time holds its waits for the processor, so that jobs in hand divided by it are the
    jobs that end in a second (Little's law).
    """
    due = sa.select(sa.func.count(), sa.func.min(jobs.c.run_after)).where(
        sa.text(DUE), jobs.c.run_after <= now
    )
    depth, since = tx.execute(due).one()
    running = tx.execute(sa.select(sa.func.count()).select_from(jobs).where(sa.text(RUNNING)))
    in_hand = max(concurrency, running.scalar_one())
    return Due(
        depth=depth,
        age=0.0 if since is None else now - since,
        seconds=depth * _mean_seconds(tx) / in_hand,
    )


def _mean_seconds(tx: Connection) -> float:
    recent = (
        sa.select(jobs.c.id)
        .where(jobs.c.finished_at.is_not(None), jobs.c.state == State.SUCCEEDED)
        .order_by(jobs.c.finished_at.desc())
        .limit(_RECENT)
        .subquery()
    )
    taken = (
        sa.select(sa.func.avg(attempts.c.ended_at - attempts.c.started_at))
        .join(recent, recent.c.id == attempts.c.job_id)
        .where(attempts.c.outcome == State.SUCCEEDED)
    )
    mean: float | None = tx.execute(taken).scalar_one()
    return _UNKNOWN if mean is None else mean
