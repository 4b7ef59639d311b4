"""Corrections: what estimates are multiplied by, learnt from what renders of their kind took."""

from __future__ import annotations

from typing import Final

Kind = tuple[str, str]
"""Renders whose estimates err alike; see `transforms.cost.Cost`."""

_LEARNING: Final = 0.1
"""Weight of the latest render in the running mean; the first few of a kind weigh more."""
_BOUNDS: Final = (0.1, 10.0)
_OUTLIER: Final = 3.0
"""A render may be so many times longer or shorter than was expected; what exceeds it is clipped.
One that hangs, or is cut short by a damaged original, says little of the next."""


class Corrections:
    """A running mean for each kind of what renders took, as a multiple of their estimate."""

    def __init__(self) -> None:
        self._means: dict[Kind, tuple[float, int]] = {}

    def of(self, kind: Kind) -> float:
        """What the seconds of an estimate are to be multiplied by."""
        return self._means.get(kind, (1.0, 0))[0]

    def learn(self, kind: Kind, ratio: float) -> None:
        """Take in a render that took `ratio` times what had been estimated, uncorrected."""
        low, high = _BOUNDS
        mean, count = self._means.get(kind, (1.0, 0))
        seen = min(max(ratio, mean / _OUTLIER, low), mean * _OUTLIER, high)
        weight = max(_LEARNING, 1 / (count + 2))
        self._means[kind] = (mean + weight * (seen - mean), count + 1)
