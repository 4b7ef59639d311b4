"""Several replicas behind a balancer, as plain processes on loopback.

The balancer is HAProxy with the file that `deploy/` has for it, or `bench.balancer` where there is
no HAProxy. `python -m bench.cluster` shows it at work, `python -m bench.failover` measures.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Literal

from bench.service import ROOT, Child, Server, free_port, wait_for_answer
from tests.jobs.postgres import Postgres
from tests.s3server import find_program, s3_serving

HAPROXY_FILE: Final = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
TOKEN: Final = "a-token-of-a-demonstration"
_HAPROXY_PLACES: Final = ("/usr/sbin", "/usr/local/sbin")
_DRAIN_DELAY: Final = 2.5
"""Seconds. HAProxy's file has a check each second, and half a second later the one that counts."""
_END: Final = 40.0
_JOINING: Final = 10.0
_EACH: Final = re.compile(r"^  server-template .*$", re.MULTILINE)
_PUBLIC: Final = re.compile(r"^  bind :8080$", re.MULTILINE)
_RETRIES: Final = re.compile(r"^(  retry-on) .*$", re.MULTILINE)

BalancerKind = Literal["haproxy", "own"]


class Cluster:
    """Replicas behind a balancer, and workers beside them. `stack` ends what is started here.

    `settings` are those of the service in small letters, for replicas and workers alike, and
    `environment` are variables of others.
    """

    def __init__(
        self,
        folder: Path,
        stack: ExitStack,
        *,
        balancer: BalancerKind,
        settings: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
        replicas: int = 3,
        workers: int = 0,
    ) -> None:
        self._folder = folder
        self._stack = stack
        self._environment = dict(environment or {}) | {
            f"PIXELMILL_{name.upper()}": str(value)
            for name, value in (
                {
                    "run_jobs": "false",
                    "api_tokens": TOKEN,
                    "drain_delay": _DRAIN_DELAY,
                    "log_format": "json",
                }
                | dict(settings)
            ).items()
        }
        self._ports = [free_port() for _ in range(replicas)]
        with ThreadPoolExecutor() as pool:  # each waits until it is ready
            self.replicas = list(pool.map(self._start_replica, range(replicas)))
        self.workers = [self._start_worker(number) for number in range(workers)]
        self.port = free_port()
        self.balancer = self._start_balancer(balancer)
        stack.callback(self._end)  # before each is waited for
        self.wait_until_balanced()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def restart(self, number: int) -> None:
        """Start a replica that has ended, on the port that it had, and wait for the balancer."""
        self.replicas[number] = self._start_replica(number)
        self.wait_until_balanced()

    def drain(self, number: int) -> None:
        """Have a replica end by SIGTERM, and wait until it has."""
        self.replicas[number].signal(signal.SIGTERM)
        status = self.replicas[number].wait(_END)
        if status:
            raise RuntimeError(f"a replica ended with {status}")

    def use_haproxy_without_retries(self) -> None:
        """Put another balancer in the place of this one: it sends on what it could not connect."""
        self.balancer.stop()
        self.balancer = self._start_haproxy(_RETRIES.sub(r"\1 conn-failure", _haproxy_text()))
        self.wait_until_balanced()

    def wait_until_balanced(self) -> None:
        """Wait until the balancer sends requests to each replica that runs, and to no other."""
        running = [replica for replica in self.replicas if replica.running]
        deadline = time.monotonic() + _JOINING
        while True:
            before = [_answered(replica) for replica in running]
            # Ids that are not there, and belong to any replica.
            asked = [f"/thumb/none/{number}?w=1" for number in range(8 * len(running))]
            statuses = {self.ask(path)[0] for path in asked}
            after = [_answered(replica) for replica in running]
            if statuses == {404} and all(b < a for b, a in zip(before, after, strict=True)):
                return
            if time.monotonic() > deadline:
                raise TimeoutError(f"the balancer does not use all: {before} {after} {statuses}")
            time.sleep(0.2)

    def sums(self) -> list[dict[str, float]]:
        """For each replica, its metrics by name and labels. Nothing for one that does not run."""
        return [metrics_of(each) if each.running else {} for each in self.replicas]

    def ask(
        self, path: str, data: bytes | None = None, *, method: str = "GET", kind: str = ""
    ) -> tuple[int, bytes]:
        """One request through the balancer, as someone with a token, with a body of a kind."""
        headers = {"authorization": f"Bearer {TOKEN}"}
        if kind:
            headers["content-type"] = kind
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    def put(self, key: str, data: bytes) -> None:
        """Keep an original."""
        status, told = self.ask(f"/images/{key}", data, method="PUT", kind="image/jpeg")
        if status >= 300:
            raise RuntimeError(f"an original was not taken: {status} {told[:500]!r}")

    def mains(self, *, since: Iterable[int]) -> dict[str, list[int]]:
        """Which replicas have answered for an original other than from memory, by its id.

        `since` is how much of each log has been seen before; see `marks`.
        """
        found: dict[str, list[int]] = {}
        for number, (replica, mark) in enumerate(zip(self.replicas, since, strict=True)):
            with replica.log.open("rb") as log:
                log.seek(mark)
                for line in log:
                    with suppress(ValueError, KeyError):
                        record = json.loads(line)
                        if record["event"] == "request" and record["path"].startswith("/thumb/"):
                            found.setdefault(record["path"][7:], []).append(number)
        return found

    def marks(self) -> list[int]:
        """How long the log of each replica is."""
        return [replica.log.stat().st_size for replica in self.replicas]

    def _end(self) -> None:
        for child in (self.balancer, *self.workers, *self.replicas):
            if child.running:
                child.signal(signal.SIGINT)  # which waits for no balancer

    def _start_replica(self, number: int) -> Server:
        name = f"replica-{number + 1}"
        return self._stack.enter_context(
            Server(
                ["-m", "app.cli", "serve"],
                folder=self._folder,
                ready="/readyz",
                environment=self._environment,
                port=self._ports[number],
                name=name,
            )
        )

    def _start_worker(self, number: int) -> Child:
        return self._stack.enter_context(
            Child(
                ["-m", "app.cli", "work"],
                folder=self._folder,
                environment=self._environment,
                name=f"worker-{number + 1}",
            )
        )

    def _start_balancer(self, kind: BalancerKind) -> Child:
        if kind == "haproxy":
            return self._start_haproxy(_haproxy_text())
        arguments = ["-m", "bench.balancer", "--port", str(self.port), *map(str, self._ports)]
        return self._enter(Child(arguments, folder=self._folder, name="balancer"))

    def _start_haproxy(self, text: str) -> Child:
        program = find_haproxy()
        if program is None:
            raise RuntimeError("there is no HAProxy here")
        file = self._folder / "haproxy.cfg"
        file.write_text(rendered(text, port=self.port, replicas=self._ports))
        arguments = ["-db", "-f", str(file)]
        return self._enter(Child(arguments, folder=self._folder, program=program, name="haproxy"))

    def _enter(self, balancer: Child) -> Child:
        self._stack.enter_context(balancer)
        wait_for_answer(balancer, self.port, "/balancer")
        return balancer


def _haproxy_text() -> str:
    return HAPROXY_FILE.read_text()


def find_haproxy() -> str | None:
    """HAProxy's program, where it and the file for it are there."""
    if not HAPROXY_FILE.exists():
        return None
    return shutil.which("haproxy") or shutil.which("haproxy", path=":".join(_HAPROXY_PLACES))


def rendered(text: str, *, port: int, replicas: list[int]) -> str:
    """HAProxy's file with ports of the loopback. Raises ValueError where it is another file."""
    servers = "\n".join(
        f"  server replica{number} 127.0.0.1:{each}" for number, each in enumerate(replicas, 1)
    )
    for pattern, new in ((_PUBLIC, f"  bind 127.0.0.1:{port}"), (_EACH, servers)):
        text, found = pattern.subn(new, text)
        if found != 1:
            raise ValueError(f"HAProxy's file has {found} lines like {pattern.pattern}")
    return text


def metrics_of(replica: Server) -> dict[str, float]:
    """Metrics of a replica: `name` or `name{labels}`, as they are written."""
    lines = replica.get("/metrics")[0].decode().splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}


def total(metrics: Mapping[str, float], name: str, label: str = "") -> float:
    """The sum of a metric over all labels, or over those with a label such as `tier="memory"`."""
    return sum(
        value for key, value in metrics.items() if key.partition("{")[0] == name and label in key
    )


def _answered(replica: Server) -> float:
    return total(metrics_of(replica), "pixelmill_requests_total", 'route="/thumb/{id}"')


def open_stores(stack: ExitStack) -> tuple[dict[str, Any], dict[str, str]]:
    """Start an S3 server and PostgreSQL. Returns settings for them, and variables."""
    s3 = stack.enter_context(s3_serving(find_program()))
    postgres = Postgres()
    stack.callback(postgres.close)
    return {
        "originals": f"s3://{s3.bucket}/originals",
        "results": f"s3://{s3.bucket}/results",
        "database": postgres.make_database(),
    }, s3.environment
