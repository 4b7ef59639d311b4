"""A worker: takes the jobs that its queue brings and sees each to the end of an attempt.

Its leases are renewed by a thread, which a busy event loop cannot keep waiting. A job whose worker
has died before is suspect: it runs alone, so that what it may end is nobody else's.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, Final, TypeVar

import structlog

from app.errors import (
    JobExpired,
    JobPoisoned,
    JobTimeout,
    LedgerUnavailable,
    Problem,
    RecordMissing,
    may_pass,
    problem_of,
)
from app.jobs import attempts, ledger
from app.jobs.database import Database
from app.jobs.queues import JobQueue
from app.jobs.records import Job, Kind, State, shown_problem
from app.jobs.runner import Done, Runner
from app.telemetry import Metrics

T = TypeVar("T")

log = structlog.get_logger(__name__)

_RANDOM: Final = random.SystemRandom()

_RENEWALS: Final = 4
"""Renewals within one lease."""
_FIRST_BACKOFF: Final = 1.0
_LONGEST_BACKOFF: Final = 300.0
_LEDGER_TRIES: Final = 30
_LEASE_MARGIN: Final = 0.1
"""Seconds: clocks of machines differ a little."""
_LOOK_AGAIN: Final = 5.0
"""Seconds for which it is known whether anything is in quarantine."""

Chore = Callable[[Job], Awaitable[None]]
"""What a kind of job other than a render does."""


class Worker:
    """Runs jobs, at most `concurrency` at once. Times in seconds."""

    def __init__(
        self,
        *,
        database: Database,
        queue: JobQueue,
        runner: Runner,
        chores: Mapping[Kind, Chore],
        metrics: Metrics,
        concurrency: int,
        lease: float,
    ) -> None:
        self._database = database
        self._queue = queue
        self._runner = runner
        self._chores = chores
        self._metrics = metrics
        self._concurrency = concurrency
        self._lease = lease
        self._name = f"{socket.gethostname()[:32]}-{os.getpid()}-{secrets.token_hex(3)}"
        self._in_hand: dict[str, asyncio.Task[Any]] = {}
        self._begun: set[str] = set()
        self._closing = False
        self._turns = _Turns()
        self._any_quarantined = False
        self._look_at = 0.0

    async def run(self, stop: asyncio.Event, *, drain: float) -> None:
        """Run jobs until told to stop; those in hand have `drain` more seconds, then go back."""
        loop = asyncio.get_running_loop()
        ended = threading.Event()
        renewing = threading.Thread(
            target=self._renew, args=(loop, ended), name="job-leases", daemon=True
        )
        renewing.start()
        running = asyncio.create_task(
            self._queue.run(self._perform, concurrency=self._concurrency, stop=stop)
        )
        try:
            stopping = asyncio.create_task(stop.wait())
            await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await asyncio.wait({running}, timeout=drain)
            self._closing = True
            for task in list(self._in_hand.values()):
                task.cancel()
            await running
        finally:
            running.cancel()
            ended.set()
            await asyncio.to_thread(renewing.join)

    def let_go(self, job_id: str) -> None:
        """Stop work on a job that has been cancelled."""
        if task := self._in_hand.get(job_id):
            task.cancel()

    async def _perform(self, job_id: str) -> float | None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - a queue makes a task of each
        while earlier := self._in_hand.get(job_id):
            # It was queued again, and is brought before its last attempt has let go of it.
            await asyncio.wait({earlier})
        if self._closing:
            return 0.0
        self._in_hand[job_id] = task
        try:
            return await self._take_turn(job_id)
        except asyncio.CancelledError:
            task.uncancel()
            return await self._hand_back(job_id)
        except RecordMissing:
            return None
        except Exception:
            log.exception("job_left", job=job_id)
            return await self._hand_back(job_id, after=self._lease)
        finally:
            del self._in_hand[job_id]
            self._begun.discard(job_id)

    async def _take_turn(self, job_id: str) -> float | None:
        """Attempt a job beside others, or alone where it is suspect."""
        async with self._turns.shared():
            if await self._attempt(job_id, sound_only=True):
                return None
        job = await self._database.read(lambda tx: ledger.find(tx, job_id))
        left = _time_left(job)
        if left > 0:
            return left
        if job.state is State.RUNNING or (job.state is State.QUEUED and job.deaths > 0):
            async with self._turns.alone():
                await self._attempt(job_id, sound_only=False)
        return None

    async def _attempt(self, job_id: str, *, sound_only: bool) -> bool:
        """Whether there was an attempt."""

        def begin(tx: Any) -> Job | None:
            now = time.time()
            return attempts.begin(
                tx,
                job_id,
                worker=self._name,
                until=now + self._lease,
                now=now,
                sound_only=sound_only,
            )

        job = await self._database.write(begin)
        if job is None:
            return False
        log.info("job_begun", job=job.id, attempt=job.attempt)
        self._begun.add(job_id)
        try:
            done = await self._do(job)
        except Exception as error:  # noqa: BLE001 - every failure is written down
            await self._fail(job, error)
            return True

        def finish(tx: Any) -> None:
            done.note(tx)
            attempts.finish(tx, job, done.results, now=time.time())

        try:
            await self._insist(finish)
        except LedgerUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a defect counts, or it would come for ever
            await self._fail(job, error)
            return True
        self._metrics.attempts.labels("succeeded").inc()
        log.info("job_succeeded", job=job.id, results=len(done.results))
        return True

    async def _do(self, job: Job) -> Done:
        if job.expires_at is not None and time.time() > job.expires_at:
            raise JobExpired("The job did not begin before it expired")
        try:
            async with asyncio.timeout(job.timeout):
                if chore := self._chores.get(job.kind):
                    # It may take hours, and decodes nothing that could end this process.
                    self._turns.leave()
                    await chore(job)
                    return Done(results=[], note=_note_nothing)
                if await self._may_be_quarantined(job):
                    await self._check_quarantine(job)
                return await self._runner.run(job)
        except TimeoutError:
            raise JobTimeout(f"The job took more than {job.timeout:g} s") from None

    async def _may_be_quarantined(self, job: Job) -> bool:
        """Whether the job's original may be in quarantine: mostly, nothing is."""
        if job.deaths or job.digest is not None:
            return True
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + _LOOK_AGAIN
            self._any_quarantined = await self._database.read(attempts.is_any_quarantined)
        return self._any_quarantined

    async def _check_quarantine(self, job: Job) -> None:
        digest = await self._runner.identify(job)
        if await self._database.write(lambda tx: attempts.note_digest(tx, job, digest)):
            raise JobPoisoned("This version of the original has ended its workers too often")

    async def _fail(self, job: Job, error: Exception) -> None:
        problem = problem_of(error)
        if problem is None:
            log.error("job_defect", job=job.id, exc_info=error)
            problem = Problem(
                status=500, code="internal", title="Internal error", detail="The job failed"
            )
        shown = shown_problem(problem)
        again_at: float | None = None

        def write(tx: Any) -> None:
            nonlocal again_at
            # The time of the end is that of its transaction: ends are told in their order. And a
            # job that has come along meanwhile has fewer failures than it began with.
            now = time.time()
            failures = ledger.find(tx, job.id).failures
            again_at = None
            if may_pass(problem.status) and failures < job.retries:
                again_at = now + max(problem.retry_after or 0, backoff(failures))
            failed = replace(job, failures=failures)
            if (
                attempts.fail(tx, failed, shown, again_at=again_at, now=now)
                and again_at is not None
            ):
                found = ledger.find(tx, job.id)
                if found.state is State.QUEUED:
                    self._queue.submit(tx, [found])
                else:
                    again_at = None

        await self._insist(write)
        self._metrics.attempts.labels("failed" if again_at is None else "retried").inc()
        log.warning("job_failed", job=job.id, code=problem.code, again_at=again_at)

    async def _hand_back(self, job_id: str, *, after: float = 0.0) -> float | None:
        """Queue a job again that is left undone, unless it has been cancelled.

        Where that cannot be written down, it passes to others with its lease.
        """

        def write(tx: Any) -> float | None:
            now = time.time()
            returned = attempts.hand_back(
                tx,
                [job_id],
                worker=self._name,
                begun=self._begun,
                again_at=now + after,
                now=now,
            )
            self._queue.submit(tx, returned)
            # It may have been brought here for a worker that has died, which nobody has counted.
            others = not returned and ledger.find(tx, job_id).state is State.RUNNING
            return self._lease if others else None

        try:
            return await self._insist(write)
        except RecordMissing:
            return None
        except Exception:
            log.exception("job_left", job=job_id)
            return self._lease

    async def _insist(self, work: Callable[[Any], T]) -> T:
        """Write down what has happened, though the database may be away for a while."""
        for attempt in range(1, _LEDGER_TRIES):
            try:
                return await self._database.write(work)
            except LedgerUnavailable:
                await asyncio.sleep(min(attempt, 5) * 0.5)
        return await self._database.write(work)

    def _renew(self, loop: asyncio.AbstractEventLoop, ended: threading.Event) -> None:
        """Runs in a thread: keep what is in hand, and let go of what no longer is."""
        while not ended.wait(self._lease / _RENEWALS):
            # In this order: what has ended in between is in neither.
            begun = set(self._begun)
            ids = list(self._in_hand)
            if not ids:
                continue
            until = time.time() + self._lease
            try:
                lost = self._database.write_now(
                    partial(attempts.renew, ids=ids, begun=begun, worker=self._name, until=until)
                )
            except Exception:
                # Leases that are not renewed pass to others: this goes on, whatever it is.
                log.exception("leases_not_renewed", jobs=len(ids))
                continue
            # Those that wait for their turn have not been anybody's here.
            for job_id in lost & self._begun:
                loop.call_soon_threadsafe(self.let_go, job_id)


class _Turns:
    """Many share, or one is alone: who waits to be alone lets nobody else in before."""

    def __init__(self) -> None:
        self._sharing = 0
        self._taken = asyncio.Lock()
        self._nobody = asyncio.Event()
        self._nobody.set()
        self._leaving: dict[asyncio.Task[Any] | None, Callable[[], None]] = {}

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._taken:
            self._sharing += 1
            self._nobody.clear()
        with self._until_left(self._end_share):
            yield

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        await self._taken.acquire()
        with self._until_left(self._taken.release):
            await self._nobody.wait()
            yield

    def leave(self) -> None:
        """Give up this task's turn before its end."""
        if leave := self._leaving.pop(asyncio.current_task(), None):
            leave()

    @contextmanager
    def _until_left(self, leave: Callable[[], None]) -> Iterator[None]:
        self._leaving[asyncio.current_task()] = leave
        try:
            yield
        finally:
            self.leave()

    def _end_share(self) -> None:
        self._sharing -= 1
        if not self._sharing:
            self._nobody.set()


def _note_nothing(tx: Any) -> None:
    del tx


def backoff(failures: int) -> float:
    """Seconds before the next attempt: doubling, and spread over half of that time."""
    longest = min(_LONGEST_BACKOFF, _FIRST_BACKOFF * 2.0**failures)
    return longest * _RANDOM.uniform(0.5, 1.0)


def _time_left(job: Job) -> float:
    """Seconds for which a job is in the hands of a worker that lives, as far as is known."""
    if job.state is not State.RUNNING or job.lease_until is None:
        return 0.0
    left = job.lease_until - time.time()
    return left + _LEASE_MARGIN if left > 0 else 0.0
