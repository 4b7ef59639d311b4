"""What is forgotten, and what stays for the sake of something else."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import sqlalchemy as sa

from app.errors import RecordMissing, SourceFailed
from app.jobs import batches, retention
from app.jobs.batches import BatchDraft
from app.jobs.database import Database
from app.jobs.dead_letters import Choice, DeadLetters
from app.jobs.embedded import EmbeddedQueue
from app.jobs.records import State
from app.jobs.schema import jobs
from tests.jobs.ledgers import add_jobs, end_badly, end_well, find, open_ledger


@pytest.fixture
def database(ledger_url: str) -> Iterator[Database]:
    with open_ledger(ledger_url) as opened:
        yield opened


@pytest.fixture
def batch(database):
    """A batch with a job that has failed, one that is queued, and more to come."""
    made = database.write_now(lambda tx: batches.create(tx, BatchDraft(), now=time.time()))
    failed, queued = add_jobs(database, count=2, batch_id=made.id)
    end_badly(database, failed, SourceFailed("away"))
    return made, failed, queued


def sweep(database):
    later = time.time() + 100
    return database.write_now(lambda tx: retention.sweep(tx, now=later, keep=10))


def end(database, batch, job):
    end_well(database, job)
    return database.write_now(lambda tx: batches.note_filled(tx, batch.id, now=time.time()))


def test_jobs_of_a_batch_stay_until_it_has_ended(database, batch):
    made, failed, queued = batch
    (alone,) = add_jobs(database)
    end_well(database, alone)
    assert not sweep(database)
    with pytest.raises(RecordMissing):
        find(database, alone)
    assert find(database, failed).state is State.FAILED
    assert end(database, made, queued).state == "failed"
    sweep(database)
    sweep(database)
    count = sa.select(sa.func.count()).select_from(jobs)
    assert database.write_now(lambda tx: tx.execute(count).scalar_one()) == 0
    with pytest.raises(RecordMissing):
        database.write_now(lambda tx: batches.find(tx, made.id))


async def test_dead_letters_of_a_batch_are_not_purged_until_it_has_ended(database, batch):
    made, failed, queued = batch
    letters = DeadLetters(database, EmbeddedQueue(database, lease=10))
    chosen = Choice(ids=(failed.id,))
    assert await letters.purge(chosen) == (0, False)
    assert end(database, made, queued).state == "failed"
    assert await letters.purge(chosen) == (1, False)
