"""What both queues promise where a worker is told to stop."""

from __future__ import annotations

import asyncio
import signal

from app.jobs.records import State
from tests.jobs.deployment import (
    Deployment,
    draft,
    ended,
    outcomes,
    running,
    submit,
)


async def test_a_worker_that_is_told_to_stop_hands_back_what_it_cannot_finish(
    deployment: Deployment,
) -> None:
    deployment.put("slow.png")
    async with deployment.opened() as jobs:
        worker = deployment.start(drain_timeout=0.3, job_lease=60)
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


async def test_the_program_works_until_it_is_told_to_stop(deployment: Deployment) -> None:
    async with deployment.opened() as jobs:
        (job_id,) = await submit(jobs, draft())
        with deployment.program("work") as process:
            assert (await ended(jobs, [job_id]))[0].state is State.SUCCEEDED
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 15) == 0
