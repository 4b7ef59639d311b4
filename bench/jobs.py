"""What a job costs above its render, what workers add up to, and how fast jobs come and go.

A worker process takes renders from the ledger in groups, and a plain process does the same renders
of the same originals, one group after the other: what counts is processor time, as a ratio.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app import machine
from app.jobs import ledger
from app.jobs.records import Draft, State
from app.service import Service, open_service
from app.settings import Settings
from bench import corpus
from bench.report import Report, Verdict, middle
from bench.service import Child, Others, Worker, processors, serve_jobs, workplace
from transforms import libvips, pipeline
from transforms.limits import Limits
from transforms.transform import Transform

_WIDTHS: Final = (320, 640, 1280)
_SIX: Final = (200, 320, 480, 640, 960, 1280)
_GROUP: Final = "jpeg12"
_OVERHEAD: Final = 1.05
_SCALING: Final = 1.9
_SIX_TOGETHER: Final = 0.45
_ORIGINALS: Final = 24
_BY_THE_CLOCK: Final = 7
"""How often workers are measured by the clock, which others on the machine disturb."""
_MANY: Final = 5
"""Groups of jobs in one measurement by the clock."""
_STEADY: Final = (0.1, 0.85)
"""Parts of a group's jobs between which the clock counts: before, workers have yet to look, and
after, some have nothing left to take.
"""
_LOOK: Final = 0.25
_PATIENCE: Final = 300.0

Sizes = Sequence[int]


def measure(*, quick: bool) -> Report:
    """Measure workers on the ledger without a server."""
    report = Report("jobs", "jobs through the ledger, against their bare renders")
    with workplace() as (folder, processes):
        asyncio.run(_measure(report, folder, processes, quick=quick))
    return report


async def _measure(report: Report, folder: Path, processes: ExitStack, *, quick: bool) -> None:
    made = corpus.make()
    names = made.groups[_GROUP]
    originals = folder / "originals"  # results go there too
    originals.mkdir()
    for number in range(_ORIGINALS):
        # Originals that differ: of one, equal results would be rendered once.
        shutil.copy(made.folder / names[number % len(names)], originals / f"{number}.jpg")
    names = [f"{number}.jpg" for number in range(_ORIGINALS)]
    settings = Settings(
        _env_file=None,
        originals=f"file:{originals}",
        results="off",
        database=f"sqlite:///{folder / 'jobs.db'}",
        targets="",
        run_jobs=False,
        log_level="error",
    )
    environment = {
        f"PIXELMILL_{name}": value
        for name, value in {
            "ORIGINALS": settings.originals,
            "RESULTS": "off",
            "DATABASE": settings.database,
            "WORKERS": "1",
            "LOG_LEVEL": "error",
        }.items()
    }
    rounds, count = (3, 8) if quick else (9, 16)
    async with open_service(settings) as service:
        bench = _Bench(service, names)
        bare, tuned = (processes.enter_context(Worker("bench.jobs", folder=folder)) for _ in "ab")
        tuned.ask(tune=True)

        def start(processor: int) -> Child:
            """Start a worker on a processor of its own, as on a machine with one."""
            child = Child(["-m", "app.cli", "work"], folder=folder, environment=environment)
            processes.enter_context(child).pin(processor)
            return child

        workers = [start(processors()[0])]
        with Others([bare, tuned, *workers]) as others:
            await bench.run(workers, _WIDTHS, count)  # warms up
            ratios: dict[str, list[float]] = {"plain": [], "tuned": []}
            sixes = []
            for _ in range(rounds):
                taken = await bench.run(workers, _WIDTHS, count)
                files = [str(originals / name) for name in bench.last]
                for name, process in (("plain", bare), ("tuned", tuned)):
                    alone = process.ask(files=files, sizes=bench.last_sizes)["seconds"]
                    ratios[name].append(taken.cpu / alone)
            for _ in range(rounds):
                together = await bench.run(workers, _SIX, max(2, count // 4))
                apart = await bench.run(workers, _SIX, max(2, count // 4), apart=True)
                sixes.append(together.cpu / apart.cpu)
            single, double, gains = [], [], []
            for _ in range(1 if quick else _BY_THE_CLOCK):
                # One, two, one: how quick the machine is drifts from one minute to the next.
                before = await bench.run(workers, _WIDTHS, _MANY * count)
                workers.append(start(processors()[-1]))
                await bench.run(workers, _WIDTHS, count)
                both = await bench.run(workers, _WIDTHS, 2 * _MANY * count)
                workers.pop().stop()
                after = await bench.run(workers, _WIDTHS, _MANY * count)
                single += [before.per_second, after.per_second]
                double.append(both.per_second)
                gains.append(2 * both.per_second / (before.per_second + after.per_second))
        rates = await bench.rates(1000 if quick else 10_000)
        tiny = await bench.tiny(300 if quick else 2000)
    report.add_table(
        "jobs of a second",
        [
            {"what": "accepted one by one", "per second": rates["single"]},
            {"what": "accepted a thousand at once", "per second": rates["bulk"]},
            {"what": "run, a 60x40 PNG to 30 pixels, one worker", "per second": tiny},
            {"what": "run, 12 megapixels to 3 widths, one worker", "per second": middle(single)},
            {"what": "run, the same, two workers", "per second": middle(double)},
        ],
    )
    report.add_table(
        "processor time of a worker / bare render",
        [
            {"the bare render's process": "plain", "ratio": middle(ratios["plain"])},
            {
                "the bare render's process": "its allocator set as a worker's",
                "ratio": middle(ratios["tuned"]),
            },
        ],
    )
    report.figures = {
        "rounds": rounds,
        "jobs": count,
        "used_by_others": others.share,
        "two_workers_by_one": gains,
    }
    report.verdicts = [
        Verdict(
            what="processor time of a worker / bare render",
            value=middle(ratios["plain"]),
            at_most=_OVERHEAD,
        ),
        Verdict(
            what="six outputs of one job / six jobs", value=middle(sixes), at_most=_SIX_TOGETHER
        ),
        Verdict(
            what="two workers / one, by the clock",
            value=middle(gains),
            at_least=_SCALING,
        ),
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """A group of jobs: processor seconds, and how many ended in a second of the busy time."""

    cpu: float
    per_second: float


class _Bench:
    """Submits jobs to one ledger, and waits for their end."""

    def __init__(self, service: Service, names: Sequence[str]) -> None:
        assert service.jobs is not None
        self._jobs = service.jobs
        self._originals = service.originals
        self._names = names
        self._number = 0
        self.last: list[str] = []
        self.last_sizes: list[Sizes] = []

    async def run(
        self, workers: Sequence[Child], sizes: Sizes, count: int, *, apart: bool = False
    ) -> _Run:
        """Have so many jobs done. `apart`: one for each width, instead of one for all."""
        drafts: list[Draft] = []
        self.last, self.last_sizes = [], []
        for number in range(count):
            self._number += 1
            name = self._names[self._number % len(self._names)]
            self.last.append(name)
            self.last_sizes.append(sizes)
            for group in [[width] for width in sizes] if apart else [list(sizes)]:
                target = f"bench-out/{number}-{{w}}.{{ext}}"
                output = {"transform": "fm=jpeg", "widths": group, "target": target}
                body = {"source": name, "outputs": [output]}
                drafts.append(self._jobs.reader.read_job(body, now=time.time()))
        used = sum(worker.cpu_seconds() for worker in workers)
        began = time.time()
        await self._accept(drafts)
        await self._drain()
        used = sum(worker.cpu_seconds() for worker in workers) - used
        ended = await self._jobs.database.read(lambda tx: _ends(tx, since=began))
        first, last = (round(part * (len(ended) - 1)) for part in _STEADY)
        return _Run(cpu=used, per_second=(last - first) / (ended[last] - ended[first]))

    async def rates(self, count: int) -> dict[str, float]:
        """Jobs accepted in a second: one in a transaction, and a thousand."""
        body = {"source": "none.png", "outputs": [{"target": "bench-out/{id}"}], "delay": 86_400}
        draft = self._jobs.reader.read_job(body, now=time.time())
        began = time.monotonic()
        await asyncio.gather(*(self._jobs.submit(draft) for _ in range(count // 10)))
        single = count / 10 / (time.monotonic() - began)
        began = time.monotonic()
        for start in range(0, count, 1000):
            await self._accept([draft] * min(1000, count - start))
        return {"single": single, "bulk": count / (time.monotonic() - began)}

    async def tiny(self, count: int) -> float:
        """Small jobs done in a second."""
        picture = libvips.Image.black(60, 40, bands=3).pngsave_buffer()
        await self._originals.write("bench-out/tiny.png", picture, content_type="image/png")
        drafts = []
        for number in range(count):
            output = {"transform": "w=30", "target": f"bench-out/tiny/{number}.png"}
            body = {"source": "bench-out/tiny.png", "outputs": [output]}
            drafts.append(self._jobs.reader.read_job(body, now=time.time()))
        began = time.monotonic()
        await self._accept(drafts)
        await self._drain()
        return count / (time.monotonic() - began)

    async def _accept(self, drafts: Sequence[Draft]) -> None:
        now = time.time()

        def write(tx: Any) -> None:
            self._jobs.queue.submit(tx, ledger.insert(tx, drafts, now=now))

        await self._jobs.database.write(write)

    async def _drain(self) -> None:
        """Wait until nothing is left to be run now."""
        deadline = time.monotonic() + _PATIENCE
        while await self._jobs.database.read(_open_jobs):
            if time.monotonic() > deadline:
                raise TimeoutError("jobs were not done in time")
            await asyncio.sleep(_LOOK)
        failed = await self._jobs.find_page(limit=1, state=State.FAILED)
        if failed:
            raise RuntimeError(f"a job has failed: {failed[0].error}")


def _open_jobs(tx: Any) -> int:
    query = "SELECT count(*) FROM jobs WHERE state IN ('queued', 'running') AND run_after < ?"
    return int(tx.exec_driver_sql(query, (time.time() + 3600,)).scalar())


def _ends(tx: Any, *, since: float) -> list[float]:
    """When the jobs ended that were accepted since, the earliest first: seconds of the epoch."""
    query = "SELECT finished_at FROM jobs WHERE created_at >= ? AND finished_at > 0 ORDER BY 1"
    return list(tx.exec_driver_sql(query, (since,)).scalars())


def do(job: dict[str, Any]) -> dict[str, Any]:
    """Processor seconds of the bare renders: read, decode once, make every width, write.

    Or else have the allocator of this process set as a worker's is.
    """
    if "tune" in job:
        machine.tune_allocator()
        return {}
    began = time.process_time()
    for file, sizes in zip(job["files"], job["sizes"], strict=True):
        data = Path(file).read_bytes()
        works = [
            pipeline.prepare(data, Transform.from_query(f"w={width}&fm=jpeg"), Limits())
            for width in sizes
        ]
        for result in pipeline.run_all(data, works):
            Path(os.devnull).write_bytes(result.data)
    return {"seconds": time.process_time() - began}


if __name__ == "__main__":
    serve_jobs(do)
