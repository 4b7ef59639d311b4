"""Whether anything is lost: python -m bench.crash --engine sqlite|postgres --jobs N --kills K.

Processes are ended by SIGKILL at moments drawn at random while jobs run, and started again: the
whole service on the ledger without a server, where clients go on submitting meanwhile; or one of
four workers on PostgreSQL, and once PostgreSQL itself. In the end every job must have succeeded
once, and every result must be whole: its bytes are those that the job tells of, and they decode.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import pyvips
import sqlalchemy as sa

from app.errors import LedgerUnavailable
from app.jobs import ledger
from app.jobs.database import Database
from app.jobs.migrations import upgrade
from app.jobs.records import Draft, source_ref
from app.jobs.schema import attempts, jobs
from app.service import open_service
from app.settings import Settings
from bench.service import Child, free_port
from tests.jobs.postgres import Postgres

_ORIGINALS: Final = 12
_WORKERS: Final = 4
_LEASE: Final = 3.0
_SUBMITTERS: Final = 4
_PATIENCE: Final = 1500.0


@dataclass
class Outcome:
    """What a run came to."""

    engine: str
    jobs: int
    kills: int = 0
    seconds: float = 0.0
    lost: int = 0
    failed: int = 0
    broken: int = 0
    died: int = 0
    twice: int = 0
    errors: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        good = not (self.lost or self.failed or self.broken or self.twice)
        return (
            f"{self.engine}: {self.jobs} jobs, {self.kills} kills, {self.seconds:.0f} s: "
            f"{self.lost} lost, {self.failed} failed, {self.broken} broken results, "
            f"{self.twice} ended twice, {self.died} attempts died and were made again; "
            f"{'nothing lost' if good else 'NOT GOOD'} {' '.join(self.errors[:3])}".rstrip()
        )


class Mill:
    """Folders of originals and results, and the settings of processes on one ledger."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.originals = folder / "originals"
        self.originals.mkdir()
        for number in range(_ORIGINALS):
            noise = pyvips.Image.gaussnoise(700, 500, mean=128, sigma=40, seed=number)
            picture = noise.bandjoin([noise, noise]).cast("uchar").copy(interpretation="srgb")
            picture.jpegsave(str(self.originals / f"{number}.jpg"), Q=85)

    def settings(self) -> dict[str, Any]:
        return {
            "database": self.url,
            "originals": f"file:{self.originals}",
            "results": f"file:{self.folder / 'results'}",
            "job_lease": _LEASE,
            "job_concurrency": 4,
            "log_level": "warning",
        }

    def start(self, *arguments: str) -> Child:
        """Start a process of the service."""
        return Child(
            ["-m", "app.cli", *arguments],
            folder=self.folder,
            environment={f"PIXELMILL_{n.upper()}": str(v) for n, v in self.settings().items()},
        )

    def body(self, number: int) -> dict[str, Any]:
        """A job: another width, and a place of its own for the result."""
        transform = f"w={100 + number % 150}&fm=jpeg"
        return {
            "source": f"{number % _ORIGINALS}.jpg",
            "outputs": [{"transform": transform, "target": f"out/{number}.jpg"}],
        }


def run_embedded(count: int, kills: int) -> Outcome:
    """`pixelmill serve` on SQLite, killed as a whole, while clients submit."""
    outcome = Outcome("sqlite", count)
    with tempfile.TemporaryDirectory(prefix="pixelmill-crash-") as name:
        folder = Path(name)
        mill = Mill(folder, f"sqlite:///{folder / 'pixelmill.db'}")
        database = Database(mill.url)
        upgrade(database)
        port = free_port()
        accepted: list[str] = []
        submitting = [
            threading.Thread(target=_submit, args=(mill, port, part, count, accepted), daemon=True)
            for part in range(_SUBMITTERS)
        ]
        began = time.monotonic()
        server = mill.start("serve", "--port", str(port))
        for thread in submitting:
            thread.start()
        try:
            for threshold in _thresholds(count, kills):
                _wait_for(database, threshold)
                server.kill()
                outcome.kills += 1
                server = mill.start("serve", "--port", str(port))
            for thread in submitting:
                thread.join(_PATIENCE)
            _wait_for(database, count)
            outcome.seconds = time.monotonic() - began
        except TimeoutError as error:
            outcome.errors.append(f"{error} {server.complaint}")
        finally:
            server.stop()
        _judge(outcome, mill, database, accepted)
        database.close()
    return outcome


def run_distributed(count: int, kills: int) -> Outcome:
    """Four `pixelmill work` on PostgreSQL, one of them killed at a time, and once the server."""
    outcome = Outcome("postgres", count)
    postgres = Postgres(fsync="on")
    try:
        with tempfile.TemporaryDirectory(prefix="pixelmill-crash-") as name:
            mill = Mill(Path(name), postgres.make_database())
            accepted = asyncio.run(_submit_all(mill, count))
            database = Database(mill.url)
            began = time.monotonic()
            workers = [mill.start("work") for _ in range(_WORKERS)]
            try:
                for turn, threshold in enumerate(_thresholds(count, kills)):
                    _wait_for(database, threshold)
                    victim = random.randrange(_WORKERS)
                    workers[victim].kill()
                    workers[victim] = mill.start("work")
                    outcome.kills += 1
                    if turn == kills // 2:
                        postgres.kill()
                        postgres.restart()
                _wait_for(database, count)
                outcome.seconds = time.monotonic() - began
            except TimeoutError as error:
                outcome.errors.append(f"{error} {workers[0].complaint}")
            finally:
                for worker in workers:
                    worker.stop()
            _judge(outcome, mill, database, accepted)
            database.close()
    finally:
        postgres.close()
    return outcome


def _thresholds(count: int, kills: int) -> list[int]:
    """Numbers of jobs done after which something is killed."""
    return sorted(random.sample(range(1, max(count * 9 // 10, kills + 1)), kills))


def _wait_for(database: Database, count: int) -> None:
    """Wait until so many jobs have ended."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        with suppress(LedgerUnavailable):
            counts = asyncio.run(database.read(ledger.counts))
            if counts["succeeded"] + counts["failed"] >= count:
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"stuck before {count} jobs: {counts}")
        time.sleep(0.02)


def _submit(mill: Mill, port: int, part: int, count: int, accepted: list[str]) -> None:
    """Submit every fourth job over HTTP, and each again with its key until it is accepted."""
    for number in range(part, count, _SUBMITTERS):
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/jobs",
            data=json.dumps(mill.body(number)).encode(),
            headers={"content-type": "application/json", "idempotency-key": f"job {number}"},
        )
        while True:
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    accepted.append(json.load(answer)["id"])
                break
            except (OSError, HTTPException, ValueError):
                time.sleep(0.1)
        time.sleep(0.01)


async def _submit_all(mill: Mill, count: int) -> list[str]:
    """Submit jobs in transactions of a thousand."""
    accepted: list[str] = []
    async with _opened(mill) as service:
        for start in range(0, count, 1000):
            bodies = [mill.body(number) for number in range(start, min(start + 1000, count))]
            drafts = [
                Draft(
                    source=(source_ref(body["source"]),),
                    outputs=json.dumps(
                        [
                            {
                                "transform": output["transform"].removesuffix("&fm=jpeg"),
                                "fm": "jpeg",
                                "target": output["target"],
                            }
                            for output in body["outputs"]
                        ]
                    ),
                )
                for body in bodies
            ]

            def accept(tx: sa.Connection, drafts: list[Draft] = drafts) -> list[str]:
                made = ledger.insert(tx, drafts, now=time.time())
                service.jobs.queue.submit(tx, made)
                return [job.id for job in made]

            accepted += await service.jobs.database.write(accept)
    return accepted


@asynccontextmanager
async def _opened(mill: Mill) -> AsyncIterator[Any]:
    settings = Settings(_env_file=None, **{**mill.settings(), "run_jobs": False})
    async with open_service(settings) as service:
        yield service


def _judge(outcome: Outcome, mill: Mill, database: Database, accepted: list[str]) -> None:
    """Look at every job that was accepted, its attempts and its result."""

    def read(tx: sa.Connection) -> tuple[dict[str, Any], list[Any]]:
        found = {row.id: row for row in tx.execute(sa.select(jobs))}
        return found, list(tx.execute(sa.select(attempts.c.job_id, attempts.c.outcome)))

    found, tried = asyncio.run(database.read(read))
    succeeded: dict[str, int] = {}
    for row in tried:
        outcome.died += row.outcome == "died"
        succeeded[row.job_id] = succeeded.get(row.job_id, 0) + (row.outcome == "succeeded")
    outcome.twice = sum(times > 1 for times in succeeded.values())
    outcome.lost = outcome.jobs - len(set(accepted) & set(found))
    outcome.twice += len(found) - len(set(accepted))
    for row in found.values():
        if row.state in ("queued", "running"):
            outcome.lost += 1
        elif row.state != "succeeded":
            outcome.failed += 1
            outcome.errors.append(str(row.error)[:200])
        elif not _is_whole(mill, json.loads(row.results)):
            outcome.broken += 1


def _is_whole(mill: Mill, results: list[dict[str, Any]]) -> bool:
    (result,) = results
    data = (mill.originals / result["target"]).read_bytes()
    picture = pyvips.Image.new_from_buffer(data, "", fail_on="warning")
    picture.avg()
    return result["digest"] == f"sha256:{hashlib.sha256(data).hexdigest()}" and (
        picture.width,
        picture.height,
    ) == (result["width"], result["height"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.crash", description=__doc__)
    parser.add_argument("--engine", choices=["sqlite", "postgres"], required=True)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=20)
    options = parser.parse_args()
    run = run_embedded if options.engine == "sqlite" else run_distributed
    print(run(options.jobs, options.kills), flush=True)


if __name__ == "__main__":
    main()
