"""The ledger: what is known of every job, as functions of a connection in a transaction.

A job is queued until a worker begins it, and then running under a lease that its worker renews. It
ends once: whoever no longer holds the lease has no say in it. An attempt that ends in an error
comes again later, as often as the job allows; one whose worker has died with it comes again too,
but a job that has had `MAX_DEATHS` of those is poison and fails.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from app.errors import JobPoisoned, RecordMissing, problem_of
from app.jobs import batches, deliveries
from app.jobs.database import Connection, upsert
from app.jobs.ids import new_id
from app.jobs.records import Draft, Job, Kind, State, packed_source, shown_problem
from app.jobs.schema import attempts, jobs, pauses, quarantine

MAX_DEATHS: Final = 3
_CHUNK: Final = 500
"""Ids in one statement: SQLite takes a bounded number of values."""
ALL_LABELS: Final = "*"


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
    row = tx.execute(sa.select(jobs).where(jobs.c.id == job_id)).mappings().first()
    if row is None:
        raise RecordMissing(f"There is no job {job_id[:64]!r}")
    return _job(row)


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
    return [_job(row) for row in tx.execute(query).mappings()]


def begin(tx: Connection, job_id: str, *, worker: str, until: float, now: float) -> Job | None:
    """Begin an attempt at a job, or None where it is not to be run: ended, paused, or another's.

    A job that is running under a lease that has passed has lost its worker: that is counted first.
    Raises RecordMissing.
    """
    job = _find_locked(tx, job_id)
    if job.state.final:
        return None
    if job.state is State.RUNNING:
        if (job.lease_until or 0) > now or not _bury(tx, job, now=now):
            return None
        job = find(tx, job_id)
    if job.paused:
        return None
    values: dict[str, Any] = {
        "state": State.RUNNING,
        "worker": worker,
        "lease_until": until,
        "attempt": job.attempt + 1,
        "started_at": now if job.started_at is None else job.started_at,
    }
    tx.execute(jobs.update().where(jobs.c.id == job_id).values(**values))
    tx.execute(
        attempts.insert().values(
            job_id=job_id, number=job.attempt + 1, worker=worker, started_at=now
        )
    )
    return replace(job, **values)


def renew(tx: Connection, ids: Sequence[str], *, worker: str, until: float) -> set[str]:
    """Keep jobs that are in a worker's hands. Returns those that are no longer: let go of them."""
    kept: set[str] = set()
    for chunk in _chunks(ids):
        mine = jobs.c.id.in_(chunk) & (jobs.c.worker == worker) & (jobs.c.state == State.RUNNING)
        tx.execute(jobs.update().where(mine).values(lease_until=until))
        waiting = jobs.c.id.in_(chunk) & (jobs.c.state == State.QUEUED)
        tx.execute(jobs.update().where(waiting).values(run_after=until))
        kept.update(tx.execute(sa.select(jobs.c.id).where(mine | waiting)).scalars())
    return set(ids) - kept


def finish(tx: Connection, job: Job, results: Sequence[dict[str, Any]], *, now: float) -> bool:
    """End a job well. False where the attempt is no longer the job's: nothing is changed."""
    return _end(tx, job, State.SUCCEEDED, now=now, results=json.dumps(results))


def fail(
    tx: Connection, job: Job, error: dict[str, Any], *, again_at: float | None, now: float
) -> bool:
    """End an attempt in an error: the job comes again at a time, or it has failed.

    False where the attempt is no longer the job's: nothing is changed.
    """
    text = json.dumps(error)
    if again_at is None:
        return _end(tx, job, State.FAILED, now=now, error=text, failures=job.failures + 1)
    changed = tx.execute(
        jobs.update()
        .where(_held(job))
        .values(
            state=State.QUEUED,
            run_after=again_at,
            worker=None,
            lease_until=None,
            failures=job.failures + 1,
            error=text,
        )
    )
    if changed.rowcount:
        _end_attempt(tx, job, "failed", error=text, now=now)
    return bool(changed.rowcount)


def hand_back(
    tx: Connection, ids: Sequence[str], *, worker: str, again_at: float, now: float
) -> list[Job]:
    """Queue jobs again that a worker has begun or taken and leaves undone. No attempt is lost."""
    returned = []
    for chunk in _chunks(ids):
        rows = tx.execute(sa.select(jobs).where(jobs.c.id.in_(chunk)).with_for_update())
        for job in map(_job, rows.mappings().all()):
            mine = job.state is State.RUNNING and job.worker == worker
            if not mine and job.state is not State.QUEUED:
                continue
            values = {"state": State.QUEUED, "worker": None, "lease_until": None}
            tx.execute(
                jobs.update().where(jobs.c.id == job.id).values(run_after=again_at, **values)
            )
            if mine:
                _end_attempt(tx, job, "handed back", error=None, now=now)
            returned.append(find(tx, job.id))
    return returned


def cancel(tx: Connection, job_id: str, *, now: float) -> Job:
    """Cancel a job that has not ended; its worker lets go of it. Raises RecordMissing."""
    job = _find_locked(tx, job_id)
    if not job.state.final:
        _end(tx, job, State.CANCELLED, now=now, held=False)
    return find(tx, job_id)


def queue_again(tx: Connection, job_id: str, *, now: float) -> Job | None:
    """Queue a job anew that has failed or was cancelled, or None where it has not."""
    job = _find_locked(tx, job_id)
    if job.state not in (State.FAILED, State.CANCELLED):
        return None
    tx.execute(
        jobs.update()
        .where(jobs.c.id == job_id)
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
    if job.batch_id is not None:
        batches.reopen(tx, job.batch_id)
    return find(tx, job_id)


def claim(tx: Connection, *, limit: int, until: float, now: float) -> list[str]:
    """Take jobs that are due: of a higher priority first, then the longest due."""
    taken: list[str] = []
    for priority in (2, 1, 0):
        query = (
            sa.select(jobs.c.id)
            .where(sa.text("state = 'queued' AND NOT paused"))
            .where(jobs.c.priority == priority, jobs.c.run_after <= now)
            .order_by(jobs.c.run_after, jobs.c.id)
            .limit(limit - len(taken))
        )
        taken += tx.execute(query).scalars()
        if len(taken) == limit:
            break
    if taken:
        tx.execute(jobs.update().where(jobs.c.id.in_(taken)).values(run_after=until))
    return taken


def reap(tx: Connection, *, now: float, among: Sequence[str] | None = None) -> int:
    """Queue jobs again whose workers have died: all, or those of some ids. Returns how many had."""
    query = sa.select(jobs).where(sa.text("state = 'running'"), jobs.c.lease_until <= now)
    if among is not None:
        query = query.where(jobs.c.id.in_(among))
    rows = tx.execute(query.with_for_update(skip_locked=True)).mappings().all()
    orphans = [_job(row) for row in rows]
    for job in orphans:
        _bury(tx, job, now=now)
    return len(orphans)


def any_quarantined(tx: Connection) -> bool:
    """Whether there is a version of any original that is not to be rendered."""
    return tx.execute(sa.select(quarantine.c.digest).limit(1)).first() is not None


def is_quarantined(tx: Connection, digest: str) -> bool:
    """Whether a version of an original has ended its workers too often."""
    found = sa.select(quarantine.c.digest).where(quarantine.c.digest == digest)
    return tx.execute(found).first() is not None


def note_digest(tx: Connection, job: Job, digest: str) -> bool:
    """Note of which version of its original a suspect job is. True where that is in quarantine."""
    tx.execute(jobs.update().where(jobs.c.id == job.id).values(digest=digest))
    return is_quarantined(tx, digest)


def counts(tx: Connection) -> dict[str, int]:
    """How many jobs are in each state."""
    query = sa.select(jobs.c.state, sa.func.count()).group_by(jobs.c.state)
    found = {row.state: row[1] for row in tx.execute(query)}
    return {state.value: found.get(state.value, 0) for state in State}


def paused_labels(tx: Connection) -> set[str]:
    """Labels whose jobs do not begin."""
    return set(tx.execute(sa.select(pauses.c.label)).scalars())


def _find_locked(tx: Connection, job_id: str) -> Job:
    """The job, which no other transaction changes until the end of this one."""
    query = sa.select(jobs).where(jobs.c.id == job_id).with_for_update()
    row = tx.execute(query).mappings().first()
    if row is None:
        raise RecordMissing(f"There is no job {job_id[:64]!r}")
    return _job(row)


def _bury(tx: Connection, job: Job, *, now: float) -> bool:
    """Count the death of a job's worker. Whether the job may be tried again."""
    tx.execute(
        attempts.update()
        .where(attempts.c.job_id == job.id, attempts.c.ended_at.is_(None))
        .values(ended_at=now, outcome="died")
    )
    deaths = job.deaths + 1
    if deaths < MAX_DEATHS:
        values = {"state": State.QUEUED, "run_after": now, "worker": None, "lease_until": None}
        tx.execute(jobs.update().where(jobs.c.id == job.id).values(deaths=deaths, **values))
        return True
    problem = problem_of(JobPoisoned(f"{deaths} workers have ended while they had this job"))
    assert problem is not None  # noqa: S101 - it is one of ours
    _end(
        tx,
        job,
        State.FAILED,
        now=now,
        held=False,
        deaths=deaths,
        error=json.dumps(shown_problem(problem)),
    )
    if job.digest is not None:
        upsert(tx, quarantine, digest=job.digest, source=job.source, job_id=job.id, since=now)
    return False


def _end(
    tx: Connection, job: Job, state: State, *, now: float, held: bool = True, **values: Any
) -> bool:
    condition = _held(job) if held else jobs.c.id == job.id
    end: dict[str, Any] = {
        "state": state,
        "finished_at": now,
        "worker": None,
        "lease_until": None,
        **values,
    }
    changed = tx.execute(jobs.update().where(condition).values(**end))
    if not changed.rowcount:
        return False
    _end_attempt(tx, job, state.value, error=values.get("error"), now=now)
    ended = replace(job, **end)
    if ended.webhook is not None and ended.kind is Kind.RENDER:
        deliveries.announce_job(tx, ended, now=now)
    if ended.batch_id is not None:
        batches.note_end(tx, ended.batch_id, failed=state is State.FAILED, now=now)
    return True


def _end_attempt(tx: Connection, job: Job, outcome: str, *, error: str | None, now: float) -> None:
    tx.execute(
        attempts.update()
        .where(
            attempts.c.job_id == job.id,
            attempts.c.number == job.attempt,
            attempts.c.ended_at.is_(None),
        )
        .values(ended_at=now, outcome=outcome, error=error)
    )


def _held(job: Job) -> sa.ColumnElement[bool]:
    """Whether the attempt that this value is of is still the job's."""
    return sa.and_(
        jobs.c.id == job.id, jobs.c.state == State.RUNNING, jobs.c.attempt == job.attempt
    )


def _row(job: Job) -> dict[str, Any]:
    return {name: getattr(job, name) for name in Job.__dataclass_fields__}


def _job(row: Any) -> Job:
    values = dict(row)
    values["state"] = State(values["state"])
    values["kind"] = Kind(values["kind"])
    return Job(**values)


def _chunks(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK)]
