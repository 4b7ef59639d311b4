"""A worker with faults: `python -m tests.jobs.worker GATE work`.

An original called `poison...` ends the process that renders it, and one called `slow...` keeps it
until the file GATE is there.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from app.cli import main
from app.jobs.records import Job
from app.jobs.runner import Runner

_GATE = Path(sys.argv.pop(1))
_run = Runner.run


async def _run_badly(self: Runner, job: Job) -> list[dict[str, Any]]:
    name = job.refs[0].name if job.refs else ""
    if name.startswith("poison"):
        os._exit(9)
    while name.startswith("slow") and not _GATE.exists():  # noqa: ASYNC110, ASYNC240 - of a file
        await asyncio.sleep(0.02)
    return await _run(self, job)


Runner.run = _run_badly  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
