"""Quality: the one that makes a file small enough, or just good enough.

Encoders are told a quality; people want a size or a look. The search knows nothing of formats: it
is given what encodes, and what judges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

MOST_ENCODES: Final = 5
"""Encodes of a search for a size, and most often of one for a look."""

GRID: Final = tuple(range(20, 96, 5))
"""Qualities among which a look is aimed at: four encodes find the lowest that will do."""

_WORST: Final = 1
_SLOPE: Final = 0.03
"""How the logarithm of a file's bytes grows with quality, before two sizes are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aimed:
    """A file, the quality that made it, and how many encodes it took to find."""

    data: bytes
    quality: int
    encodes: int


def fit_bytes(encode: Callable[[int], bytes], *, budget: int, best: int) -> Aimed:
    """The best quality up to `best` that is found to make at most `budget` bytes.

    At most five encodes. Where none of them fits, the smallest file is returned, which is that of
    the lowest quality: the caller sees it by its length.
    """
    data = encode(best)
    encodes, above, size_above = 1, best, len(data)
    if size_above <= budget or best == _WORST:
        return Aimed(data=data, quality=best, encodes=encodes)
    fitting: Aimed | None = None
    slope = _SLOPE
    while encodes < MOST_ENCODES:
        below = fitting.quality if fitting else _WORST - 1
        if above - below <= 1:
            break
        last = encodes == MOST_ENCODES - 1
        guess = above - math.ceil(math.log(size_above / budget) / slope)
        if fitting is not None:
            # Between a file that fits and one that does not, sizes lie on a line of logarithms.
            slope = max(1e-6, math.log(size_above / len(fitting.data)) / (above - below))
            guess = above - math.ceil(math.log(size_above / budget) / slope)
        elif last:
            guess = _WORST
        guess = min(max(guess, below + 1), above - 1)
        tried = encode(guess)
        encodes += 1
        if len(tried) <= budget:
            fitting = Aimed(data=tried, quality=guess, encodes=encodes)
        else:
            slope = max(_SLOPE / 3, math.log(size_above / len(tried)) / (above - guess))
            above, size_above, data = guess, len(tried), tried
    if fitting is None:
        return Aimed(data=data, quality=above, encodes=encodes)
    return Aimed(data=fitting.data, quality=fitting.quality, encodes=encodes)


def reach(
    encode: Callable[[int], bytes],
    judge: Callable[[bytes], float],
    *,
    target: float,
    hint: int | None = None,
    grid: Sequence[int] = GRID,
) -> Aimed:
    """The lowest quality of the grid whose file is judged to be at least `target`.

    The highest where none is. Four or five encodes; a `hint`, which is a quality of the grid that
    has served a like picture, makes it two where it is right, at most six where it is not, and
    changes nothing else as long as a higher quality is never judged worse.
    """
    files: dict[int, bytes] = {}

    def meets(place: int) -> bool:
        files[grid[place]] = encode(grid[place])
        return judge(files[grid[place]]) >= target

    low, high = 0, len(grid) - 1  # the answer lies here, both included
    if hint in grid and len(grid) > 1:
        place = grid.index(hint)
        if place == high or meets(place):
            high = place
            if place and not meets(place - 1):
                low = place
            elif place:
                high = place - 1
        else:
            low = place + 1
    while low < high:
        middle = (low + high) // 2
        if meets(middle):
            high = middle
        else:
            low = middle + 1
    quality = grid[high]
    encodes = len(files) + (quality not in files)
    data = files[quality] if quality in files else encode(quality)
    return Aimed(data=data, quality=quality, encodes=encodes)
