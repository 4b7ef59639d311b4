"""Refusals: what cannot be done is not begun, or not again, and the reason is told."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Final

from app.admission import Lane
from transforms.cost import Cost
from transforms.errors import InvalidOption, OriginalError

_COSTLY: Final = {
    "w": "pixels alone",
    "effort": "effort beyond the usual",
    "q": "finding a quality",
    "max-bytes": "finding a quality",
    "merge": "decoding what is merged",
}
"""What the seconds are for that a parameter causes."""
_CHEAPER: Final = {
    "w": "a smaller picture, or another fm",
    "effort": "less effort, or a smaller picture",
    "q": "a quality in numbers, or a smaller picture",
    "max-bytes": "a q in place of max-bytes, or a smaller picture",
    "merge": "fewer or smaller originals",
    "trim": "a smaller original, or none trimmed",
}
"""What is asked for to make do with fewer."""


_REMEMBERED: Final = 10_000


class Refusals:
    """Requests that were found to be impossible, by key, for `seconds`.

    The reason lies in the original's bytes, for which the key stands: another attempt would
    download and decode them, and fail in the same way.
    """

    def __init__(self, *, seconds: float) -> None:
        self._seconds = seconds
        self._known: OrderedDict[str, tuple[OriginalError, float]] = OrderedDict()

    def check(self, key: str) -> None:
        """Raise what the last attempt raised."""
        known = self._known.get(key)
        if known is None:
            return
        if known[1] <= time.monotonic():
            del self._known[key]
            return
        raise known[0].with_traceback(None)

    def remember(self, key: str, error: BaseException) -> None:
        """Take note of why a request has failed, if it would fail again."""
        if not isinstance(error, OriginalError) or not self._seconds:
            return
        self._known[key] = (error, time.monotonic() + self._seconds)
        self._known.move_to_end(key)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)


def check_seconds(cost: Cost, seconds: float, lane: Lane) -> None:
    """Refuse what cannot be done in time: an encoder that is at work cannot be stopped.

    Raises InvalidOption, which names the parameter that most of the seconds are for.
    """
    if cost.seconds <= seconds:
        return
    cause = cost.cause
    change = f"ask for {_CHEAPER.get(cause, f'less {cause}, or a smaller picture')}"
    part = cost.parts.get(cause, cost.seconds)
    what = (
        f"this would take about {cost.seconds:.0f} s, of which {part:.0f} s are for "
        f"{_COSTLY.get(cause, cause)}"
    )
    if lane is Lane.JOBS:
        raise InvalidOption(
            "timeout", f"{what}, and timeout is {seconds:g} s: give it more, or {change}"
        )
    raise InvalidOption(cause, f"{what}, and at most {seconds:g} s are spent on a render: {change}")
