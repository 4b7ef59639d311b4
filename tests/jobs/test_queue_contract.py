"""What both queues promise, through workers in processes of their own."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest

from app.errors import (
    IdempotencyInFlight,
    IdempotencyMismatch,
    RecordConflict,
)
from app.jobs import idempotency
from app.jobs.records import State
from app.jobs.schema import jobs as job_rows
from tests.http import originals as draw
from tests.jobs.deployment import (
    Deployment,
    code_of,
    draft,
    ended,
    outcomes,
    running,
    submit,
)


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
