"""Batches: jobs that belong together, as functions of a connection in a transaction.

A batch is filling while jobs are added, then running until none of them is open, then ended. One
that has had more failures than it allows is cancelled: what has not begun never will.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from app.errors import RecordMissing
from app.jobs import deliveries
from app.jobs.database import Connection
from app.jobs.ids import is_id, new_id
from app.jobs.records import Batch, BatchState, Draft, Kind, State
from app.jobs.schema import attempts, batches, jobs

_OPEN: Final = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDraft:
    """A batch that has not been accepted yet.

    `order` is the selection or manifest that a job of its own fills it from, as JSON; `report` is
    where the list of results goes in the end.
    """

    label: str | None = None
    metadata: str | None = None
    webhook: str | None = None
    origin: str | None = None
    max_failures: int | None = None
    order: str | None = None
    report: str | None = None


def create(tx: Connection, draft: BatchDraft, *, now: float) -> Batch:
    """Accept a batch, without jobs yet."""
    batch_id = new_id()
    tx.execute(
        batches.insert().values(
            id=batch_id,
            state=BatchState.FILLING,
            created_at=now,
            **{name: getattr(draft, name) for name in BatchDraft.__dataclass_fields__},
        )
    )
    return find(tx, batch_id)


def find(tx: Connection, batch_id: str) -> Batch:
    """The batch of an id. Raises RecordMissing."""
    if not is_id(batch_id):
        raise RecordMissing(f"There is no batch {batch_id[:64]!r}")
    row = tx.execute(sa.select(batches).where(batches.c.id == batch_id)).mappings().first()
    if row is None:
        raise RecordMissing(f"There is no batch {batch_id[:64]!r}")
    return _batch(row)


def find_page(tx: Connection, *, limit: int, before: str | None = None) -> list[Batch]:
    """Batches from the newest to the oldest, those older than the id `before`."""
    query = sa.select(batches).order_by(batches.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(batches.c.id < before)
    return [_batch(row) for row in tx.execute(query).mappings()]


def counts(tx: Connection, batch_id: str) -> dict[str, int]:
    """How many of a batch's renders are in each state."""
    query = (
        sa.select(jobs.c.state, sa.func.count().label("count"))
        .where(jobs.c.batch_id == batch_id, jobs.c.kind == Kind.RENDER)
        .group_by(jobs.c.state)
    )
    found = {row.state: row[1] for row in tx.execute(query)}
    return {state.value: found.get(state.value, 0) for state in State}


def note_progress(
    tx: Connection,
    batch_id: str,
    *,
    added: int,
    rejected: int = 0,
    skipped: int = 0,
    cursor: str | None = None,
    rejections: list[dict[str, Any]] | None = None,
) -> Batch:
    """Note how far filling has come, with the jobs that it has added in the same transaction."""
    values: dict[str, Any] = {
        "total": batches.c.total + added,
        "rejected": batches.c.rejected + rejected,
        "skipped": batches.c.skipped + skipped,
    }
    if cursor is not None:
        values["cursor"] = cursor
    if rejections is not None:
        values["rejections"] = json.dumps(rejections)
    tx.execute(batches.update().where(batches.c.id == batch_id).values(**values))
    return find(tx, batch_id)


def note_filled(tx: Connection, batch_id: str, *, now: float) -> Batch:
    """Note that no more jobs are added."""
    tx.execute(
        batches.update()
        .where(batches.c.id == batch_id, batches.c.state == BatchState.FILLING)
        .values(state=BatchState.RUNNING, filled_at=now)
    )
    close_where_done(tx, batch_id, now=now)
    return find(tx, batch_id)


def note_end(tx: Connection, batch_id: str, *, failed: bool, now: float) -> None:
    """Note that a job has ended: too many failures cancel its batch, the last end closes it."""
    if failed:
        batch = find(tx, batch_id)
        if batch.max_failures is not None and not batch.state.final:
            failures = counts(tx, batch_id)[State.FAILED]
            if failures > batch.max_failures:
                reason = f"{failures} jobs have failed, more than max_failures"
                cancel(tx, batch_id, now=now, reason=reason, running=False)
                return
    close_where_done(tx, batch_id, now=now)


def close_where_done(tx: Connection, batch_id: str, *, now: float) -> bool:
    """End a batch all of whose jobs have ended. Whether it has been by this call."""
    is_open = sa.exists().where(jobs.c.batch_id == batch_id, jobs.c.state.in_(_OPEN))
    failed = sa.exists().where(jobs.c.batch_id == batch_id, jobs.c.state == State.FAILED)
    state = sa.case(
        (batches.c.state == BatchState.CANCELLED, BatchState.CANCELLED.value),
        (failed, BatchState.FAILED.value),
        else_=BatchState.SUCCEEDED.value,
    )
    closed = tx.execute(
        batches.update()
        .where(
            batches.c.id == batch_id,
            batches.c.state.in_((BatchState.RUNNING, BatchState.CANCELLED)),
            batches.c.finished_at.is_(None),
            ~is_open,
        )
        .values(state=state, finished_at=now)
    ).rowcount
    if closed:
        batch = find(tx, batch_id)
        if batch.webhook is not None:
            deliveries.announce_batch(tx, batch, counts(tx, batch_id), now=now)
    return bool(closed)


def close_all_done(tx: Connection, *, now: float) -> int:
    """End every batch that is done. Where two last jobs end at once, neither sees that it is."""
    query = sa.select(batches.c.id).where(batches.c.finished_at.is_(None))
    return sum(close_where_done(tx, found, now=now) for found in tx.execute(query).scalars().all())


def reopen(tx: Connection, batch_id: str) -> None:
    """A job of an ended batch is tried again."""
    tx.execute(
        batches.update()
        .where(batches.c.id == batch_id, batches.c.finished_at.is_not(None))
        .values(state=BatchState.RUNNING, finished_at=None, error=None)
    )


def cancel(
    tx: Connection, batch_id: str, *, now: float, reason: str | None = None, running: bool = True
) -> Batch:
    """Cancel a batch that has not ended. Unless `running`, what has begun may end by itself."""
    batch = find(tx, batch_id)
    if batch.state.final:
        return batch
    states = _OPEN if running else (State.QUEUED,)
    stopped = (jobs.c.batch_id == batch_id) & jobs.c.state.in_(states)
    values = {"state": State.CANCELLED, "finished_at": now, "worker": None, "lease_until": None}
    tx.execute(jobs.update().where(stopped).values(**values))
    gone = sa.select(jobs.c.id).where(
        jobs.c.batch_id == batch_id, jobs.c.state == State.CANCELLED, jobs.c.attempt > 0
    )
    tx.execute(
        attempts.update()
        .where(attempts.c.job_id.in_(gone) & attempts.c.ended_at.is_(None))
        .values(ended_at=now, outcome=State.CANCELLED.value)
    )
    error = None if reason is None else json.dumps({"detail": reason})
    tx.execute(
        batches.update()
        .where(batches.c.id == batch_id)
        .values(state=BatchState.CANCELLED, filled_at=sa.func.coalesce(batches.c.filled_at, now))
        .values(error=error)
    )
    close_where_done(tx, batch_id, now=now)
    return find(tx, batch_id)


def find_cancelled(tx: Connection, batch_id: str) -> list[str]:
    """The ids of a batch's jobs that were cancelled."""
    query = sa.select(jobs.c.id).where(jobs.c.batch_id == batch_id, jobs.c.state == State.CANCELLED)
    return list(tx.execute(query).scalars())


def draft_of_fill(batch: Batch) -> Draft:
    """The job that fills a batch from its order."""
    return Draft(
        kind=Kind.FILL,
        source=(),
        outputs="[]",
        priority=2,
        retries=10,
        timeout=86_400.0,
        batch_id=batch.id,
        label=batch.label,
    )


def _batch(row: Any) -> Batch:
    values = dict(row)
    values["state"] = BatchState(values["state"])
    return Batch(**values)
