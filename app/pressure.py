"""Pressure: where many wait, encoders work less hard, and more of them are answered.

A result that was made so is another than the one that its key names: it has a key of its own, is
kept in no tier, and only for a short time elsewhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from transforms.cost import Cost, estimate_all
from transforms.pipeline import Work
from transforms.prices import USUAL_EFFORT

PRESSED: Final = 0.5
"""Share of a lane's budget from which an estimated wait is pressure."""
MAX_AGE: Final = 60
"""Seconds for which others may keep a result that was made under pressure."""
_SAVING: Final = 1 / 3
"""Of the seconds of a render, that less effort must save: else it is not worth the bytes."""


def ease(works: list[Work], cost: Cost, *, effort: int) -> tuple[list[Work], Cost]:
    """The works with less effort where that saves much, and their cost; else what was given.

    An effort that was asked for is not touched. The usual one may go without saying, and cannot be
    told from none.
    """
    eased = [
        replace(work, transform=replace(work.transform, effort=effort))
        if work.transform.effort == USUAL_EFFORT > effort
        else work
        for work in works
    ]
    less = estimate_all(eased)
    if less.seconds > (1 - _SAVING) * cost.seconds:
        return works, cost
    return eased, less


def eased_key(key: str) -> str:
    """The key of what was made under pressure in place of a result."""
    return f"{key}-reduced"
