"""Demand: how much there is to do for how many, as an autoscaler is told."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Final, Protocol

import structlog

from app.admission import Admission
from app.jobs.backlog import Due

log = structlog.get_logger(__name__)

_TIMEOUT: Final = 1.0
"""Seconds for the database. It is left out where it takes longer."""
_KEPT: Final = 1.0
"""Seconds for which its answer serves whoever asks."""
_TIMES: Final = 10
"""And so many times as long as it took: asking takes a tenth of the time at most."""
_KEPT_LONGEST: Final = 10.0
_MOST: Final = 20.0
"""Times the processors there are: who is refused asks again, and is not to count without bound."""


class Meter(Protocol):
    """Measures the backlog of jobs."""

    async def measure_due(self) -> Due:
        """How much is due. Raises LedgerUnavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Times are in seconds, shares 0 to 1, and what is `recent` is of the last 15 seconds."""

    workers: int
    running: int
    queued: int
    utilisation: float
    queue_wait_seconds: float
    queue_seconds: float
    shed_share: float
    draining: bool
    due: Due | None

    @property
    def demand(self) -> float:
        """What the utilisation would be, had nothing been refused: it may exceed 1."""
        return min(_MOST, self.utilisation / max(1.0 - self.shed_share, 1 / _MOST))

    def as_json(self) -> dict[str, Any]:
        """What is told. `jobs` is null where there is no database, or it does not answer."""
        jobs = None
        if self.due is not None:
            jobs = {
                "due": self.due.depth,
                "backlog_seconds": round(self.due.seconds, 3),
                "oldest_seconds": round(self.due.age, 3),
            }
        return {
            "workers": self.workers,
            "running": self.running,
            "queued": self.queued,
            "utilisation": round(self.utilisation, 4),
            "demand": round(self.demand, 4),
            "queue_wait_seconds": round(self.queue_wait_seconds, 4),
            "queue_seconds": round(self.queue_seconds, 4),
            "shed_share": round(self.shed_share, 4),
            "draining": self.draining,
            "jobs": jobs,
        }


class DemandMeter:
    """Measures the demand of one replica. `meter` is None where there are no jobs."""

    def __init__(self, admission: Admission, meter: Meter | None) -> None:
        self._admission = admission
        self._meter = meter
        self._measuring: asyncio.Task[Due | None] | None = None
        self._again_at = 0.0

    async def measure(self, *, draining: bool) -> Demand:
        """How much there is to do now. Fails with nothing, and takes no longer than a second."""
        admission = self._admission
        return Demand(
            workers=admission.processors,
            running=admission.running,
            queued=admission.queued,
            utilisation=admission.utilisation,
            queue_wait_seconds=admission.recent_wait,
            queue_seconds=admission.queued_seconds,
            shed_share=admission.shed_share,
            draining=draining,
            due=await self._due(),
        )

    async def close(self) -> None:
        """Ask no more."""
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait({self._measuring})

    async def _due(self) -> Due | None:
        if self._meter is None:
            return None
        # One question at a time: where the database hangs, each would hold a connection for good.
        task = self._measuring
        if task is None or (task.done() and time.monotonic() >= self._again_at):
            task = self._measuring = asyncio.create_task(self._ask(self._meter))
        await asyncio.wait({task}, timeout=_TIMEOUT)
        return task.result() if task.done() and not task.cancelled() else None

    async def _ask(self, meter: Meter) -> Due | None:
        began = time.monotonic()
        try:
            return await meter.measure_due()
        except Exception as error:  # noqa: BLE001 - whatever it is, the processors are told of
            log.warning("backlog_unknown", error=f"{type(error).__name__}: {error}")
            return None
        finally:
            ended = time.monotonic()
            self._again_at = ended + min(max(_KEPT, _TIMES * (ended - began)), _KEPT_LONGEST)
