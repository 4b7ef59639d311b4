"""Cancelling batches: page by page, beside those who fill them and run their jobs."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from app.errors import SourceFailed, problem_of
from app.jobs import attempts, batches, ledger
from app.jobs.batches import BatchDraft
from app.jobs.batching import Batches
from app.jobs.database import Database
from app.jobs.embedded import EmbeddedQueue
from app.jobs.records import BatchState, Draft, Kind, State, shown_problem
from app.jobs.schema import deliveries
from tests.jobs.ledgers import add_jobs, begin, end_badly, end_well, find, open_ledger


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with open_ledger(ledger_url) as opened:
        yield opened


@pytest.fixture
def service(database: Database, monkeypatch: pytest.MonkeyPatch) -> Batches:
    """Batches, of which no more than two jobs are cancelled at once."""
    monkeypatch.setitem(batches.cancel_jobs.__kwdefaults__, "limit", 2)
    queue = EmbeddedQueue(database, lease=10)
    return Batches(database=database, queue=queue, reader=None, origins=None, estimator=None)


def add_batch(database, *, count=0, filled=True, webhook=None, **fields):
    """A batch with jobs."""
    draft = BatchDraft(**fields)
    batch = database.write_now(lambda tx: batches.create(tx, draft, now=time.time()))
    made = add_jobs(database, count=count, batch_id=batch.id, webhook=webhook) if count else []
    if filled:
        database.write_now(lambda tx: batches.note_filled(tx, batch.id, now=time.time()))
    return batch, made


def look(database, batch):
    return database.write_now(lambda tx: batches.find(tx, batch.id))


def states(database, made):
    return [find(database, job).state for job in made]


def fail(database, job, *, again_at=None):
    shown = shown_problem(problem_of(SourceFailed("away")))
    return database.write_now(
        lambda tx: attempts.fail(tx, job, shown, again_at=again_at, now=time.time())
    )


async def test_all_jobs_are_cancelled_however_many_pages_they_are(database, service):
    batch, made = add_batch(database, count=7)
    ended, running = made[0], made[4]
    end_well(database, ended)
    begin(database, running)
    stopped, ran = await service.cancel(batch.id)
    assert (stopped.state, stopped.finished_at is not None) == (BatchState.CANCELLED, True)
    assert ran == [running.id]
    assert states(database, made) == [State.SUCCEEDED, *[State.CANCELLED] * 6]


async def test_none_of_its_jobs_begins_while_a_batch_is_cancelled_and_the_rest_is_done_later(
    database, service
):
    batch, made = add_batch(database, count=5)
    database.write_now(lambda tx: batches.stop(tx, batch.id, now=time.time()))
    # The process that cancels it has died here.
    assert begin(database, made[0]) is None
    assert look(database, batch).finished_at is None
    await service.finish_cancelling()
    assert states(database, made) == [State.CANCELLED] * 5
    assert look(database, batch).finished_at is not None


async def test_a_batch_that_has_failed_too_often_ends_with_what_runs_and_may_be_cancelled(
    database, service
):
    batch, made = add_batch(database, count=6, max_failures=0)
    first, retried, handed_back, stopped = made[:4]
    begun = {job.id: begin(database, job) for job in (retried, handed_back, stopped)}
    end_badly(database, first, SourceFailed("away"))
    await service.finish_cancelling()
    assert look(database, batch).state is BatchState.CANCELLED
    assert "max_failures" in look(database, batch).error
    assert states(database, made[1:]) == [*[State.RUNNING] * 3, *[State.CANCELLED] * 2]
    # What runs does not come again.
    assert fail(database, begun[retried.id], again_at=time.time() - 1)
    assert find(database, retried).state is State.FAILED
    database.write_now(
        lambda tx: attempts.hand_back(tx, [handed_back.id], worker="worker", now=1.0)
    )
    await service.finish_cancelling()
    assert find(database, handed_back).state is State.CANCELLED
    assert look(database, batch).finished_at is None
    found, ran = await service.cancel(batch.id)
    assert ran == [stopped.id]
    assert found.finished_at is not None
    assert "max_failures" in found.error


async def test_the_end_of_a_job_is_told_once_by_however_many_a_batch_is_cancelled(database):
    batch, _ = add_batch(database, count=40, webhook="http://127.0.0.1:9/told")

    def cancel():
        database.write_now(lambda tx: batches.cancel(tx, batch.id, now=time.time()))

    several = [threading.Thread(target=cancel) for _ in range(4)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    told = sa.select(sa.func.count()).select_from(deliveries)
    told = told.where(deliveries.c.job_id.is_not(None))
    assert database.write_now(lambda tx: tx.execute(told).scalar_one()) == 40


async def test_a_report_is_written_though_its_batch_was_cancelled(database, service):
    batch, _ = add_batch(database, count=1)
    await service.cancel(batch.id)
    (report,) = add_jobs(database, kind=Kind.REPORT, batch_id=batch.id)
    assert begin(database, report) is not None


class Beside:
    """Work in a transaction that stays open beside others, until it is told to end."""

    def __init__(self, database, work):
        self._done = threading.Event()
        self._end = threading.Event()

        def run(tx):
            work(tx)
            self._done.set()
            assert self._end.wait(10)

        self._thread = threading.Thread(target=database.write_now, args=(run,))
        self._thread.start()
        assert self._done.wait(10)

    def end(self):
        self._end.set()
        self._thread.join()


def waits(database):
    """Wait until a transaction waits for another."""
    query = sa.text("SELECT count(*) FROM pg_locks WHERE NOT granted")
    deadline = time.monotonic() + 10
    while not database.write_now(lambda tx: tx.execute(query).scalar_one()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


async def test_a_batch_does_not_end_while_a_job_of_it_is_queued_anew(postgres):
    with open_ledger(postgres) as database:
        batch, (failed, last) = add_batch(database, count=2)
        end_badly(database, failed, SourceFailed("away"))
        begun = begin(database, last)
        again = Beside(database, lambda tx: ledger.queue_again(tx, failed.id, now=time.time()))
        finishing = threading.Thread(
            target=database.write_now,
            args=(lambda tx: attempts.finish(tx, begun, [], now=time.time()),),
        )
        finishing.start()
        waits(database)
        again.end()
        finishing.join()
        assert look(database, batch).state is BatchState.RUNNING
        end_well(database, failed)
        assert look(database, batch).state is BatchState.SUCCEEDED


async def test_cancelling_while_a_page_is_filled_in_takes_that_page_too(postgres):
    with open_ledger(postgres) as database:
        batch, _ = add_batch(database, filled=False)
        made = []

        def fill(tx):
            assert batches.note_progress(tx, batch, added=3, cursor="next")
            drafts = [Draft(source=(), outputs="[]", batch_id=batch.id)] * 3
            made.extend(ledger.insert(tx, drafts, now=time.time()))

        filling = Beside(database, fill)
        cancelling = threading.Thread(
            target=database.write_now,
            args=(lambda tx: batches.cancel(tx, batch.id, now=time.time()),),
        )
        cancelling.start()
        waits(database)
        filling.end()
        cancelling.join()
        assert states(database, made) == [State.CANCELLED] * 3
        found = look(database, batch)
        assert found.finished_at is not None
        assert not database.write_now(
            lambda tx: batches.note_progress(tx, found, added=1, cursor=None)
        )
