"""The queue on PostgreSQL: PgQueuer brings rows to workers on any number of machines.

A row names a job and enters the database in the transaction that makes the job due. It is brought
again where its worker goes silent; whether the job is then run is decided by `attempts.begin`, and
where that is not yet to be said the same row comes again later. So that no job is lost, a job has a
row as long as it is due or runs. Rows are not told apart by PgQueuer's `dedupe_key`: that counts
those which a worker has in its hands, and a job that is queued again by such a worker would get no
row.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from typing import Any, Final, Self

import psycopg
import sqlalchemy as sa
import structlog
from pgqueuer.adapters.cli import supervisor
from pgqueuer.adapters.persistence import qb
from pgqueuer.db import PsycopgDriver, SyncPsycopgDriver
from pgqueuer.domain import models, settings, types
from pgqueuer.errors import RetryRequested
from pgqueuer.ports.driver import NotifyCallback
from pgqueuer.qm import QueueManager
from pgqueuer.queries import Queries, SyncQueries

from app.errors import LedgerUnavailable
from app.jobs import attempts, ledger
from app.jobs.database import Connection, Database, insert_once
from app.jobs.queues import Perform
from app.jobs.records import Job
from app.jobs.schema import jobs as job_table
from app.jobs.schema import seen

log = structlog.get_logger(__name__)

_ENTRYPOINT: Final = "pixelmill"
_PREFIX: Final = "pixelmill_"
_TABLE: Final = f"{_PREFIX}pgqueuer"
_CHANNEL: Final = f"{_PREFIX}ch_pgqueuer"
_SCHEMA_LOCK: Final = 7_305_808_869_232
_POLL: Final = 0.5
"""Leases between looks for rows of silent workers: what is new is notified."""
_SILENCE: Final = 1.25
"""Leases after which a worker is silent: the ledger's lease of its jobs has passed by then."""
_AWAY: Final = timedelta(seconds=1)
_BATCH: Final = 10
_COMPLAINTS: Final = 10.0
"""Seconds between two of one kind."""
_ASTRAY: Final = 3.0
"""Leases for which a job may be due or abandoned before it is looked for a row of it."""
_STRAYS: Final = 1000
_TIDY: Final = 30.0
_SWEEP: Final = 10
"""Times to tidy up between two sweeps of PgQueuer's log."""


class DistributedQueue:
    """Brings jobs by PgQueuer. `lease` is the ledger's, in seconds."""

    def __init__(self, database: Database, *, lease: float) -> None:
        self._database = database
        self._lease = lease
        self._names = _names()
        _shorten_logs()

    async def open(self) -> None:
        """Create or change PgQueuer's tables. Safe to be called by several processes at once."""
        with _translated():
            async with AsyncExitStack() as stack:
                connection = await self._connect(stack)
                await connection.execute("SELECT pg_advisory_lock(%s)", (_SCHEMA_LOCK,))
                queries = self._queries(PsycopgDriver(connection))
                if await queries.schema_is_installed():
                    await queries.apply_upgrade()
                else:
                    await queries.install()
                    await queries.optimize_autovacuum()
                # Rows of a job are looked for by it; PgQueuer's own indexes know no payload.
                index = f"CREATE INDEX IF NOT EXISTS {_TABLE}_payload ON {_TABLE} (payload)"
                await queries.driver.execute(index)

    def submit(self, tx: Connection, jobs: Sequence[Job]) -> None:
        due = [job for job in jobs if not job.paused]
        if not due:
            return
        # A job that was queued before may come at another time now, and in another order.
        self.cancel(tx, [job.id for job in due])
        delays = _delays(tx, due, now=time.time())
        queries = SyncQueries(
            SyncPsycopgDriver(_psycopg_of(tx)), qbq=qb.QueryQueueBuilder(self._names)
        )
        with _translated():
            queries.enqueue(
                entrypoint=[_ENTRYPOINT] * len(due),
                payload=[job.id.encode() for job in due],
                priority=[job.priority for job in due],
                execute_after=delays,
            )

    def cancel(self, tx: Connection, ids: Sequence[str]) -> None:
        if ids:
            tx.exec_driver_sql(
                f"DELETE FROM {_TABLE} WHERE status <> 'picked' AND payload = ANY(%s)",  # noqa: S608 - a constant
                ([job_id.encode() for job_id in ids],),
            )

    def wake(self) -> None:
        """Nothing: a trigger of PgQueuer's table notifies its workers."""

    async def run(self, perform: Perform, *, concurrency: int, stop: asyncio.Event) -> None:
        hands = _Hands(perform, concurrency=concurrency, stop=stop, lease=self._lease)
        # PgQueuer asks for twice as many places as it takes rows at a time.
        batch = max(1, min(concurrency // 2, _BATCH))
        while not stop.is_set():
            await supervisor.run(
                lambda: self._managing(hands),
                dequeue_timeout=timedelta(seconds=self._lease * _POLL),
                batch_size=batch,
                heartbeat_timeout=timedelta(seconds=self._lease * _SILENCE),
                max_concurrent_tasks=max(concurrency, 2 * batch),
                shutdown_on_listener_failure=True,
                restart_on_failure=True,
                restart_delay=_AWAY,
                shutdown=stop,
            )
        await hands.wait()

    async def tidy(self) -> None:
        now = time.time()
        turn = int(now // _TIDY)

        def look(tx: Connection) -> int | None:
            if not insert_once(tx, seen, key=f"tidy {turn}", until=now + 2 * _TIDY):
                return None
            return self._bring_strays(tx, before=now - _ASTRAY * self._lease, now=now)

        found = await self._database.write(look)
        if found:
            log.warning("jobs_went_astray", jobs=found)
        if found is not None and turn % _SWEEP == 0:
            await self._database.write(self._sweep)

    async def close(self) -> None:
        return None

    def _bring_strays(self, tx: Connection, *, before: float, now: float) -> int:
        """Submit jobs that should be running since a time and have no row. Returns how many."""
        rows = sa.table(_TABLE, sa.column("payload"), sa.column("status"))
        row = sa.exists().where(
            rows.c.payload == sa.func.convert_to(job_table.c.id, "UTF8"),
            sa.text(f"{_TABLE}.status <> 'failed'"),
        )
        left = sa.select(job_table.c.id).where(~row).limit(_STRAYS)
        dead = left.where(sa.text("state = 'running'"), job_table.c.lease_until < before)
        attempts.reap(tx, now=now, among=tx.execute(dead).scalars().all())
        # Those that have just been queued again are among them.
        due = left.where(
            sa.text("state = 'queued' AND NOT paused"),
            sa.or_(job_table.c.run_after < before, job_table.c.run_after == now),
        )
        strays = [ledger.find(tx, job_id) for job_id in tx.execute(due).scalars().all()]
        self.submit(tx, strays)
        return len(strays)

    def _sweep(self, tx: Connection) -> None:
        """Empty PgQueuer's log: the ledger knows more. Nobody waits for it, so it waits little."""
        tx.exec_driver_sql("SET LOCAL lock_timeout = '1s'")
        tx.exec_driver_sql(qb.QueryQueueBuilder(self._names).build_truncate_log_query())

    @asynccontextmanager
    async def _managing(self, hands: _Hands) -> AsyncIterator[QueueManager]:
        """A manager with connections of its own: the supervisor asks for another when it fails."""
        async with AsyncExitStack() as stack:
            connection = await self._connect(stack)
            driver = _Driver(connection, listening=await self._connect(stack))
            manager = _Manager(self._queries(driver), channel=types.Channel(_CHANNEL))

            async def bring(row: models.Job) -> None:
                assert row.payload is not None  # noqa: S101 - `submit` gives it
                await hands.take(row.payload.decode(), lost=manager.lost)

            manager.entrypoint(_ENTRYPOINT, accepts_context=False, on_failure="hold")(bring)
            yield manager

    async def _connect(self, stack: AsyncExitStack) -> psycopg.AsyncConnection[Any]:
        connection = await psycopg.AsyncConnection.connect(
            **self._database.connect_options, autocommit=True
        )
        stack.push_async_callback(connection.close)
        return connection

    def _queries(self, driver: PsycopgDriver) -> Queries:
        return Queries(
            driver,
            qbe=qb.QueryBuilderEnvironment(self._names),
            qbq=qb.QueryQueueBuilder(self._names),
            qbs=qb.QuerySchedulerBuilder(self._names),
        )


class _Manager(QueueManager):
    """Keeps no statistics of its log: the ledger has them. Says when it has failed."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lost = asyncio.Event()

    async def run(self, **options: Any) -> None:  # type: ignore[override]
        options["log_aggregation_interval"] = timedelta(0)
        await super().run(**options)

    async def _run_periodic_health_check(self, *args: Any, **options: Any) -> None:
        # It ends with the loop that takes rows, before the tasks of those in hand are waited for.
        try:
            await super()._run_periodic_health_check(*args, **options)
        finally:
            if not self.shutdown.is_set():
                self.lost.set()


class _Hands:
    """The jobs that are performed here: they outlive the manager that has brought them.

    A manager that has failed waits for the tasks of its rows, and only then is there another. So
    they let go of jobs that go on, some of them for hours, and the next manager's rows find them.
    """

    def __init__(
        self, perform: Perform, *, concurrency: int, stop: asyncio.Event, lease: float
    ) -> None:
        self._perform = perform
        self._gate = asyncio.Semaphore(concurrency)
        self._stop = stop
        self._lease = lease
        self._tasks: dict[str, asyncio.Task[float | None]] = {}

    async def take(self, job_id: str, *, lost: asyncio.Event) -> None:
        """Perform a job, or wait for it where it is in hand, until its manager is lost.

        Raises RetryRequested where its row is to come again.
        """
        found = self._tasks.get(job_id)
        task = found or asyncio.create_task(self._perform_in_turn(job_id))
        if found is None:
            self._tasks[job_id] = task
            task.add_done_callback(lambda _: self._tasks.pop(job_id))
        losing = asyncio.create_task(lost.wait())
        try:
            await asyncio.wait({task, losing}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            losing.cancel()
        if not task.done() or task.cancelled():
            raise RetryRequested(timedelta(seconds=self._lease), reason="The job was let go of")
        # A row that has found its job in hand may be of the next attempt.
        later = task.result() if found is None else 0.0
        if later is not None:
            raise RetryRequested(timedelta(seconds=later), reason="The job is in other hands")

    async def wait(self) -> None:
        """Wait for what is in hand."""
        if self._tasks:
            await asyncio.wait(self._tasks.values())

    async def _perform_in_turn(self, job_id: str) -> float | None:
        async with self._gate:
            return 0.0 if self._stop.is_set() else await self._perform(job_id)


class _Driver(PsycopgDriver):
    """Listens on a connection apart: who listens on one keeps its queries waiting for a second."""

    def __init__(
        self,
        connection: psycopg.AsyncConnection[Any],
        *,
        listening: psycopg.AsyncConnection[Any],
    ) -> None:
        super().__init__(connection)
        self._listening = PsycopgDriver(listening)

    async def notify(self, channel: str, payload: str) -> None:
        # A probe of what listens comes after the request to listen, on the same connection.
        await self._listening.notify(channel, payload)

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        await self._listening.add_listener(channel, callback)

    async def remove_listener(self, channel: str, callback: NotifyCallback) -> None:
        await self._listening.remove_listener(channel, callback)

    async def __aenter__(self) -> Self:
        await self._listening.__aenter__()
        return await super().__aenter__()

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        await self._listening.__aexit__(*error)


def _delays(tx: Connection, jobs: Sequence[Job], *, now: float) -> list[timedelta | None]:
    """For how long jobs are not due: PgQueuer adds it to the beginning of the transaction."""
    if all(job.run_after <= now for job in jobs):
        return [None] * len(jobs)
    text = "SELECT CAST(EXTRACT(EPOCH FROM NOW()) AS double precision)"
    began: float = tx.exec_driver_sql(text).scalar_one()
    return [timedelta(seconds=max(0.0, job.run_after - began)) for job in jobs]


def _psycopg_of(tx: Connection) -> psycopg.Connection[Any]:
    connection = tx.connection.driver_connection
    assert isinstance(connection, psycopg.Connection)  # noqa: S101 - see `normal_url`
    return connection


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise LedgerUnavailable(
            f"The queue of jobs does not answer: {type(error).__name__}"
        ) from error


class _ShortLogs(logging.Handler):
    """Passes on what PgQueuer complains of, once in a while: it does so ten times in a second."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._again_at: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if now < self._again_at.get(record.msg, 0.0):
            return
        self._again_at[record.msg] = now + _COMPLAINTS
        error = record.exc_info[1] if record.exc_info else None
        reason = None if error is None else f"{type(error).__name__}: {error}"
        log.warning("queue", message=record.getMessage()[:200], error=reason)


def _shorten_logs() -> None:
    logger = logging.getLogger("pgqueuer")
    if not any(isinstance(handler, _ShortLogs) for handler in logger.handlers):
        logger.addHandler(_ShortLogs())
        logger.propagate = False


def _names() -> settings.DBSettings:
    """Names of PgQueuer's own: given in full, or variables such as CHANNEL would change them."""
    return settings.DBSettings(
        prefix=_PREFIX,
        db_schema=None,
        channel=types.Channel(_CHANNEL),
        function=f"{_PREFIX}fn_pgqueuer_changed",
        statistics_table=f"{_TABLE}_statistics",
        queue_status_type=f"{_TABLE}_status",
        queue_table=_TABLE,
        queue_table_log=f"{_TABLE}_log",
        trigger=f"{_PREFIX}tg_pgqueuer_changed",
        schedules_table=f"{_TABLE}_schedules",
        durability=settings.Durability.durable,
        widen_id=True,
    )
