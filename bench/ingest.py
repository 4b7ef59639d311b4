"""Accepting many jobs: how fast lines of NDJSON become rows, and what memory that takes.

    python -m bench.ingest [--quick]

Nobody runs the jobs. Then they are marked as ended, and pages of them are asked for: the first, and
one from far behind.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from app.jobs.database import Database
from app.jobs.schema import jobs
from bench.report import Report, Verdict
from bench.service import Peak, Server, pixelmill, workplace

_LINES: Final = 100_000
_QUICK_LINES: Final = 20_000
_PIECE: Final = 200
"""Lines that the client sends at once."""
_MEGA: Final = 1e6
_MOST_GROWTH: Final = 50.0
_LEAST_RATE: Final = 2000.0
_MOST_RATIO: Final = 1.5
_ROUNDS: Final = 30
_LIMIT: Final = 100


def measure(*, quick: bool) -> Report:
    """Measure a service on SQLite without a worker."""
    count = _QUICK_LINES if quick else _LINES
    report = Report("ingest", "jobs accepted as NDJSON, and pages of jobs that have ended")
    with workplace() as (folder, processes):
        database = folder / "jobs.db"
        settings = {
            "database": f"sqlite:///{database}",
            "results": f"file:{folder / 'results'}",
            "run_jobs": "false",
        }
        (folder / "originals").mkdir()
        service = processes.enter_context(pixelmill(folder / "originals", folder, **settings))
        _accept(report, service, count)
        service.stop()
        _end_all(database)
        service = processes.enter_context(pixelmill(folder / "originals", folder, **settings))
        _page(report, service, count)
    return report


def _accept(report: Report, service: Server, count: int) -> None:
    _post(service, 2000)  # whatever is loaded or remembered once
    before = service.resident()
    cpu = service.cpu_seconds()
    with Peak(service) as peak:
        began = time.perf_counter()
        answer = _post(service, count)
        taken = time.perf_counter() - began
    if answer["total"] != count or answer["rejected"]:
        raise RuntimeError(f"the service answered {answer}")
    growth = (peak.bytes - before) / _MEGA
    rate = count / taken
    used = (service.cpu_seconds() - cpu) / count * 1e6
    report.figures |= {"lines": count, "rate": rate, "growth_mb": growth, "cpu_us_per_line": used}
    report.add_table(
        "accepting",
        [
            {
                "lines": count,
                "lines/s": rate,
                "CPU us/line": used,
                "MB before": before / _MEGA,
                "MB at most": peak.bytes / _MEGA,
                "growth MB": growth,
            }
        ],
    )
    report.verdicts += [
        Verdict(what="growth of memory, MB", value=growth, at_most=_MOST_GROWTH),
        Verdict(what="lines accepted in a second", value=rate, at_least=_LEAST_RATE),
    ]


def _post(service: Server, count: int) -> Any:
    connection = HTTPConnection("127.0.0.1", service.port, timeout=300)
    headers = {"content-type": "application/x-ndjson"}
    connection.request("POST", "/batches?label=ingest", body=_lines(count), headers=headers)
    response = connection.getresponse()
    answer = json.load(response)
    connection.close()
    return answer


def _lines(count: int) -> Iterator[bytes]:
    for start in range(0, count, _PIECE):
        yield b"".join(
            b'{"source": "in/%07d.jpg", "outputs": [{"transform": {"w": 200, "h": 200}, '
            b'"target": "out/%07d.jpg"}]}\n' % (number, number)
            for number in range(start, min(start + _PIECE, count))
        )


def _end_all(path: Path) -> None:
    """Have all jobs ended, as if they had been run."""
    database = Database(f"sqlite:///{path}")
    ended = {"state": "succeeded", "finished_at": time.time(), "results": "[]"}
    database.write_now(lambda tx: tx.execute(sa.update(jobs).values(**ended)))
    database.close()


def _page(report: Report, service: Server, count: int) -> None:
    rows = []
    ratios = []
    for query in ("", "&state=succeeded", "&label=ingest"):
        path = f"/jobs?limit={_LIMIT}{query}"
        first, deep = _time(service, path, _deep(service, query, count * 9 // 10))
        ratios.append(deep / first)
        rows.append({"of": query or "all", "first ms": first * 1e3, "deep ms": deep * 1e3})
    report.add_table(f"a page of {_LIMIT} of {count} jobs, first and after nine tenths", rows)
    report.figures["pages"] = rows
    report.verdicts.append(
        Verdict(what="a deep page, by the first", value=max(ratios), at_most=_MOST_RATIO)
    )


def _deep(service: Server, query: str, skipped: int) -> str:
    """The path of the page after so many jobs."""
    path = f"/jobs?limit=1000{query}"
    for _ in range(skipped // 1000):
        path = json.loads(service.get(path)[0])["next"]
    return path.replace("limit=1000", f"limit={_LIMIT}")


def _time(service: Server, *paths: str) -> list[float]:
    """Seconds of each at best, taken by turns: what else the machine does is the same for all."""
    times: list[list[float]] = [[] for _ in paths]
    for _ in range(_ROUNDS):
        for path, taken in zip(paths, times, strict=True):
            began = time.perf_counter()
            service.get(path)
            taken.append(time.perf_counter() - began)
    return [min(taken) for taken in times]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer lines")
    measure(quick=parser.parse_args().quick).show()
