"""Keys of clients: one key makes one job, whoever is late."""

from __future__ import annotations

import time

import pytest

from app.errors import IdempotencyInFlight, IdempotencyMismatch
from app.jobs import idempotency, ledger
from app.jobs.database import Connection, Database
from app.jobs.migrations import upgrade
from app.jobs.schema import jobs
from tests.jobs.deployment import draft


@pytest.fixture
def database(ledger_url: str):
    made = Database(ledger_url)
    upgrade(made)
    yield made
    made.close()


def reserve(tx: Connection, *, now: float):
    return idempotency.reserve(tx, "key", fingerprint="a", now=now, record=jobs)


def accept(tx: Connection, *, now: float) -> str:
    (job,) = ledger.insert(tx, [draft()], now=now)
    idempotency.answer(tx, "key", {"id": job.id}, fingerprint="a", now=now)
    return job.id


async def test_of_two_requests_the_one_that_is_answered_first_makes_the_job(database) -> None:
    now = time.time()
    assert await database.write(lambda tx: reserve(tx, now=now)) is None
    # The first stalls until its reservation has passed.
    assert await database.write(lambda tx: reserve(tx, now=now + 100)) is None
    made = await database.write(lambda tx: accept(tx, now=now + 101))
    with pytest.raises(IdempotencyInFlight):
        await database.write(lambda tx: accept(tx, now=now + 102))
    assert await database.write(lambda tx: reserve(tx, now=now + 103)) == {"id": made}
    assert len(await database.read(lambda tx: ledger.find_page(tx, limit=9))) == 1


async def test_a_key_is_kept_no_longer_than_its_job(database) -> None:
    now = time.time()
    await database.write(lambda tx: reserve(tx, now=now))
    made = await database.write(lambda tx: accept(tx, now=now))
    await database.write(lambda tx: tx.execute(jobs.delete().where(jobs.c.id == made)))
    assert await database.write(lambda tx: reserve(tx, now=now + 1)) is None
    assert await database.write(lambda tx: accept(tx, now=now + 1)) != made


async def test_the_cases_of_a_key(database) -> None:
    now = time.time()
    assert await database.write(lambda tx: reserve(tx, now=now)) is None
    with pytest.raises(IdempotencyInFlight):
        await database.write(lambda tx: reserve(tx, now=now + 1))
    made = await database.write(lambda tx: accept(tx, now=now + 2))
    assert await database.write(lambda tx: reserve(tx, now=now + 3)) == {"id": made}
    with pytest.raises(IdempotencyMismatch):
        await database.write(
            lambda tx: idempotency.reserve(tx, "key", fingerprint="b", now=now + 4, record=jobs)
        )


async def test_a_reservation_passes_is_let_go_of_and_an_answer_is_forgotten(database) -> None:
    now = time.time()
    await database.write(lambda tx: reserve(tx, now=now))
    with pytest.raises(IdempotencyInFlight):
        await database.write(lambda tx: reserve(tx, now=now + 59))
    assert await database.write(lambda tx: reserve(tx, now=now + 61)) is None
    await database.write(lambda tx: idempotency.release(tx, "key"))
    assert await database.write(lambda tx: reserve(tx, now=now + 62)) is None
    await database.write(lambda tx: accept(tx, now=now + 62))
    assert await database.write(lambda tx: idempotency.sweep(tx, now=now + 62 + 86_399)) == 0
    assert await database.write(lambda tx: idempotency.sweep(tx, now=now + 62 + 86_401)) == 1
