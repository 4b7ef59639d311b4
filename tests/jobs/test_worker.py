"""A worker in this process, with work that goes wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from app.jobs import attempts
from app.jobs.database import Database
from app.jobs.embedded import EmbeddedQueue
from app.jobs.records import Kind, State
from app.jobs.runner import Done
from app.jobs.worker import Worker
from app.telemetry import Metrics
from tests.jobs.deployment import until
from tests.jobs.ledgers import add_jobs, find, open_ledger


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    # Its own queue is for both: what is claimed here is a matter of the ledger.
    with open_ledger(ledger_url) as opened:
        yield opened


class Rendering:
    """A runner, all of whose jobs come to this."""

    def __init__(self, done):
        self._done = done

    async def run(self, job):
        return self._done


@asynccontextmanager
async def working(database, chore=None, *, runner=None) -> AsyncIterator[None]:
    """A worker that does this for jobs of the kind `report`, and has this runner."""
    worker = Worker(
        database=database,
        queue=EmbeddedQueue(database, lease=10),
        runner=runner,
        chores={Kind.REPORT: chore},
        metrics=Metrics(),
        concurrency=2,
        lease=10,
    )
    stop = asyncio.Event()
    run = asyncio.create_task(worker.run(stop, drain=0))
    try:
        yield
    finally:
        stop.set()
        await run


async def ended(database, job):
    async def look():
        found = find(database, job)
        return found if found.state.final else None

    return await until(look)


def code(job):
    return json.loads(job.error)["code"]


async def test_results_that_cannot_be_written_down_are_a_failure_that_counts(database):
    runner = Rendering(Done(results=[{"width": object()}], note=lambda tx: None))
    (job,) = add_jobs(database, retries=0)
    async with working(database, runner=runner):
        found = await ended(database, job)
    assert (found.state, found.failures, code(found)) == (State.FAILED, 1, "internal")


async def test_a_chore_that_takes_too_long_is_stopped(database):
    async def chore(job):
        await asyncio.Event().wait()

    (job,) = add_jobs(database, kind=Kind.REPORT, retries=0, timeout=0.05)
    async with working(database, chore):
        found = await ended(database, job)
    assert (found.state, code(found)) == (State.FAILED, "job_timeout")


async def test_jobs_are_claimed_though_the_dead_cannot_be_counted(database, monkeypatch):
    def reap(tx, *, now, among=None):
        raise RuntimeError("a defect")

    async def chore(job):
        return None

    monkeypatch.setattr(attempts, "reap", reap)
    (job,) = add_jobs(database, kind=Kind.REPORT)
    async with working(database, chore):
        assert (await ended(database, job)).state is State.SUCCEEDED
