"""A way to a server that can be closed: connections pass, are refused, or lead nowhere."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import Enum

_PIECE = 1 << 16


class State(Enum):
    """What becomes of connections."""

    OPEN = "open"
    CLOSED = "closed"
    """Those there are are cut, and new ones are cut at once."""
    SILENT = "silent"
    """They stay, and nothing passes."""


class Gate:
    """Listens on a loopback port and passes bytes on to another."""

    def __init__(self, port: int) -> None:
        self._to = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.state = State.OPEN
        self._ended = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            with suppress(OSError):
                if select.select([self._listener], [], [], 0.1)[0]:
                    client, _ = self._listener.accept()
                    threading.Thread(target=self._pass, args=(client,), daemon=True).start()

    def _pass(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            if self.state is State.CLOSED:
                return
            with socket.create_connection(self._to) as server:
                other = {client: server, server: client}
                while not self._ended.is_set() and self.state is not State.CLOSED:
                    if self.state is State.SILENT:
                        self._ended.wait(0.02)
                        continue
                    for readable in select.select([client, server], [], [], 0.05)[0]:
                        data = readable.recv(_PIECE)
                        if not data:
                            return
                        other[readable].sendall(data)


@contextmanager
def gate(port: int) -> Iterator[Gate]:
    """A gate before a loopback port, open at first."""
    opened = Gate(port)
    try:
        yield opened
    finally:
        opened.close()
