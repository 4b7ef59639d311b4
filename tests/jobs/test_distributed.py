"""The rows that bring jobs on PostgreSQL, without a worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any

import pytest
import sqlalchemy as sa

from app.errors import LedgerUnavailable
from app.jobs import attempts, batches, ledger
from app.jobs.batches import BatchDraft
from app.jobs.database import Database
from app.jobs.distributed import DistributedQueue
from app.jobs.migrations import upgrade
from app.jobs.records import BatchState, Job, State
from app.jobs.schema import jobs, pauses
from tests.jobs.deployment import draft

LEASE = 2.0


@dataclass
class Ledger:
    """A ledger and its queue, as two processes have them."""

    database: Database
    queue: DistributedQueue
    other: DistributedQueue

    async def accept(self, *, label: str | None = None, batch_id: str | None = None) -> Job:
        def insert(tx: sa.Connection) -> Job:
            (job,) = ledger.insert(tx, [draft(label=label, batch_id=batch_id)], now=time.time())
            self.queue.submit(tx, [job])
            return job

        return await self.database.write(insert)

    async def rows(self, where: str = "TRUE") -> list[str]:
        """The jobs that have a row."""
        text = f"SELECT convert_from(payload, 'UTF8') FROM pixelmill_pgqueuer WHERE {where}"
        return await self.database.read(lambda tx: list(tx.exec_driver_sql(text).scalars()))

    async def change(self, job: Job, **values: Any) -> None:
        await self.database.write(
            lambda tx: tx.execute(jobs.update().where(jobs.c.id == job.id).values(**values))
        )

    async def forget_rows(self) -> None:
        await self.database.write(lambda tx: tx.exec_driver_sql("DELETE FROM pixelmill_pgqueuer"))


@pytest.fixture
async def ledger_of_many(postgres: str) -> AsyncIterator[Ledger]:
    database = Database(postgres)
    upgrade(database)
    made = Ledger(
        database,
        DistributedQueue(database, lease=LEASE),
        DistributedQueue(database, lease=LEASE),
    )
    await made.queue.open()
    await made.other.open()  # it is there already
    yield made
    database.close()


async def test_a_job_has_one_row_however_often_it_is_submitted(ledger_of_many: Ledger) -> None:
    job = await ledger_of_many.accept()
    later = replace(job, run_after=time.time() + 900)
    await ledger_of_many.database.write(lambda tx: ledger_of_many.other.submit(tx, [later]))
    assert await ledger_of_many.rows() == [job.id]
    assert await ledger_of_many.rows("execute_after > NOW() + interval '800 s'") == [job.id]


async def test_a_job_that_is_queued_again_by_its_worker_has_a_row_beside_that_in_its_hands(
    ledger_of_many: Ledger,
) -> None:
    job = await ledger_of_many.accept()
    taken = "UPDATE pixelmill_pgqueuer SET status = 'picked'"
    await ledger_of_many.database.write(lambda tx: tx.exec_driver_sql(taken))
    await ledger_of_many.database.write(lambda tx: ledger_of_many.queue.submit(tx, [job]))
    assert await ledger_of_many.rows("status = 'queued'") == [job.id]
    await ledger_of_many.database.write(lambda tx: ledger_of_many.queue.cancel(tx, [job.id]))
    assert await ledger_of_many.rows("status = 'queued'") == []


async def test_a_row_is_undone_with_the_job_it_is_for(ledger_of_many: Ledger) -> None:
    def accept_and_fail(tx: sa.Connection) -> None:
        ledger_of_many.queue.submit(tx, ledger.insert(tx, [draft()], now=time.time()))
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        await ledger_of_many.database.write(accept_and_fail)
    assert await ledger_of_many.rows() == []
    assert (await ledger_of_many.database.read(ledger.counts))["queued"] == 0


async def test_a_paused_job_has_no_row(ledger_of_many: Ledger) -> None:
    await ledger_of_many.database.write(
        lambda tx: tx.execute(pauses.insert().values(label="p", since=1.0))
    )
    paused = await ledger_of_many.accept(label="p")
    assert (paused.paused, await ledger_of_many.rows()) == (True, [])


async def test_jobs_that_have_gone_astray_are_brought_once(ledger_of_many: Ledger) -> None:
    long_ago = time.time() - 60
    due, begun, fresh, delayed = [await ledger_of_many.accept() for _ in range(4)]
    await ledger_of_many.change(due, run_after=long_ago)
    await ledger_of_many.change(delayed, run_after=time.time() + 60)
    await ledger_of_many.change(
        begun, state="running", attempt=1, worker="dead", lease_until=long_ago
    )
    await ledger_of_many.forget_rows()
    await ledger_of_many.queue.tidy()
    assert set(await ledger_of_many.rows()) == {due.id, begun.id}
    again = await ledger_of_many.database.read(lambda tx: ledger.find(tx, begun.id))
    assert (again.state, again.deaths) == (State.QUEUED, 1)

    await ledger_of_many.forget_rows()
    await ledger_of_many.other.tidy()
    assert await ledger_of_many.rows() == []  # another process has looked just now
    assert fresh.state is State.QUEUED


async def test_a_job_that_runs_under_a_lease_or_has_a_row_has_not_gone_astray(
    ledger_of_many: Ledger,
) -> None:
    long_ago = time.time() - 60
    runs, waits = [await ledger_of_many.accept() for _ in range(2)]
    await ledger_of_many.change(runs, state="running", attempt=1, lease_until=time.time() + 60)
    await ledger_of_many.change(waits, run_after=long_ago)
    await ledger_of_many.database.write(lambda tx: ledger_of_many.queue.cancel(tx, [runs.id]))
    await ledger_of_many.queue.tidy()
    assert await ledger_of_many.rows() == [waits.id]


async def test_the_last_two_jobs_of_a_batch_that_end_at_once_leave_it_to_be_closed(
    ledger_of_many: Ledger,
) -> None:
    database = ledger_of_many.database
    now = time.time()
    batch = await database.write(lambda tx: batches.create(tx, BatchDraft(), now=now))
    both = [await ledger_of_many.accept(batch_id=batch.id) for _ in range(2)]
    await database.write(lambda tx: batches.note_filled(tx, batch.id, now=now))
    begun = []
    for job in both:
        found = await database.write(
            lambda tx, job=job: attempts.begin(tx, job.id, worker="w", until=now + 60, now=now)
        )
        assert found is not None
        begun.append(found)
    # Two transactions, neither of which sees the end that the other writes.
    with database.engine.connect() as one, database.engine.connect() as two:
        for tx, job in zip((one, two), begun, strict=True):
            tx.exec_driver_sql("BEGIN")
            assert attempts.finish(tx, job, [], now=now)
        one.exec_driver_sql("COMMIT")
        two.exec_driver_sql("COMMIT")
    assert await database.write(lambda tx: batches.close_all_done(tx, now=now)) == 1
    closed = await database.read(lambda tx: batches.find(tx, batch.id))
    assert closed.state is BatchState.SUCCEEDED


async def test_a_lost_connection_is_made_again_while_a_job_goes_on(ledger_of_many: Ledger) -> None:
    brought: list[str] = []
    stop, finish, came = asyncio.Event(), asyncio.Event(), asyncio.Semaphore(0)

    async def perform(job_id: str) -> float | None:
        brought.append(job_id)
        came.release()
        if job_id == long.id:
            await finish.wait()
        return None

    long = await ledger_of_many.accept()
    running = asyncio.create_task(ledger_of_many.queue.run(perform, concurrency=4, stop=stop))
    await asyncio.wait_for(came.acquire(), 20)
    text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
    others = f"{text} AND datname = current_database()"
    await ledger_of_many.database.read(lambda tx: tx.exec_driver_sql(others).all())
    short = await ledger_of_many.accept()
    await asyncio.wait_for(came.acquire(), 30)
    assert brought == [long.id, short.id]

    # It is waited for, whichever manager has brought it.
    stop.set()
    await asyncio.wait({running}, timeout=0.5)
    assert not running.done()
    finish.set()
    await asyncio.wait_for(running, 20)
    assert brought.count(long.id) == 1


async def test_one_of_two_workers_begins_a_job(ledger_of_many: Ledger) -> None:
    job = await ledger_of_many.accept()
    now = time.time()
    with ledger_of_many.database.engine.connect() as one:
        one.exec_driver_sql("BEGIN")
        assert attempts.begin(one, job.id, worker="one", until=now + 60, now=now) is not None
        # The other waits for the first, and then finds the job in its hands.
        other = ledger_of_many.database.write(
            lambda tx: attempts.begin(tx, job.id, worker="two", until=now + 60, now=now)
        )
        one.exec_driver_sql("COMMIT")
    assert await other is None


async def test_a_transaction_that_loses_a_deadlock_is_made_again(ledger_of_many: Ledger) -> None:
    database = ledger_of_many.database
    first, second = [await ledger_of_many.accept() for _ in range(2)]
    turns: list[str] = []

    def lock(tx: sa.Connection, job: Job) -> None:
        tx.execute(jobs.update().where(jobs.c.id == job.id).values(line=1))

    def cross(tx: sa.Connection) -> None:
        turns.append("turn")
        lock(tx, second)
        if len(turns) == 1:
            # What now waits for this transaction is waited for by it.
            waiting.append(database._writers.submit(database._transact, other, "BEGIN"))
            holding.result(10)
        lock(tx, first)

    holding: Future[None] = Future()
    waiting: list[Any] = []

    def other(tx: sa.Connection) -> None:
        lock(tx, first)
        if not holding.done():
            holding.set_result(None)
        lock(tx, second)

    await database.write(cross)
    waiting[0].result(10)
    assert len(turns) >= 1


async def test_a_server_that_cannot_be_reached_is_told_of() -> None:
    database = Database("postgresql://nobody@127.0.0.1:1/nowhere")
    try:
        with pytest.raises(LedgerUnavailable):
            await database.read(ledger.counts)
        with pytest.raises(LedgerUnavailable):
            await DistributedQueue(database, lease=LEASE).open()
    finally:
        database.close()
