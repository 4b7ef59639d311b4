"""How processes end that are told to: what they hold is finished or handed back, in time."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from tests.http import originals as draw
from tests.serving import serving

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).resolve().parents[2]


class Replica:
    """A process of the service whose renders hang until they are let go on."""

    def __init__(self, folder: Path, command: str, **settings: object) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self.port = taken.getsockname()[1]
        self.gate = folder / "gate"
        given = {
            "originals": f"file:{folder / 'originals'}",
            "results": f"file:{folder / 'results'}",
            "database": "off",
            "port": self.port,
            "drain_delay": 0,
            "queue_interactive": 60,
            "log_format": "json",
            **settings,
        }
        self._log = (folder / f"{command}.log").open("w+")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.gated", str(self.gate), command],
            cwd=folder,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                **{f"PIXELMILL_{name.upper()}": str(value) for name, value in given.items()},
            },
            stdin=subprocess.DEVNULL,
            stderr=self._log,
        )
        self.client = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}", trust_env=False, timeout=30
        )
        self._requests = ThreadPoolExecutor(4)

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 40
        while True:
            with suppress(httpx.ConnectError):
                if condition():
                    return
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def ready(self) -> bool:
        return self.client.get("/readyz").status_code == 200

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port)).close()
        except ConnectionRefusedError:
            return False
        return True

    def start_render(self, path: str) -> Future[httpx.Response]:
        """Send a request whose render then hangs."""

        def ask() -> httpx.Response:
            with httpx.Client(trust_env=False, timeout=30) as client:
                return client.get(f"http://127.0.0.1:{self.port}{path}")

        answer = self._requests.submit(ask)
        self.wait_for(lambda: self.client.get("/readyz").json()["renders_running"])
        return answer

    def signal(self, number: signal.Signals = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def end(self) -> int:
        """The exit status, when the process has ended."""
        return self._process.wait(40)

    def log(self) -> str:
        self._log.flush()
        return Path(self._log.name).read_text()

    def events(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self.client.close()
        self._requests.shutdown()
        self._log.close()


@pytest.fixture
def start(tmp_path) -> Iterator[Callable[..., Replica]]:
    draw.put(tmp_path / "originals", "cat.jpg", draw.jpeg())
    started: list[Replica] = []

    def begin(command: str = "serve", **settings: object) -> Replica:
        started.append(Replica(tmp_path, command, **settings))
        if command == "serve":
            started[-1].wait_for(started[-1].ready)
        return started[-1]

    yield begin
    for replica in started:
        replica.close()


def test_a_replica_that_drains_still_accepts_and_finishes_what_is_in_flight(start):
    replica = start(drain_delay=1)
    answer = replica.start_render("/thumb/cat.jpg?w=20")
    replica.signal()
    replica.wait_for(lambda: not replica.ready())
    late = replica.start_render("/thumb/cat.jpg?w=30")
    time.sleep(1.1)
    replica.gate.touch()
    for each in (answer, late):
        assert each.result(10).status_code == 200
        assert each.result().headers["connection"] == "close"
    assert replica.end() == 0
    assert "Traceback" not in replica.log()


def test_what_comes_on_an_idle_connection_while_the_listener_closes_is_answered(start):
    replica = start()
    replica.gate.touch()
    with socket.create_connection(("127.0.0.1", replica.port), timeout=10) as idle:
        replica.wait_for(replica.ready)
        replica.signal()
        while replica.listens():
            time.sleep(0.01)
        idle.sendall(b"GET /thumb/cat.jpg?w=20 HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while part := idle.recv(65536):
            received += part
    assert received.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in received
    assert replica.end() == 0


def test_a_decoder_that_hangs_does_not_hold_up_the_end(start):
    replica = start(drain_timeout=1)
    answer = replica.start_render("/thumb/cat.jpg?w=20")
    replica.signal()
    assert replica.end() == 0
    assert answer.result(5).status_code == 503
    assert answer.result().json()["code"] == "leaving"
    assert "retry-after" in answer.result().headers
    (ended,) = [each for each in replica.events() if each["event"] == "ended"]
    assert any(str(name).startswith("render") for name in ended["threads"])


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_a_replica_at_once(start, first):
    replica = start(drain_delay=0 if first is signal.SIGINT else 60, drain_timeout=60)
    replica.start_render("/thumb/cat.jpg?w=20")
    replica.signal(first)
    replica.wait_for(lambda: any(each["event"] == "draining" for each in replica.events()))
    replica.signal(first)
    assert replica.end() == 128 + first


@pytest.mark.parametrize("command", ["serve", "work"])
def test_a_job_whose_render_hangs_is_handed_back_and_not_waited_for(start, tmp_path, command):
    ledger = {"database": f"sqlite:///{tmp_path / 'jobs.db'}", "job_lease": 60}
    front = start(run_jobs=command == "serve", drain_timeout=0.2, **ledger)
    worker = front if command == "serve" else start("work", drain_timeout=0.2, **ledger)
    wanted = {"source": "cat.jpg", "outputs": [{"transform": {"w": 20, "fm": "png"}}]}
    job = front.client.post("/jobs", json=wanted).json()
    front.wait_for(lambda: front.client.get(f"/jobs/{job['id']}").json()["state"] == "running")
    worker.wait_for(lambda: any(each["event"] == "job_begun" for each in worker.events()))
    worker.signal()
    assert worker.end() == 0, worker.log()
    worker.gate.touch()
    # It had the job for a minute: another takes it at once.
    other = start(**ledger)
    other.wait_for(lambda: other.client.get(f"/jobs/{job['id']}").json()["state"] == "succeeded")


def test_a_worker_all_of_whose_renders_hang_ends_and_is_to_be_started_anew(start, tmp_path):
    settings = {"database": f"sqlite:///{tmp_path / 'jobs.db'}", "drain_timeout": 0.2}
    wanted = {
        "source": "cat.jpg",
        "outputs": [{"transform": {"w": 20, "fm": "png"}}],
        "timeout": 1,
    }
    originals = f"file:{tmp_path / 'originals'}"
    with serving(originals=originals, run_jobs=False, **settings) as front:
        job = front.client.post("/jobs", json=wanted).raise_for_status().json()
        worker = start("work", workers=1, **settings)
        assert worker.end() == 1, worker.log()
        assert front.get(f"/jobs/{job['id']}").json()["state"] != "running"
    events = [each["event"] for each in worker.events()]
    assert events.index("stuck") < events.index("draining")
