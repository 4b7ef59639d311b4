"""Reports: what became of a batch's jobs, as NDJSON at a target, when the batch has ended.

A report of many jobs has several parts, so that no more of it is in memory than one of them:
`done.ndjson`, then `done-2.ndjson`, `done-3.ndjson` and so on. The batch says where they all are.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Final

import sqlalchemy as sa

from app.jobs import batches, ledger
from app.jobs.database import Connection, Database
from app.jobs.progress import find_results
from app.jobs.queues import JobQueue
from app.jobs.records import Batch, Draft, Job, Kind, State, shown_time
from app.jobs.runner import Finished, ResultWriter
from app.jobs.schema import batches as rows

MEDIA_TYPE: Final = "application/x-ndjson"
_PAGE: Final = 500
_PART: Final = 16 << 20
"""Bytes after which a report goes on in another part."""
_AT_ONCE: Final = 100


class Reporter:
    """Writes reports: what a job of the kind `report` does."""

    def __init__(self, *, database: Database, writer: ResultWriter) -> None:
        self._database = database
        self._writer = writer

    async def report(self, job: Job) -> None:
        """Write the report of the batch of a job. Raises what the target does."""
        batch_id = job.batch_id
        assert batch_id is not None  # noqa: S101 - it was made for one
        batch = await self._database.read(lambda tx: batches.find(tx, batch_id))
        wanted = json.loads(batch.report or "{}")
        state = State.FAILED if wanted["only"] == "failed" else None
        places: list[str] = []
        lines = 0
        async for part, count in self._parts(batch_id, state):
            place = _place(wanted["target"], len(places) + 1)
            written = Finished(data=part, media_type=MEDIA_TYPE, place=place)
            await self._database.write(await self._writer.write([written]))
            places.append(place)
            lines += count
        told = {
            "target": wanted["target"],
            "only": wanted["only"],
            "places": places,
            "lines": lines,
            "written_at": shown_time(time.time()),
        }
        text = json.dumps(told)
        await self._database.write(
            lambda tx: tx.execute(rows.update().where(rows.c.id == batch_id).values(report=text))
        )

    async def _parts(self, batch_id: str, state: State | None) -> AsyncIterator[tuple[bytes, int]]:
        """The report in parts, with the lines of each: at least one, which may be empty."""
        part, count = bytearray(), 0
        after, first = "", True
        while True:

            def find(tx: Connection, after: str = after) -> list[Job]:
                return find_results(tx, batch_id, after=after, limit=_PAGE, state=state)

            found = await self._database.read(find)
            for job in found:
                part += json.dumps(job.as_news(), ensure_ascii=False).encode() + b"\n"
                count += 1
            if len(part) >= _PART:
                yield bytes(part), count
                part, count, first = bytearray(), 0, False
            if len(found) < _PAGE:
                break
            after = found[-1].id
            await asyncio.sleep(0)
        if part or first:
            yield bytes(part), count


def submit_due(tx: Connection, queue: JobQueue, *, now: float) -> int:
    """Have the reports of batches written that have ended. Returns how many."""
    query = sa.select(rows).where(sa.text("report_due")).limit(_AT_ONCE)
    due = [Batch.from_row(row) for row in tx.execute(query).mappings()]
    for batch in due:
        taken = tx.execute(
            rows.update()
            .where(rows.c.id == batch.id, sa.text("report_due"))
            .values(report_due=False)
        )
        if taken.rowcount:
            queue.submit(tx, ledger.insert(tx, [_draft(batch)], now=now))
    return len(due)


def _draft(batch: Batch) -> Draft:
    return Draft(
        kind=Kind.REPORT, source=(), outputs="[]", retries=10, timeout=3600.0, batch_id=batch.id
    )


def _place(target: str, number: int) -> str:
    """Where a part goes: the number stands before the ending."""
    if number == 1:
        return target
    folder, slash, name = target.rpartition("/")
    stem, dot, ending = name.rpartition(".")
    if not dot:
        return f"{target}-{number}"
    return f"{folder}{slash}{stem}-{number}.{ending}"
