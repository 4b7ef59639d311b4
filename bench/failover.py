"""What becomes of requests when replicas go: python -m bench.failover [--tries 10].

Replicas, S3 and the balancer are processes on loopback. Each show is a function of a cluster, and
tells what it has seen; the suite runs small ones.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Final

from bench import corpus
from bench.deployment import BalancerKind, Cluster, find_haproxy, open_stores, total
from bench.report import Report, Verdict
from bench.service import workplace
from bench.steady import Answer, Steady

_IDS: Final = 24
_RATE: Final = 20.0
_WIDTHS: Final = range(20, 1020)
_EQUAL: Final = 50
_VARIANTS: Final = 200
_HOT_CLIENTS: Final = 24
_TIMES: Final = 3
_APART: Final = 0.03
_LOGGED: Final = 10.0
_SETTLED: Final = 3.0

Ids = list[str]


class Paths:
    """Requests of which no two are the same: every one is a render."""

    def __init__(self, ids: Iterable[str], *, fm: str = "jpeg") -> None:
        self._ids = list(ids)
        self._fm = fm
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def __call__(self, number: int = 0) -> str:
        del number  # of a client's request: other clients have the same ones
        with self._lock:
            at = next(self._numbers)
        key = self._ids[at % len(self._ids)]
        width, height = divmod(at // len(self._ids), len(_WIDTHS))
        return f"/thumb/{key}?w={_WIDTHS[height]}&h={_WIDTHS[width]}&fm={self._fm}"


@dataclass(frozen=True, slots=True)
class Loss:
    """What became of requests while replicas ended: each end took from one moment to another."""

    answers: int
    failures: list[Answer]
    ends: list[tuple[float, float]]

    @property
    def strangers(self) -> list[Answer]:
        """Failures of requests that no replica had in hand while it ended."""
        return [
            each
            for each in self.failures
            if not any(each.at <= over and began <= each.until for began, over in self.ends)
        ]


@dataclass(frozen=True, slots=True)
class Moves:
    """How many originals a lost replica had, how many of them moved, and how many of others."""

    of_lost: int
    own: int
    others: int


def drain_under_load(cluster: Cluster, paths: Paths, *, tries: int, rate: float) -> Loss:
    """End replicas by SIGTERM, one after the other, while clients ask; start each again."""

    def end(number: int) -> None:
        cluster.drain(number)

    return _under_load(cluster, paths, end, tries=tries, rate=rate)


def kill_under_load(cluster: Cluster, paths: Paths, *, tries: int, rate: float) -> Loss:
    """The same by SIGKILL."""

    def end(number: int) -> None:
        cluster.replicas[number].kill()

    return _under_load(cluster, paths, end, tries=tries, rate=rate)


def _under_load(
    cluster: Cluster, paths: Paths, end: Callable[[int], None], *, tries: int, rate: float
) -> Loss:
    ends = []
    with Steady(cluster.port, rate=rate, paths=paths, clients=8) as load:
        for number in range(tries):
            load.wait_for(int(rate / 2))
            victim = number % len(cluster.replicas)
            began = time.monotonic()
            end(victim)
            ends.append((began, time.monotonic()))
            load.wait_for(int(rate / 2))
            cluster.restart(victim)
    loss = Loss(len(load.answers), load.failures, ends)
    print(f"  {tries} ends: {len(loss.failures)} of {loss.answers} failed", file=sys.stderr)
    return loss


def ask_at_once(ports: list[int], path: str, count: int) -> list[int]:
    """The statuses of `count` equal requests to each port, all sent before one is answered."""
    statuses: list[int] = []
    together = threading.Barrier(count * len(ports))

    def ask(port: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        connection.connect()
        together.wait()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        statuses.append(answer.status)
        connection.close()

    threads = [threading.Thread(target=ask, args=(port,)) for port in ports for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return statuses


def renders_of(cluster: Cluster, during: Callable[[], object]) -> list[int]:
    """How many renders each replica runs during something."""
    before = cluster.sums()
    during()
    return [
        int(total(after, "pixelmill_renders_total") - total(earlier, "pixelmill_renders_total"))
        for earlier, after in zip(before, cluster.sums(), strict=True)
    ]


def ask_for_variants(cluster: Cluster, key: str, count: int, *, clients: int) -> list[int]:
    """How many of so many results of one original each replica renders."""
    paths = Paths([key], fm="webp")  # others ask for JPEG
    each = count // clients

    def ask() -> None:
        connection = HTTPConnection("127.0.0.1", cluster.port, timeout=60)
        for _ in range(each):
            connection.request("GET", paths())
            connection.getresponse().read()
        connection.close()

    def ask_together() -> None:
        threads = [threading.Thread(target=ask) for _ in range(clients)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return renders_of(cluster, ask_together)


def find_homes(cluster: Cluster, ids: Ids, paths: Paths) -> dict[str, int]:
    """Which replica each original is at.

    They are asked for one after the other, with a pause, and several times: a balancer counts a
    request for a moment longer than its client, and the next one would spill.
    """
    time.sleep(_SETTLED)  # what was asked for before is in the logs by then
    marks = cluster.marks()
    for _ in range(_TIMES * len(ids)):
        time.sleep(_APART)
        status, _ = cluster.ask(paths())
        if status != 200:
            raise RuntimeError(f"a request was answered with {status}")
    # A request is in the log a moment after its answer.
    deadline = time.monotonic() + _LOGGED
    while any(len(cluster.mains(since=marks).get(key, ())) < _TIMES for key in ids):
        if time.monotonic() > deadline:
            raise TimeoutError("not all requests are in the logs")
        time.sleep(0.02)
    found = cluster.mains(since=marks)
    return {key: Counter(numbers).most_common(1)[0][0] for key, numbers in found.items()}


def lose(cluster: Cluster, ids: Ids, paths: Paths, *, key: str) -> Moves:
    """Lose the replica that an original is at, and start it again."""
    before = find_homes(cluster, ids, paths)
    lost = before[key]
    cluster.drain(lost)
    cluster.wait_until_balanced()
    after = find_homes(cluster, ids, paths)
    cluster.restart(lost)
    moved = Counter(before[key] == lost for key in ids if before[key] != after[key])
    return Moves(
        of_lost=sum(home == lost for home in before.values()),
        own=moved[True],
        others=moved[False],
    )


def fill(cluster: Cluster, *, prefix: str, count: int) -> Ids:
    """Keep so many originals: photographs of 0.8 megapixels, of four looks."""
    pictures = [
        bytes(corpus.draw(1024, 768, seed, grain=4, detail=3).jpegsave_buffer(Q=85))
        for seed in range(4)
    ]
    ids = [f"{prefix}{number}.jpg" for number in range(count)]
    for number, key in enumerate(ids):
        cluster.put(key, pictures[number % len(pictures)])
    return ids


def measure(folder: Path, stack: ExitStack, kind: BalancerKind, *, tries: int) -> Report:
    """All shows on one balancer."""
    report = Report("failover", f"three replicas and S3 behind {kind}")
    settings, variables = open_stores(stack)
    settings |= {"log_level": "info", "workers": 1, "queue_interactive": 10}
    cluster = Cluster(folder, stack, balancer=kind, settings=settings, environment=variables)
    ids = fill(cluster, prefix="shows/", count=_IDS)
    paths = Paths(ids)

    drained = drain_under_load(cluster, paths, tries=tries, rate=_RATE)
    killed = kill_under_load(cluster, paths, tries=tries, rate=_RATE)
    losses = {"SIGTERM": drained, "SIGKILL": killed}
    report.verdicts += [
        Verdict(what=f"failures at {tries} SIGTERM", value=len(drained.failures), at_most=0),
        Verdict(what=f"failures at {tries} SIGKILL", value=len(killed.failures), at_most=0),
    ]
    if kind == "haproxy":
        cluster.use_haproxy_without_retries()
        losses["SIGKILL, and no retries"] = loss = kill_under_load(
            cluster, paths, tries=tries, rate=_RATE
        )
        what = "failures of what it had not in hand"
        report.verdicts.append(Verdict(what=what, value=len(loss.strangers), at_most=0))
    report.add_table(
        "a replica ends under load, and comes again",
        [
            {
                "ended by": name,
                "times": tries,
                "answers": loss.answers,
                "failures": len(loss.failures),
                "not in hand": len(loss.strangers),
            }
            for name, loss in losses.items()
        ],
    )
    report.figures["faults"] = [str(each) for each in drained.failures + killed.failures][:20]

    time.sleep(_SETTLED)  # results are written behind their answers
    before = _stored(cluster)
    equal = f"/thumb/{ids[0]}?w=333&h=222&fm=webp"
    rendered = renders_of(cluster, lambda: ask_at_once([cluster.port], equal, _EQUAL))
    time.sleep(_SETTLED)
    written = _stored(cluster) - before
    # Dear enough to be claimed by one replica.
    direct = f"/thumb/{ids[0]}?w=1000&fm=avif&effort=4"
    ports = [replica.port for replica in cluster.replicas]
    rendered_direct = renders_of(cluster, lambda: ask_at_once(ports, direct, _EQUAL))
    variants = ask_for_variants(cluster, ids[1], _VARIANTS, clients=1)
    hot = ask_for_variants(cluster, ids[2], _VARIANTS, clients=_HOT_CLIENTS)
    moves = lose(cluster, ids, paths, key=ids[0])
    report.add_table(
        "renders by replica",
        [
            {"what": what} | {f"r{number}": count for number, count in enumerate(counts, 1)}
            for what, counts in (
                (f"{_EQUAL} equal misses", rendered),
                (f"{_EQUAL} equal misses to each replica", rendered_direct),
                (f"{_VARIANTS} variants of an original", variants),
                (f"{_VARIANTS} variants, {_HOT_CLIENTS} at once", hot),
            )
        ],
    )
    report.verdicts += [
        Verdict(what=f"renders for {_EQUAL} equal misses", value=sum(rendered), at_most=2),
        Verdict(what="objects stored of them", value=written, at_most=1),
        Verdict(what="renders where each replica is asked", value=sum(rendered_direct), at_most=2),
        Verdict(what="replicas that variants meet", value=_busy(variants), at_most=1),
        Verdict(what="replicas that a hot original meets", value=_busy(hot), at_least=2),
        Verdict(what="originals of others that move by a loss", value=moves.others, at_most=0),
        Verdict(what="originals of the lost that move", value=moves.own, at_least=1),
    ]
    return report


def _stored(cluster: Cluster) -> int:
    """How many results replicas have written that were not there."""
    stored = (
        total(each, "pixelmill_results_stored_total", 'outcome="stored"') for each in cluster.sums()
    )
    return int(sum(stored))


def _busy(counts: list[int]) -> int:
    return sum(count > 0 for count in counts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.failover", description=__doc__)
    parser.add_argument("--tries", type=int, default=10, help="how often replicas end, each way")
    parser.add_argument("--balancer", choices=["haproxy", "own"])
    options = parser.parse_args()
    kind = options.balancer or ("haproxy" if find_haproxy() else "own")
    with workplace() as (folder, stack):
        report = measure(folder, stack, kind, tries=options.tries)
    report.show()
    for fault in report.figures["faults"]:
        print(f"  {fault}")
    sys.exit(not all(verdict.met for verdict in report.verdicts))


if __name__ == "__main__":
    main()
