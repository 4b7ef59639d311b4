"""The database of the ledger: SQLite in a file, or PostgreSQL.

Work is a function of a connection. It runs in a thread and within one transaction: what it returns
holds once that is committed. Writes of SQLite have one thread, in which those that wait are
committed together: each is undone by itself where it fails, and all share one flush to the disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from app.errors import LedgerUnavailable

T = TypeVar("T")
Connection = sa.Connection
Work = Callable[[Connection], T]

_GROUP: Final = 64
"""Writes that are committed together at most."""
_READERS: Final = 4
_WRITERS: Final = 8
_INSERTS: Final[dict[str, Any]] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_BUSY_SECONDS: Final = 30
_POSTGRES: Final[Mapping[str, Any]] = {
    "application_name": "pixelmill",
    "connect_timeout": 5,
    # A server that is gone without a word is noticed in half a minute.
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,
}
"""What the URL may say otherwise; see "Parameter Key Words" in the manual of libpq."""
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"
_UNDONE: Final = ("40001", "40P01")
"""SQLSTATE of transactions that PostgreSQL has undone for the sake of others."""
_TRIES: Final = 4
_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    # What was accepted is on the disk before it is answered.
    "PRAGMA synchronous = FULL",
    f"PRAGMA busy_timeout = {_BUSY_SECONDS * 1000}",
    "PRAGMA cache_size = -16000",
)


class Database:
    """Runs work in transactions. One for each process.

    Work may be run more than once before it is committed: it changes nothing but the database.
    """

    def __init__(self, url: str) -> None:
        self.url = normal_url(url)
        self.embedded = self.url.startswith("sqlite")
        """Whether this is SQLite: one machine, no server."""
        if self.embedded:
            path = self.url.removeprefix("sqlite:///")
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        self.engine = _make_engine(self.url, embedded=self.embedded)
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="ledger-read")
        self._writers = ThreadPoolExecutor(
            1 if self.embedded else _WRITERS, thread_name_prefix="ledger-write"
        )
        self._waiting: deque[tuple[Work[Any], Future[Any]]] = deque()
        self._lock = threading.Lock()

    @property
    def connect_options(self) -> dict[str, Any]:
        """What psycopg takes to connect to the same PostgreSQL."""
        _, options = self.engine.dialect.create_connect_args(self.engine.url)
        return {**_POSTGRES, **options}

    async def write(self, work: Work[T]) -> T:
        """Run work in a transaction that writes. Raises LedgerUnavailable, and what it raises.

        A caller that is cancelled meanwhile is kept until what has begun is done: whatever it
        writes next comes after that.
        """
        begun = self._begin_write(work)
        done = asyncio.wrap_future(begun)
        try:
            return await asyncio.shield(done)
        except asyncio.CancelledError:
            if not begun.cancel():
                await asyncio.wait({done})
            raise

    def write_now(self, work: Work[T]) -> T:
        """The same for threads: blocks until it is committed."""
        return self._begin_write(work).result()

    async def read(self, work: Work[T]) -> T:
        """Run work that only reads. Raises LedgerUnavailable, and what it raises."""
        return await asyncio.get_running_loop().run_in_executor(
            self._readers, self._transact, work, "BEGIN" if self.embedded else _BEGIN
        )

    def close(self) -> None:
        """End the transactions that have begun, and let go of connections."""
        self._writers.shutdown(wait=True)
        self._readers.shutdown(wait=True)
        self.engine.dispose()

    @contextmanager
    def exclusively(self) -> Iterator[Connection]:
        """A transaction that no other process shares: to change the schema."""
        with _translated(), self.engine.connect() as connection:
            if self.embedded:
                connection.exec_driver_sql("BEGIN EXCLUSIVE")
            else:
                connection.exec_driver_sql("BEGIN")
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7_305_808_869_231)")
            try:
                yield connection
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise

    def _begin_write(self, work: Work[T]) -> Future[T]:
        if not self.embedded:
            return self._writers.submit(self._transact, work, _BEGIN)
        done: Future[T] = Future()
        with self._lock:
            self._waiting.append((work, done))
        self._writers.submit(self._write_group)
        return done

    def _transact(self, work: Work[T], begin: str) -> T:
        with _translated():
            for _ in range(_TRIES - 1):
                try:
                    return self._try(work, begin)
                except OperationalError as error:
                    # A connection that has died while it was idle shows that when it begins.
                    unused = error.connection_invalidated and error.statement == begin
                    undone = getattr(error.orig, "sqlstate", None) in _UNDONE
                    if not unused and not undone:
                        raise
            return self._try(work, begin)

    def _try(self, work: Work[T], begin: str) -> T:
        with self.engine.connect() as connection:
            connection.exec_driver_sql(begin)
            try:
                result = work(connection)
                connection.exec_driver_sql("COMMIT")
            except BaseException:
                _roll_back(connection)
                raise
            return result

    def _write_group(self) -> None:
        with self._lock:
            count = min(_GROUP, len(self._waiting))
            group = [self._waiting.popleft() for _ in range(count)]
        group = [(work, done) for work, done in group if done.set_running_or_notify_cancel()]
        if not group:
            return
        if len(group) == 1:
            ((work, done),) = group
            try:
                done.set_result(self._transact(work, "BEGIN IMMEDIATE"))
            except Exception as failure:  # noqa: BLE001 - told to the one who waits
                done.set_exception(failure)
            return
        try:
            outcomes = self._transact(
                lambda tx: [_attempt(tx, work) for work, _ in group], "BEGIN IMMEDIATE"
            )
        except Exception as failure:  # noqa: BLE001 - told to everyone who waits
            for _, done in group:
                done.set_exception(failure)
            return
        for (_, done), (result, error) in zip(group, outcomes, strict=True):
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)


def upsert(tx: Connection, table: sa.Table, **values: Any) -> None:
    """Insert a row, or replace what the one with its key has."""
    upsert_all(tx, table, [values])


def upsert_all(tx: Connection, table: sa.Table, rows: Sequence[dict[str, Any]]) -> None:
    """The same for rows that all have the same columns."""
    tx.execute(_upsert(tx.dialect.name, table, tuple(rows[0])), rows)


def insert_once(tx: Connection, table: sa.Table, **values: Any) -> bool:
    """Insert a row unless there is one with its key. Whether it has been."""
    # Not by the count of rows, which drivers do not tell of every insertion.
    return tx.execute(_insert_once(tx.dialect.name, table), values).first() is not None


@lru_cache
def _upsert(dialect: str, table: sa.Table, names: tuple[str, ...]) -> Any:
    insert: Any = _INSERTS[dialect](table)
    keys = [column.name for column in table.primary_key]
    return insert.on_conflict_do_update(
        index_elements=keys, set_={n: insert.excluded[n] for n in names if n not in keys}
    )


@lru_cache
def _insert_once(dialect: str, table: sa.Table) -> Any:
    insert: Any = _INSERTS[dialect](table)
    return insert.on_conflict_do_nothing().returning(*table.primary_key)


def normal_url(url: str) -> str:
    """The URL as SQLAlchemy takes it. Raises ValueError for another kind of database."""
    for prefix in ("postgresql://", "postgres://"):
        if url.startswith(prefix):
            return f"postgresql+psycopg://{url.removeprefix(prefix)}"
    if url.startswith("sqlite:///") and len(url) > len("sqlite:///"):
        return url
    scheme = url.partition(":")[0]
    raise ValueError(f"must be off, sqlite:///FILE or postgresql://..., got {scheme!r}")


def _make_engine(url: str, *, embedded: bool) -> sa.Engine:
    """Connections that begin and end no transaction of their own accord: `Database` does."""
    # What is wrong with a statement is told without its values: some are URLs that are secrets.
    options: dict[str, Any] = {"isolation_level": "AUTOCOMMIT", "hide_parameters": True}
    if embedded:
        options["connect_args"] = {"timeout": _BUSY_SECONDS}
    else:
        told = sa.make_url(url).query
        options["connect_args"] = {k: v for k, v in _POSTGRES.items() if k not in told}
        options |= {"pool_size": _READERS + _WRITERS, "max_overflow": 2}
    engine = sa.create_engine(url, **options)
    if embedded:

        @sa.event.listens_for(engine, "connect")
        def prepare(connection: Any, _: Any) -> None:
            for pragma in _PRAGMAS:
                connection.execute(pragma)

    return engine


def _attempt(connection: Connection, work: Work[Any]) -> tuple[Any, Exception | None]:
    """One of several works of a transaction: where it fails, it alone is undone."""
    connection.exec_driver_sql("SAVEPOINT work")
    try:
        with _translated():
            result = work(connection)
    except Exception as error:  # noqa: BLE001 - told to the one who waits for it
        connection.exec_driver_sql("ROLLBACK TO work")
        connection.exec_driver_sql("RELEASE work")
        return None, error
    connection.exec_driver_sql("RELEASE work")
    return result, None


def _roll_back(connection: Connection) -> None:
    if connection.invalidated:
        return  # it is gone, and its transaction with it
    try:
        connection.exec_driver_sql("ROLLBACK")
    except DBAPIError:
        connection.invalidate()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise LedgerUnavailable(
            f"The ledger of jobs does not answer: {type(error.orig).__name__}"
        ) from error
