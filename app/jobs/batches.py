"""Batches: jobs that belong together, as functions of a connection in a transaction.

A batch is filling while jobs are added, then running until none of them is open, then ended: well
where all of them have. One that has had more failures than it allows is cancelled: what has not
begun never will.

A batch is cancelled first and its jobs after it, page by page. Until the last of them has been, it
is cancelled and has not finished: none of its jobs begins any more, or comes again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from app.errors import RecordMissing
from app.jobs import deliveries
from app.jobs.database import Connection
from app.jobs.ids import is_id, new_id
from app.jobs.records import Batch, BatchState, Draft, Job, Kind, State
from app.jobs.schema import attempts, batches, jobs

MOST_REJECTIONS: Final = 100
"""Entries without a job whose problems are kept."""
_OPEN: Final = (State.QUEUED, State.RUNNING)
_NOT_ENDED: Final = (BatchState.FILLING, BatchState.RUNNING)
_STOPPED: Final = sa.select(batches.c.id).where(
    batches.c.finished_at.is_(None), batches.c.state == BatchState.CANCELLED.value
)
_ANY_STOPPED: Final = _STOPPED.limit(1)
_ANY_OPEN: Final = (
    sa.select(batches.c.id).where(batches.c.finished_at.is_(None)).limit(1),
    sa.select(batches.c.id).where(sa.text("report_due")).limit(1),
)
_PAGE: Final = 500
"""Jobs that are cancelled in one transaction: others write in between."""

IS_OF_OPEN: Final = sa.exists().where(
    batches.c.id == jobs.c.batch_id, batches.c.finished_at.is_(None)
)
"""Whether a job is of a batch that has not ended: the batch ends by what its jobs have come to."""
IS_OF_STOPPED: Final = sa.exists().where(
    batches.c.id == jobs.c.batch_id,
    batches.c.finished_at.is_(None),
    batches.c.state == BatchState.CANCELLED.value,
)
"""Whether a job is of a batch that is being cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchDraft:
    """A batch that has not been accepted yet.

    `order` is the selection or manifest that a job of its own fills it from, as JSON, and `cursor`
    is where that begins; `report` is where the list of results goes in the end.
    """

    label: str | None = None
    metadata: str | None = None
    webhook: str | None = None
    origin: str | None = None
    max_failures: int | None = None
    order: str | None = None
    cursor: str | None = None
    report: str | None = None


def create(tx: Connection, draft: BatchDraft, *, now: float, batch_id: str | None = None) -> Batch:
    """Accept a batch, without jobs yet."""
    batch_id = batch_id or new_id()
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
    return Batch.from_row(row)


def find_page(
    tx: Connection,
    *,
    limit: int,
    state: BatchState | None = None,
    label: str | None = None,
    before: str | None = None,
) -> list[Batch]:
    """Batches from the newest to the oldest, those older than the id `before`."""
    query = sa.select(batches).order_by(batches.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(batches.c.state == state)
    if label is not None:
        query = query.where(batches.c.label == label)
    if before is not None:
        query = query.where(batches.c.id < before)
    return [Batch.from_row(row) for row in tx.execute(query).mappings()]


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
    batch: Batch,
    *,
    added: int,
    rejections: Sequence[dict[str, Any]] = (),
    rejected: int = 0,
    skipped: int = 0,
    cursor: str | None,
) -> bool:
    """Note how far filling has come, with the jobs that are added in the same transaction.

    `batch` is as it was found when the work on this part began. False where it takes no more, or
    somebody else has done this part: then nothing may be added.
    """
    known = json.loads(batch.rejections or "[]")
    told = [*known, *rejections][:MOST_REJECTIONS]
    still = batches.c.cursor == batch.cursor
    if batch.cursor is None:
        still = batches.c.cursor.is_(None)
    changed = tx.execute(
        batches.update()
        .where(batches.c.id == batch.id, batches.c.state == BatchState.FILLING, still)
        .values(
            total=batches.c.total + added,
            rejected=batches.c.rejected + rejected,
            skipped=batches.c.skipped + skipped,
            rejections=json.dumps(told) if told else None,
            cursor=cursor,
        )
    )
    return bool(changed.rowcount)


def note_filled(tx: Connection, batch_id: str, *, now: float) -> Batch:
    """Note that no more jobs are added. A batch all of whose entries were refused has failed."""
    batch = find(tx, batch_id)
    error = None
    if batch.rejected and not batch.total:
        error = json.dumps({"detail": f"None of {batch.rejected} entries is a job"})
    tx.execute(
        batches.update()
        .where(batches.c.id == batch_id, batches.c.state == BatchState.FILLING)
        .values(state=BatchState.RUNNING, filled_at=now, error=error)
    )
    close_where_done(tx, batch_id, now=now)
    return find(tx, batch_id)


def note_end(tx: Connection, job: Job, *, now: float) -> None:
    """Note that a job of a batch has ended.

    Too many failures cancel the batch, one that cannot be filled fails, the last end closes it.
    """
    assert job.batch_id is not None  # noqa: S101 - the caller has looked
    batch_id = job.batch_id
    if job.kind is Kind.FILL and job.state is State.CANCELLED:
        cancel(tx, batch_id, now=now, reason="Filling it was cancelled")
        return
    if job.kind is Kind.FILL and job.state is State.FAILED:
        tx.execute(
            batches.update()
            .where(batches.c.id == batch_id, batches.c.state == BatchState.FILLING)
            .values(state=BatchState.RUNNING, filled_at=now, error=job.error)
        )
    if job.kind is Kind.RENDER and job.state is State.FAILED:
        batch = find(tx, batch_id)
        most = batch.max_failures
        if most is not None and not batch.state.final and _has_failures(tx, batch_id, most + 1):
            reason = f"More jobs have failed than max_failures, which is {most}"
            cancel(tx, batch_id, now=now, reason=reason, running=False)
            return
    close_where_done(tx, batch_id, now=now)


def _has_failures(tx: Connection, batch_id: str, count: int) -> bool:
    failed = (
        sa.select(jobs.c.id)
        .where(jobs.c.batch_id == batch_id, jobs.c.state == State.FAILED)
        .where(jobs.c.kind == Kind.RENDER)
        .limit(count)
        .subquery()
    )
    found: int = tx.execute(sa.select(sa.func.count()).select_from(failed)).scalar_one()
    return found == count


def close_where_done(tx: Connection, batch_id: str, *, now: float) -> bool:
    """End a batch all of whose jobs have ended. Whether it has been by this call."""
    mine = jobs.c.batch_id == batch_id
    is_open = sa.exists().where(mine, jobs.c.state.in_(_OPEN))
    if tx.execute(sa.select(is_open)).scalar_one():
        return False
    # Whoever queues a job anew holds the batch until that is to be seen by the next statement.
    _lock(tx, batch_id)
    failed = sa.exists().where(
        mine, jobs.c.state == State.FAILED, jobs.c.kind.in_((Kind.RENDER, Kind.FILL))
    )
    cancelled = sa.exists().where(mine, jobs.c.state == State.CANCELLED)
    state = sa.case(
        (batches.c.state == BatchState.CANCELLED, BatchState.CANCELLED.value),
        (failed | batches.c.error.is_not(None), BatchState.FAILED.value),
        (cancelled, BatchState.CANCELLED.value),
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
        .values(state=state, finished_at=now, report_due=batches.c.report.is_not(None))
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


def reopen(tx: Connection, batch_id: str, *, filling: bool = False) -> None:
    """A job of a batch is tried again: the one that fills it where `filling` says so.

    Nobody else ends the batch before the end of the transaction.
    """
    _lock(tx, batch_id)
    values: dict[str, Any] = {"state": BatchState.RUNNING}
    if filling:
        values = {"state": BatchState.FILLING, "filled_at": None}
    tx.execute(
        batches.update()
        .where(batches.c.id == batch_id)
        .where(sa.true() if filling else batches.c.state.not_in(_NOT_ENDED))
        .values(finished_at=None, error=None, report_due=False, **values)
    )


def stop(tx: Connection, batch_id: str, *, now: float, reason: str | None = None) -> Batch:
    """Begin to cancel a batch, where it has not ended: its jobs are left to `cancel_jobs`.

    Raises RecordMissing.
    """
    error = None if reason is None else json.dumps({"detail": reason})
    tx.execute(
        batches.update()
        .where(batches.c.id == batch_id, batches.c.state.in_(_NOT_ENDED))
        .values(state=BatchState.CANCELLED, filled_at=sa.func.coalesce(batches.c.filled_at, now))
        .values(error=error)
    )
    return find(tx, batch_id)


def cancel_jobs(
    tx: Connection,
    batch_id: str,
    *,
    now: float,
    limit: int = _PAGE,
    running: bool = False,
    skip_locked: bool = False,
) -> list[Job]:
    """Cancel some jobs of a batch that is being cancelled. Returns them as they were.

    Unless `running`, renders that have begun may end by themselves. None are returned where none
    are left, and the batch ends where that is so of all; `skip_locked` leaves out those that others
    change at that moment.
    """
    chosen: sa.ColumnElement[bool] = jobs.c.state.in_(_OPEN)
    if not running:
        # Filling ends too: what it would add is not to begin.
        chosen &= (jobs.c.state == State.QUEUED) | (jobs.c.kind == Kind.FILL)
    query = (
        sa.select(jobs)
        .where(jobs.c.batch_id == batch_id, chosen, IS_OF_STOPPED)
        .order_by(jobs.c.id)
        .limit(limit)
        .with_for_update(of=jobs, skip_locked=skip_locked)
    )
    found = [Job.from_row(row) for row in tx.execute(query).mappings()]
    ids = [job.id for job in found]
    values: dict[str, Any] = {"state": State.CANCELLED, "finished_at": now}
    values |= {"worker": None, "lease_until": None}
    tx.execute(jobs.update().where(jobs.c.id.in_(ids)).values(**values))
    begun = [job.id for job in found if job.state is State.RUNNING]
    tx.execute(
        attempts.update()
        .where(attempts.c.job_id.in_(begun) & attempts.c.ended_at.is_(None))
        .values(ended_at=now, outcome=State.CANCELLED.value)
    )
    for job in found:
        if job.webhook is not None:
            deliveries.announce_job(tx, replace(job, **values), now=now)
    close_where_done(tx, batch_id, now=now)
    return found


def cancel(
    tx: Connection, batch_id: str, *, now: float, reason: str | None = None, running: bool = True
) -> Batch:
    """Cancel a batch that has not ended, with as many of its jobs as a transaction may.

    The rest is left to those who look for what is being cancelled. Raises RecordMissing.
    """
    stop(tx, batch_id, now=now, reason=reason)
    # Others have jobs before they have the batch, which is held here already: nobody is waited for.
    cancel_jobs(tx, batch_id, now=now, running=running, skip_locked=True)
    return find(tx, batch_id)


def find_stopped(tx: Connection) -> list[str]:
    """The ids of batches that are being cancelled."""
    return list(tx.execute(_STOPPED.order_by(batches.c.id)).scalars())


def is_any_stopped(tx: Connection) -> bool:
    """Whether a batch is being cancelled."""
    return tx.execute(_ANY_STOPPED).first() is not None


def is_any_open(tx: Connection) -> bool:
    """Whether a batch has not ended, or is still to be reported on."""
    return any(tx.execute(query).first() is not None for query in _ANY_OPEN)


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


def _lock(tx: Connection, batch_id: str) -> None:
    """Have no other transaction change the batch until the end of this one."""
    tx.execute(sa.select(batches.c.id).where(batches.c.id == batch_id).with_for_update())
