"""Refusals: what cannot be done in time is not begun, and what of it takes so long is told."""

from __future__ import annotations

from typing import Final

from app.admission import Lane
from transforms.cost import Cost
from transforms.errors import InvalidOption

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
