"""An HTTP origin that does what its script says, however wrong, and what stands in for the network.

The origin listens on 127.0.0.1 and counts. `Wire` takes the place of the one primitive by which the
service opens connections: it notes where they would go and lets none leave this machine.
"""

from __future__ import annotations

import gzip as gzip_format
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Final
from urllib.parse import urlsplit

import httpcore
import httpx

from transforms.libvips import Image

_POLL: Final = 0.02
_connect_for_real: Final = httpcore.AnyIOBackend.connect_tcp
_create_ssl_context: Final = httpx.create_ssl_context


# --- pictures ---------------------------------------------------------------------------------


def picture(width: int = 64, height: int = 48, *, seed: int = 1) -> Image:
    """Noise: it does not compress, so that encoded pictures have some length."""
    return Image.gaussnoise(width, height, mean=128, sigma=40, seed=seed).cast("uchar")


def jpeg(width: int = 64, height: int = 48, *, seed: int = 1) -> bytes:
    return picture(width, height, seed=seed).jpegsave_buffer(Q=80)


def png_head(width: int, height: int) -> bytes:
    """The beginning of a PNG: its signature and a header that claims a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\0\0\0\0"


# --- the origin -------------------------------------------------------------------------------


class ClientLeft(Exception):
    """The client closed the connection before it had the whole answer."""


@dataclass
class Asked:
    """One request as it came in, and what became of its answer."""

    connection: int
    path: str
    headers: dict[str, str]
    method: str = "GET"
    body: bytes = b""
    sent: int = 0
    left: threading.Event = field(default_factory=threading.Event)
    """Set when the client closed the connection before the script was through."""


class Exchange:
    """What a script has in hand: the request, and the means to answer."""

    def __init__(self, origin: Origin, connection: socket.socket, asked: Asked) -> None:
        self._origin = origin
        self._connection = connection
        self.asked = asked
        self.keep = True

    def send(self, data: bytes) -> None:
        try:
            self._connection.sendall(data)
        except OSError:
            raise ClientLeft from None
        self.asked.sent += len(data)

    def wait(self, seconds: float) -> None:
        """Do nothing for so long, unless the client leaves or the origin is stopped."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._origin.stopped:
                raise ClientLeft
            readable, _, _ = select.select([self._connection], [], [], _POLL)
            if readable:
                try:
                    if self._connection.recv(1, socket.MSG_PEEK) == b"":
                        raise ClientLeft
                except OSError:
                    raise ClientLeft from None
                time.sleep(_POLL)

    def close(self) -> None:
        """Close the connection after this answer."""
        self.keep = False


Script = Callable[[Exchange], None]


class Origin:
    """Serves a script for each path, and keeps a record."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(_POLL)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.scripts: dict[str, Script] = {}
        self.connections = 0
        self.asked: list[Asked] = []
        self.stopped = False
        self.greeting: bytes | None = None
        """What is sent instead of reading anything, before the connection is closed."""
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def serve(self, path: str, script: Script) -> str:
        """Answer a path by a script. Returns its URL."""
        self.scripts[path] = script
        return self.url + path

    def count(self, path: str) -> int:
        """How often a path was asked for."""
        return sum(asked.path == path for asked in self.asked)

    @property
    def open_connections(self) -> int:
        return len(self._open)

    def stop(self) -> None:
        self.stopped = True
        self._accepting.join(10)
        self._listener.close()
        for connection in list(self._open):
            _shut(connection)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self.stopped:
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            connection.settimeout(20)
            self.connections += 1
            self._open.add(connection)
            thread = threading.Thread(
                target=self._talk, args=(connection, self.connections), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _talk(self, connection: socket.socket, number: int) -> None:
        try:
            if self.greeting is not None:
                connection.recv(65536)
                connection.sendall(self.greeting)
                return
            while (asked := self._read(connection, number)) is not None:
                exchange = Exchange(self, connection, asked)
                script = self.scripts.get(asked.path, answer(b"", status=404))
                try:
                    script(exchange)
                except ClientLeft:
                    asked.left.set()
                    return
                if not exchange.keep:
                    return
        finally:
            self._open.discard(connection)
            _shut(connection)
            connection.close()

    def _read(self, connection: socket.socket, number: int) -> Asked | None:
        head = b""
        while b"\r\n\r\n" not in head:
            try:
                more = connection.recv(65536)
            except OSError:
                return None
            if not more:
                return None
            head += more
        head, _, body = head.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(":") for line in lines)
        }
        while len(body) < int(headers.get("content-length", 0)):
            try:
                more = connection.recv(65536)
            except OSError:
                return None
            if not more:
                return None
            body += more
        method, path, _ = first.split(" ")
        asked = Asked(connection=number, path=path, headers=headers, method=method, body=body)
        self.asked.append(asked)
        return asked


def _shut(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the other side was quicker


@contextmanager
def running_origin() -> Iterator[Origin]:
    origin = Origin()
    try:
        yield origin
    finally:
        origin.stop()


# --- scripts ----------------------------------------------------------------------------------


def head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *(f"{n}: {v}" for n, v in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def answer(body: bytes, *, status: int = 200, **headers: str) -> Script:
    """A well-formed answer. Underscores in the names of headers are dashes."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def script(exchange: Exchange) -> None:
        length = {} if "content-length" in named else {"content-length": str(len(body))}
        exchange.send(head(status, {**length, **named}) + body)

    return script


def until_closed(body: bytes) -> Script:
    """An answer without a length: it ends with the connection."""

    def script(exchange: Exchange) -> None:
        exchange.close()
        exchange.send(head(200, {"connection": "close"}) + body)

    return script


def chunked(*parts: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
        exchange.send(head(200, {"transfer-encoding": "chunked"}) + framed + b"0\r\n\r\n")

    return script


def validated(body: bytes, *, etag: str | None = None, modified: str | None = None) -> Script:
    """An answer with validators, and 304 to whoever shows that they still hold."""

    def script(exchange: Exchange) -> None:
        asked = exchange.asked.headers
        headers = {}
        if etag is not None:
            headers["etag"] = etag
        if modified is not None:
            headers["last-modified"] = modified
        if "if-none-match" in asked:
            holds = asked["if-none-match"] == etag
        else:
            holds = modified is not None and asked.get("if-modified-since") == modified
        if holds:
            exchange.send(head(304, headers))
        else:
            exchange.send(head(200, {**headers, "content-length": str(len(body))}) + body)

    return script


def redirect(location: str, *, status: int = 302) -> Script:
    return answer(b"moved", status=status, location=location)


def stall(before: bytes = b"") -> Script:
    """Send so much, then nothing more while the client stays."""

    def script(exchange: Exchange) -> None:
        exchange.close()
        exchange.send(before)
        exchange.wait(30)

    return script


def stalled_body(first: bytes, *, declared: int = 100_000) -> Script:
    return stall(head(200, {"content-length": str(declared)}) + first)


def drip(body: bytes, *, pause: float) -> Script:
    """One byte at a time."""

    def script(exchange: Exchange) -> None:
        exchange.close()
        exchange.send(head(200, {"content-length": str(len(body))}))
        for byte in body:
            exchange.send(bytes([byte]))
            exchange.wait(pause)

    return script


def cut(body: bytes, at: int) -> Script:
    """A body of which the last part never comes."""

    def script(exchange: Exchange) -> None:
        exchange.close()
        exchange.send(head(200, {"content-length": str(len(body))}) + body[:at])

    return script


def endless(first: bytes, *, framed: bool = False) -> Script:
    """A body that goes on until the client leaves, with or without chunked framing."""

    def script(exchange: Exchange) -> None:
        exchange.close()
        exchange.send(head(200, {"transfer-encoding": "chunked"} if framed else {}))
        zeros = bytes(65536)
        for part in (first, *(zeros for _ in range(4096))):
            exchange.send(b"%x\r\n%s\r\n" % (len(part), part) if framed else part)

    return script


def raw(data: bytes, *, keep: bool = False) -> Script:
    """These very bytes, HTTP or not."""

    def script(exchange: Exchange) -> None:
        exchange.keep = keep
        exchange.send(data)

    return script


def again_and_again(data: bytes) -> Script:
    """These bytes over and over until the client leaves."""

    def script(exchange: Exchange) -> None:
        exchange.close()
        while True:
            exchange.send(data)
            exchange.wait(0.001)

    return script


def gzipped(body: bytes, *, named: str = "gzip") -> Script:
    return answer(gzip_format.compress(body), content_encoding=named)


def in_turn(*scripts: Script) -> Script:
    """Another script each time; the last one from then on."""
    remaining = list(scripts)

    def script(exchange: Exchange) -> None:
        (remaining.pop(0) if len(remaining) > 1 else remaining[0])(exchange)

    return script


# --- the network ------------------------------------------------------------------------------


@cache
def tls_context() -> ssl.SSLContext:
    """What every client has, read from the disk once: that takes longer than most tests."""
    return _create_ssl_context()


class Wire:
    """Takes the place of `httpcore.AnyIOBackend.connect_tcp`.

    `routes` leads addresses to the port of a local origin, or to bytes that are the whole answer,
    over TLS or not. Every other address refuses the connection.
    """

    def __init__(self, routes: Mapping[str, int | bytes] | None = None) -> None:
        self.routes = dict(routes or {})
        self.attempts: list[tuple[str, int]] = []

    async def connect_tcp(self, host, port, timeout=None, local_address=None, socket_options=None):  # noqa: ASYNC109 - the signature is httpcore's
        self.attempts.append((host, port))
        route = self.routes.get(host)
        if isinstance(route, int):
            return await _connect_for_real(httpcore.AnyIOBackend(), "127.0.0.1", route, timeout)
        if isinstance(route, bytes):
            return httpcore.AsyncMockStream([route])
        raise httpcore.ConnectError("nobody is there")


class Names:
    """A resolver of made-up names. Each name has one answer, or several to be given in turn."""

    def __init__(self, answers: Mapping[str, list[str] | list[list[str]] | Exception]) -> None:
        self._answers = dict(answers)
        self.asked: list[str] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        found = self._answers.get(host)
        if found is None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        if isinstance(found, Exception):
            raise found
        if found and isinstance(found[0], list):
            return found.pop(0) if len(found) > 1 else found[0]
        return list(found)


def host_of(url: str) -> str:
    """The host within a URL, as it is resolved: without brackets."""
    host = urlsplit(url).hostname
    assert host
    return host
