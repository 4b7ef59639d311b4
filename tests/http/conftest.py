"""What the tests over HTTP share: a folder of originals, an origin on the web, and patience."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import cache
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.http import originals as draw
from tests.serving import Served, serving
from transforms import pipeline


class Folder:
    """The folder in which services of a test have their originals."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def put(self, name: str, data: bytes) -> str:
        draw.put(self.path, name, data)
        return name

    def names(self) -> list[str]:
        """Every file there is, whatever it is called."""
        return sorted(str(p.relative_to(self.path)) for p in self.path.rglob("*") if p.is_file())


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Originals of the services that `serve` starts: `cat.jpg` is wide, `ring.png` transparent."""
    found = Folder(tmp_path / "originals")
    for name, data in _usual().items():
        found.put(name, data)
    return found


@cache
def _usual() -> dict[str, bytes]:
    return {"cat.jpg": draw.jpeg(), "ring.png": draw.png(draw.ring())}


BAD_ORIGINALS = {
    "letter.txt": (415, "unsupported_format", draw.TEXT),
    "drawing.svg": (422, "broken_image", draw.SVG[:60]),
    "phone.heic": (422, "broken_image", draw.HEIC),
    "paper.pdf": (422, "broken_image", draw.PDF),
    "cut.jpg": (422, "broken_image", draw.jpeg()[:900]),
    "cut.png": (422, "broken_image", draw.png(draw.grain())[:5000]),
    "empty.jpg": (422, "broken_image", b""),
    "bomb.png": (413, "source_too_large", draw.png_of(60_000, 60_000, b"")),
}
"""Originals that cannot be rendered: the status and the code that say why, and their bytes."""


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One service for all tests of a file that change nothing, with bad originals as well."""
    folder = Folder(tmp_path_factory.mktemp("standing"))
    for name, data in _usual().items():
        folder.put(name, data)
    folder.put("still.webp", draw.webp())
    for name, (_, _, data) in BAD_ORIGINALS.items():
        folder.put(name, data)
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith("PIXELMILL_"):
                patch.delenv(name)
        with serving(originals=f"file:{folder.path}", results="off") as served:
            yield served


@pytest.fixture(scope="session")
def vast() -> bytes:
    """A picture of 90 megapixels in a few hundred kilobytes."""
    return draw.vast_png(10_000, 9_000)


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Wait for something that must come to pass: `until(lambda: ...)`."""

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not holds():
            assert time.monotonic() < deadline, "it did not come to pass"
            time.sleep(0.005)

    return wait


@dataclass
class Answered:
    """What came back on a connection of its own."""

    status: int
    headers: dict[str, str]
    body: bytes


class Caller:
    """A client on one connection, which sends now and reads later, or leaves instead."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._connection = HTTPConnection(parts.hostname or "", parts.port, timeout=10)

    def send(
        self,
        path: str,
        *,
        method: str = "GET",
        headers: list[tuple[str, str]] | None = None,
        body: bytes = b"",
    ) -> Caller:
        self._connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers or []:
            self._connection.putheader(name, value)
        self._connection.endheaders(body or None)
        return self

    def write(self, data: bytes) -> None:
        self._connection.send(data)

    def read(self) -> Answered:
        response = self._connection.getresponse()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return Answered(response.status, headers, response.read())

    def leave(self) -> None:
        self._connection.close()


@pytest.fixture
def call() -> Iterator[Callable[[Served], Caller]]:
    """Open connections: `call(served).send("/thumb/a").read()`."""
    with ExitStack() as stack:

        def open_one(served: Served) -> Caller:
            caller = Caller(served.url)
            stack.callback(caller.leave)
            return caller

        yield open_one


@dataclass
class Origin:
    """A web server that answers what it is told to, when the gate is open."""

    url: str = ""
    pictures: dict[str, bytes] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)
    requests: list[str] = field(default_factory=list)
    deserted: list[str] = field(default_factory=list)
    """Requests whose client went away before they were answered."""

    def answer(self, connection: socket.socket, stopping: threading.Event) -> None:
        with connection, suppress(OSError):
            while head := self._request(connection, stopping):
                path = head.split(b" ")[1].decode()
                self.requests.append(path)
                if not self._wait_for_gate(connection, stopping):
                    self.deserted.append(path)
                    return
                connection.sendall(self._response(path))

    def _response(self, path: str) -> bytes:
        body = self.pictures.get(path.partition("?")[0])
        status = "200 OK" if body is not None else "404 Not Found"
        body = body or b""
        headers = {"content-length": str(len(body)), **self.headers}
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body

    @staticmethod
    def _request(connection: socket.socket, stopping: threading.Event) -> bytes:
        head = b""
        while b"\r\n\r\n" not in head:
            while not select.select([connection], [], [], 0.05)[0]:
                if stopping.is_set():
                    return b""
            received = connection.recv(65536)
            if not received:
                return b""
            head += received
        return head

    def _wait_for_gate(self, connection: socket.socket, stopping: threading.Event) -> bool:
        while not self.gate.wait(0.01):
            if stopping.is_set():
                return False
            if select.select([connection], [], [], 0)[0] and not connection.recv(
                1, socket.MSG_PEEK
            ):
                return False
        return True


@pytest.fixture
def origin() -> Iterator[Origin]:
    """An origin on loopback. It has `/cat.jpg`; close its gate and it stalls."""
    found = Origin(pictures={"/cat.jpg": _usual()["cat.jpg"]})
    found.gate.set()
    stopping = threading.Event()
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        found.url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def accept() -> None:
            while not stopping.is_set():
                if not select.select([listener], [], [], 0.05)[0]:
                    continue
                connection, _ = listener.accept()
                thread = threading.Thread(target=found.answer, args=(connection, stopping))
                threads.append(thread)
                thread.start()

        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield found
        finally:
            stopping.set()
            for thread in (accepting, *threads):
                thread.join(10)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Renders begin, and then wait until this is set."""
    opened = threading.Event()
    run_all = pipeline.run_all

    def held(data, works, stop=None):
        while not opened.wait(0.005):
            if stop is not None:
                stop.check()
        return run_all(data, works, stop)

    monkeypatch.setattr(pipeline, "run_all", held)
    yield opened
    opened.set()
