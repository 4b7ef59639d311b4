"""Refreshing: stale results are made anew behind those who are answered with them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from app.cache import Rendered
from app.errors import problem_of
from app.keys import Keyed
from app.subjects import Coverage

log = structlog.get_logger(__name__)

_MOST: Final = 8
"""Results that are made anew at once. Of others the stale one is answered meanwhile."""
_AGAIN: Final = 10.0
"""Seconds after which a result is made anew again, where that has failed."""


class Refreshing:
    """The stale results that are being made anew, by key."""

    def __init__(self) -> None:
        self._under_way: dict[str, tuple[Rendered, Keyed, asyncio.Task[None]]] = {}

    def get(self, key: str) -> Rendered | None:
        """What to answer with while it is made anew."""
        found = self._under_way.get(key)
        return None if found is None else found[0]

    def start(self, stale: Rendered, keyed: Keyed, render: Callable[[], Awaitable[object]]) -> None:
        """Begin to make it anew, unless that is under way or enough others are."""
        key = keyed.key
        if key in self._under_way or len(self._under_way) >= _MOST:
            return
        task = asyncio.create_task(self._run(key, render))
        self._under_way[key] = (stale, keyed, task)

    def withdraw(self, coverage: Coverage) -> None:
        """Answer with nothing any more that this is about."""
        for key, (_, keyed, task) in list(self._under_way.items()):
            if keyed.preset in coverage.presets or any(ref in coverage for ref in keyed.refs):
                del self._under_way[key]
                task.cancel()

    async def close(self) -> None:
        """Give up what is under way."""
        tasks = [task for _, _, task in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, key: str, render: Callable[[], Awaitable[object]]) -> None:
        try:
            await render()
        except Exception as error:  # noqa: BLE001 - nobody waits for it: it is told in the log
            problem = problem_of(error)
            log.warning("result_not_refreshed", code=problem.code if problem else "internal")
            await asyncio.sleep(_AGAIN)
        finally:
            found = self._under_way.get(key)
            if found is not None and found[2] is asyncio.current_task():
                del self._under_way[key]
