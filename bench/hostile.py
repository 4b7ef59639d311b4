"""Hostile documents: what becomes of each, and of those who ask for photographs meanwhile.

Thumbnails of photographs are asked for at a steady rate that keeps a quarter of a processor busy,
in turns with nobody else there and while bombs are asked for again and again. Each document is
asked for alone, too. No request is ever repeated, and no result is kept.
"""

from __future__ import annotations

import base64
import itertools
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pyvips

from bench import corpus
from bench.report import Report, Verdict, percentile
from bench.service import Others, Server, Worker, pixelmill, workplace

_GROUP: Final = "jpeg3"
_COPIES: Final = 48
_RATE: Final = 20.0
_CONNECTIONS: Final = 4
"""Hostile requests at once: as many as wait or are at work at any time."""
_LONGEST: Final = 2.1
"""Seconds for a document: the 2 that its process has, and what the request itself takes."""
_SLOWER: Final = 2.0
"""By how much the latency of others may rise."""
_REAL: Final = (
    "giant.svg",
    "own-svg-billion-laughs.svg",
    "own-svg-external-image.svg",
    "own-svg-xxe.svg",
    "truncated.svgz",
    "xss.svg",
)


def _svg(body: str, *, side: int = 500, before: str = "") -> bytes:
    return (
        f'{before}<svg xmlns="http://www.w3.org/2000/svg" width="{side}" height="{side}">'
        f"{body}</svg>"
    ).encode()


def _uses(levels: int, copies: int) -> bytes:
    """Groups of which each has the one before several times."""
    groups = "".join(
        f'<g id="g{level}" opacity=".9">' + f'<use href="#g{level - 1}" x="1"/>' * copies + "</g>"
        for level in range(1, levels + 1)
    )
    return _svg(f'<rect id="g0" width="9" height="9"/>{groups}')


def _entities(levels: int) -> bytes:
    declared = "".join(
        f'<!ENTITY e{level} "{f"&e{level - 1};" * 10}">' for level in range(1, levels)
    )
    doctype = f'<!DOCTYPE svg [<!ENTITY e0 "laugh">{declared}]>'
    return _svg(f"<text>&e{levels - 1};</text>", before=doctype)


def _picture() -> bytes:
    """A picture of 400 megapixels in a few kilobytes."""
    data = base64.b64encode(pyvips.Image.black(20_000, 20_000).pngsave_buffer()).decode()
    return _svg(f'<image width="9" height="9" href="data:image/png;base64,{data}"/>')


def documents() -> dict[str, bytes]:
    """Those drawn here, by name, and those that lie beside the repository."""
    external = "".join(
        f'<image width="99" height="99" href="{address}"/>'
        for address in ("file:///etc/passwd", "http://127.0.0.1:9/x.png", "//127.0.0.1:9/x.png")
    )
    made = {
        "uses.svg": _uses(8, 10),
        "long-uses.svg": _uses(18, 2),
        "entities.svg": _entities(10),
        "entity-of-a-file.svg": _svg(
            "<text>&f;</text>",
            before='<!DOCTYPE svg [<!ENTITY f SYSTEM "file:///etc/passwd">]>',
        ),
        "external.svg": _svg(external),
        "depth.svg": _svg("<g>" * 100_000 + "</g>" * 100_000),
        "blur.svg": _svg(
            '<filter id="f" x="-50" y="-50" width="100" height="100">'
            '<feGaussianBlur stdDeviation="5000"/></filter>'
            + '<g filter="url(#f)">' * 60
            + '<rect width="400" height="400"/>'
            + "</g>" * 60
        ),
        "turbulence.svg": _svg(
            '<filter id="f"><feTurbulence baseFrequency=".9" numOctaves="9999999"/></filter>'
            '<rect width="500" height="500" filter="url(#f)"/>'
        ),
        "giant-side.svg": _svg('<rect width="9" height="9"/>', side=10_000_000),
        "picture.svg": _picture(),
    }
    real = {
        name: (corpus.PHOTOGRAPHS / name).read_bytes()
        for name in _REAL
        if (corpus.PHOTOGRAPHS / name).exists()
    }
    return made | real


def measure(*, quick: bool) -> Report:
    """Ask for each document alone, then for photographs with and without them."""
    rounds, seconds = (2, 6.0) if quick else (5, 12.0)
    report = Report("hostile", f"thumbnails at {_RATE:g}/s while {_CONNECTIONS} ask for bombs")
    originals = corpus.make()
    with workplace() as (folder, processes):
        stored = folder / "originals"
        ids = _fill(stored, originals)
        service = processes.enter_context(pixelmill(stored, folder, memory_cache=0))
        load = processes.enter_context(Worker("bench.load", folder=folder))
        attacker = processes.enter_context(Worker("bench.load", folder=folder))
        names = list(documents())
        _ask_alone(service, names[-1])  # starts the process that forks
        alone = [_ask_alone(service, name) for name in names]
        widths = itertools.count(60)
        ordinary = (f"/thumb/{key}?w={w}&fm=jpeg" for w in itertools.count(150) for key in ids)
        found: dict[str, list[float]] = {"alone": [], "beside bombs": []}
        failed = dict.fromkeys(found, 0)
        statuses: dict[str, int] = {}
        asked = [f"/thumb/hostile/{name}?w={next(widths)}" for _ in range(60) for name in names]
        with Others([service, load, attacker]) as others, ThreadPoolExecutor(1) as thread:
            for number in range(-1, rounds):
                for name in found:
                    attack = None
                    if name != "alone":
                        attack = thread.submit(_attack, attacker, service, asked, seconds + 1)
                        time.sleep(0.5)
                    answers = _ask_for_photographs(load, service, ordinary, seconds, number)
                    if attack is not None:
                        for status, count in attack.result().items():
                            statuses[status] = statuses.get(status, 0) + count
                    if number >= 0:  # the round before the first teaches what renders take
                        found[name] += [took for status, took in answers if status == 200]
                        failed[name] += sum(status != 200 for status, _ in answers)
    report.add_table("each document alone", alone)
    rows = [
        {
            "photographs": name,
            "answers": len(took),
            "not answered with 200": failed[name],
            "p50 ms": percentile(took, 0.5),
            "p95 ms": percentile(took, 0.95),
            "p99 ms": percentile(took, 0.99),
        }
        for name, took in found.items()
    ]
    report.add_table("thumbnails of photographs, all rounds together", rows)
    report.add_table("statuses of bombs meanwhile", [dict(sorted(statuses.items()))])
    report.figures = {"rounds": rounds, "used_by_others": others.share}
    calm, beside = rows
    report.verdicts = [
        Verdict(
            what="longest answer to a document, s",
            value=max(row["ms"] for row in alone) / 1000,
            at_most=_LONGEST,
        ),
        Verdict(
            what="photographs: p95 beside bombs / p95 alone",
            value=beside["p95 ms"] / calm["p95 ms"],
            at_most=_SLOWER,
        ),
        Verdict(what="photographs not answered", value=float(sum(failed.values())), at_most=0),
    ]
    return report


def _fill(folder: Path, originals: corpus.Corpus) -> tuple[str, ...]:
    """A store of photographs and documents. Returns the ids of the photographs."""
    hostile = folder / "hostile"
    hostile.mkdir(parents=True)
    for name, data in documents().items():
        (hostile / name).write_bytes(data)
    ids = originals.copies(_GROUP, _COPIES)
    for key in ids:
        (folder / key).parent.mkdir(exist_ok=True)
        shutil.copyfile(originals.folder / key, folder / key)
    return ids


def _ask_alone(service: Server, name: str) -> dict[str, Any]:
    began = time.perf_counter()
    url = f"http://127.0.0.1:{service.port}/thumb/hostile/{name}?w=50"
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            status, size = answer.status, len(answer.read())
    except urllib.error.HTTPError as error:
        status, size = error.code, len(error.read())
    took = (time.perf_counter() - began) * 1000
    return {"document": name, "status": status, "bytes": size, "ms": took}


def _attack(load: Worker, service: Server, targets: list[str], seconds: float) -> dict[str, int]:
    job = {"loop": "closed", "connections": _CONNECTIONS, "seconds": seconds, "targets": targets}
    statuses: dict[str, int] = load.ask(host="127.0.0.1", port=service.port, **job)["statuses"]
    return statuses


def _ask_for_photographs(
    load: Worker, service: Server, targets: Iterator[str], seconds: float, seed: int
) -> list[tuple[int, float]]:
    """The status and the milliseconds of each request."""
    some = list(itertools.islice(targets, int(2 * _RATE * seconds)))
    job = {"loop": "open", "rate": _RATE, "seconds": seconds, "seed": seed + 2, "targets": some}
    answer = load.ask(host="127.0.0.1", port=service.port, **job)
    answered = [(status, took * 1000) for _, status, took in answer["answers"]]
    return answered + [(0, 0.0)] * answer["unanswered"]
