"""Server-Timing: how long the stages of a request took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

from app.telemetry.trace import CURRENT


class Timings:
    """How long the stages of one request took, in seconds, and what is to be said of them.

    What is recorded is noted in the trace of the request, too.
    """

    __slots__ = ("_descriptions", "_stages", "_trace")

    def __init__(self) -> None:
        self._trace = CURRENT.get()
        self._stages: dict[str, float] = {}
        self._descriptions: dict[str, str] = {}

    def add(self, stage: str, seconds: float) -> None:
        """Record a stage that has just ended."""
        self.add_in_turn({stage: seconds})

    def add_in_turn(self, stages: Mapping[str, float]) -> None:
        """Record stages that followed each other, the last of which has just ended."""
        ago = sum(stages.values())
        for stage, seconds in stages.items():
            ago -= seconds
            self._stages[stage] = self._stages.get(stage, 0.0) + seconds
            if self._trace is not None:
                self._trace.add_stage(stage, seconds, ago=ago)

    def describe(self, stage: str, text: str) -> None:
        """Say something of a stage that is recorded, in ASCII without quotes."""
        self._descriptions[stage] = text

    def take(self, other: Timings) -> None:
        """Add the stages of another, with what is said of them."""
        for stage, seconds in other.items():
            self._stages[stage] = self._stages.get(stage, 0.0) + seconds
        self._descriptions |= other._descriptions
        if self._trace is None or other._trace is None or self._trace is other._trace:
            return
        self._trace.share(other._trace)

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Record how long the block takes."""
        began = perf_counter()
        try:
            yield
        finally:
            self.add(stage, perf_counter() - began)

    def items(self) -> list[tuple[str, float]]:
        """Stages in the order in which they were first recorded."""
        return list(self._stages.items())

    def header(self) -> str:
        """The value of a Server-Timing header, in milliseconds."""
        parts = []
        for stage, seconds in self.items():
            text = self._descriptions.get(stage)
            said = f';desc="{text}"' if text else ""
            parts.append(f"{stage};dur={seconds * 1000:.1f}{said}")
        return ", ".join(parts)
