"""Clients at a steady pace, each of which connects again where it has lost its connection.

Nothing is sent twice: what fails has failed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Final, Self

_TIMEOUT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request: when it was sent, its status (0: none), and seconds until then."""

    at: float
    path: str
    status: int
    seconds: float
    fault: str = ""

    @property
    def failed(self) -> bool:
        return self.status != 200

    @property
    def until(self) -> float:
        return self.at + self.seconds


class Steady:
    """Asks `rate` times a second for what `paths` says, until the block ends."""

    def __init__(
        self, port: int, *, rate: float, paths: Callable[[int], str], clients: int
    ) -> None:
        self.answers: list[Answer] = []
        self._port = port
        self._rate = rate
        self._paths = paths
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._number = 0
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(clients)]

    def __enter__(self) -> Self:
        self._began = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(_TIMEOUT)

    @property
    def failures(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.failed]

    def wait_for(self, count: int) -> None:
        """Wait until so many more have been answered."""
        until = len(self.answers) + count
        deadline = time.monotonic() + _TIMEOUT
        while len(self.answers) < until:
            if time.monotonic() > deadline:
                raise TimeoutError("the clients get no answers")
            time.sleep(0.01)

    def _run(self) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
        while True:
            with self._lock:
                number = self._number
                self._number += 1
            if self._ended.wait(max(0.0, self._began + number / self._rate - time.monotonic())):
                break
            self._ask(connection, self._paths(number))
        connection.close()

    def _ask(self, connection: HTTPConnection, path: str) -> None:
        at = time.monotonic()
        status, fault = 0, ""
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, HTTPException) as error:
            fault = f"{type(error).__name__}: {error}"
            with suppress(OSError):
                connection.close()
        with self._lock:
            self.answers.append(Answer(at, path, status, time.monotonic() - at, fault))
