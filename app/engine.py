"""The engine: the threads in which libvips runs, as many as there are processors.

A render is stopped when its deadline passes or when nobody waits for it any more. libvips notices
at its next strip of pixels; until then the thread, and the ticket that goes with it, stay taken.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

from app.admission import Ticket
from app.errors import RenderTimeout
from transforms.pipeline import Stop

T = TypeVar("T")

_SWITCH_INTERVAL: Final = 0.0005
"""Seconds before a thread must let another run. libvips calls are many and short: beside a busy
event loop, Python's default of 5 ms makes a render three times as long."""
_HOPELESS: Final = 60.0
"""Seconds after its deadline from which on a render is not expected to end any more."""


class Engine:
    """Runs renders in threads, each of which does `before_all` first.

    What has been asked to stop and does not is told by `overdue` and `is_stuck`, in any thread.
    """

    def __init__(
        self,
        *,
        processors: int,
        before_all: Callable[[], None] | None = None,
    ) -> None:
        self._processors = processors
        self._deadlines: dict[Ticket, float] = {}
        """By the monotonic clock, of the renders whose threads have not ended."""
        self._threads = ThreadPoolExecutor(
            processors, thread_name_prefix="render", initializer=before_all
        )
        sys.setswitchinterval(_SWITCH_INTERVAL)

    @property
    def overdue(self) -> int:
        """Renders whose deadline has passed and whose threads have not ended."""
        return self._past(0.0)

    @property
    def is_stuck(self) -> bool:
        """Whether every thread hangs, so that nothing is ever rendered here again."""
        return self._past(_HOPELESS) >= self._processors

    async def run(self, work: Callable[[Stop], T], ticket: Ticket, *, timeout: float) -> T:  # noqa: ASYNC109 - a thread must be told to stop
        """Work with a processor that has been granted, and give it back when the thread ends.

        `timeout` is in seconds. Raises RenderTimeout, and what the work raises.
        """
        stop = Stop()
        future = asyncio.get_running_loop().run_in_executor(self._threads, work, stop)
        began = time.monotonic()
        self._deadlines[ticket] = began + timeout
        future.add_done_callback(lambda done: self._finish(done, ticket, began, timeout))
        try:
            async with asyncio.timeout(timeout):
                return await asyncio.shield(future)
        except TimeoutError:
            stop.request()
            raise RenderTimeout(f"The render took more than {timeout:g} s") from None
        except asyncio.CancelledError:
            stop.request()
            raise

    def _finish(
        self, future: asyncio.Future[Any], ticket: Ticket, began: float, timeout: float
    ) -> None:
        del self._deadlines[ticket]
        error = None if future.cancelled() else future.exception()
        took = time.monotonic() - began
        # One that overran its time teaches the estimate as well: else its kind would stay cheap.
        finished = not future.cancelled() and error is None
        ticket.release(learn=finished or took >= timeout)

    def _past(self, seconds: float) -> int:
        now = time.monotonic()
        # Of a copy: a worker's metrics are read in a thread of their own.
        return sum(now > deadline + seconds for deadline in self._deadlines.copy().values())

    def close(self) -> None:
        """Let threads end. Does not wait for a decoder that hangs."""
        self._threads.shutdown(wait=False, cancel_futures=True)
