"""A worker with faults, forked from a process that has loaded all that a worker loads.

An original called `poison...` ends the process that renders it, and one called `slow...` keeps it
until there is a file.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from app.cli import main
from app.jobs.records import Job
from app.jobs.runner import Runner

_FORKS: Final = multiprocessing.get_context("forkserver")
_LOADED: Final = ("tests.jobs.worker", "app.working", "app.jobs.distributed", "app.stores.files")


class Worker:
    """A worker in a process of its own: `pixelmill work` in a folder, with these variables.

    It tells `log` what it has to say.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], *, gate: Path, log: Path):
        _FORKS.set_forkserver_preload(list(_LOADED))
        self._process = _FORKS.Process(
            target=_work, args=(folder, dict(environment), gate, log), daemon=True
        )
        self._process.start()

    def poll(self) -> int | None:
        """How it has ended, if it has: the status, or the signal with a minus."""
        return self._process.exitcode

    def wait(self, seconds: float | None = None) -> int:
        """How it has ended, when it has."""
        self._process.join(seconds)
        if self._process.exitcode is None:
            raise TimeoutError("the worker goes on")
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _work(folder: Path, environment: dict[str, str], gate: Path, log: Path) -> None:
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    with log.open("ab") as told:
        for stream in (1, 2):
            os.dup2(told.fileno(), stream)
    run = Runner.run

    async def run_badly(self: Runner, job: Job) -> list[dict[str, Any]]:
        name = job.refs[0].name if job.refs else ""
        if name.startswith("poison"):
            os._exit(9)
        while name.startswith("slow") and not gate.exists():  # noqa: ASYNC110, ASYNC240 - of a file
            await asyncio.sleep(0.02)
        return await run(self, job)

    Runner.run = run_badly  # type: ignore[method-assign]
    sys.argv = ["pixelmill", "work"]
    main()
