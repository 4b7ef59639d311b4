"""Hits: processor time of the service for what it has in memory, beside a bare ASGI application.

The bare application has its answer ready and sends it under the same server: with the three
headers that an image needs, and with the very headers of the service, which shows what headers
cost. Server and clients have a processor each, where there are two.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

from bench import corpus
from bench.report import Report, Verdict, middle
from bench.service import Others, Server, Worker, pinnable, pixelmill, processors, workplace

_BYTES: Final = 8192
_CONNECTIONS: Final = 16
_GOAL: Final = 0.80
_BARE: Final = ("content-type", "content-length", "etag")
_ACCEPT: Final = {"Accept": "image/avif,image/webp,*/*;q=0.8"}


def measure(*, quick: bool) -> Report:
    """Measure a hit of about 8 KB, and a 304."""
    rounds, count, budget = (3, 4000, 45.0) if quick else (11, 20000, 240.0)
    report = Report("hits", "processor us per request, the service beside a bare ASGI application")
    originals = corpus.make()
    with workplace() as (folder, processes):
        service = processes.enter_context(pixelmill(originals.folder, folder, workers=1))
        target, body, headers = _result_of_size(service, originals.groups["jpeg12"][0])
        etag = dict(headers)["etag"]
        floor = processes.enter_context(_floor(folder, headers, len(body)))
        load = processes.enter_context(Worker("bench.load", folder=folder))
        for server in (service, floor):
            server.pin(processors()[0])
        load.pin(processors()[-1])
        known = _ACCEPT | {"If-None-Match": etag}
        cells = {
            ("hit", "service"): (service, target, _ACCEPT, 200),
            ("hit", "bare"): (floor, "/bare/200", _ACCEPT, 200),
            ("hit", "bare, same headers"): (floor, "/same/200", _ACCEPT, 200),
            ("304", "service"): (service, target, known, 304),
            ("304", "bare"): (floor, "/bare/304", known, 304),
            ("304", "bare, same headers"): (floor, "/same/304", known, 304),
        }
        taken: dict[tuple[str, str], list[tuple[float, float]]] = {cell: [] for cell in cells}
        deadline = time.monotonic() + budget
        with Others([service, floor, load]) as others:
            for number in range(rounds + 1):  # the first warms up
                for cell in cells if number % 2 else reversed(cells):
                    one = _microseconds(load, *cells[cell], count=count)
                    if number:
                        taken[cell].append(one)
                if number >= 2 and time.monotonic() > deadline:
                    break
        hits = service.get("/metrics")[0].decode().count('pixelmill_results_total{tier="memory"}')
        if not hits:
            raise RuntimeError("the service did not answer from memory")

    report.add_table("us of processor time per request", _rows(taken))
    report.figures = {
        "rounds": len(taken["hit", "service"]),
        "requests_per_round": count,
        "body_bytes": len(body),
        "headers_of_the_service": len(headers),
        "pinned": pinnable(),
        "used_by_others": others.share,
    }
    for kind in ("hit", "304"):
        for floor_name in ("bare", "bare, same headers"):
            report.figures[f"{kind}: {floor_name} / service"] = _ratio(taken, kind, floor_name)
        report.verdicts.append(
            Verdict(
                what=f"{kind}: bare / service",
                value=_ratio(taken, kind, "bare"),
                at_least=_GOAL,
            )
        )
    return report


def _result_of_size(service: Server, key: str) -> tuple[str, bytes, list[tuple[str, str]]]:
    """The target, body and hit headers of the result whose size is nearest to the one wanted."""
    sizes = {}
    for side in range(120, 320, 10):
        target = f"/thumb/{key}?w={side}&fm=jpeg"
        sizes[target] = len(service.get(target)[0])
    best = min(sizes, key=lambda target: abs(sizes[target] - _BYTES))
    body, headers = service.get(best)
    # uvicorn adds the date; the connection is that of this look alone.
    return best, body, [pair for pair in headers if pair[0] not in ("date", "connection")]


def _floor(folder: Path, headers: list[tuple[str, str]], length: int) -> Server:
    """A bare application with four answers: few headers and many, 200 and 304."""
    few = [pair for pair in headers if pair[0] in _BARE]
    answers = {}
    for name, sent in (("bare", few), ("same", headers)):
        answers[f"/{name}/200"] = {"status": 200, "headers": sent, "length": length}
        rest = [pair for pair in sent if not pair[0].startswith(("content-l", "content-t"))]
        rest = [pair for pair in rest if pair[0] != "accept-ranges"]
        answers[f"/{name}/304"] = {"status": 304, "headers": rest, "length": 0}
    file = folder / "answers.json"
    file.write_text(json.dumps(answers))
    return Server(["-m", "bench.floor", str(file)], folder=folder, ready="/bare/200")


def _microseconds(
    load: Worker, server: Server, target: str, headers: dict[str, str], status: int, *, count: int
) -> tuple[float, float]:
    """Processor time for a request, and the share of the time in which the server was busy."""
    before = server.cpu_seconds()
    answer = load.ask(
        loop="closed",
        host="127.0.0.1",
        port=server.port,
        connections=_CONNECTIONS,
        targets=[target],
        headers=headers,
        count=count,
    )
    used = server.cpu_seconds() - before
    if answer["statuses"] != {str(status): count}:
        raise RuntimeError(f"wanted {status}, got {answer['statuses']}")
    return used / count * 1e6, used / answer["wall"]


def _rows(taken: dict[tuple[str, str], list[tuple[float, float]]]) -> list[dict[str, Any]]:
    return [
        {
            "answer": kind,
            "server": name,
            "us": middle([used for used, _ in rounds]),
            "least": min(used for used, _ in rounds),
            "/ service": _ratio(taken, kind, name),
            "requests/s per processor": 1e6 / middle([used for used, _ in rounds]),
            "busy": middle([busy for _, busy in rounds]),
        }
        for (kind, name), rounds in taken.items()
    ]


def _ratio(taken: dict[tuple[str, str], list[tuple[float, float]]], kind: str, floor: str) -> float:
    return middle(
        [
            bare[0] / service[0]
            for bare, service in zip(taken[kind, floor], taken[kind, "service"], strict=True)
        ]
    )
