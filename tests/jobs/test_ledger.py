"""The ledger by itself: what a worker may say of jobs that are no longer, or not yet, its own."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from app.errors import SourceFailed
from app.jobs import attempts
from app.jobs.database import Database
from app.jobs.records import State
from tests.jobs.ledgers import add_jobs, begin, end_badly, find, open_ledger


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with open_ledger(ledger_url) as opened:
        yield opened


def renew(database, job, *, begun=()):
    until = time.time() + 10
    return database.write_now(
        lambda tx: attempts.renew(tx, [job.id], begun=begun, worker="worker", until=until)
    )


def test_a_job_that_comes_again_later_is_not_brought_forward_or_put_off_by_who_had_it(database):
    (job,) = add_jobs(database)
    again_at = time.time() + 100
    end_badly(database, job, SourceFailed("away"), again_at=again_at)
    assert renew(database, job, begun={job.id}) == {job.id}
    returned = database.write_now(
        lambda tx: attempts.hand_back(tx, [job.id], worker="worker", begun={job.id}, now=1.0)
    )
    assert returned == []
    assert find(database, job).run_after == again_at


def test_a_job_that_waits_for_its_turn_is_kept_and_handed_back(database):
    (job,) = add_jobs(database)
    assert renew(database, job) == set()
    assert find(database, job).run_after > time.time() + 5
    (returned,) = database.write_now(
        lambda tx: attempts.hand_back(tx, [job.id], worker="worker", now=1.0)
    )
    assert (returned.state, returned.run_after) == (State.QUEUED, 1.0)


def test_a_job_that_runs_is_kept_and_handed_back_whether_that_is_known_of_it_or_not(database):
    for known in (True, False):
        (job,) = add_jobs(database)
        begin(database, job)
        begun = {job.id} if known else set()
        assert renew(database, job, begun=begun) == set()
        (returned,) = database.write_now(
            lambda tx, job=job, begun=begun: attempts.hand_back(
                tx, [job.id], worker="worker", begun=begun, now=1.0
            )
        )
        assert (returned.state, returned.worker) == (State.QUEUED, None)
