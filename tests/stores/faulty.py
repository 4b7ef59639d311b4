"""An HTTP server that misbehaves as told: what a store does on its bad days."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

HOST: Final = "127.0.0.1"
ETAG: Final = "d41d8cd98f00b204e9800998ecf8427e"
_PIECE: Final = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request as it came in."""

    method: str
    target: str
    headers: dict[str, str]


@dataclass(slots=True)
class Exchange:
    """A request, and the way to answer it."""

    asked: Asked
    server: Faulty
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.writer.write(data)
        await self.writer.drain()

    async def begin(self, length: int | None, *, status: str = "200 OK", **headers: str) -> None:
        """Send the headers of an object, or of whatever else is said."""
        lines = {
            "ETag": f'"{ETAG}"',
            "Last-Modified": "Tue, 03 Mar 2026 10:20:30 GMT",
            "Content-Type": "application/octet-stream",
            **({} if length is None else {"Content-Length": str(length)}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        await self.send(f"HTTP/1.1 {status}\r\n{head}\r\n".encode())

    async def body(self, data: bytes) -> None:
        """Send a part of the body, and count it."""
        if self.asked.method == "HEAD":
            return
        for at in range(0, len(data), _PIECE):
            piece = data[at : at + _PIECE]
            await self.send(piece)
            self.server.sent += len(piece)


Behaviour = Callable[[Exchange], Awaitable[None]]


@dataclass
class Faulty:
    """A server that runs. Each request takes the next behaviour; the last one stays."""

    behaviours: list[Behaviour]
    asked: list[Asked] = field(default_factory=list)
    sent: int = 0
    """Bytes of bodies that were handed to the network."""
    endpoint: str = ""
    _came: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def methods(self) -> list[str]:
        """The methods of the requests so far."""
        return [each.method for each in self.asked]

    async def was_asked(self, count: int) -> None:
        """Wait until so many requests have come."""
        async with asyncio.timeout(5), self._came:
            await self._came.wait_for(lambda: len(self.asked) >= count)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        while head := await _head(reader):
            asked = _parse(head)
            if length := int(asked.headers.get("content-length", "0")):
                await reader.readexactly(length)
            behaviour = self.behaviours[min(len(self.asked), len(self.behaviours) - 1)]
            self.asked.append(asked)
            async with self._came:
                self._came.notify_all()
            await behaviour(Exchange(asked, self, writer))
            if writer.is_closing():
                return


@asynccontextmanager
async def faulty(*behaviours: Behaviour) -> AsyncIterator[Faulty]:
    """Run a server until the block ends, whoever still waits for it."""
    state = Faulty(list(behaviours))
    connections: set[asyncio.Task[None]] = set()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connections.add(task)
        try:
            await state.serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone
        except asyncio.CancelledError:
            pass  # the test is over
        finally:
            connections.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(connect, HOST, 0)
    state.endpoint = f"http://{HOST}:{server.sockets[0].getsockname()[1]}"
    try:
        yield state
    finally:
        server.close()
        waiting = list(connections)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await asyncio.sleep(0)


def whole(data: bytes, **headers: str) -> Behaviour:
    """An object as it should be."""

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(len(data), **headers)
        await exchange.body(data)

    return behave


def status(code: int, body: bytes = b"", *, content_type: str = "application/xml") -> Behaviour:
    """An answer with this status."""

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(len(body), status=f"{code} So", Content_Type=content_type, ETag="")
        await exchange.body(body)

    return behave


def error(code: int, name: str) -> Behaviour:
    """An error as S3 words it."""
    body = f"<?xml version='1.0'?><Error><Code>{name}</Code><Message>-</Message></Error>"
    return status(code, body.encode())


async def stall(exchange: Exchange) -> None:
    """Never answer."""
    await asyncio.sleep(3600)


def stall_after(data: bytes, sent: int) -> Behaviour:
    """Begin the body, and never go on."""

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(len(data))
        await exchange.body(data[:sent])
        await asyncio.sleep(3600)

    return behave


def cut_after(data: bytes, sent: int) -> Behaviour:
    """Promise the whole, and close the connection early as if that were all."""

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(len(data))
        await exchange.body(data[:sent])
        exchange.writer.close()
        await exchange.writer.wait_closed()

    return behave


def reset_after(data: bytes, sent: int) -> Behaviour:
    """Promise the whole, and reset the connection."""

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(len(data))
        await exchange.body(data[:sent])
        await asyncio.sleep(0.1)  # a reset overtakes what the client has not read yet
        raw = exchange.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        exchange.writer.transport.abort()

    return behave


def slowly(data: bytes, *, pause: float) -> Behaviour:
    """Send one byte after the other, so that the connection is never silent for long."""

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(len(data))
        for at in range(len(data)):
            await exchange.body(data[at : at + 1])
            await asyncio.sleep(pause)

    return behave


def chunked(pieces: Sequence[bytes], *, finish: bool = True) -> Behaviour:
    """Send a body whose length is not told beforehand, with or without its end."""

    async def behave(exchange: Exchange) -> None:
        await exchange.begin(None, Transfer_Encoding="chunked")
        for piece in pieces:
            await exchange.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        if finish:
            await exchange.send(b"0\r\n\r\n")
        else:
            exchange.writer.close()
            await exchange.writer.wait_closed()

    return behave


async def hang_up(exchange: Exchange) -> None:
    """Close the connection in place of an answer."""
    exchange.writer.close()
    await exchange.writer.wait_closed()


async def babble(exchange: Exchange) -> None:
    """Answer what is not HTTP."""
    await exchange.send(b"\x00\xffnobody speaks this\r\n\r\n")
    exchange.writer.close()
    await exchange.writer.wait_closed()


def by_method(**behaviours: Behaviour) -> Behaviour:
    """Another behaviour for each method: `by_method(HEAD=..., GET=...)`."""

    async def behave(exchange: Exchange) -> None:
        await behaviours[exchange.asked.method](exchange)

    return behave


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return b""


def _parse(head: bytes) -> Asked:
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    method, target, _ = first.split(" ")
    pairs = (line.partition(":") for line in lines)
    return Asked(
        method=method,
        target=target,
        headers={name.strip().lower(): value.strip() for name, _, value in pairs},
    )
