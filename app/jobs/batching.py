"""The batches of one process: what routers, schedules and the command line call."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from app.errors import (
    InvalidRequest,
    Problem,
    RecordConflict,
    UploadTimeout,
)
from app.jobs import batches, idempotency, ledger
from app.jobs.batch_intake import BatchIntake
from app.jobs.batch_spec import BatchReader, Manifest, Plan
from app.jobs.database import Connection, Database
from app.jobs.entries import read_each
from app.jobs.estimates import Estimator
from app.jobs.lines import LineReader, numbered
from app.jobs.origins import Origins
from app.jobs.progress import Progress, find_progress, find_results
from app.jobs.queues import JobQueue
from app.jobs.records import Batch, BatchState, Draft, Job, State
from app.jobs.schema import batches as batch_rows

T = TypeVar("T")

_SILENCE: Final = 30.0
"""Seconds for which a stream may bring nothing: less than an idempotency key is reserved for."""
_PAGE: Final = 500
_RETRIED: Final[Mapping[str, tuple[State, ...]]] = {
    "failed": (State.FAILED,),
    "cancelled": (State.CANCELLED,),
    "all": (State.FAILED, State.CANCELLED),
}
RETRIES: Final = tuple(_RETRIED)
"""Of which jobs a batch may be tried again."""


class Batches:
    """Accepts batches and tells of them."""

    def __init__(
        self,
        *,
        database: Database,
        queue: JobQueue,
        reader: BatchReader,
        origins: Origins,
        estimator: Estimator,
    ) -> None:
        self._database = database
        self._queue = queue
        self._reader = reader
        self._origins = origins
        self._estimator = estimator

    def read(self, body: Any, options: Mapping[str, Any]) -> Plan:
        """What a client wants, of JSON. Raises InvalidRequest, TargetRefused."""
        return self._reader.read(body, options)

    def read_options(self, options: Mapping[str, Any]) -> Plan:
        """The same of what comes beside a stream of entries."""
        return self._reader.read_options(options)

    async def accept(
        self, plan: Plan, *, key: str | None = None, fingerprint: str = ""
    ) -> tuple[Batch, bool]:
        """Accept a batch that came whole. Whether it is a new one.

        `key` is the client's for this request, and `fingerprint` is of its body. Raises
        InvalidRequest where no entry is valid, IdempotencyInFlight, IdempotencyMismatch,
        LedgerUnavailable, and what the store raises of a manifest.
        """
        if known := await self._reserve(key, fingerprint):
            return known, False
        if plan.entries is None:
            return await self._released(key, self._accept_order(plan, key, fingerprint)), True
        return await self._accept_entries(plan, key, fingerprint), True

    async def accept_lines(
        self, plan: Plan, chunks: AsyncIterator[bytes], *, key: str | None = None
    ) -> tuple[Batch, bool]:
        """Accept a batch of one job a line, while the lines come. Whether it is a new one.

        Where they stop coming, what has been accepted is cancelled. Raises as `accept` does, and
        UploadTimeout.
        """
        digest = hashlib.sha256(repr((plan.draft, dict(plan.options))).encode())
        known = await self._reserve(key, None)
        if known is not None:
            async for chunk in _unsilent(chunks):
                digest.update(chunk)
            return await self._reserve(key, digest.hexdigest()) or known, False
        intake = BatchIntake(self._database, self._queue, plan.draft, key=key)
        read = self._reader.drafts_of(plan, batch_id=intake.batch_id, now=time.time())
        try:
            lines = LineReader()
            async for chunk in _unsilent(chunks):
                digest.update(chunk)
                await _take_in(intake, numbered(lines.feed(chunk)), read.read_line)
                await intake.keep_up()
            await _take_in(intake, numbered(lines.end()), read.read_line)
            return await intake.finish(fingerprint=digest.hexdigest()), True
        except BaseException as error:
            reason = getattr(error, "detail", "The stream was cut before its end")
            await asyncio.shield(intake.abandon(reason))
            raise

    async def try_out(self, plan: Plan) -> dict[str, Any]:
        """How much a batch would be. Accepts nothing."""
        read = self._reader.drafts_of(plan, batch_id="", now=time.time())
        if plan.entries is not None:
            return await self._estimator.of_entries(plan.entries, read)
        return await self._estimator.of_origin(plan, read)

    async def try_out_lines(self, plan: Plan, chunks: AsyncIterator[bytes]) -> dict[str, Any]:
        """The same for one job a line."""
        read = self._reader.drafts_of(plan, batch_id="", now=time.time())
        return await self._estimator.of_lines(_unsilent(chunks), read)

    async def find(self, batch_id: str) -> Batch:
        """The batch of an id. Raises RecordMissing."""
        return await self._database.read(lambda tx: batches.find(tx, batch_id))

    async def find_page(
        self,
        *,
        limit: int,
        state: BatchState | None = None,
        label: str | None = None,
        before: str | None = None,
    ) -> list[Batch]:
        """Batches from the newest to the oldest, those older than the id `before`."""
        return await self._database.read(
            lambda tx: batches.find_page(tx, limit=limit, state=state, label=label, before=before)
        )

    async def progress(self, batch: Batch) -> Progress:
        """How a batch comes along."""
        return await self._database.read(lambda tx: find_progress(tx, batch, now=time.time()))

    async def results(
        self, batch_id: str, *, state: State | None = None
    ) -> AsyncGenerator[list[Job], None]:
        """The jobs of a batch in the order in which they were accepted, page by page."""
        after = ""
        while True:

            def find(tx: Connection, after: str = after) -> list[Job]:
                return find_results(tx, batch_id, after=after, limit=_PAGE, state=state)

            found = await self._database.read(find)
            yield found
            if len(found) < _PAGE:
                return
            after = found[-1].id

    async def cancel(self, batch_id: str) -> tuple[Batch, list[str]]:
        """Cancel a batch, and all of its jobs that have not ended. Returns those that ran, too.

        Raises RecordMissing, and RecordConflict where it has ended otherwise.
        """
        batch = await self._database.write(lambda tx: batches.stop(tx, batch_id, now=time.time()))
        if batch.state is not BatchState.CANCELLED:
            raise RecordConflict(f"The batch has {batch.state} already")
        ran = await self._cancel_jobs(batch_id, running=True)
        return await self.find(batch_id), [job.id for job in ran]

    async def finish_cancelling(self) -> None:
        """Cancel the jobs that are left of batches that are being cancelled."""
        for batch_id in await self._database.read(batches.find_stopped):
            await self._cancel_jobs(batch_id, skip_locked=True)

    async def retry(self, batch_id: str, *, only: str) -> tuple[Batch, int]:
        """Queue those jobs of a batch anew that have failed, or were cancelled, or both.

        Returns how many there were. Raises InvalidRequest, RecordMissing, and RecordConflict where
        there are none.
        """
        if only not in _RETRIED:
            raise InvalidRequest(f"only must be one of {', '.join(RETRIES)}", param="only")
        await self.find(batch_id)
        count, after = 0, ""
        while True:

            def again(tx: Connection, after: str = after) -> list[str]:
                found = ledger.queue_batch_again(
                    tx,
                    batch_id,
                    states=_RETRIED[only],
                    after=after,
                    limit=_PAGE,
                    now=time.time(),
                )
                self._queue.submit(tx, found)
                return [job.id for job in found]

            ids = await self._database.write(again)
            count += len(ids)
            if len(ids) < _PAGE:
                break
            after = ids[-1]
        if not count:
            raise RecordConflict(f"The batch has no job to be tried again: only={only}")
        self._queue.wake()
        return await self.find(batch_id), count

    def order(self, tx: Connection, plan: Plan, *, now: float) -> Batch:
        """Accept a batch that is told by a selection or manifest, in the caller's transaction.

        `queue.wake()` is for the caller. The plan must have passed `prepared`.
        """
        draft = replace(plan.draft, order=json.dumps(plan.as_json()))
        batch = batches.create(tx, draft, now=now)
        self._queue.submit(tx, ledger.insert(tx, [batches.draft_of_fill(batch)], now=now))
        return batch

    async def prepared(self, plan: Plan) -> Plan:
        """The plan with the version of its manifest. Raises InvalidRequest, OriginalMissing."""
        if not isinstance(plan.origin, Manifest):
            return plan
        return replace(plan, origin=await self._origins.look_at(plan.origin))

    async def _accept_order(self, plan: Plan, key: str | None, fingerprint: str) -> Batch:
        plan = await self.prepared(plan)

        def accept(tx: Connection) -> Batch:
            now = time.time()
            batch = self.order(tx, plan, now=now)
            if key is not None:
                answer = {"id": batch.id}
                idempotency.answer(tx, key, answer, fingerprint=fingerprint, now=now)
            return batch

        batch = await self._database.write(accept)
        self._queue.wake()
        return batch

    async def _accept_entries(self, plan: Plan, key: str | None, fingerprint: str) -> Batch:
        intake = BatchIntake(self._database, self._queue, plan.draft, key=key)
        read = self._reader.drafts_of(plan, batch_id=intake.batch_id, now=time.time())
        try:
            await _take_in(intake, enumerate(plan.entries or (), start=1), read.read)
            return await intake.finish(fingerprint=fingerprint)
        except BaseException as error:
            reason = getattr(error, "detail", "The request was given up")
            await asyncio.shield(intake.abandon(reason))
            raise

    async def _reserve(self, key: str | None, fingerprint: str | None) -> Batch | None:
        """The batch that a client's key was answered with, if it was."""
        if key is None:
            return None
        known = await self._database.write(
            lambda tx: idempotency.reserve(
                tx, key, fingerprint=fingerprint, now=time.time(), record=batch_rows
            )
        )
        return None if known is None else await self.find(known["id"])

    async def _released(self, key: str | None, work: Awaitable[T]) -> T:
        """Do what a key is reserved for, and let go of the key where that fails."""
        try:
            return await work
        except BaseException:
            if key is not None:
                await asyncio.shield(self._database.write(lambda tx: idempotency.release(tx, key)))
            raise

    async def _cancel_jobs(
        self, batch_id: str, *, running: bool = False, skip_locked: bool = False
    ) -> list[Job]:
        """Cancel the jobs of a batch page by page. Returns those that ran, as they were."""

        def cancel(tx: Connection) -> list[Job]:
            found = batches.cancel_jobs(
                tx, batch_id, now=time.time(), running=running, skip_locked=skip_locked
            )
            self._queue.cancel(tx, [job.id for job in found])
            return found

        ran: list[Job] = []
        while found := await self._database.write(cancel):
            ran += [job for job in found if job.state is State.RUNNING]
        return ran


async def _take_in(
    intake: BatchIntake,
    entries: Iterable[tuple[int, T]],
    read: Callable[[T, int], Draft | None],
) -> None:
    async for number, found in read_each(entries, read):
        if isinstance(found, Problem):
            intake.reject(number, found)
        else:
            await intake.accept(found)


async def _unsilent(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks of a stream. Raises UploadTimeout where none comes for long."""
    while True:
        try:
            async with asyncio.timeout(_SILENCE):
                chunk = await anext(chunks, None)
        except TimeoutError:
            raise UploadTimeout(f"The stream brought nothing for {_SILENCE:g} s") from None
        if chunk is None:
            return
        yield chunk
