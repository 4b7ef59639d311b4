"""Renders: processor time of the running service for an image, beside bare libvips.

Both render the same originals to the same results, two at a time, one after the other within
seconds, again and again. What counts is processor time of the whole process: wall time would also
measure whatever else the machine does.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, Final

from bench import corpus, raw
from bench.report import Report, Verdict, middle
from bench.service import Child, Others, Server, Worker, pixelmill, workplace

_THREADS: Final = 2
_CONNECTIONS: Final = 4
_GOAL: Final = 0.95

SERVICE: Final = "service"
BARE: Final = "bare"

Cell = tuple[str, str]
"""A group of originals, and an operation."""
Taken = dict[Cell, list[dict[str, float]]]
"""For each round the ms of every side."""


class Sides:
    """The service and bare libvips, each of which can render a cell."""

    def __init__(self, originals: corpus.Corpus, service: Server, bare: Worker, load: Worker):
        self._originals = originals
        self._service = service
        self._bare = bare
        self._load = load

    @property
    def children(self) -> list[Child]:
        return [self._service, self._bare, self._load]

    def milliseconds(self, side: str, cell: Cell, images: int) -> float:
        """Processor time for an image, on one side."""
        run = self._run_service if side == SERVICE else self._run_bare
        child: Child = self._service if side == SERVICE else self._bare
        before = child.cpu_seconds()
        run(cell, images)
        time.sleep(0.01)  # what is done behind the last answer counts too
        return (child.cpu_seconds() - before) / images * 1000

    def difference(self, cell: Cell) -> float:
        """By how much the results of a cell differ between the sides, at most."""
        group, operation = cell
        query, make = raw.OPERATIONS[operation]
        return max(
            raw.compare(self._service.get(f"/thumb/{key}?{query}")[0], make(data))
            for key in self._originals.groups[group]
            for data in [self._originals.read(key)]
        )

    def _run_service(self, cell: Cell, images: int) -> None:
        group, operation = cell
        query = raw.OPERATIONS[operation][0]
        answer = self._load.ask(
            loop="closed",
            host="127.0.0.1",
            port=self._service.port,
            connections=_CONNECTIONS,
            targets=[f"/thumb/{key}?{query}" for key in self._originals.groups[group]],
            count=images,
        )
        if answer["statuses"] != {"200": images}:
            raise RuntimeError(f"the service answered {answer['statuses']}")

    def _run_bare(self, cell: Cell, images: int) -> None:
        group, operation = cell
        ids = self._originals.groups[group]
        files = [str(self._originals.folder / ids[at % len(ids)]) for at in range(images)]
        answer = self._bare.ask(operation=operation, files=files, threads=_THREADS)
        if answer["failures"]:
            raise RuntimeError(f"libvips failed: {answer['failures'][0]}")


def measure(*, quick: bool) -> Report:
    """Measure every group of originals with every operation."""
    rounds, images, budget = (3, 4, 60.0) if quick else (9, 16, 420.0)
    report = Report("cold", "processor ms per rendered image, the service beside bare libvips")
    originals = corpus.make()
    with workplace() as (folder, processes):
        sides = _start(originals, folder, processes)
        cells = [(group, operation) for group in originals.groups for operation in raw.OPERATIONS]
        differences = {cell: sides.difference(cell) for cell in cells}
        taken: Taken = {cell: [] for cell in cells}
        deadline = time.monotonic() + budget
        with Others(sides.children) as others:
            for number in range(rounds + 1):  # the first warms up
                for cell in cells:
                    one = _round(sides, cell, images, turned=bool(number % 2))
                    if number:
                        taken[cell].append(one)
                if number >= 2 and time.monotonic() > deadline:
                    break

    report.add_table("ms of processor time per image", _rows(taken, differences))
    report.add_table(
        "bare / service by originals, median of rounds",
        [
            {
                "originals": group,
                "all operations": middle(
                    _ratios_of_rounds({cell: taken[cell] for cell in cells if cell[0] == group})
                ),
            }
            for group in originals.groups
        ],
    )
    ratios = _ratios_of_rounds(taken)
    with_reading = middle(_ratios_of_rounds(taken, reading=True))
    report.figures = {
        "corpus": originals.summary(),
        "rounds": len(ratios),
        "images_per_cell_and_round": images,
        "ratio_of_rounds": ratios,
        "ratio_with_reading": with_reading,
        "used_by_others": others.share,
    }
    report.add_table(
        "bare / service, all cells together, by round",
        [
            {
                "median": middle(ratios),
                "least": min(ratios),
                "most": max(ratios),
                "files read by both": with_reading,
                "processors used by others": others.share,
            }
        ],
    )
    report.verdicts = [
        Verdict(what="bare / service, median of rounds", value=middle(ratios), at_least=_GOAL)
    ]
    return report


def _start(originals: corpus.Corpus, folder: Path, processes: Any) -> Sides:
    service = processes.enter_context(
        pixelmill(
            originals.folder,
            folder,
            memory_cache=0,
            workers=_THREADS,
            queue_interactive="30s",
        )
    )
    bare = processes.enter_context(Worker("bench.raw", folder=folder))
    load = processes.enter_context(Worker("bench.load", folder=folder))
    return Sides(originals, service, bare, load)


def _round(sides: Sides, cell: Cell, images: int, *, turned: bool) -> dict[str, float]:
    """Every side once. Who goes first changes from round to round."""
    order = (SERVICE, BARE) if turned else (BARE, SERVICE)
    one = {side: sides.milliseconds(side, cell, images) for side in order}
    one[raw.READ] = sides.milliseconds(BARE, (cell[0], raw.READ), images)
    return one


def _rows(taken: Taken, differences: dict[Cell, float]) -> list[dict[str, Any]]:
    rows = []
    for (group, operation), rounds in taken.items():
        bare, service, read = (
            middle([one[side] for one in rounds]) for side in (BARE, SERVICE, raw.READ)
        )
        rows.append(
            {
                "originals": group,
                "operation": operation,
                "bare": bare,
                "service": service,
                "more": service - bare,
                "reading": read,
                "bare/service": middle([one[BARE] / one[SERVICE] for one in rounds]),
                "pixels differ by": differences[group, operation],
            }
        )
    return rows


def _ratios_of_rounds(taken: Taken, *, reading: bool = False) -> list[float]:
    """For each round the processor time of all cells of bare libvips, by that of the service.

    Bare libvips has the files in memory. With `reading`, what it takes to read them is added.
    """
    return [
        sum(one[BARE] + reading * one[raw.READ] for one in cells)
        / sum(one[SERVICE] for one in cells)
        for cells in zip(*taken.values(), strict=True)
    ]
