"""Documents that are decoded in a process of their own, which is killed when it takes too much.

`Children` starts the process of `app.child` when it is first needed and again when it has died,
and has it fork for each document. What comes back from such a process is not trusted: sizes are
checked, and the file that the caller decodes is made here, round pixels that are only pixels.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

from app.child import (
    ANSWER_BYTES,
    BEGIN,
    END,
    FRAME,
    ORDER,
    parse_bands,
    parse_leaf,
    wrong_answer,
)
from app.confinement import Confinement
from app.errors import Overloaded
from transforms import foreign
from transforms.errors import BrokenImage
from transforms.foreign_raster import Leaf, tiff_head

_START_SECONDS: Final = 10.0
_STOP_SECONDS: Final = 2.0
T = TypeVar("T")
_KEPT: Final = ("FONTCONFIG_FILE", "FONTCONFIG_PATH", "LD_LIBRARY_PATH", "PATH")
"""What the process is given of this one's environment. All else may be secret."""


class Children:
    """Decodes foreign documents in processes of their own, `limit` of them at once.

    Each may take `seconds` of work, the caller's own time between measuring and drawing not
    counted, and `memory` bytes. `patience` is how many seconds a document waits for its turn.
    `on_death` is told the cause where a process ends before its work: `timeout` and `crash` of a
    document's, `fork` of the one that forks for them, and `start` where that does not come up.
    """

    def __init__(
        self,
        *,
        seconds: float,
        memory: int,
        limit: int,
        patience: float = 5.0,
        on_start: Callable[[], None] = lambda: None,
        on_death: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._seconds = seconds
        self._memory = memory
        self._patience = patience
        self._on_start = on_start
        self._on_death = on_death
        self._places = asyncio.Semaphore(limit)
        self._starting = asyncio.Lock()
        self._zygote: _Zygote | None = None
        self._closed = False

    async def warm(self) -> Confinement:
        """Start the process now. Returns how it could be confined. Raises Overloaded."""
        return (await self._running()).confinement

    @asynccontextmanager
    async def open(self, name: str, data: bytes, *, page: int = 0) -> AsyncIterator[Child]:
        """Measure a document of one of `foreign.NAMES`, and keep it open for drawing.

        Raises BrokenImage, also where its process crashed or took too long, UnsupportedFormat,
        SourceTooLarge, InvalidOption for a page it does not have, and Overloaded.
        """
        foreign.require(name)
        try:
            async with asyncio.timeout(self._patience):
                await self._places.acquire()
        except TimeoutError:
            raise Overloaded("Too many documents are being decoded", retry_after=1) from None
        try:
            child = await self._begin(name, data, page)
            try:
                yield child
            finally:
                child.close()
        finally:
            self._places.release()

    async def close(self) -> None:
        """End the process and with it all documents. What is still open fails."""
        self._closed = True
        async with self._starting:
            zygote, self._zygote = self._zygote, None
        if zygote is not None:
            await zygote.close()

    async def _begin(self, name: str, data: bytes, page: int) -> Child:
        for attempt in (1, 2):
            zygote = await self._running()
            child = Child(
                zygote, seconds=self._seconds, memory=self._memory, on_death=self._on_death
            )
            try:
                await child.begin(name, data, page)
            except BaseException as error:
                child.close()
                # Not the document's fault: the process died before or while it was asked.
                if attempt == 1 and isinstance(error, BrokenImage) and not zygote.alive:
                    continue
                raise
            return child
        raise AssertionError("unreachable")

    async def _running(self) -> _Zygote:
        async with self._starting:
            if self._closed:
                raise Overloaded("The service is stopping")
            if self._zygote is not None and self._zygote.alive:
                return self._zygote
            if self._zygote is not None:
                self._on_death("fork")
                await self._zygote.close()
                self._zygote = None
            try:
                self._zygote = await _Zygote.start(self._memory)
            except Overloaded:
                self._on_death("start")
                raise
            self._on_start()
            return self._zygote


class Child:
    """One document in its process."""

    leaf: Leaf

    def __init__(
        self, zygote: _Zygote, *, seconds: float, memory: int, on_death: Callable[[str], None]
    ) -> None:
        self._zygote = zygote
        self._on_death = on_death
        self._seconds = self._left = seconds
        self._memory = memory
        self._socket, self._theirs = socket.socketpair()
        self._socket.settimeout(0)
        self._number: int | None = None

    async def begin(self, name: str, data: bytes, page: int) -> None:
        """Have a process measure the document, which makes `leaf`."""
        try:
            self._number = self._zygote.begin(self._theirs)
        except OSError:
            raise self._crashed() from None
        finally:
            self._theirs.close()

        async def measure() -> Leaf:
            await self._send({"name": name, "page": page, "seconds": self._left}, data)
            return parse_leaf(await self._answer())

        self.leaf = await self._timed(measure())

    async def draw(self, scale: float) -> bytes:
        """Draw the page at a scale of `leaf.size`: an uncompressed TIFF of `leaf.drawn(scale)`.

        Only once. Its pixels are upright sRGB or grey of 8 bits, with transparency where the page
        has some. Raises BrokenImage, SourceTooLarge.
        """
        size = self.leaf.drawn(scale)

        async def draw() -> bytes:
            await self._send({"scale": scale, "seconds": self._left})
            bands = parse_bands(await self._answer(), size)
            head = tiff_head(size, bands)
            return await self._receive(size.pixels * bands, head)

        return await self._timed(draw())

    def close(self) -> None:
        """Have the process killed, whatever it does."""
        self._socket.close()
        if self._number is not None:
            self._zygote.end(self._number)
            self._number = None

    async def _timed(self, work: Coroutine[Any, Any, T]) -> T:
        began = time.monotonic()
        try:
            async with asyncio.timeout(self._left):
                return await work
        except TimeoutError:
            self._on_death("timeout")
            raise BrokenImage(
                f"The original could not be decoded within {self._seconds:g} s"
            ) from None
        except (OSError, EOFError):
            raise self._crashed() from None
        finally:
            self._left -= time.monotonic() - began

    def _crashed(self) -> BrokenImage:
        self._on_death("crash")
        return BrokenImage(
            "The original could not be decoded: its decoder crashed or needed more than "
            f"{self._memory >> 20} MB"
        )

    async def _send(self, order: dict[str, Any], *following: bytes) -> None:
        loop = asyncio.get_running_loop()
        for data in (json.dumps(order).encode(), *following):
            await loop.sock_sendall(self._socket, FRAME.pack(len(data)))
            await loop.sock_sendall(self._socket, data)

    async def _answer(self) -> bytes:
        (length,) = FRAME.unpack(await self._receive(FRAME.size))
        if length > ANSWER_BYTES:
            raise wrong_answer()
        return await self._receive(length)

    async def _receive(self, length: int, head: bytes = b"") -> bytes:
        """`head`, and after it exactly so many bytes of what comes."""
        if not length:
            return head
        # As large as a raster is, it is not to be held twice: this gives its bytes uncopied.
        whole = io.BytesIO()
        whole.write(head)
        whole.seek(len(head) + length - 1)
        whole.write(b"\0")
        loop = asyncio.get_running_loop()
        done = len(head)
        with whole.getbuffer() as view:
            while done < len(view):
                with view[done:] as rest:
                    count = await loop.sock_recv_into(self._socket, rest)
                if not count:
                    raise EOFError
                done += count
        return whole.getvalue()


class _Zygote:
    """The process that forks for each document."""

    def __init__(self, process: subprocess.Popen[bytes], control: socket.socket) -> None:
        self._process = process
        self._control = control
        self._numbers = 0
        self.confinement = Confinement()

    @classmethod
    async def start(cls, memory: int) -> _Zygote:
        control, theirs = socket.socketpair()
        control.settimeout(0)
        command = [sys.executable, "-P", "-m", "app.child", str(theirs.fileno()), str(memory)]
        with theirs:
            try:
                process = subprocess.Popen(  # noqa: ASYNC220, S603 - it returns when it has forked
                    command,
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=_environment(),
                )
            except OSError:
                control.close()
                raise _cannot_start() from None
        zygote = cls(process, control)
        try:
            async with asyncio.timeout(_START_SECONDS):
                zygote.confinement = await zygote._report()
        except (TimeoutError, OSError, EOFError):
            await zygote.close()
            raise _cannot_start() from None
        except BaseException:
            await zygote.close()
            raise
        return zygote

    @property
    def alive(self) -> bool:
        """Whether it still holds its end of the socket, on which it says no more."""
        try:
            return bool(self._control.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def begin(self, connection: socket.socket) -> int:
        """Have it fork for a document that comes over this connection. Raises OSError."""
        self._numbers += 1
        order = ORDER.pack(BEGIN, self._numbers)
        socket.send_fds(self._control, [order], [connection.fileno()])
        return self._numbers

    def end(self, number: int) -> None:
        """Have it kill a document's process."""
        try:
            self._control.send(ORDER.pack(END, number))
        except BlockingIOError:
            self._process.kill()  # it reads no orders any more, and all its children go with it
        except OSError:
            pass

    async def close(self) -> None:
        """End it, and with it what it has forked."""
        self._control.close()
        try:
            await asyncio.to_thread(self._process.wait, _STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
        except BaseException:
            self._process.kill()
            raise

    async def _report(self) -> Confinement:
        loop = asyncio.get_running_loop()
        received = b""
        while len(received) < FRAME.size or len(received) < FRAME.size + _length(received):
            part = await loop.sock_recv(self._control, ANSWER_BYTES)
            if not part:
                raise EOFError
            received += part
        return Confinement(**json.loads(received[FRAME.size :]))


def _cannot_start() -> Overloaded:
    return Overloaded("The process that decodes documents does not start", retry_after=5)


def _length(received: bytes) -> int:
    return int(FRAME.unpack(received[: FRAME.size])[0])


def _environment() -> dict[str, str]:
    """An environment made anew: no credentials, no settings, one thread for each picture."""
    kept = {name: os.environ[name] for name in _KEPT if name in os.environ}
    paths = [str(Path(__file__).resolve().parents[1]), os.environ.get("PYTHONPATH", "")]
    return kept | {
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "1",  # an arena for each thread would use up the address space
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "VIPS_CONCURRENCY": "1",
        "VIPS_WARNING": "0",
    }
