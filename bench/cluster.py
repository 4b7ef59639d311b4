"""A cluster at work, on this machine and without containers: make cluster, or
python -m bench.cluster [--seconds 30] [--balancer haproxy|own] [--keep].

Three replicas behind a balancer, two workers, S3 and PostgreSQL, all on loopback. Clients ask for
results, a batch of jobs runs, one replica is told to stop and another is killed, and both come
again. In the end there is a page of numbers, and nothing that was started is left.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from bench.deployment import Cluster, find_haproxy, metrics_of, open_stores, total
from bench.failover import fill
from bench.report import Report, Verdict, percentile
from bench.service import Child, Server, workplace
from bench.steady import Answer, Steady

_IDS: Final = 40
_WIDTHS: Final = (160, 240, 320, 480, 640, 800)
_RATE: Final = 40.0
_CLIENTS: Final = 16
_JOBS: Final = 120
_JOBS_PATIENCE: Final = 60.0
_LONGEST: Final = 600.0
_FINAL: Final = ("succeeded", "failed", "cancelled")


class Book:
    """What each process has done: noted before it ends, since then nobody can be asked."""

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def note(self, name: str, child: Child) -> None:
        row: dict[str, Any] = {
            "process": name,
            "cpu s": child.cpu_seconds(),
            "MB": child.memory() / 1e6,
        }
        if isinstance(child, Server):
            metrics = metrics_of(child)
            row |= {
                "requests": int(total(metrics, "pixelmill_requests_total", "/thumb")),
                "renders": int(total(metrics, "pixelmill_renders_total")),
                "from memory": int(total(metrics, "pixelmill_results_total", 'tier="memory"')),
                "from S3": int(total(metrics, "pixelmill_results_total", 'tier="stored"')),
            }
        names = ("process", "requests", "renders", "from memory", "from S3", "cpu s", "MB")
        self.rows.append({each: row.get(each, "") for each in names})


def demonstrate(cluster: Cluster, *, seconds: float) -> Report:
    """Run for so long, and until the jobs have ended."""
    report = Report("cluster", f"{len(cluster.replicas)} replicas, {len(cluster.workers)} workers")
    book = Book()
    ids = fill(cluster, prefix="cluster/", count=_IDS)
    times: dict[str, tuple[float, float]] = {}

    @contextmanager
    def phase(name: str, until: float) -> Iterator[None]:
        began = time.monotonic()
        _say(name)
        yield
        time.sleep(max(0.0, until * seconds - (time.monotonic() - load_began)))
        times[name] = (began, time.monotonic())

    load_began = time.monotonic()
    with Steady(cluster.port, rate=_RATE, paths=_asked_for(ids), clients=_CLIENTS) as load:
        with phase("all is well", 0.2):
            pass
        with phase("and a batch of jobs", 0.4):
            batch = _post_batch(cluster, ids)
        with phase("a replica is told to stop, and comes again", 0.7):
            book.note("replica 1, until SIGTERM", cluster.replicas[0])
            cluster.drain(0)
            cluster.restart(0)
        with phase("another is killed, and comes again", 1.0):
            book.note("replica 2, until SIGKILL", cluster.replicas[1])
            cluster.replicas[1].kill()
            time.sleep(1.0)
            cluster.restart(1)
    _say("the jobs come to their end")
    jobs = _await_batch(cluster, batch)

    for number, replica in enumerate(cluster.replicas, 1):
        book.note(f"replica {number}", replica)
    for number, worker in enumerate(cluster.workers, 1):
        book.note(f"worker {number}", worker)
    book.note("balancer", cluster.balancer)
    report.add_table(
        "requests",
        [
            _summary(name, [a for a in load.answers if begin <= a.at < end])
            for name, (begin, end) in times.items()
        ]
        + [_summary("all", load.answers)],
    )
    report.add_table("processes", book.rows)
    report.add_table("jobs", [jobs])
    report.figures = {"faults": sorted({f"{a.status} {a.fault}" for a in load.failures})}
    report.verdicts = [
        Verdict(what="requests that failed", value=len(load.failures), at_most=0),
        Verdict(what="jobs done", value=jobs["succeeded"], at_least=_JOBS),
        Verdict(what="share at an original's own replica", value=_affinity(cluster), at_least=0.5),
    ]
    return report


def _say(text: str) -> None:
    print(f"  {text} ...", file=sys.stderr, flush=True)


def _asked_for(ids: Sequence[str]) -> Any:
    """Some originals are asked for much more often than others (Zipf)."""
    weights = [1 / rank for rank in range(1, len(ids) + 1)]

    def path(number: int) -> str:
        chance = random.Random(number)
        key = chance.choices(ids, weights)[0]
        return f"/thumb/{key}?w={chance.choice(_WIDTHS)}&fm=jpeg"

    return path


def _summary(name: str, answers: Sequence[Answer]) -> dict[str, Any]:
    took = [answer.seconds * 1000 for answer in answers if not answer.failed]
    return {
        "while": name,
        "requests": len(answers),
        "failures": sum(answer.failed for answer in answers),
        "p50 ms": percentile(took, 0.5),
        "p99 ms": percentile(took, 0.99),
    }


def _post_batch(cluster: Cluster, ids: Sequence[str]) -> str:
    """Post jobs, each with results that no client asks for. Returns the id of the batch."""
    lines = [
        json.dumps(
            {
                "source": ids[number % len(ids)],
                "outputs": [
                    {"transform": {"w": 100 + number, "fm": fm}} for fm in ("jpeg", "webp")
                ],
            }
        )
        for number in range(_JOBS)
    ]
    status, told = cluster.ask(
        "/batches", "\n".join(lines).encode(), method="POST", kind="application/x-ndjson"
    )
    if status != 202:
        raise RuntimeError(f"the jobs were not accepted: {status} {told[:500]!r}")
    return str(json.loads(told)["id"])


def _await_batch(cluster: Cluster, batch: str) -> dict[str, Any]:
    deadline = time.monotonic() + _JOBS_PATIENCE
    while True:
        status, told = cluster.ask(f"/batches/{batch}")
        found = json.loads(told) if status == 200 else {}
        if found.get("state") in _FINAL or time.monotonic() > deadline:
            counts = found.get("counts", {})
            return {
                "state": found.get("state", "unknown"),
                "succeeded": counts.get("succeeded", 0),
                "failed": counts.get("failed", 0),
                "left": counts.get("queued", 0) + counts.get("running", 0),
            }
        time.sleep(0.2)


def _affinity(cluster: Cluster) -> float:
    """The share of requests, memory hits left out, that met their original's most usual replica."""
    found = cluster.mains(since=[0] * len(cluster.replicas))
    counts = [Counter(numbers) for key, numbers in found.items() if key.startswith("cluster/")]
    asked = sum(count.total() for count in counts)
    return sum(max(count.values()) for count in counts) / max(1, asked)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="how long clients ask")
    parser.add_argument("--balancer", choices=["haproxy", "own"])
    parser.add_argument("--keep", action="store_true", help="go on until Ctrl-C")
    options = parser.parse_args()
    kind = options.balancer or ("haproxy" if find_haproxy() else "own")
    # So that all is ended that was started.
    for ending in (signal.SIGTERM, signal.SIGHUP):  # a terminal that is closed ends all of it too
        signal.signal(ending, signal.default_int_handler)
    try:
        with workplace() as (folder, stack):
            _say(f"S3, PostgreSQL, replicas, workers and a balancer ({kind}) start")
            settings, variables = open_stores(stack)
            cluster = Cluster(
                folder,
                stack,
                balancer=kind,
                settings=settings | {"workers": 1},
                environment=variables,
                workers=2,
            )
            report = demonstrate(cluster, seconds=min(options.seconds, _LONGEST))
            report.show()
            for fault in report.figures["faults"]:
                print(f"  failed: {fault}")
            if options.keep:
                print(f"\nIt goes on until Ctrl-C: {cluster.url}/thumb/cluster/0.jpg?w=300")
                for number, replica in enumerate(cluster.replicas, 1):
                    print(f"  replica {number}: http://127.0.0.1:{replica.port}/metrics")
                signal.pause()
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(not all(verdict.met for verdict in report.verdicts))


if __name__ == "__main__":
    main()
