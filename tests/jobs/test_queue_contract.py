"""What both queues promise, through workers in processes of their own."""

from __future__ import annotations

import asyncio
import hashlib
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from app.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    LedgerUnavailable,
    RecordConflict,
)
from app.jobs import idempotency, ledger
from app.jobs.database import Database
from app.jobs.migrations import upgrade
from app.jobs.records import Job, State
from app.jobs.schema import METADATA, attempts
from app.jobs.schema import jobs as job_rows
from app.jobs.service import Jobs
from tests.http import originals as draw
from tests.jobs.deployment import Deployment, draft, ended, submit, until
from tests.jobs.postgres import Postgres


async def outcomes(jobs: Jobs, job_id: str) -> list[str | None]:
    """How every attempt at a job has ended, in their order."""
    query = sa.select(attempts.c.outcome).where(attempts.c.job_id == job_id)
    return await jobs.database.read(
        lambda tx: list(tx.execute(query.order_by(attempts.c.number)).scalars())
    )


async def running(jobs: Jobs, count: int) -> None:
    """Wait until so many jobs run."""

    async def look() -> bool:
        return (await jobs.database.read(ledger.counts))["running"] >= count

    await until(look)


def code_of(job: Job) -> Any:
    return (job.as_json().get("error") or {}).get("code")


async def test_every_job_is_run_once_by_one_of_two_workers(deployment: Deployment) -> None:
    async with deployment.opened() as jobs:
        ids = await submit(jobs, *(draft(w=5 + n % 20) for n in range(30)))
        deployment.start()
        deployment.start()
        found = await ended(jobs, ids)
        assert {job.state for job in found} == {State.SUCCEEDED}
        assert [await outcomes(jobs, job_id) for job_id in ids] == [["succeeded"]] * 30
        for result in [job.as_json()["results"][0] for job in found]:
            data = b"".join(
                path.read_bytes()
                for path in (deployment.folder / "results").rglob(f"*{result['key']}*")
                if path.is_file()
            )
            assert not data or f"sha256:{hashlib.sha256(data).hexdigest()}" == result["digest"]


async def test_jobs_of_a_worker_that_is_killed_are_finished_by_another(
    deployment: Deployment,
) -> None:
    for number in range(4):
        deployment.put(f"slow-{number}.png")
    async with deployment.opened() as jobs:
        first = deployment.start(job_concurrency=4)
        ids = await submit(jobs, *(draft(f"slow-{n}.png") for n in range(4)))
        more = await submit(jobs, *(draft(w=5 + n) for n in range(4)))
        await running(jobs, 4)
        first.send_signal(signal.SIGKILL)
        first.wait()
        deployment.gate.touch()
        deployment.start()
        assert {job.state for job in await ended(jobs, ids + more)} == {State.SUCCEEDED}
        assert await outcomes(jobs, ids[0]) == ["died", "succeeded"]


async def test_what_kills_three_workers_is_poison_and_its_neighbours_are_not(
    deployment: Deployment,
) -> None:
    for name in ("poison.png", "slow.png"):
        deployment.put(name)
    deployment.gate.touch()
    async with deployment.opened() as jobs:
        ids = await submit(jobs, draft("poison.png"), draft("slow.png"), draft())

        async def look() -> bool:
            found = [await jobs.find(job_id) for job_id in ids]
            if worker.poll() is not None and not all(job.state.final for job in found):
                start()
            return all(job.state.final for job in found)

        def start() -> None:
            nonlocal worker
            worker = deployment.start()

        worker = deployment.start()
        await until(look, seconds=40)
        poison, *others = await ended(jobs, ids)
        assert (poison.state, code_of(poison)) == (State.FAILED, "poison")
        assert await outcomes(jobs, ids[0]) == ["died"] * 3
        assert {job.state for job in others} == {State.SUCCEEDED}

        # The worker that has counted the last death lives on, and refuses the original to others.
        (again,) = await submit(jobs, draft("poison.png", w=11))
        (found,) = await ended(jobs, [again])
        assert (found.state, code_of(found)) == (State.FAILED, "poison")
        assert await outcomes(jobs, again) == ["failed"]
        assert worker.poll() is None

        # Another version of it is another original.
        draw.put(deployment.folder / "originals", "poison.png", draw.png())
        with pytest.raises(RecordConflict):
            await jobs.retry(ids[1])


async def test_a_worker_that_is_told_to_stop_hands_back_what_it_cannot_finish(
    deployment: Deployment,
) -> None:
    deployment.put("slow.png")
    async with deployment.opened() as jobs:
        worker = deployment.start(drain_timeout=0.3)
        (job_id,) = await submit(jobs, draft("slow.png"))
        await running(jobs, 1)
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, 15) == 0
        job = await jobs.find(job_id)
        assert (job.state, job.deaths, job.failures) == (State.QUEUED, 0, 0)
        deployment.gate.touch()
        deployment.start()
        assert (await ended(jobs, [job_id]))[0].state is State.SUCCEEDED
        assert await outcomes(jobs, job_id) == ["handed back", "succeeded"]


async def test_a_worker_that_is_told_to_stop_finishes_what_it_can(deployment: Deployment) -> None:
    deployment.put("slow.png")
    async with deployment.opened() as jobs:
        worker = deployment.start(drain_timeout=20)
        (job_id,) = await submit(jobs, draft("slow.png"))
        await running(jobs, 1)
        worker.send_signal(signal.SIGTERM)
        (late,) = await submit(jobs, draft())
        deployment.gate.touch()
        assert await asyncio.to_thread(worker.wait, 15) == 0
        assert await outcomes(jobs, job_id) == ["succeeded"]
        assert (await jobs.find(late)).state is State.QUEUED


async def test_a_key_of_a_client_makes_one_job(deployment: Deployment) -> None:
    async with deployment.opened() as jobs:
        first, is_new = await jobs.submit(draft(), key="k", fingerprint="body")
        second, is_new_again = await jobs.submit(draft(), key="k", fingerprint="body")
        assert (second.id, is_new, is_new_again) == (first.id, True, False)
        with pytest.raises(IdempotencyMismatch):
            await jobs.submit(draft(), key="k", fingerprint="another body")
        now = time.time()
        await jobs.database.write(
            lambda tx: idempotency.reserve(
                tx, "under way", fingerprint="body", now=now, record=job_rows
            )
        )
        with pytest.raises(IdempotencyInFlight):
            await jobs.submit(draft(), key="under way", fingerprint="body")
        assert len(await jobs.find_page(limit=9)) == 1


async def test_a_key_that_comes_many_times_at_once_makes_one_job(deployment: Deployment) -> None:
    async with deployment.opened() as jobs:
        answers = await asyncio.gather(
            *(jobs.submit(draft(), key="k", fingerprint="body") for _ in range(12)),
            return_exceptions=True,
        )
        made = [answer for answer in answers if not isinstance(answer, BaseException)]
        refused = [answer for answer in answers if isinstance(answer, BaseException)]
        assert len({job.id for job, _ in made}) == 1
        assert {type(error) for error in refused} <= {IdempotencyInFlight}
        assert len(await jobs.find_page(limit=20)) == 1


async def test_the_higher_priority_goes_first_and_a_delay_is_kept(deployment: Deployment) -> None:
    async with deployment.opened() as jobs:
        later = time.time() + 2
        ids = await submit(
            jobs,
            draft(priority=0, run_after=later),
            draft(priority=0),
            draft(priority=1),
            draft(priority=2),
        )
        deployment.start(job_concurrency=1)
        found = await ended(jobs, ids)
        order = sorted(found, key=lambda job: job.started_at or 0)
        assert [ids.index(job.id) for job in order if job.id != ids[0]] == [3, 2, 1]
        assert (found[0].started_at or 0) >= later


async def test_a_job_is_cancelled_before_it_begins_while_it_runs_and_not_after(
    deployment: Deployment,
) -> None:
    deployment.put("slow.png")
    async with deployment.opened() as jobs:
        before, during, after = await submit(jobs, draft(w=7), draft("slow.png"), draft())
        assert (await jobs.cancel(before)).state is State.CANCELLED
        deployment.start(job_concurrency=1)
        await running(jobs, 1)
        assert (await jobs.cancel(during)).state is State.CANCELLED
        # The worker notices, and its place is free again.
        assert (await ended(jobs, [after]))[0].state is State.SUCCEEDED
        with pytest.raises(RecordConflict):
            await jobs.cancel(after)
        assert await outcomes(jobs, before) == []
        assert await outcomes(jobs, during) == ["cancelled"]

        deployment.gate.touch()
        await jobs.retry(before)
        await jobs.retry(during)
        assert {job.state for job in await ended(jobs, [before, during])} == {State.SUCCEEDED}


class Failing(BaseHTTPRequestHandler):
    """An origin that fails twice."""

    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        if type(self).asked <= 2:
            self.send_error(503)
            return
        data = draw.png(draw.flat(draw.GREEN))
        self.send_response(200)
        self.send_header("content-type", "image/png")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def failing_origin() -> Iterator[str]:
    Failing.asked = 0
    server = HTTPServer(("127.0.0.1", 0), Failing)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/a.png"
    server.shutdown()
    server.server_close()


async def test_what_may_pass_is_tried_again_and_what_may_not_fails_at_once(
    deployment: Deployment, failing_origin: str
) -> None:
    async with deployment.opened() as jobs:
        deployment.start(allowed_sources=[urlsplit(failing_origin).netloc])
        passing, gone, late = await submit(
            jobs,
            draft(failing_origin, retries=3),
            draft("missing.png", retries=3),
            draft(expires_at=time.time() - 1),
        )
        found = await ended(jobs, [passing, gone, late])
        assert await outcomes(jobs, passing) == ["failed", "failed", "succeeded"]
        assert [job.state for job in found] == [State.SUCCEEDED, State.FAILED, State.FAILED]
        assert [code_of(job) for job in found[1:]] == ["original_missing", "job_expired"]
        assert await outcomes(jobs, gone) == ["failed"]
        # Each wait is at least half of its time: see `app.jobs.worker.backoff`.
        taken = (found[0].finished_at or 0) - (found[0].started_at or 0)
        assert taken >= 0.5 + 1.0


def test_migrations_make_the_tables_that_the_code_knows(ledger_url: str) -> None:
    database = Database(ledger_url)
    try:
        upgrade(database)
        upgrade(database)
        with database.engine.connect() as connection:
            assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    finally:
        database.close()


async def test_nothing_is_lost_where_the_server_of_the_database_dies(
    postgres: str, postgres_server: Postgres, tmp_path: Path
) -> None:
    deployment = Deployment(tmp_path, postgres)
    deployment.put("slow.png")
    try:
        async with deployment.opened() as jobs:
            deployment.start()
            ids = await submit(jobs, draft("slow.png"), *(draft(w=5 + n % 30) for n in range(60)))
            await running(jobs, 1)
            postgres_server.kill()
            deployment.gate.touch()
            await asyncio.to_thread(postgres_server.restart)

            async def look() -> bool:
                with suppress(LedgerUnavailable):
                    counts = await jobs.database.read(ledger.counts)
                    return counts["queued"] + counts["running"] == 0
                return False

            await until(look, seconds=40)
            assert {job.state for job in await ended(jobs, ids)} == {State.SUCCEEDED}
    finally:
        deployment.close()
