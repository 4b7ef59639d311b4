"""What hands jobs to workers: a small protocol, and two ways to fulfil it.

The ledger owns every state; a queue only brings the ids of jobs that are due to whoever can run
them. `embedded` claims rows of the ledger itself, `distributed` is PgQueuer, whose rows enter the
database in the same transaction as the ledger's. Both bring a job at least once: whether it is run
is decided by `attempts.begin`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol

from app.jobs.database import Connection
from app.jobs.records import Job

Perform = Callable[[str], Coroutine[Any, Any, float | None]]
"""Runs the job of an id to the end of an attempt. Raises nothing.

Returns None, or the seconds after which the job is to be brought again: it may be in the hands of a
worker that has died.
"""


class JobQueue(Protocol):
    """Brings jobs to workers."""

    async def open(self) -> None:
        """Make ready what it needs in the database. Raises LedgerUnavailable."""

    def submit(self, tx: Connection, jobs: Sequence[Job]) -> None:
        """Bring these jobs when they are due: in the transaction that writes them down."""

    def cancel(self, tx: Connection, ids: Sequence[str]) -> None:
        """No longer bring these."""

    def wake(self) -> None:
        """Look for due jobs now: some have been committed."""

    async def run(self, perform: Perform, *, concurrency: int, stop: asyncio.Event) -> None:
        """Bring jobs that are due, at most `concurrency` at once, until told to stop.

        Then those that were brought are waited for. Outlives a database that is away for a time.
        """

    async def tidy(self) -> None:
        """Look for what has gone astray. One of many processes does it at a time."""

    async def close(self) -> None:
        """Let go of connections."""
