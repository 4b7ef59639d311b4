"""The command line with renders that hang: `python -m tests.gated GATE serve`.

Each render keeps its thread until the file GATE is there, and then does its work. One that hangs is
given up a moment after its time, not a minute.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from app import engine, working
from app.admission import Ticket
from app.cli import main
from app.engine import Engine
from transforms.pipeline import Stop

_GATE = Path(sys.argv.pop(1))
_run = Engine.run


async def _run_later(
    self: Engine, work: Callable[[Stop], Any], ticket: Ticket, **options: Any
) -> Any:
    def wait(stop: Stop) -> Any:
        while not _GATE.exists():  # as a decoder that hangs: `stop` is not looked at
            time.sleep(0.01)
        return work(stop)

    return await _run(self, wait, ticket, **options)


Engine.run = _run_later  # type: ignore[method-assign]
engine._HOPELESS = 0.1  # type: ignore[misc]
working._LOOK = 0.1  # type: ignore[misc]

if __name__ == "__main__":
    main()
