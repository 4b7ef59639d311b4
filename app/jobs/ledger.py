"""The ledger: what is known of every job, as functions of a connection in a transaction.

Jobs are accepted, found and queued anew here. What becomes of one in the hands of workers is in
`attempts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import attrgetter
from typing import Any, Final

import sqlalchemy as sa

from app.errors import RecordMissing
from app.jobs import batches
from app.jobs.database import Connection
from app.jobs.ids import is_id, new_id
from app.jobs.records import Draft, Job, Kind, State, packed_source
from app.jobs.schema import jobs, pauses

ALL_LABELS: Final = "*"

# What every job goes through is built once: building a statement costs more than running it.
_FIND: Final = sa.select(jobs).where(jobs.c.id == sa.bindparam("job_id"))
FIND_LOCKED: Final = _FIND.with_for_update()
"""A job by `job_id`, which no other transaction changes until the end of this one."""

_FIELDS: Final = tuple(Job.__dataclass_fields__)
_VALUES: Final = attrgetter(*_FIELDS)
_CHUNK: Final = 500
"""Ids in one statement: SQLite takes a bounded number of values."""


def insert(tx: Connection, drafts: Sequence[Draft], *, now: float) -> list[Job]:
    """Accept jobs. Those whose label is paused wait until it is resumed."""
    stopped = paused_labels(tx)
    made = [
        Job(
            id=new_id(),
            kind=draft.kind,
            state=State.QUEUED,
            paused=ALL_LABELS in stopped or draft.label in stopped,
            priority=draft.priority,
            run_after=max(now, draft.run_after),
            created_at=now,
            started_at=None,
            finished_at=None,
            expires_at=draft.expires_at,
            worker=None,
            lease_until=None,
            attempt=0,
            failures=0,
            deaths=0,
            retries=draft.retries,
            timeout=draft.timeout,
            batch_id=draft.batch_id,
            line=draft.line,
            origin=draft.origin,
            label=draft.label,
            source=packed_source(draft.source),
            digest=None,
            outputs=draft.outputs,
            metadata=draft.metadata,
            webhook=draft.webhook,
            results=None,
            error=None,
        )
        for draft in drafts
    ]
    if made:
        tx.execute(jobs.insert(), [_row(job) for job in made])
    return made


def find(tx: Connection, job_id: str) -> Job:
    """The job of an id. Raises RecordMissing."""
    return _find_by(tx, _FIND, job_id)


def find_locked(tx: Connection, job_id: str) -> Job:
    """The same, which no other transaction changes until the end of this one."""
    return _find_by(tx, FIND_LOCKED, job_id)


def find_several(tx: Connection, ids: Sequence[str]) -> list[Job]:
    """The jobs of these ids that there are, in the order of the ids."""
    found: dict[str, Job] = {}
    for chunk in in_chunks(ids):
        rows = tx.execute(sa.select(jobs).where(jobs.c.id.in_(chunk))).mappings()
        found.update((row["id"], Job.from_row(row)) for row in rows)
    return [found[job_id] for job_id in ids if job_id in found]


def find_page(
    tx: Connection,
    *,
    limit: int,
    state: State | None = None,
    label: str | None = None,
    batch_id: str | None = None,
    before: str | None = None,
) -> list[Job]:
    """Jobs from the newest to the oldest, those older than the id `before`."""
    query = sa.select(jobs).order_by(jobs.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(jobs.c.state == state)
    if label is not None:
        query = query.where(jobs.c.label == label)
    if batch_id is not None:
        query = query.where(jobs.c.batch_id == batch_id)
    if before is not None:
        query = query.where(jobs.c.id < before)
    return [Job.from_row(row) for row in tx.execute(query).mappings()]


def queue_again(tx: Connection, job_id: str, *, now: float) -> Job | None:
    """Queue a job anew that has failed or was cancelled, or None where it has not."""
    job = find_locked(tx, job_id)
    if job.state not in (State.FAILED, State.CANCELLED):
        return None
    _queue_anew(tx, [job_id], now=now)
    if job.batch_id is not None and job.kind is not Kind.REPORT:
        batches.reopen(tx, job.batch_id, filling=job.kind is Kind.FILL)
    return find(tx, job_id)


def queue_batch_again(
    tx: Connection,
    batch_id: str,
    *,
    states: Sequence[State],
    after: str,
    limit: int,
    now: float,
) -> list[Job]:
    """Queue jobs of a batch anew that have ended in one of these states: the next after an id."""
    query = (
        sa.select(jobs.c.id)
        .where(jobs.c.batch_id == batch_id, jobs.c.id > after, jobs.c.state.in_(states))
        .where(jobs.c.kind != Kind.REPORT)
        .order_by(jobs.c.id)
        .limit(limit)
        .with_for_update()
    )
    ids = tx.execute(query).scalars().all()
    if not ids:
        return []
    _queue_anew(tx, ids, now=now)
    rows = tx.execute(sa.select(jobs).where(jobs.c.id.in_(ids)).order_by(jobs.c.id)).mappings()
    found = [Job.from_row(row) for row in rows]
    batches.reopen(tx, batch_id, filling=any(job.kind is Kind.FILL for job in found))
    return found


def _queue_anew(tx: Connection, ids: Sequence[str], *, now: float) -> None:
    tx.execute(
        jobs.update()
        .where(jobs.c.id.in_(ids))
        .values(
            state=State.QUEUED,
            run_after=now,
            expires_at=None,
            finished_at=None,
            failures=0,
            deaths=0,
            results=None,
            error=None,
        )
    )


def counts(tx: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
    found = {row.state: row[1] for row in tx.execute(query)}
    return {state.value: found.get(state.value, 0) for state in State}


def paused_labels(tx: Connection) -> set[str]:
    """Labels whose jobs do not begin."""
    return set(tx.execute(sa.select(pauses.c.label)).scalars())


def in_chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    """Ids in parts that one statement takes."""
    return [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]


def _find_by(tx: Connection, query: sa.Select[Any], job_id: str) -> Job:
    row = tx.execute(query, {"job_id": job_id}).mappings().first() if is_id(job_id) else None
    if row is None:
        raise RecordMissing(f"There is no job {job_id[:64]!r}")
    return Job.from_row(row)


def _row(job: Job) -> dict[str, Any]:
    return dict(zip(_FIELDS, _VALUES(job), strict=True))
