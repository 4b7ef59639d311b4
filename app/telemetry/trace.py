"""The trace of one request: what is noted on its way, for its event in the log and its spans.

Whatever a request calls finds its trace in the context, also in the tasks and flights that it
begins. A render that several requests wait for notes its stages with the one that began it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, Protocol

TOTAL: Final = "total"
"""Not a stage but all of them, and what lies between."""
_SHARED: Final = ("lane", "original_bytes")
"""What is told of a request that was noted with the one whose render it shares."""

Fact = str | int | float


class Span(Protocol):
    """What a trace leaves behind where somebody collects spans."""

    def add_stage(self, stage: str, *, seconds: float, ago: float) -> None:
        """Add a child that took `seconds` and ended `ago` seconds before now."""
        ...

    def link(self, other: Span) -> None:
        """Tell that part of the work is another request's."""
        ...


@dataclass(slots=True, kw_only=True)
class Trace:
    """What is noted of one request."""

    trace_id: str | None = None
    """That of the client's `traceparent`, or of the span. 32 hexadecimal digits."""
    span: Span | None = None
    route: str | None = None
    """The template of the route, where no router has found it."""
    bytes_in: int = 0
    """Of the request's body."""
    bytes_out: int = 0
    """Of the answer's."""
    facts: dict[str, Fact] = field(default_factory=dict)
    stages: dict[str, float] = field(default_factory=dict)
    """Seconds by stage."""

    def add_stage(self, stage: str, seconds: float, *, ago: float = 0.0) -> None:
        """Note a stage that ended `ago` seconds before now."""
        if stage == TOTAL:
            return
        self.stages[stage] = self.stages.get(stage, 0.0) + seconds
        if self.span is not None:
            self.span.add_stage(stage, seconds=seconds, ago=ago)

    def share(self, other: Trace) -> None:
        """Note that this request waited for the render of another one."""
        for stage, seconds in other.stages.items():
            self.stages.setdefault(stage, seconds)
        for name in _SHARED:
            if name in other.facts:
                self.facts.setdefault(name, other.facts[name])
        if self.span is not None and other.span is not None:
            self.span.link(other.span)


CURRENT: Final[ContextVar[Trace | None]] = ContextVar("trace", default=None)
"""The trace of the request that is being answered; None for what no request has begun."""


def note(**facts: Fact) -> None:
    """Note facts of the current request. The names are those of the log."""
    if (trace := CURRENT.get()) is not None:
        trace.facts.update(facts)


@contextmanager
def measured(stage: str) -> Iterator[None]:
    """Note how long the block takes as a stage of the current request."""
    began = perf_counter()
    try:
        yield
    finally:
        if (trace := CURRENT.get()) is not None:
            trace.add_stage(stage, perf_counter() - began)
