"""The end of a process, which nothing in it may hold up.

A thread that hangs in a library cannot be stopped, and Python waits for all threads before it
ends. So whoever is told to stop sets a limit here first.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from contextlib import suppress
from typing import Final, Protocol

import structlog

log = structlog.get_logger(__name__)

GRACE: Final = 5.0
"""Seconds after a drain for handing back jobs and closing stores."""
LEFT_OVER: Final = 1.0
"""Seconds for threads when all else has ended: nobody waits for what they do."""
_TELLING: Final = 0.5
_LOOKS: Final = 6


class End(Protocol):
    """Ends a process at a time, unless it has ended before."""

    def __call__(self, seconds: float, *, status: int, reason: str) -> None: ...


def end_in(seconds: float, *, status: int, reason: str) -> None:
    """End this process after so many seconds, whatever its threads do: what comes first counts."""
    threading.Thread(target=_end, args=(seconds, status, reason), name="end", daemon=True).start()


def end_when_still(
    loop: asyncio.AbstractEventLoop, *, end: End = end_in, every: float = 10.0
) -> None:
    """End this process when its event loop has not turned at several looks, `every` s apart.

    A process that listens on nothing cannot be asked whether it is well, so it asks itself. One
    look is not enough: a process that was halted as a whole has done nothing wrong.
    """

    def watch() -> None:
        missed = 0
        while missed < _LOOKS and not loop.is_closed():
            turned = threading.Event()
            with suppress(RuntimeError):  # it has closed in between
                loop.call_soon_threadsafe(turned.set)
            missed = 0 if turned.wait(every) else missed + 1
            if not missed:
                time.sleep(every)
        if not loop.is_closed():
            end(0.0, status=1, reason="the event loop stands still")

    threading.Thread(target=watch, name="watch", daemon=True).start()


def status_of(signal_number: int) -> int:
    """The exit status of a process that a signal has ended, as shells and containers show it."""
    return 128 + signal_number


def _end(seconds: float, status: int, reason: str) -> None:
    time.sleep(seconds)
    # Whoever reads the log may have stopped reading, and then to write is to wait.
    telling = threading.Thread(target=_tell, args=(status, reason), daemon=True)
    telling.start()
    telling.join(_TELLING)
    os._exit(status)


def _tell(status: int, reason: str) -> None:
    busy = [each.name for each in threading.enumerate() if not each.daemon]
    log.warning("ended", reason=reason, status=status, threads=busy)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
