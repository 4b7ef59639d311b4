"""Transactions: together where that is cheaper, each undone by itself."""

from __future__ import annotations

import asyncio
import threading

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.errors import LedgerUnavailable
from app.jobs.database import Database, insert_once, normal_url, upsert
from app.jobs.migrations import upgrade
from app.jobs.schema import METADATA, pauses, seen


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'below' / 'jobs.db'}")
    upgrade(database)
    yield database
    database.close()


def labels(tx):
    return set(tx.execute(sa.select(pauses.c.label)).scalars())


async def test_writes_that_wait_together_fail_one_by_one(database):
    gate = threading.Event()
    first = asyncio.create_task(database.write(lambda tx: gate.wait(10)))
    await asyncio.sleep(0.05)

    def add(label):
        return database.write(lambda tx: upsert(tx, pauses, label=label, since=1.0))

    def add_and_fail(tx):
        upsert(tx, pauses, label="bad", since=1.0)
        raise KeyError("on purpose")

    others = [
        asyncio.create_task(work)
        for work in (add("a"), database.write(add_and_fail), add("b"), add("a"))
    ]
    await asyncio.sleep(0.05)
    gate.set()
    await first
    outcomes = await asyncio.gather(*others, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), KeyError, type(None), type(None)]
    assert await database.read(labels) == {"a", "b"}


async def test_two_processes_write_to_one_file(database):
    other = Database(database.url)
    try:
        await asyncio.gather(
            *(
                where.write(lambda tx, n=n: upsert(tx, pauses, label=f"{n}", since=1.0))
                for n, where in enumerate([database, other] * 20)
            )
        )
        assert len(await other.read(labels)) == 40
    finally:
        other.close()


async def test_what_was_written_is_there_after_the_process_is_gone(database, tmp_path):
    await database.write(lambda tx: upsert(tx, pauses, label="kept", since=1.0))
    with sa.create_engine(f"sqlite:///{tmp_path / 'below' / 'jobs.db'}").connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert labels(connection) == {"kept"}


async def test_a_database_that_cannot_be_used_says_so(tmp_path):
    (tmp_path / "jobs.db").write_bytes(b"this is no database" * 100)
    database = Database(f"sqlite:///{tmp_path / 'jobs.db'}")
    try:
        with pytest.raises((LedgerUnavailable, sa.exc.DatabaseError)):
            await database.write(labels)
    finally:
        database.close()


async def test_a_row_is_inserted_once_or_replaced(database):
    assert await database.write(lambda tx: insert_once(tx, seen, key="k", until=1.0))
    assert not await database.write(lambda tx: insert_once(tx, seen, key="k", until=2.0))
    await database.write(lambda tx: upsert(tx, seen, key="k", until=3.0))
    assert await database.read(lambda tx: tx.execute(sa.select(seen.c.until)).scalar()) == 3.0


async def test_upgrading_twice_or_at_once_is_harmless(tmp_path):
    databases = [Database(f"sqlite:///{tmp_path / 'fresh.db'}") for _ in range(3)]
    try:
        await asyncio.gather(*(asyncio.to_thread(upgrade, database) for database in databases))
        names = set(sa.inspect(databases[0].engine).get_table_names())
        assert names >= set(METADATA.tables)
    finally:
        for database in databases:
            database.close()


@pytest.mark.parametrize("url", ["mysql://h/d", "sqlite://", "postgres", "", "file:x"])
def test_another_kind_of_database_is_refused(url):
    with pytest.raises(ValueError, match="must be off, sqlite"):
        normal_url(url)


def test_migrations_make_the_tables_that_the_code_knows(ledger_url: str) -> None:
    database = Database(ledger_url)
    try:
        upgrade(database)
        upgrade(database)
        with database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    finally:
        database.close()
