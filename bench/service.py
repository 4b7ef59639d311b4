"""The processes that are measured: starting and ending them, and reading what they have used."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import psutil

ROOT: Final = Path(__file__).resolve().parent.parent
_START_TIMEOUT: Final = 120.0
_STOP_TIMEOUT: Final = 10.0
_PREFIX: Final = "PIXELMILL_"


class Child:
    """A process started by a measurement, which ends it too, and what its tree has used."""

    def __init__(
        self,
        arguments: list[str],
        *,
        folder: Path,
        environment: Mapping[str, str] | None = None,
        piped: bool = False,
        program: str = sys.executable,
        name: str | None = None,
    ) -> None:
        self._log = folder / f"{name or arguments[1].replace('.', '-')}.log"
        pipe = subprocess.PIPE if piped else subprocess.DEVNULL
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, *arguments],
                cwd=folder,
                env=_environment(environment or {}),
                stdin=pipe,
                stdout=pipe,
                stderr=log,
                text=True,
            )
        self._seen = psutil.Process(self._process.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def kill(self) -> None:
        """End it as a crash does."""
        self._process.kill()
        self._process.wait()

    def signal(self, number: int) -> None:
        """Send it a signal, and do not wait."""
        self._process.send_signal(number)

    def wait(self, seconds: float) -> int:
        """Its exit status, when it has ended. Raises TimeoutError."""
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"it has not ended in {seconds:g} s:\n{self.complaint}") from None

    @property
    def log(self) -> Path:
        """The file of what it writes to standard error."""
        return self._log

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def complaint(self) -> str:
        """The end of what it wrote to standard error."""
        return self._log.read_text(errors="replace")[-2000:]

    def cpu_seconds(self) -> float:
        """Processor time of the tree so far."""
        return sum(_cpu_seconds(process) for process in self._tree())

    def memory(self) -> int:
        """Bytes of the tree: shared pages in proportion (PSS) where the system counts them."""
        total = 0
        for process in self._tree():
            with suppress(psutil.NoSuchProcess):
                try:
                    full = process.memory_full_info()
                    total += getattr(full, "pss", full.rss)
                except psutil.AccessDenied:
                    total += process.memory_info().rss
        return total

    def resident(self) -> int:
        """Bytes of the tree that are in memory: cheap to ask for, shared pages counted in full."""
        return sum(process.memory_info().rss for process in self._tree())

    def pin(self, cpu: int) -> None:
        """Keep it on one processor, where the system can and there is more than one."""
        if pinnable():
            self._seen.cpu_affinity([cpu])

    def stop(self) -> None:
        """Ask it to end, and end it where it does not. Harmless when it has ended."""
        self._process.terminate()
        try:
            self._process.wait(_STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(OSError):
                    stream.close()

    def _tree(self) -> list[psutil.Process]:
        try:
            return [self._seen, *self._seen.children(recursive=True)]
        except psutil.NoSuchProcess:
            raise RuntimeError(f"a measured process ended:\n{self.complaint}") from None


class Worker(Child):
    """A module of this package as a process that takes jobs: a line of JSON in, one out."""

    def __init__(
        self, module: str, *, folder: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(["-m", module], folder=folder, environment=environment, piped=True)

    def begin(self, **job: Any) -> None:
        """Have a job done, whose answer nobody waits for."""
        if self._process.stdin is None:
            raise AssertionError("a worker has pipes")
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()

    def ask(self, *, timeout: float = 120.0, **job: Any) -> dict[str, Any]:
        """Have a job done, and wait for its answer."""
        self.begin(**job)
        answers = self._process.stdout
        if answers is None:
            raise AssertionError("a worker has pipes")
        # An answer is one line, written at once: where there is something, there is all of it.
        if not select.select([answers], [], [], timeout)[0]:
            raise TimeoutError(f"no answer within {timeout:g} s:\n{self.complaint}")
        line = answers.readline()
        if not line:
            raise RuntimeError(f"a worker ended:\n{self.complaint}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Server(Child):
    """A process that answers HTTP on a port of the loopback."""

    def __init__(
        self,
        arguments: list[str],
        *,
        folder: Path,
        ready: str,
        environment: Mapping[str, str] | None = None,
        port: int | None = None,
        name: str | None = None,
    ) -> None:
        self.port = port or free_port()
        super().__init__(
            [*arguments, "--port", str(self.port)],
            folder=folder,
            environment=environment,
            name=name,
        )
        wait_for_answer(self, self.port, ready)

    def get(self, path: str) -> tuple[bytes, list[tuple[str, str]]]:
        """Body and headers of one answer, for a look at it: not for measuring."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
            return answer.read(), [(name.lower(), value) for name, value in answer.getheaders()]

    def metric(self, name: str) -> float:
        """A metric without labels."""
        text = self.get("/metrics")[0].decode()
        line = next(line for line in text.splitlines() if line.startswith(f"{name} "))
        return float(line.split()[1])


def wait_for_answer(child: Child, port: int, path: str) -> None:
    """Wait until a process that has been started answers with 200. Ends it where it does not."""
    deadline = time.monotonic() + _START_TIMEOUT
    while True:
        with (
            suppress(urllib.error.URLError, ConnectionError),
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30),
        ):
            return
        if not child.running or time.monotonic() > deadline:
            child.stop()
            raise RuntimeError(f"a server did not start:\n{child.complaint}")
        time.sleep(0.05)


def pixelmill(originals: Path, folder: Path, **settings: Any) -> Server:
    """Start the service on a folder of originals. Nothing is stored: results are what is measured.

    `settings` are those of the service in small letters.
    """
    values = {
        "originals": f"file:{originals}",
        "results": "off",
        "freshness": "1d",
        "drain_delay": 0,
    } | settings
    return Server(
        ["-m", "app.cli", "serve"],
        folder=folder,
        ready="/readyz",
        environment={_PREFIX + name.upper(): str(value) for name, value in values.items()},
    )


class Peak(threading.Thread):
    """Watches how much of a process is in memory while a block runs."""

    def __init__(self, child: Child, *, every: float = 0.1) -> None:
        super().__init__(daemon=True)
        self._child = child
        self._every = every
        self._ended = threading.Event()
        self.bytes = 0

    def run(self) -> None:
        while not self._ended.is_set():
            with suppress(RuntimeError, psutil.NoSuchProcess):
                self.bytes = max(self.bytes, self._child.resident())
            self._ended.wait(self._every)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        self.join()


class Others:
    """How much of the processors is used by processes that are not ours, while a block runs.

    It does not change processor time much, but queues and waiting, and the caches.
    """

    def __init__(self, ours: list[Child]) -> None:
        self._ours = ours
        self.share = 0.0

    def __enter__(self) -> Self:
        self._began, self._used = time.monotonic(), self._foreign()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            seconds = (time.monotonic() - self._began) * (os.cpu_count() or 1)
            self.share = max(0.0, (self._foreign() - self._used) / seconds)

    def _foreign(self) -> float:
        times = psutil.cpu_times()
        # What guests use is part of `user` and `nice` already.
        idle = ("idle", "iowait", "guest", "guest_nice")
        busy = sum(times) - sum(getattr(times, name, 0.0) for name in idle)
        return float(busy) - sum(child.cpu_seconds() for child in self._ours) - time.process_time()


@contextmanager
def workplace() -> Iterator[tuple[Path, ExitStack]]:
    """A folder that is removed at the end, and a stack of processes that are ended before."""
    with (
        tempfile.TemporaryDirectory(prefix="pixelmill-bench-") as name,
        ExitStack() as processes,
    ):
        yield Path(name), processes


def serve_jobs(do: Any) -> None:
    """The other end of `Worker`: answer each line with what `do` makes of it."""
    for line in sys.stdin:
        print(json.dumps(do(json.loads(line))), flush=True)


def pinnable() -> bool:
    """Whether processes can be kept apart, each on a processor of its own."""
    return hasattr(os, "sched_getaffinity") and len(os.sched_getaffinity(0)) > 1


def processors() -> list[int]:
    """The processors that may be used."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This environment without settings of the service, and with the repository to import from."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PREFIX)}
    return kept | {"PYTHONPATH": str(ROOT), "VIPS_CONCURRENCY": "1"} | extra


def _cpu_seconds(process: psutil.Process) -> float:
    if sys.platform == "linux":
        # The processor clock of another process counts nanoseconds; psutil counts ticks of 10 ms.
        with suppress(OSError):
            return time.clock_gettime(~process.pid << 3 | 2)
    with suppress(psutil.NoSuchProcess):
        times = process.cpu_times()
        return float(times.user + times.system)
    return 0.0
