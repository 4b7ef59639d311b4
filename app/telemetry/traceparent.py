"""`traceparent` and `tracestate`: which trace a request belongs to (W3C Trace Context, level 2).

Both are read strictly, as their grammar has it. What is malformed is ignored: the request is
answered like any other, and begins a trace of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

_PARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_SAMPLED: Final = 0x01
_KEY: Final = re.compile(
    r"[a-z0-9][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
)
_VALUE: Final = re.compile(r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")
_MEMBERS: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceParent:
    """The span of the client that asks."""

    trace_id: str
    span_id: str
    sampled: bool
    state: tuple[tuple[str, str], ...] = ()
    """What systems on the way keep with the trace, by their keys."""


def parent_of(headers: Iterable[tuple[bytes, bytes]]) -> TraceParent | None:
    """The parent that the headers of a request name, if one is named and well formed.

    Names of headers are in lower case, as ASGI has them.
    """
    parents, states = [], []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    if len(parents) != 1:
        return None
    match = _PARENT.fullmatch(parents[0].strip(b" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    # A later version may say more at the end; this one may not, and ff is none.
    if version == b"ff" or (version == b"00" and more is not None):
        return None
    if not trace_id.strip(b"0") or not span_id.strip(b"0"):
        return None
    return TraceParent(
        trace_id=trace_id.decode(),
        span_id=span_id.decode(),
        sampled=bool(int(flags, 16) & _SAMPLED),
        state=_parse_state(b",".join(states).decode("latin-1")),
    )


def _parse_state(text: str) -> tuple[tuple[str, str], ...]:
    """The members in their order, or none where one of them is malformed or named twice."""
    members: dict[str, str] = {}
    for part in text.split(","):
        member = part.strip(" \t")
        if not member:
            continue
        key, _, value = member.partition("=")
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value) or key in members:
            return ()
        members[key] = value
    return tuple(members.items()) if len(members) <= _MEMBERS else ()
