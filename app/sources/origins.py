"""The servers behind `?url=`, each kept from taking more than its share.

An origin, which is a scheme, a host and a port (RFC 6454, section 4), has so many places: who finds
none waits, and holds nothing else meanwhile. Each has a breaker too: an origin that failed several
times in a row is not asked for a while, then by one request, on whose end it depends whether the
others follow. What it answers decides, not what it is asked for: a picture that is missing, broken
or too large is no failure, nor is an address that the guard refuses.
"""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final
from urllib.parse import SplitResult

import structlog

from app.errors import (
    InvalidRequest,
    ServiceError,
    SourceFailed,
    SourceRefused,
    SourceTimeout,
    SourceUnavailable,
    SourceUnfit,
)
from transforms.errors import TransformError

log = structlog.get_logger(__name__)

_RANDOM: Final = random.SystemRandom()

FAILURES: Final = 5
"""Failures in a row after which an origin is left alone."""
_IN_A_ROW: Final = 60.0
"""Seconds after which a failure is not remembered any more."""
_SPREAD: Final = 0.2
"""Share by which pauses differ, so that replicas do not come back in one moment."""
LONGEST_PAUSE: Final = 300.0
_REMEMBERED: Final = 1000
"""Origins in trouble that are remembered, besides those in use."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class _Verdict(Enum):
    """What an attempt tells of its origin."""

    ALIVE = auto()
    FAILED = auto()
    NOTHING = auto()


class Breaker:
    """Decides whether an origin may be asked. Times are in seconds.

    `pause` is how long it is left alone the first time, doubled each time after that up to
    LONGEST_PAUSE; 0 means never. A deadline that passes counts where the origin had at least
    `patience` of it.
    """

    def __init__(
        self, origin: str, *, pause: float, patience: float, clock: Callable[[], float]
    ) -> None:
        self._origin = origin
        self._pause = pause
        self._patience = patience
        self._clock = clock
        self._failures = 0
        self._failed_at = 0.0
        self._openings = 0
        self._until = 0.0
        self._on_trial = False
        self._epoch = 0

    @property
    def is_open(self) -> bool:
        """Whether the origin is left alone, or on trial."""
        return self._openings > 0

    @property
    def is_new(self) -> bool:
        """Whether there is nothing to remember."""
        return not self._openings and not self._failures

    def check(self) -> None:
        """Raise SourceUnavailable, with the time that is left, where the origin is left alone."""
        left = self._until - self._clock()
        if self._openings and (left > 0 or self._on_trial):
            raise SourceUnavailable(
                "The origin has failed several times in a row, and is not asked for a while",
                retry_after=max(1, math.ceil(left)),
            )

    @contextmanager
    def attempt(self, deadline: asyncio.Timeout) -> Iterator[None]:
        """Ask the origin within the block, and learn from how that ends.

        Raises SourceUnavailable as `check` does.
        """
        self.check()
        epoch = self._epoch
        self._on_trial = self.is_open
        ends = deadline.when()
        fair = ends is None or ends - asyncio.get_running_loop().time() >= self._patience
        verdict = _Verdict.NOTHING
        try:
            yield
            verdict = _Verdict.ALIVE
        except asyncio.CancelledError:
            if deadline.expired() and fair:
                verdict = _Verdict.FAILED
            raise
        except (ServiceError, TransformError) as error:
            verdict = _judge(error)
            raise
        finally:
            # What began before the breaker turned tells nothing new.
            if epoch == self._epoch:
                self._learn(verdict)

    def _learn(self, verdict: _Verdict) -> None:
        self._on_trial = False
        match verdict:
            case _Verdict.ALIVE:
                self._failures = 0
                if self.is_open:
                    self._openings = 0
                    self._epoch += 1
                    log.warning("origin_asked_again", origin=self._origin)
            case _Verdict.FAILED if self._pause:
                self._fail()

    def _fail(self) -> None:
        now = self._clock()
        if now - self._failed_at > _IN_A_ROW:
            self._failures = 0
        self._failures += 1
        self._failed_at = now
        if self.is_open or self._failures >= FAILURES:
            usual = min(LONGEST_PAUSE, self._pause * 2.0 ** min(self._openings, 30))
            pause = usual * _RANDOM.uniform(1 - _SPREAD, 1 + _SPREAD)
            self._until = now + pause
            self._openings += 1
            self._epoch += 1
            log.warning("origin_left_alone", origin=self._origin, seconds=round(pause, 1))


@dataclass(slots=True)
class _Origin:
    places: asyncio.Semaphore
    breaker: Breaker
    users: int = field(default=0)


class Origins:
    """The origins in use, and those in trouble.

    `connections` is how many of them each may take at a time; `pause` and `patience` are those of
    its Breaker.
    """

    def __init__(
        self,
        *,
        connections: int,
        pause: float,
        patience: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._connections = connections
        self._pause = pause
        self._patience = patience
        self._clock = clock
        self._known: OrderedDict[str, _Origin] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def left_alone(self) -> int:
        """How many origins are not asked, or by one request only."""
        return sum(origin.breaker.is_open for origin in self._known.values())

    @asynccontextmanager
    async def place(self, parts: SplitResult) -> AsyncIterator[Breaker]:
        """Hold a place at a URL's origin. Whoever finds none waits, in the order of coming.

        Raises SourceUnavailable where the origin is left alone, or is so when it comes to that.
        """
        name = _name_of(parts)
        origin = self._known.get(name)
        if origin is None:
            origin = self._known[name] = self._new(name)
        self._known.move_to_end(name)
        origin.users += 1
        try:
            origin.breaker.check()
            async with origin.places:
                yield origin.breaker
        finally:
            origin.users -= 1
            if not origin.users and origin.breaker.is_new:
                del self._known[name]
            self._forget_some()

    def _new(self, name: str) -> _Origin:
        breaker = Breaker(name, pause=self._pause, patience=self._patience, clock=self._clock)
        return _Origin(asyncio.Semaphore(self._connections), breaker)

    def _forget_some(self) -> None:
        while len(self._known) > _REMEMBERED:
            oldest = next((name for name, each in self._known.items() if not each.users), None)
            if oldest is None:
                return
            del self._known[oldest]


def _judge(error: ServiceError | TransformError) -> _Verdict:
    if isinstance(error, (SourceRefused, InvalidRequest, SourceUnavailable)):
        return _Verdict.NOTHING
    if isinstance(error, (SourceFailed, SourceTimeout)) and not isinstance(error, SourceUnfit):
        return _Verdict.FAILED
    return _Verdict.ALIVE


def _name_of(parts: SplitResult) -> str:
    host = (parts.hostname or "").lower().rstrip(".")
    return f"{parts.scheme}://{host}:{parts.port or _DEFAULT_PORTS[parts.scheme]}"
