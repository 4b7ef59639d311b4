"""What both queues promise where workers die, or the server of their database."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from app.errors import LedgerUnavailable, RecordConflict
from app.jobs import ledger
from app.jobs.records import State
from tests.http import originals as draw
from tests.jobs.deployment import (
    Deployment,
    code_of,
    draft,
    ended,
    outcomes,
    running,
    submit,
    until,
)
from tests.jobs.postgres import Postgres


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
