"""When a schedule runs: a pure function from a moment to the next tick after it.

Ticks are of a grid that does not depend on when anybody looks: the times of a cron expression in
its zone, whole periods from an anchor, or one time alone. So nothing drifts, and two processes that
ask for the tick after the same moment are told the same one.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any, Final, Protocol, Self
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from pydantic import Field, WithJsonSchema

from app.errors import InvalidRequest
from app.jobs.bodies import Body

_DAY: Final = 86_400
_SHORTEST: Final = 10
"""Seconds. Whoever looks for what is due does so every second or so."""
_LONGEST: Final = 3660 * _DAY
_LAST_YEAR: Final = 2199
_PERIOD: Final = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([smhd])", re.ASCII)
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": _DAY}
_RFC_3339: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII
)

# Of two kinds: what is neither is told so here, not once for each.
Period = Annotated[
    Any, WithJsonSchema({"anyOf": [{"type": "integer", "minimum": _SHORTEST}, {"type": "string"}]})
]


class RecurrenceBody(Body):
    """When something runs: by `cron`, by `run_every`, or once at `start_at`."""

    cron: str | None = Field(
        None,
        max_length=200,
        description="Minute, hour, day of the month, month, day of the week, as in `0 3 * * *`.",
    )
    timezone: str | None = Field(
        None, max_length=64, description="The zone that `cron` is in, as in `Europe/Berlin`; UTC."
    )
    run_every: Period | None = Field(
        None,
        description="A period: seconds, or as in `15m`, `6h`, `1d`. Its ticks are whole periods "
        "from `start_at`, or else from when the schedule was made.",
    )
    start_at: str | None = Field(
        None,
        max_length=64,
        description="The first time that it may run, as RFC 3339 writes it. Alone: the only time.",
    )
    end_at: str | None = Field(
        None, max_length=64, description="The last time that it may run, as RFC 3339 writes it."
    )
    run_times: int | None = Field(None, ge=1, le=1_000_000_000, description="Runs at most.")


class _Grid(Protocol):
    """The times at which something may run."""

    def next_after(self, t: float) -> float | None:
        """The first time after a moment, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recurrence:
    """When something runs. Times are seconds since the epoch.

    `run_times` is for whoever counts runs: not every tick becomes one.
    """

    grid: _Grid
    end_at: float | None = None
    run_times: int | None = None

    @classmethod
    def read(cls, body: RecurrenceBody, *, since: float) -> Self:
        """What a body says; `since` is when it was made. Raises InvalidRequest."""
        start_at = read_time(body.start_at, param="start_at")
        end_at = read_time(body.end_at, param="end_at")
        if start_at is not None and end_at is not None and end_at < start_at:
            raise InvalidRequest("end_at must not be before start_at", param="end_at")
        if body.timezone is not None and body.cron is None:
            raise InvalidRequest("timezone is for cron alone", param="timezone")
        grid: _Grid
        if body.cron is not None:
            if body.run_every is not None:
                raise InvalidRequest("run_every cannot be with cron", param="run_every")
            zone = _read_zone("UTC" if body.timezone is None else body.timezone)
            grid = _Cron(_read_cron(body.cron), zone, start_at)
        elif body.run_every is not None:
            period = _read_period(body.run_every)
            grid = _Periods(period, math.floor(since) if start_at is None else start_at)
        elif start_at is not None:
            for name in ("end_at", "run_times"):
                if getattr(body, name) is not None:
                    raise InvalidRequest(f"{name} needs cron or run_every", param=name)
            grid = _Once(start_at)
        else:
            raise InvalidRequest("cron, run_every or start_at is needed", param="cron")
        return cls(grid=grid, end_at=end_at, run_times=body.run_times)

    def next_after(self, t: float) -> float | None:
        """The first tick after a moment, or None where there is none any more."""
        at = self.grid.next_after(t)
        if at is None or (self.end_at is not None and at > self.end_at):
            return None
        return at

    def ticks_after(self, t: float) -> Iterator[float]:
        """The ticks after a moment, in order."""
        at = self.next_after(t)
        while at is not None:
            yield at
            at = self.next_after(at)


@dataclass(frozen=True, slots=True)
class _Once:
    at: float

    def next_after(self, t: float) -> float | None:
        return self.at if t < self.at else None


@dataclass(frozen=True, slots=True)
class _Periods:
    period: int
    anchor: float

    def next_after(self, t: float) -> float:
        if t < self.anchor:
            return self.anchor
        count = math.floor((t - self.anchor) / self.period)
        # A quotient of floats may be one too few just before a tick.
        return next(
            at for n in (count, count + 1, count + 2) if (at := self.anchor + n * self.period) > t
        )


@dataclass(frozen=True, slots=True)
class _Cron:
    """The times of a cron expression, with the rules of Debian's cron(8) where clocks are changed.

    Where neither minute nor hour begins with `*`, it names times of the day: one that is skipped
    comes as soon as the gap is over, and one that comes twice counts the first time. Otherwise it
    names intervals: what is skipped is skipped, and what comes twice comes twice.
    """

    expression: str
    zone: ZoneInfo
    start_at: float | None

    def next_after(self, t: float) -> float | None:
        second = math.floor(t)
        if self.start_at is not None:
            second = max(second, math.ceil(self.start_at) - 1)
        minute, hour = self.expression.split()[:2]
        if minute.startswith("*") or hour.startswith("*"):
            return self._next_interval(second)
        return self._next_time_of_day(second)

    def _next_time_of_day(self, second: int) -> float | None:
        for found in CronSim(self.expression, datetime.fromtimestamp(second, self.zone)):
            # When an hour comes for the second time, its wall times lie in its first.
            if (at := found.timestamp()) > second:
                return at
        return None

    def _next_interval(self, second: int) -> float | None:
        """Search each stretch of one offset by itself, where wall time has no gaps."""
        first = second + 1
        while True:
            offset = self._offset(first)
            wall = datetime.fromtimestamp(first - 1 + offset, UTC)
            found = next(CronSim(self.expression, wall), None)
            if found is None:
                return None
            at = int(found.timestamp()) - offset
            change = self._change(first, at)
            if change is None:
                return float(at)
            first = change

    def _change(self, first: int, last: int) -> int | None:
        """The first second of another offset, up to the last."""
        offset = self._offset(first)
        low = first
        while low < last:
            high = min(low + _DAY, last)
            if self._offset(high) == offset:
                low = high
                continue
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if self._offset(middle) == offset else (low, middle)
            return high
        return None

    def _offset(self, second: int) -> int:
        moved = datetime.fromtimestamp(second, self.zone).utcoffset()
        return 0 if moved is None else int(moved.total_seconds())


def read_time(text: str | None, *, param: str) -> float | None:
    """A time as RFC 3339 writes it. Raises InvalidRequest."""
    if text is None:
        return None
    try:
        if not _RFC_3339.fullmatch(text):
            raise ValueError
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise InvalidRequest(
            f"{param} must be a time such as 2026-01-31T03:00:00Z, got {text!r}", param=param
        ) from None
    if not 1970 < moment.year <= _LAST_YEAR:
        raise InvalidRequest(f"{param} must be within 1971 to {_LAST_YEAR}", param=param)
    return moment.timestamp()


def _read_period(given: Any) -> int:
    """A period in seconds."""
    seconds = given if type(given) is int else _seconds(given)
    if seconds is None or seconds != int(seconds):
        raise InvalidRequest(
            f"run_every must be whole seconds, or such as 90s, 15m, 6h or 1d, got {given!r:.64}",
            param="run_every",
        )
    if not _SHORTEST <= seconds <= _LONGEST:
        raise InvalidRequest(
            f"run_every must be {_SHORTEST} s to {_LONGEST // _DAY} d, got {given!r:.64}",
            param="run_every",
        )
    return int(seconds)


def _seconds(text: Any) -> float | None:
    match = _PERIOD.fullmatch(text.strip().lower()) if isinstance(text, str) else None
    return None if match is None else float(match[1]) * _UNITS[match[2]]


def _read_cron(text: str) -> str:
    expression = " ".join(text.split())
    if expression.count(" ") != 4:
        raise InvalidRequest(
            f"cron must have five fields, as in '0 3 * * *', got {text!r:.64}", param="cron"
        )
    try:
        CronSim(expression, datetime(2000, 1, 1, tzinfo=UTC))
    except (CronSimError, AssertionError) as error:
        reason = str(error).lower() or "bad expression"
        raise InvalidRequest(f"cron: {reason}, got {text!r:.64}", param="cron") from None
    return expression


def _read_zone(name: str) -> ZoneInfo:
    if name not in _zones():
        raise InvalidRequest(
            f"timezone must be a name such as Europe/Berlin, got {name!r}", param="timezone"
        )
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())
