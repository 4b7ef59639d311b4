"""A ledger, folders and workers in processes of their own, as they are deployed."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from app.jobs import ledger
from app.jobs.records import Draft, Job, source_ref
from app.jobs.schema import attempts
from app.jobs.service import Jobs
from app.service import open_service
from app.settings import Settings
from tests.http import originals as draw
from tests.jobs.worker import Worker

LEASE = 2.0
_ROOT = Path(__file__).resolve().parents[2]


class Deployment:
    """Starts workers on one ledger. Originals are in `folder / "originals"`.

    Workers are those of `tests.jobs.worker`: what they do wrong goes by the names of originals.
    They are forked from one process, as to load the service takes longer than most of its jobs.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.gate = folder / "open"
        """While this file is missing, originals called `slow...` keep their workers."""
        self._workers: list[Worker] = []
        self.put("a.png")

    def put(self, name: str) -> str:
        draw.put(self.folder / "originals", name, draw.png(draw.flat(draw.RED, 40, 30)))
        return name

    def settings(self, **options: Any) -> dict[str, Any]:
        return {
            "database": self.url,
            "originals": f"file:{self.folder / 'originals'}",
            "results": f"file:{self.folder / 'results'}",
            "job_lease": LEASE,
            "log_level": "info",
            "allow_private_networks": True,
            **options,
        }

    def start(self, **options: Any) -> Worker:
        """Start a worker."""
        worker = Worker(
            self.folder,
            self._environment(**options),
            gate=self.gate,
            log=self.folder / "workers.log",
        )
        self._workers.append(worker)
        return worker

    @contextmanager
    def program(self, *command: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run the program itself, which loads all that it needs, until the block ends."""
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *command],
            cwd=self.folder,
            env={**self._environment(), "PYTHONPATH": str(_ROOT)},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    def _environment(self, **options: Any) -> dict[str, str]:
        given = self.settings(**options)
        return {
            **os.environ,
            **{f"PIXELMILL_{name.upper()}": _as_text(value) for name, value in given.items()},
        }

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[Jobs]:
        """The jobs of a process that runs none."""
        settings = Settings(_env_file=None, **self.settings(run_jobs=False))
        async with open_service(settings) as service:
            assert service.jobs is not None
            yield service.jobs

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
            worker.wait()


def draft(name: str = "a.png", *, w: int = 10, **options: Any) -> Draft:
    """A job that is wanted: a small PNG of an original."""
    outputs = json.dumps([{"transform": f"w={w}", "fm": "png"}])
    return Draft(source=(source_ref(name),), outputs=outputs, **options)


async def submit(jobs: Jobs, *drafts: Draft) -> list[str]:
    """Submit jobs. Returns their ids."""
    return [(await jobs.submit(each))[0].id for each in drafts]


async def until(condition: Callable[[], Any], *, seconds: float = 25) -> Any:
    """What an asynchronous condition comes to, when that is something."""
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < deadline, "it has not come to pass"
        await asyncio.sleep(0.03)
    return found


async def ended(jobs: Jobs, ids: list[str], *, seconds: float = 25) -> list[Job]:
    """Jobs, when all of them have ended."""

    async def look() -> list[Job]:
        found = [await jobs.find(job_id) for job_id in ids]
        return found if all(job.state.final for job in found) else []

    found: list[Job] = await until(look, seconds=seconds)
    return found


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


def _as_text(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
