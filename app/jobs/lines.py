"""Bytes that come in any pieces, cut into lines of bounded length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

LONGEST: Final = 64 * 1024
"""Bytes of one line."""
_MARK: Final = b"\xef\xbb\xbf"
"""What some programs begin a file of UTF-8 with."""

GoesOn = Callable[[bytes, bool], bool]
"""Whether a record goes on after a line, and so did before it: the line, and the latter."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line without its end. `data` is None where it is longer than lines may be.

    `number` counts from 1; where a record has several lines, `last` is that of the last of them.
    `stop` is the offset behind its end.
    """

    number: int
    last: int
    data: bytes | None
    stop: int


class LineReader:
    """Cuts bytes into lines. Holds no more than one of them, and what came last.

    `goes_on` tells where a record has several lines. `number` and `offset` are those of where the
    bytes begin, where that is not the beginning.
    """

    def __init__(
        self,
        *,
        longest: int = LONGEST,
        goes_on: GoesOn | None = None,
        number: int = 0,
        offset: int = 0,
    ) -> None:
        self._longest = longest
        self._goes_on = goes_on
        self._read = number
        self._stop = offset
        self._first = number + 1
        self._buffer = bytearray()
        self._within = False
        self._too_long = False

    def feed(self, data: bytes) -> Iterator[Line]:
        """The lines that end within these bytes."""
        begin, search = 0, len(self._buffer)
        line_begin = search if self._goes_on is None else self._begin_of_line()
        buffer = self._buffer
        buffer += data
        while (end := buffer.find(b"\n", search)) >= 0:
            self._read += 1
            piece = bytes(buffer[line_begin:end]) if self._goes_on is not None else b""
            search = line_begin = end + 1
            too_long = self._too_long or end - begin > self._longest
            if self._goes_on is not None and not too_long:
                self._within = self._goes_on(piece, self._within)
                if self._within:
                    continue
            yield self._take(buffer[begin:end], end + 1 - begin, too_long=too_long)
            begin = end + 1
        del buffer[:begin]
        if len(buffer) > self._longest:
            self._too_long = True
        if self._too_long:
            self._stop += len(buffer)
            buffer.clear()

    def end(self) -> Iterator[Line]:
        """The last line, where nothing ends it."""
        if self._buffer or self._too_long:
            self._read += 1
            size = len(self._buffer)
            yield self._take(self._buffer[:], size, too_long=self._too_long)
            self._buffer.clear()

    def _begin_of_line(self) -> int:
        """Where in the buffer the line begins whose end has not come yet."""
        return self._buffer.rfind(b"\n") + 1

    def _take(self, record: bytearray, size: int, *, too_long: bool) -> Line:
        self._stop += size
        data = None
        if not too_long:
            data = bytes(record).removesuffix(b"\r")
            if self._first == 1:
                data = data.removeprefix(_MARK)
        line = Line(self._first, self._read, data, self._stop)
        self._first = self._read + 1
        self._within = self._too_long = False
        return line


def numbered(lines: Iterable[Line]) -> Iterator[tuple[int, bytes | None]]:
    """Lines by their numbers."""
    return ((line.number, line.data) for line in lines)
