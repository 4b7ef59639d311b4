"""What starts the jobs and batches of schedules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from app.errors import InvalidRequest, Problem
from app.jobs import batches, ledger
from app.jobs.batch_spec import BatchReader, Plan
from app.jobs.batching import Batches
from app.jobs.database import Connection
from app.jobs.entries import read_each
from app.jobs.ids import new_id
from app.jobs.queues import JobQueue
from app.jobs.records import Draft, shown_problem
from app.jobs.schedule_spec import Start
from app.jobs.spec import SpecReader

_MOST_ENTRIES: Final = 1000
"""Jobs that a schedule lists: they enter the ledger in the transaction of its tick."""


class JobStarter:
    """Starts single jobs."""

    def __init__(self, reader: SpecReader, queue: JobQueue) -> None:
        self._reader = reader
        self._queue = queue

    def check(self, body: Any, *, now: float) -> None:
        self._reader.read_job(body, now=now)

    async def prepare(self, body: Any, *, now: float) -> Start:
        draft = self._reader.read_job(body, now=now)

        def start(tx: Connection, origin: str) -> str:
            (job,) = ledger.insert(tx, [replace(draft, origin=origin)], now=now)
            self._queue.submit(tx, [job])
            return job.id

        return start


class BatchStarter:
    """Starts batches: those of a selection or a manifest, and short lists."""

    def __init__(self, batching: Batches, reader: BatchReader, queue: JobQueue) -> None:
        self._batching = batching
        self._reader = reader
        self._queue = queue

    def check(self, body: Any, *, now: float) -> None:
        plan = self._reader.read(body, {})
        if plan.dry_run:
            raise InvalidRequest("dry_run: what is scheduled runs", param="dry_run")
        if plan.entries is None:
            return
        form = "sources" if "sources" in body else "jobs"
        if len(plan.entries) > _MOST_ENTRIES:
            raise InvalidRequest(
                f"{form}: a schedule lists at most {_MOST_ENTRIES} jobs; a manifest may have more",
                param=form,
            )
        read = self._reader.drafts_of(plan, batch_id="", now=now)
        for number, entry in enumerate(plan.entries):
            try:
                read.read(entry, number + 1)
            except InvalidRequest as error:
                where = f"{form}[{number}]"
                raise InvalidRequest(f"{where}: {error.detail}", param=where) from None

    async def prepare(self, body: Any, *, now: float) -> Start:
        plan = await self._batching.prepared(self._reader.read(body, {}))
        if plan.entries is not None:
            return await self._prepare_entries(plan, now=now)

        def start(tx: Connection, origin: str) -> str:
            draft = replace(plan.draft, origin=origin)
            return self._batching.order(tx, replace(plan, draft=draft), now=now).id

        return start

    async def _prepare_entries(self, plan: Plan, *, now: float) -> Start:
        batch_id = new_id()
        read = self._reader.drafts_of(plan, batch_id=batch_id, now=now)
        drafts: list[Draft] = []
        rejections: list[dict[str, Any]] = []
        async for number, found in read_each(enumerate(plan.entries or (), start=1), read.read):
            if isinstance(found, Problem):
                rejections.append({"line": number, "problem": shown_problem(found)})
            else:
                drafts.append(found)

        def start(tx: Connection, origin: str) -> str:
            draft = replace(plan.draft, origin=origin)
            batch = batches.create(tx, draft, now=now, batch_id=batch_id)
            batches.note_progress(
                tx,
                batch,
                added=len(drafts),
                rejected=len(rejections),
                rejections=rejections,
                cursor=None,
            )
            self._queue.submit(tx, ledger.insert(tx, drafts, now=now))
            batches.note_filled(tx, batch_id, now=now)
            return batch_id

        return start
