"""Overload: what becomes of the answers when twice as much is asked for as can be rendered.

Capacity is what a closed loop gets that keeps the processors busy. Then requests arrive by chance
at twice that rate, whether or not they are answered; and the same while clients hang on an origin
that sends by drops, and while a thousand others read their answers by drops. All take turns with
the closed loop, since the machine's speed is not the same from one minute to the next. At last the
same is asked for as AVIF, with and without less effort under pressure.
"""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench import corpus, origin
from bench.report import Report, Verdict, middle, percentile
from bench.service import Others, Peak, Server, Worker, pixelmill, processors, workplace

_TIMES: Final = 2.0
_SIZES: Final = range(150, 251)
_LARGE_SIZES: Final = range(500, 601)
_COPIES: Final = 48
_GOODPUT: Final = 0.97
_REFUSAL_MS: Final = 25.0
_MEMORY: Final = 1.3
_BUDGET_MS: Final = 500.0
"""The service's own: how long GET requests wait at most, as it is estimated."""
_HANGING: Final = 200
_SLOW_READERS: Final = 1000
_HINTED: Final = 5.0
"""Seconds after which clients come back that were told that an origin fails, as they are told."""
_SETTLING: Final = 60.0
_LARGE_RESULT: Final = "w=1600&fm=jpeg&q=90"
_FILES: Final = 8192

PLAIN, ORIGIN, READERS = "overload", "slow origin", "slow readers"


@dataclass(frozen=True, slots=True)
class Phase:
    """One phase: answers per second within it, processor ms for each, peak memory, latencies.

    `unhinted` are refusals that did not say when to come back.
    """

    name: str
    rate: float
    cpu_ms: float
    peak: int
    good_ms: list[float]
    refused_ms: list[float]
    offered: int
    other: int
    unhinted: int


class Phases:
    """Runs phases against one service. No request is ever repeated."""

    def __init__(
        self, ids: tuple[str, ...], service: Server, load: Worker, *, asked: str, sizes: range
    ) -> None:
        self._service = service
        self._load = load
        self._number = 0
        self._pictures = [(key, size) for size in sizes for key in ids]
        self._asked = asked

    def capacity(self, seconds: float) -> Phase:
        """A closed loop with two requests for each processor."""
        connections = 2 * len(processors())
        return self._run("capacity", seconds, loop="closed", connections=connections, each=True)

    def overload(self, seconds: float, rate: float, *, name: str = PLAIN) -> Phase:
        """Arrivals by chance."""
        return self._run(name, seconds, loop="open", rate=rate, seed=self._number)

    def _run(self, name: str, seconds: float, **job: Any) -> Phase:
        self._number += 1
        # Those of each phase are new: what was rendered before is in memory.
        targets = [
            f"/thumb/{key}?w={size}&h={size + self._number}&{self._asked}"
            for key, size in self._pictures
        ]
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
            name=name,
            rate=sum(at <= seconds for at, _ in good) / seconds,
            cpu_ms=used / max(1, len(good)) * 1000,
            peak=peak.bytes,
            good_ms=[took * 1000 for _, took in good],
            refused_ms=refused,
            offered=len(answers) + unanswered,
            other=len(answers) + unanswered - len(good) - len(refused),
            unhinted=answer.get("unhinted", 0),
        )


@dataclass(frozen=True, slots=True)
class Round:
    """An overload between two measurements of the capacity."""

    before: Phase
    overload: Phase
    after: Phase

    @property
    def goodput(self) -> float:
        return self.overload.rate / ((self.before.rate + self.after.rate) / 2)


def measure(*, quick: bool, seconds: float | None = None) -> Report:
    """Measure capacity and overload in turns. `seconds` is how long each overload lasts."""
    rounds, short, long = (1, 3.0, 5.0) if quick else (4, 6.0, 10.0)
    if seconds is not None:
        rounds, long = 1, seconds
    report = Report("overload", f"12 MP JPEG to thumbnails, asked for at {_TIMES:g} x capacity")
    originals = corpus.make()
    _allow_files()
    with workplace() as (folder, processes):
        load = processes.enter_context(Worker("bench.load", folder=folder))
        slow = processes.enter_context(
            Server(["-m", "bench.origin"], folder=folder, ready=origin.READY)
        )
        service = processes.enter_context(
            pixelmill(
                originals.folder,
                folder,
                memory_cache="16MB",
                allowed_sources=f"127.0.0.1:{slow.port}",
                allow_private_networks=True,
            )
        )
        ids = originals.copies("jpeg12", _COPIES)
        phases = Phases(ids, service, load, asked="fm=jpeg", sizes=_SIZES)
        beside = {
            PLAIN: nullcontext,
            ORIGIN: lambda: _hanging(service, slow, folder),
            READERS: lambda: _reading(service, originals.groups["jpeg12"][0], folder),
        }
        # Warms up, teaches the service what renders take, and has memory grow to what that takes.
        phases.capacity(max(short, long))
        with Others([service, load, slow]) as others:
            rows = _turns(phases, beside, rounds=rounds, short=short, long=long)
    report.add_table("phases in order", [_row(phase) for phase in _in_order(rows)])
    first = rows[0].before
    report.figures = {
        "rounds": rounds,
        "used_by_others": others.share,
        "capacity_of_rounds": [row.before.rate for row in rows] + [rows[-1].after.rate],
    }
    tables = []
    for name in beside:
        mine = [row for row in rows if row.overload.name == name]
        summary = _summary(mine, first)
        tables.append({"beside": name} | summary)
        report.verdicts += _verdicts(name, summary)
    report.add_table("under overload, all rounds together", tables)
    report.figures["under"] = {table.pop("beside"): dict(table) for table in map(dict, tables)}
    pressed = _pressed(originals, quick=quick, seconds=min(long, 10.0))
    report.add_table("AVIF of 3 MP JPEG at twice the capacity of the usual effort", pressed)
    gain = pressed[1]["good/s"] / pressed[0]["good/s"]
    report.figures["answered_with_less_effort"] = gain
    report.verdicts.append(
        Verdict(what="answers with less effort / with the usual", value=gain, at_least=1.2)
    )
    return report


def _turns(
    phases: Phases, beside: dict[str, Any], *, rounds: int, short: float, long: float
) -> list[Round]:
    rows: list[Round] = []
    capacity = phases.capacity(short)
    for _ in range(rounds):
        for name, start in beside.items():
            context: AbstractContextManager[None] = start()
            with context:
                overload = phases.overload(long, _TIMES * capacity.rate, name=name)
            time.sleep(0.5)
            after = phases.capacity(short)
            rows.append(Round(capacity, overload, after))
            capacity = after
    return rows


@contextmanager
def _hanging(service: Server, slow: Server, folder: Path) -> Iterator[None]:
    """Clients that wait for an origin. Whoever is told that it takes too long asks again."""
    targets = [
        f"/thumb?url=http%3A%2F%2F127.0.0.1%3A{slow.port}%2F{number}.jpg&w=200"
        for number in range(5 * _HANGING)
    ]
    with Worker("bench.load", folder=folder) as clients:
        clients.begin(
            loop="closed",
            connections=_HANGING,
            seconds=600,
            pause=_HINTED,
            host="127.0.0.1",
            port=service.port,
            targets=targets,
        )
        time.sleep(1.0)
        yield


@contextmanager
def _reading(service: Server, key: str, folder: Path) -> Iterator[None]:
    """Clients that read an answer which is in memory, by drops."""
    target = f"/thumb/{key}?{_LARGE_RESULT}"
    size = len(service.get(target)[0])
    sent = service.metric("pixelmill_sent_bytes_total")
    with Worker("bench.load", folder=folder) as clients:
        clients.begin(
            loop="slow",
            connections=_SLOW_READERS,
            seconds=600,
            host="127.0.0.1",
            port=service.port,
            targets=[target],
        )
        # A thousand answers at once are work as well. They are to be under way before.
        until = time.monotonic() + _SETTLING
        while service.metric("pixelmill_sent_bytes_total") < sent + size * _SLOW_READERS:
            if time.monotonic() > until:
                raise RuntimeError("the slow readers were not answered")
            time.sleep(0.5)
        yield


def _pressed(originals: corpus.Corpus, *, quick: bool, seconds: float) -> list[dict[str, Any]]:
    """The same load with the usual effort, and with less under pressure."""
    ids = originals.copies("jpeg3", _COPIES)
    rows: list[dict[str, Any]] = []
    rate = 0.0
    for effort in ("off", "0"):
        with workplace() as (folder, processes):
            load = processes.enter_context(Worker("bench.load", folder=folder))
            service = processes.enter_context(
                pixelmill(originals.folder, folder, memory_cache=0, pressure_effort=effort)
            )
            phases = Phases(ids, service, load, asked="fm=avif", sizes=_LARGE_SIZES)
            capacity = phases.capacity(3.0 if quick else 6.0)
            rate = rate or _TIMES * capacity.rate
            phase = phases.overload(seconds, rate)
            refused = len(phase.refused_ms) / max(1, phase.offered)
            rows.append(
                {
                    "pressure effort": effort,
                    "asked/s": rate,
                    "good/s": phase.rate,
                    "refused share": refused,
                    "p50 ms": percentile(phase.good_ms, 0.5),
                    "p99 ms": percentile(phase.good_ms, 0.99),
                }
            )
    return rows


def _summary(rows: list[Round], first: Phase) -> dict[str, float]:
    good = [ms for row in rows for ms in row.overload.good_ms]
    refused = [ms for row in rows for ms in row.overload.refused_ms]
    closed = [ms for row in rows for ms in (*row.before.good_ms, *row.after.good_ms)]
    return {
        "goodput/capacity": middle([row.goodput for row in rows]),
        "p50 ms": percentile(good, 0.5),
        "p99 ms": percentile(good, 0.99),
        "budget ms": _BUDGET_MS + percentile(closed, 0.99),
        "refused share": len(refused) / sum(row.overload.offered for row in rows),
        "refusal p50 ms": percentile(refused, 0.5),
        "refusal p99 ms": percentile(refused, 0.99),
        "no Retry-After": sum(row.overload.unhinted for row in rows),
        "other": sum(row.overload.other for row in rows),
        # What malloc has once had it keeps: only what came before the first overload compares.
        "peak/closed loop's": max(row.overload.peak for row in rows) / first.peak,
    }


def _verdicts(name: str, summary: dict[str, float]) -> list[Verdict]:
    return [
        Verdict(
            what=f"{name}: goodput / capacity",
            value=summary["goodput/capacity"],
            at_least=_GOODPUT,
        ),
        Verdict(
            what=f"{name}: p99 of the accepted, ms",
            value=summary["p99 ms"],
            at_most=summary["budget ms"],
        ),
        Verdict(
            what=f"{name}: p99 of a refusal, ms",
            value=summary["refusal p99 ms"],
            at_most=_REFUSAL_MS,
        ),
        Verdict(
            what=f"{name}: refusals without Retry-After, and other answers",
            value=summary["no Retry-After"] + summary["other"],
            at_most=0,
        ),
        Verdict(
            what=f"{name}: memory / that of the closed loop",
            value=summary["peak/closed loop's"],
            at_most=_MEMORY,
        ),
    ]


def _in_order(rows: list[Round]) -> list[Phase]:
    return [rows[0].before, *(phase for row in rows for phase in (row.overload, row.after))]


def _row(phase: Phase) -> dict[str, Any]:
    return {
        "phase": phase.name,
        "good/s": phase.rate,
        "cpu ms per good": phase.cpu_ms,
        "p50 ms": percentile(phase.good_ms, 0.5),
        "p99 ms": percentile(phase.good_ms, 0.99),
        "refused share": len(phase.refused_ms) / max(1, phase.offered),
        "refusal p99 ms": percentile(phase.refused_ms, 0.99),
        "other": phase.other,
        "peak MB": phase.peak / 1e6,
    }


def _allow_files() -> None:
    """A thousand readers are a thousand files at either end."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
