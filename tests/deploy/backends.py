"""Replicas that balancers and caches are tested against: each tells what it was asked.

They are no Pixelmill: a test of a balancer wants replicas that are slow, full or gone on demand.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import httpx

ROOT: Final = Path(__file__).resolve().parents[2]
DEPLOY: Final = ROOT / "deploy"


@dataclass
class Replica:
    """A server on loopback. Tests change its status, delay and headers while it runs."""

    name: str
    host: str = "127.0.0.1"
    port: int = 0
    status: int = 200
    """What it answers, but for its health."""
    ready: bool = True
    delay: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """Requests, as `GET /path`, without those for its health."""
    _server: ThreadingHTTPServer | None = None
    _connections: set[socket.socket] = field(default_factory=set)

    @property
    def up(self) -> bool:
        return self._server is not None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Listen: on the same port as before, if it has been up."""
        replica = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                replica._connections.add(self.request)
                super().setup()

            def answer(self) -> None:
                replica._answer(self)

            def log_message(self, *args: Any) -> None:
                pass

        for verb in ("GET", "HEAD", "POST", "PUT", "DELETE"):
            setattr(Handler, f"do_{verb}", Handler.answer)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 64

            def handle_error(self, *args: Any) -> None:
                pass  # a balancer that leaves is no error

        self._server = Server((self.host, self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Go as `kill -9` goes: with all connections."""
        if self._server is None:
            return
        self._server.shutdown()
        self._server.server_close()
        self._server = None
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._connections.clear()

    def reset(self) -> None:
        """As it was at first."""
        self.status, self.ready, self.delay = 200, True, 0.0
        self.headers.clear()
        self.asked.clear()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        size = int(request.headers.get("content-length") or 0)
        request.rfile.read(size)
        health = request.path == "/readyz"
        if health:
            status = 200 if self.ready else 503
        else:
            self.asked.append(f"{request.command} {request.path}")
            time.sleep(self.delay)
            status = self.status
        body = json.dumps(
            {
                "replica": self.name,
                "path": request.path,
                "method": request.command,
                "headers": {k.lower(): v for k, v in request.headers.items()},
            }
        ).encode()
        request.send_response(status)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.send_header("X-Replica", self.name)
        for name, value in self.headers.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(body)


@contextmanager
def three_replicas() -> Iterator[list[Replica]]:
    """Three of them, which run until the block ends."""
    replicas = [Replica(f"r{number}") for number in (1, 2, 3)]
    with ExitStack() as stack:
        for replica in replicas:
            replica.start()
            stack.callback(replica.stop)
        yield replicas


class NameServer:
    """A name server on loopback to which every name has the same addresses (RFC 1035)."""

    def __init__(self, addresses: list[str]) -> None:
        self.addresses = addresses
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._socket.getsockname()[1]}"

    @classmethod
    @contextmanager
    def running(cls, addresses: list[str]) -> Iterator[NameServer]:
        server = cls(addresses)
        thread = threading.Thread(target=server._serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server._socket.sendto(b"", server._socket.getsockname())
            thread.join(2)
            server._socket.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                query, sender = self._socket.recvfrom(1232)
                if not query:
                    return
                self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: bytes) -> bytes:
        end = query.index(b"\0", 12) + 1
        kind = int.from_bytes(query[end : end + 2], "big")
        records = [
            b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + socket.inet_aton(address)
            for address in self.addresses
            if kind == 1
        ]
        counts = struct.pack(">HHHHH", 0x8580, 1, len(records), 0, 0)
        return query[:2] + counts + query[12 : end + 4] + b"".join(records)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def substitute(text: str, pattern: str, replacement: str, *, times: int = 1) -> str:
    """Replace what a recipe has exactly so often: a test must notice when it no longer does."""
    changed, count = re.subn(pattern, lambda _: replacement, text, flags=re.MULTILINE)
    assert count == times, f"{pattern} stands {count} times in the recipe"
    return changed


def await_answer(
    client: httpx.Client, path: str, *, status: int = 200, seconds: float = 20
) -> None:
    """Wait until a path is answered with this status."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if client.get(path).status_code == status:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, f"{path} was not answered with {status} in time"
        time.sleep(0.02)
