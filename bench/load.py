"""The clients: closed loops, Poisson arrivals and slow readers, in a process of their own.

HTTP is spoken in the barest form that measures: requests are made beforehand, and of an answer
only its status and length are read. Jobs come as lines of JSON; see `bench.service.Worker`.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

from bench.service import serve_jobs

try:
    from uvloop import run
except ImportError:
    from asyncio import run

_MOST_CONNECTIONS: Final = 1000
_LEFT_OVER: Final = 15.0
"""Seconds that answers still under way at the end of a job are waited for."""
_GLANCE: Final = 0.01
_TRICKLE: Final = 2048
_PAUSE: Final = 1.0
"""A slow reader takes so many bytes in so many seconds."""

Done = Callable[["Connection", int], None]


class Connection(asyncio.Protocol):
    """A kept connection with at most one request on it. Calls `done` with the status; 0 if cut."""

    __slots__ = ("_buffer", "_left", "_status", "began", "bytes", "done", "hinted", "transport")

    def __init__(self, done: Done) -> None:
        self.done = done
        self.transport: Any = None
        self.began = 0.0
        self.bytes = 0
        self.hinted = True  # whether a refusal has said when to come back
        self._buffer = b""
        self._left = -1  # bytes of the body still to come; -1 before the end of the headers
        self._status = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def send(self, request: bytes) -> None:
        self.began = perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.bytes += len(data)
        if self._left < 0:
            data = self._buffer + data if self._buffer else data
            end = data.find(b"\r\n\r\n")
            if end < 0:
                self._buffer = data
                return
            self._buffer = b""
            self._status = int(data[9:12])
            at = data.find(b"content-length: ", 0, end)
            length = 0
            if at >= 0 and self._status != 304:
                length = int(data[at + 16 : data.find(b"\r\n", at)])
            if self._status == 503:
                self.hinted = data.find(b"retry-after: ", 0, end) >= 0
            self._left = length - (len(data) - end - 4)
        else:
            self._left -= len(data)
        if self._left == 0:
            self._left = -1
            self.done(self, self._status)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.done(self, 0)


class Tally:
    """What came back: when it was done, its status, and how long it took. Seconds."""

    def __init__(self) -> None:
        self.began = perf_counter()
        self.answers: list[tuple[float, int, float]] = []
        self.unhinted = 0

    def add(self, status: int, due: float) -> None:
        now = perf_counter()
        self.answers.append((now - self.began, status, now - due))

    def result(self, *, each: bool) -> dict[str, Any]:
        statuses: dict[str, int] = {}
        for _, status, _ in self.answers:
            statuses[str(status)] = statuses.get(str(status), 0) + 1
        result: dict[str, Any] = {"statuses": statuses, "wall": perf_counter() - self.began}
        if each:
            result["answers"] = self.answers
        return result


def request_of(path: str, headers: dict[str, str]) -> bytes:
    fields = {"Host": "127.0.0.1", "User-Agent": "bench"} | headers
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def closed_loop(job: dict[str, Any]) -> dict[str, Any]:
    """Each connection sends its next request when the last is answered.

    Connection i of n takes the targets i, i + n, i + 2n and so on, round and round, so that with
    at least n targets no two connections ask for the same thing at once. Ends after `count`
    requests of all connections together, or `seconds`. Whoever meets a fault waits `pause` seconds.
    """
    loop = asyncio.get_running_loop()
    requests = [request_of(path, job.get("headers", {})) for path in job["targets"]]
    connections = job["connections"]
    finished = loop.create_future()
    count, seconds = job.get("count"), job.get("seconds")
    pause = job.get("pause", 0.0)
    until = perf_counter() + seconds if seconds else float("inf")
    open_now = connections
    tally = Tally()

    def walk(number: int) -> Iterator[bytes]:
        each = None if count is None else range(number, count, connections)
        for at in each if each is not None else itertools.count(number, connections):
            if perf_counter() >= until:
                return
            yield requests[at % len(requests)]

    walks: dict[Connection, Iterator[bytes]] = {}

    def done(connection: Connection, status: int) -> None:
        nonlocal open_now
        if connection not in walks:
            return  # closed at its own end
        tally.add(status, connection.began)
        request = next(walks[connection], None) if status else None
        if request is not None and status >= 500 and pause:
            # Not all at the same moment, though they were told so at the same moment.
            loop.call_later(pause * random.uniform(0.5, 1.5), connection.send, request)
            return
        if request is not None:
            connection.send(request)
            return
        del walks[connection]
        connection.transport.close()
        open_now -= 1
        if not open_now:
            finished.set_result(None)

    made = [
        (await loop.create_connection(lambda: Connection(done), job["host"], job["port"]))[1]
        for _ in range(connections)
    ]
    tally.began = perf_counter()
    until = tally.began + seconds if seconds else until
    for number, connection in enumerate(made):
        walks[connection] = walk(number)
        first = next(walks[connection], None)
        if first is not None:
            connection.send(first)
        else:
            del walks[connection]
            open_now -= 1
    with suppress(TimeoutError):
        async with asyncio.timeout((seconds or job.get("limit", 60.0)) + _LEFT_OVER):
            await finished
    return tally.result(each=job.get("each", False))


class Arrivals:
    """Requests that arrive whatever became of those before.

    Each takes a connection that is free, or a new one.
    """

    def __init__(self, host: str, port: int) -> None:
        self.tally = Tally()
        self.unsent = 0
        self._host = host
        self._port = port
        self._free: list[Connection] = []
        self._due: dict[Connection, float] = {}
        self._opening: set[asyncio.Task[None]] = set()

    @property
    def unanswered(self) -> int:
        return len(self._due) + len(self._opening)

    async def open(self, count: int) -> None:
        self._free += [await self._connect() for _ in range(count)]

    def arrive(self, request: bytes, due: float) -> None:
        if self._free:
            self._send(self._free.pop(), request, due)
        elif self.unanswered < _MOST_CONNECTIONS:
            task = asyncio.create_task(self._send_on_new(request, due))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
        else:
            self.unsent += 1

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        return (
            await loop.create_connection(lambda: Connection(self._done), self._host, self._port)
        )[1]

    async def _send_on_new(self, request: bytes, due: float) -> None:
        try:
            self._send(await self._connect(), request, due)
        except OSError:
            self.unsent += 1

    def _send(self, connection: Connection, request: bytes, due: float) -> None:
        self._due[connection] = due
        connection.send(request)

    def _done(self, connection: Connection, status: int) -> None:
        if connection in self._due:
            self.tally.add(status, self._due.pop(connection))
            self.tally.unhinted += status == 503 and not connection.hinted
            if status:
                self._free.append(connection)
        elif connection in self._free:
            self._free.remove(connection)


async def open_loop(job: dict[str, Any]) -> dict[str, Any]:
    """Requests arrive by chance at a mean `rate` for `seconds`.

    The time of each counts from the moment at which it was due, also where this process was late.
    """
    requests = [request_of(path, job.get("headers", {})) for path in job["targets"]]
    chance = random.Random(job.get("seed", 1))
    arrivals = Arrivals(job["host"], job["port"])
    await arrivals.open(job.get("connections", 16))
    arrivals.tally.began = due = perf_counter()
    end = due + job["seconds"]
    for request in itertools.cycle(requests):
        due += chance.expovariate(job["rate"])
        if due >= end:
            break
        if (wait := due - perf_counter()) > 0:
            await asyncio.sleep(wait)
        arrivals.arrive(request, due)
    for _ in range(int(_LEFT_OVER / _GLANCE)):
        if not arrivals.unanswered:
            break
        await asyncio.sleep(_GLANCE)
    return arrivals.tally.result(each=True) | {
        "unanswered": arrivals.unanswered + arrivals.unsent,
        "unhinted": arrivals.tally.unhinted,
    }


async def slow_readers(job: dict[str, Any]) -> dict[str, Any]:
    """So many `connections`, each of which asks once and then reads a few bytes now and then.

    Goes on for `seconds`; nothing is measured here.
    """
    loop = asyncio.get_running_loop()
    requests = [request_of(path, job.get("headers", {})) for path in job["targets"]]
    readers: list[socket.socket] = []
    for _, request in zip(range(job["connections"]), itertools.cycle(requests), strict=False):
        reader = socket.socket()
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _TRICKLE)
        reader.settimeout(0)
        await loop.sock_connect(reader, (job["host"], job["port"]))
        await loop.sock_sendall(reader, request)
        readers.append(reader)
    until = perf_counter() + job["seconds"]
    while perf_counter() < until:
        for reader in readers:
            with suppress(BlockingIOError):
                reader.recv(_TRICKLE)
        await asyncio.sleep(_PAUSE)
    for reader in readers:
        reader.close()
    return {}


def do(job: dict[str, Any]) -> dict[str, Any]:
    loops = {"closed": closed_loop, "open": open_loop, "slow": slow_readers}
    result: dict[str, Any] = run(loops[job["loop"]](job))
    return result


if __name__ == "__main__":
    with suppress(OSError, AttributeError):
        # Real clients do not share the server's processors: where permitted, this one goes first.
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    serve_jobs(do)
