"""A small load balancer, for where there is no other: python -m bench.balancer --port P PORT...

All that is asked of one original goes to one replica (rendezvous hashing by id), and when that has
half more than its share of the requests under way, to the next in the original's own order. A
replica that fails `/readyz` gets none. A GET that has found no connection, no answer or 503 is
sent once more, to the next. Bodies stream both ways.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

_FACTOR: Final = 1.5
"""How many times its share of the requests a replica may have under way."""
_PIECE: Final = 65536
_CONNECT: Final = 1.0
_ANSWER: Final = 75.0
_CHECK: Final = 2.0
_KEPT: Final = 32
_HOP: Final = (b"connection", b"keep-alive")

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class NoAnswer(Exception):
    """No connection, or one that ended before its answer began."""


@dataclass(frozen=True, slots=True)
class Head:
    """The first line and the headers of a request or an answer; names in small letters."""

    first: list[bytes]
    headers: list[tuple[bytes, bytes]]

    @classmethod
    def parse(cls, data: bytes) -> Head:
        first, *lines = data[:-4].split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        return cls(first.split(b" ", 2), [(n.strip().lower(), v.strip()) for n, _, v in pairs])

    def get(self, name: bytes) -> bytes:
        return next((value.lower() for key, value in self.headers if key == name), b"")

    @property
    def closes(self) -> bool:
        return self.get(b"connection") == b"close" or b"HTTP/1.0" in self.first

    def passed_on(self) -> bytes:
        """As the other side gets it: connections are each side's own affair."""
        lines = [b"%b: %b" % pair for pair in self.headers if pair[0] not in _HOP]
        return b"\r\n".join([b" ".join(self.first), *lines, b"", b""])


@dataclass(slots=True)
class Replica:
    """One of those behind the balancer."""

    port: int
    healthy: bool = False
    under_way: int = 0
    idle: list[Stream] = field(default_factory=list)

    async def connect(self, *, fresh: bool) -> Stream:
        """A connection, one that was kept unless it must be `fresh`. Raises NoAnswer."""
        while self.idle and not fresh:
            reader, writer = self.idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        try:
            async with asyncio.timeout(_CONNECT):
                return await asyncio.open_connection("127.0.0.1", self.port, limit=_PIECE)
        except (OSError, TimeoutError):
            self.healthy = False
            raise NoAnswer from None

    def keep(self, stream: Stream) -> None:
        if len(self.idle) < _KEPT:
            self.idle.append(stream)
        else:
            stream[1].close()

    @contextmanager
    def engaged(self) -> Iterator[None]:
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1


class Balancer:
    """Passes requests on to replicas."""

    def __init__(self, ports: list[int]) -> None:
        self._replicas = [Replica(port) for port in ports]

    async def serve(self, port: int, *, every: float) -> None:
        server = await asyncio.start_server(self._talk, "127.0.0.1", port, limit=_PIECE)
        async with server, asyncio.TaskGroup() as group:
            for replica in self._replicas:
                group.create_task(_check(replica, every=every))

    def candidates(self, path: bytes) -> list[Replica]:
        """Those that may get a request, the one it belongs to first."""
        key = path.partition(b"?")[0].split(b"/", 2)[-1]
        ready = [each for each in self._replicas if each.healthy]
        ready.sort(key=lambda each: hashlib.blake2b(b"%d %b" % (each.port, key)).digest())
        total = sum(each.under_way for each in ready) + 1
        bound = math.ceil(_FACTOR * total / max(1, len(ready)))
        return sorted(ready, key=lambda each: each.under_way >= bound)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One client's connection: request after request."""
        with suppress(OSError, ValueError, IndexError, asyncio.IncompleteReadError):
            while True:
                request = Head.parse(await reader.readuntil(b"\r\n\r\n"))
                if request.first[1] == b"/balancer":
                    await _refuse(writer, 200 if any(r.healthy for r in self._replicas) else 503)
                elif not await self._pass_on(request, (reader, writer)):
                    break
                if request.closes:
                    break
        writer.close()

    async def _pass_on(self, request: Head, client: Stream) -> bool:
        """Whether the client's connection may be used again."""
        safe = request.first[0] in (b"GET", b"HEAD")
        tried = self.candidates(request.first[1])[: 2 if safe else 1]
        for left, replica in zip(reversed(range(len(tried))), tried, strict=True):
            with replica.engaged():
                try:
                    # On a connection that was kept, one cannot tell "not received" from "lost".
                    stream = await replica.connect(fresh=not safe or not left)
                    answer = await _ask(request, client, stream)
                except NoAnswer:
                    continue
                if answer.first[1] == b"503" and left:
                    stream[1].close()
                    continue
                return await _relay(request, answer, replica, stream, client)
        await _refuse(client[1], 503 if safe or not tried else 502)
        return safe


async def _ask(request: Head, client: Stream, stream: Stream) -> Head:
    """Send a request on, and read the head of its answer. Raises NoAnswer."""
    reader, writer = stream
    try:
        writer.write(request.passed_on())
        await writer.drain()
        await _copy_body(request, client[0], writer, until_end=False)
        async with asyncio.timeout(_ANSWER):
            answer = Head.parse(await reader.readuntil(b"\r\n\r\n"))
            while answer.first[1].startswith(b"1"):
                answer = Head.parse(await reader.readuntil(b"\r\n\r\n"))
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        writer.close()
        raise NoAnswer from None
    return answer


async def _relay(
    request: Head, answer: Head, replica: Replica, stream: Stream, client: Stream
) -> bool:
    whole = False
    try:
        client[1].write(answer.passed_on())
        bodiless = request.first[0] == b"HEAD" or answer.first[1] in (b"204", b"304")
        whole = bodiless or await _copy_body(answer, stream[0], client[1], until_end=True)
        await client[1].drain()
    finally:
        if whole and not answer.closes:
            replica.keep(stream)
        else:
            stream[1].close()
    return whole


async def _copy_body(
    head: Head, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, until_end: bool
) -> bool:
    """Copy the body that a head announces. False where only the end of the connection ends it."""
    if head.get(b"transfer-encoding") == b"chunked":
        size = -1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            writer.write(line)
            await _copy(reader, writer, size + 2)  # a piece ends in CRLF, and so does the last
        return True
    if length := head.get(b"content-length"):
        await _copy(reader, writer, int(length))
        return True
    while until_end and (piece := await reader.read(_PIECE)):
        writer.write(piece)
        await writer.drain()
    return not until_end


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, size: int) -> None:
    while size:
        piece = await reader.read(min(size, _PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(piece)
        writer.write(piece)
        await writer.drain()


async def _refuse(writer: asyncio.StreamWriter, status: int) -> None:
    writer.write(b"HTTP/1.1 %d .\r\ncontent-length: 0\r\n\r\n" % status)
    await writer.drain()


async def _check(replica: Replica, *, every: float) -> None:
    request = b"GET /readyz HTTP/1.1\r\nhost: balancer\r\nconnection: close\r\n\r\n"
    while True:
        ready = False
        with suppress(NoAnswer, OSError, TimeoutError):
            async with asyncio.timeout(_CHECK):
                reader, writer = await replica.connect(fresh=True)
                writer.write(request)
                ready = (await reader.readline()).split(b" ")[1:2] == [b"200"]
                writer.close()
        replica.healthy = ready
        await asyncio.sleep(every)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.balancer", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--every", type=float, default=0.5, help="seconds between checks")
    parser.add_argument("replicas", type=int, nargs="+", metavar="PORT")
    options = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(Balancer(options.replicas).serve(options.port, every=options.every))


if __name__ == "__main__":
    main()
