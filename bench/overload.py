"""Overload: what becomes of the answers when twice as much is asked for as can be rendered.

Capacity is what a closed loop gets that keeps the processors busy. Then requests arrive by chance
at twice that rate, whether or not they are answered. Both take turns, since the machine's speed is
not the same from one minute to the next.
"""

from __future__ import annotations

import itertools
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import corpus
from bench.report import Report, Verdict, middle, percentile
from bench.service import Others, Peak, Server, Worker, pixelmill, processors, workplace

_TIMES: Final = 2.0
_SIZES: Final = range(150, 251)
_COPIES: Final = 48
_GOODPUT: Final = 0.97
_REFUSAL_MS: Final = 25.0


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase: answers per second within it, processor ms for each, peak memory, latencies."""

    rate: float
    cpu_ms: float
    peak: int
    good_ms: list[float]
    refused_ms: list[float]
    offered: int
    other: int


class Phases:
    """Runs phases against one service. No request is ever repeated."""

    def __init__(self, originals: corpus.Corpus, service: Server, load: Worker) -> None:
        self._service = service
        self._load = load
        self._number = 0
        ids = originals.copies("jpeg12", _COPIES)
        self._targets = [
            f"/thumb/{key}?w={size}&h={size}&fm=jpeg" for size in _SIZES for key in ids
        ]

    def capacity(self, seconds: float) -> Phase:
        """A closed loop with two requests for each processor."""
        connections = 2 * len(processors())
        return self._run(seconds, loop="closed", connections=connections, each=True)

    def overload(self, seconds: float, rate: float) -> Phase:
        """Arrivals by chance."""
        return self._run(seconds, loop="open", rate=rate, seed=self._number)

    def _run(self, seconds: float, **job: Any) -> Phase:
        self._number += 1
        targets = list(self._targets)
        random.Random(self._number).shuffle(targets)
        before = self._service.cpu_seconds()
        with Peak(self._service) as peak:
            answer = self._load.ask(
                host="127.0.0.1", port=self._service.port, seconds=seconds, targets=targets, **job
            )
        used = self._service.cpu_seconds() - before
        answers = answer["answers"]
        good = [(at, took) for at, status, took in answers if status == 200]
        refused = [took * 1000 for _, status, took in answers if status == 503]
        unanswered = answer.get("unanswered", 0)
        return Phase(
            rate=sum(at <= seconds for at, _ in good) / seconds,
            cpu_ms=used / max(1, len(good)) * 1000,
            peak=peak.bytes,
            good_ms=[took * 1000 for _, took in good],
            refused_ms=refused,
            offered=len(answers) + unanswered,
            other=len(answers) + unanswered - len(good) - len(refused),
        )


def measure(*, quick: bool) -> Report:
    """Measure capacity and overload in turns."""
    rounds, short, long = (1, 3.0, 5.0) if quick else (4, 6.0, 10.0)
    report = Report("overload", f"12 MP JPEG to thumbnails, asked for at {_TIMES:g} x capacity")
    originals = corpus.make()
    with workplace() as (folder, processes):
        service, load = _start(originals, folder, processes)
        phases = Phases(originals, service, load)
        phases.capacity(short)  # warms up, and teaches the service what renders take
        overloads: list[Phase] = []
        with Others([service, load]) as others:
            capacities = [phases.capacity(short)]
            for _ in range(rounds):
                overloads.append(phases.overload(long, _TIMES * capacities[-1].rate))
                time.sleep(0.5)
                capacities.append(phases.capacity(short))

    between = [(before.rate + after.rate) / 2 for before, after in itertools.pairwise(capacities)]
    goodput = [phase.rate / mean for phase, mean in zip(overloads, between, strict=True)]
    good = [ms for phase in overloads for ms in phase.good_ms]
    refused = [ms for phase in overloads for ms in phase.refused_ms]
    offered = sum(phase.offered for phase in overloads)
    peaks = {
        # What malloc has once had it keeps: only what came before the first overload compares.
        "closed": capacities[0].peak,
        "open": max(phase.peak for phase in overloads),
    }
    report.add_table("phases in order", _rows(capacities, overloads))
    report.add_table(
        "under overload, all rounds together",
        [
            {
                "goodput/capacity": middle(goodput),
                "p50 ms": percentile(good, 0.5),
                "p99 ms": percentile(good, 0.99),
                "refused share": len(refused) / offered,
                "refusal p50 ms": percentile(refused, 0.5),
                "refusal p99 ms": percentile(refused, 0.99),
                "other": sum(phase.other for phase in overloads),
                "peak MB": peaks["open"] / 1e6,
                "closed loop's": peaks["closed"] / 1e6,
            }
        ],
    )
    report.figures = {
        "rounds": rounds,
        "peak_of_overload_to_closed_loop": peaks["open"] / peaks["closed"],
        "used_by_others": others.share,
        "goodput_of_rounds": goodput,
        "capacity_of_rounds": [phase.rate for phase in capacities],
        "cpu_ms_capacity": middle([phase.cpu_ms for phase in capacities]),
        "cpu_ms_overload": middle([phase.cpu_ms for phase in overloads]),
    }
    report.verdicts = [
        Verdict(what="goodput / capacity", value=middle(goodput), at_least=_GOODPUT),
        Verdict(what="p99 of a refusal, ms", value=percentile(refused, 0.99), at_most=_REFUSAL_MS),
    ]
    return report


def _start(originals: corpus.Corpus, folder: Path, processes: Any) -> tuple[Server, Worker]:
    service = processes.enter_context(pixelmill(originals.folder, folder, memory_cache=0))
    load = processes.enter_context(Worker("bench.load", folder=folder))
    return service, load


def _rows(capacities: list[Phase], overloads: list[Phase]) -> list[dict[str, Any]]:
    ordered = [("capacity", capacities[0])]
    for overload, capacity in zip(overloads, capacities[1:], strict=True):
        ordered += [("overload", overload), ("capacity", capacity)]
    return [
        {
            "phase": name,
            "good/s": phase.rate,
            "cpu ms per good": phase.cpu_ms,
            "p50 ms": percentile(phase.good_ms, 0.5),
            "p99 ms": percentile(phase.good_ms, 0.99),
            "refused share": len(phase.refused_ms) / max(1, phase.offered),
            "refusal p99 ms": percentile(phase.refused_ms, 0.99),
            "other": phase.other,
            "peak MB": phase.peak / 1e6,
        }
        for name, phase in ordered
    ]
