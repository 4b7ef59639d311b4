"""Memory: what the service holds after many requests of every kind, beside what it held after few.

Nothing is cached, so that whatever grows is not a cache that fills.
"""

from __future__ import annotations

import random
import time
from typing import Any, Final

from bench import corpus
from bench.report import Report, Verdict, middle
from bench.service import Peak, Server, Worker, pixelmill, processors, workplace

_GROWTH: Final = 10.0
_MEGA: Final = 1e6
_FORMATS: Final = (("jpeg", 10), ("webp", 6), ("png", 3), ("avif", 1))
_FITS: Final = ("contain", "cover", "inside", "outside", "fill")


def measure(*, quick: bool) -> Report:
    """Measure after some requests, and after many more of the same kinds."""
    first, last, budget = (200, 1000, 120.0) if quick else (500, 5000, 540.0)
    report = Report("memory", "memory of the service (PSS where the system has it) after requests")
    originals = corpus.make()
    targets = mixed_targets(originals, last)
    deadline = time.monotonic() + budget
    rows: list[dict[str, Any]] = []
    with workplace() as (folder, processes):
        service = processes.enter_context(
            pixelmill(originals.folder, folder, memory_cache=0, queue_interactive="60s")
        )
        load = processes.enter_context(Worker("bench.load", folder=folder))
        rows.append(_row(service, 0))
        done = 0
        step = (last - first) // 3
        with Peak(service) as peak:
            for upto in (first, first + step, first + 2 * step, last):
                _send(load, service, targets[done:upto])
                done = upto
                rows.append(_row(service, done))
                if time.monotonic() > deadline:
                    break
        most = peak.bytes

    held = {row["requests"]: row["MB"] for row in rows}
    growth = (held[done] / held[first] - 1) * 100
    report.add_table("at rest, after so many requests", rows)
    report.figures = {
        "growth_percent": growth,
        "peak_mb": most / _MEGA,
        "requests": done,
        "finished": done == last,
    }
    report.add_table(
        "together",
        [{"growth %": growth, "peak MB": most / _MEGA, "from": first, "to": done}],
    )
    report.verdicts = [
        Verdict(what=f"growth from {first} to {done} requests, %", value=growth, at_most=_GROWTH),
        Verdict(
            what="pixel memory of libvips at rest, MB",
            value=max(row["libvips MB"] for row in rows),
            at_most=0.1,
        ),
    ]
    return report


def mixed_targets(originals: corpus.Corpus, count: int) -> list[str]:
    """Requests by chance, the same every time: any original, size, fit and format."""
    chance = random.Random(7)
    ids = [key for group in originals.groups.values() for key in group]
    names, weights = zip(*_FORMATS, strict=True)
    targets = []
    for _ in range(count):
        fm = chance.choices(names, weights)[0]
        # AVIF costs a second of processor time for a megapixel: small ones, with little effort.
        longest = 200 if fm == "avif" else 800
        width, height = (chance.randrange(60, longest) for _ in range(2))
        query = f"w={width}&h={height}&fit={chance.choice(_FITS)}&fm={fm}"
        targets.append(f"/thumb/{chance.choice(ids)}?{query}" + ("&effort=0" * (fm == "avif")))
    return targets


def _send(load: Worker, service: Server, targets: list[str]) -> None:
    answer = load.ask(
        timeout=600.0,
        loop="closed",
        host="127.0.0.1",
        port=service.port,
        connections=4 * len(processors()),
        targets=targets,
        count=len(targets),
        limit=580.0,
    )
    if answer["statuses"] != {"200": len(targets)}:
        raise RuntimeError(f"the service answered {answer['statuses']}")


def _row(service: Server, requests: int) -> dict[str, Any]:
    """What is held at rest."""
    time.sleep(1.0)
    held = middle([service.memory() for _ in range(3)])
    return {
        "requests": requests,
        "MB": held / _MEGA,
        "libvips MB": service.metric("pixelmill_libvips_memory_bytes") / _MEGA,
        "libvips peak MB": service.metric("pixelmill_libvips_memory_peak_bytes") / _MEGA,
    }
