"""A ledger in a file, jobs in it, and a clock that moves when it is told to."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from app.errors import problem_of
from app.jobs import attempts, ledger
from app.jobs.database import Database
from app.jobs.migrations import upgrade
from app.jobs.records import Draft, Job, shown_problem
from app.sources import stored
from app.sources.base import Ref
from tests.template import lay_ledger

OUTPUTS = json.dumps([{"transform": "w=20", "fm": "jpeg"}])


class Clock:
    """Takes the place of the module `time` where only `time.time()` is called."""

    def __init__(self) -> None:
        self.now = time.time() + 60  # what a test prepares is done before

    def time(self) -> float:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += seconds


@contextmanager
def open_ledger(url: str) -> Iterator[Database]:
    """The ledger at this URL. It may be opened several times, as by several processes."""
    lay_ledger(url)
    database = Database(url)
    upgrade(database)
    try:
        yield database
    finally:
        database.close()


def add_jobs(database: Database, *, count: int = 1, **fields: Any) -> list[Job]:
    """Accept some jobs."""
    source = fields.pop("source", Ref(stored.KIND, "cat.jpg"))
    draft = Draft(source=(source,), outputs=OUTPUTS, **fields)
    return database.write_now(lambda tx: ledger.insert(tx, [draft] * count, now=time.time()))


def begin(database: Database, job: Job, *, worker: str = "worker") -> Job | None:
    """Begin an attempt, if the job is to be run."""
    now = time.time()
    return database.write_now(
        lambda tx: attempts.begin(tx, job.id, worker=worker, until=now + 60, now=now)
    )


def end_well(database: Database, job: Job) -> None:
    """Run a job to a good end."""
    begun = begin(database, job)
    assert begun is not None
    results = [{"digest": "sha256:00"}]
    assert database.write_now(lambda tx: attempts.finish(tx, begun, results, now=time.time()))


def end_badly(
    database: Database, job: Job, error: Exception, *, again_at: float | None = None
) -> None:
    """Run a job to an error, after which it comes again at a time or has failed."""
    begun = begin(database, job)
    problem = problem_of(error)
    assert begun is not None
    assert problem is not None
    shown = shown_problem(problem)
    assert database.write_now(
        lambda tx: attempts.fail(tx, begun, shown, again_at=again_at, now=time.time())
    )


def find(database: Database, job: Job) -> Job:
    """The job as it is now."""
    return database.write_now(lambda tx: ledger.find(tx, job.id))
