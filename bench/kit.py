"""A kit: the widths of one original that a page's `srcset` names, made together and one by one.

Both ways run in one process with one thread, one after the other within seconds, again and again.
What counts is processor time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from app import machine
from bench import corpus, raw
from bench.report import Report, Verdict, middle
from bench.service import Others, Worker, serve_jobs, workplace
from transforms import pipeline
from transforms.limits import Limits
from transforms.pipeline import Result, Work
from transforms.transform import Transform

WIDTHS: Final = (320, 480, 640, 960, 1280, 1920)
_GROUP: Final = "jpeg12"
_GOAL: Final = 0.40
_ALIKE: Final = 1.5
"""By how much the JPEGs of both ways may differ, as the mean of 0..255."""

Way = Callable[[bytes, Sequence[Work]], list[Result]]


def together(data: bytes, works: Sequence[Work]) -> list[Result]:
    return pipeline.run_all(data, works)


def one_by_one(data: bytes, works: Sequence[Work]) -> list[Result]:
    return [pipeline.run(data, work) for work in works]


WAYS: Final[dict[str, Way]] = {"together": together, "one by one": one_by_one}


def measure(*, quick: bool) -> Report:
    """Measure the kit of every photograph of 12 megapixels."""
    rounds = 3 if quick else 15
    report = Report("kit", f"processor ms for widths of {min(WIDTHS)} to {max(WIDTHS)} of one JPEG")
    originals = corpus.make()
    rows = []
    with workplace() as (folder, processes):
        worker = processes.enter_context(Worker("bench.kit", folder=folder))
        with Others([worker]) as others:
            for key in originals.groups[_GROUP]:
                file = str(originals.folder / key)
                difference = worker.ask(file=file)["difference"]  # it warms up, too
                taken = [
                    worker.ask(file=file, ways=list(WAYS)[:: -1 if number % 2 else 1])
                    for number in range(rounds)
                ]
                rows.append(
                    {
                        "original": key,
                        **{way: middle([one[way] for one in taken]) for way in WAYS},
                        "ratio": middle([one["together"] / one["one by one"] for one in taken]),
                        "pixels differ by": difference,
                    }
                )
    report.add_table("ms of processor time for a kit, median of rounds", rows)
    report.figures = {"widths": WIDTHS, "rounds": rounds, "used_by_others": others.share}
    report.verdicts = [
        Verdict(
            what="together / one by one, median of originals",
            value=middle([row["ratio"] for row in rows]),
            at_most=_GOAL,
        ),
        Verdict(
            what="mean difference of pixels",
            value=max(row["pixels differ by"] for row in rows),
            at_most=_ALIKE,
        ),
    ]
    return report


def do(job: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds of each way, in the order that the job has, or else how their results differ."""
    data = Path(job["file"]).read_bytes()
    works = [
        pipeline.prepare(data, Transform.from_query(f"w={width}&fm=jpeg"), Limits())
        for width in WIDTHS
    ]
    if "ways" not in job:
        pairs = zip(together(data, works), one_by_one(data, works), strict=True)
        return {"difference": max(raw.compare(kit.data, single.data) for kit, single in pairs)}
    return {way: _milliseconds(WAYS[way], data, works) for way in job["ways"]}


def _milliseconds(way: Way, data: bytes, works: Sequence[Work]) -> float:
    began = time.process_time()
    way(data, works)
    return (time.process_time() - began) * 1000


if __name__ == "__main__":
    machine.tune_allocator()  # as the service does
    serve_jobs(do)
