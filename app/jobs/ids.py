"""Ids of jobs and batches: they sort by the time at which they were made.

48 bits of milliseconds, then 80 random ones, as in a UUID of version 7 (RFC 9562), in 26 digits of
base 32. Ids made one after the other by one process ascend, also within a millisecond.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from typing import Final

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH: Final = 26
_PAIRS: Final = tuple(one + other for one in _DIGITS for other in _DIGITS)
"""Two digits at a time."""
_SHIFTS: Final = tuple(range(5 * (_LENGTH - 2), -1, -10))
_RANDOM_BITS: Final = 80
_SHAPE: Final = re.compile(f"[{_DIGITS}]{{{_LENGTH}}}")


class _Sequence:
    """Numbers that ascend. One lock: several threads make ids."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0

    def next(self) -> int:
        fresh = time.time_ns() // 1_000_000 << _RANDOM_BITS | secrets.randbits(_RANDOM_BITS)
        with self._lock:
            self._last = max(fresh, self._last + 1)
            return self._last


_NUMBERS: Final = _Sequence()


def new_id() -> str:
    """A new id, greater than all that this process has made."""
    number = _NUMBERS.next()
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


def is_id(text: str) -> bool:
    """Whether a text has the shape of an id."""
    return _SHAPE.fullmatch(text) is not None
