"""The hit path: what is in memory is answered before routing, by a small ASGI layer.

Routing, parsing and validating a request cost ten times what it costs to answer one whose answer
is known. So an answer that was given leaves a shortcut: the request's raw path and query, with what
it accepts, lead straight to the result in memory. A shortcut holds as long as the original's
version is trusted and the signature is valid, and only while the result is in memory, so that a
purge ends it too.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.types import ASGIApp, Receive, Scope, Send

from app.cache import MemoryTier, Rendered
from app.telemetry import Metrics
from app.telemetry.trace import Trace
from routers.conditional import matches
from routers.envelope import request_id, trace_of
from routers.negotiation import accepted

log = structlog.get_logger(__name__)

_LIMIT: Final = 20_000
_ROUTES: Final = ("/thumb", "/thumb/{id}")
_LONGEST: Final = 512
"""Requests longer than this, in bytes, leave no shortcut: their memory is the client's to fill."""

RawHeaders = list[tuple[bytes, bytes]]
_Key = tuple[bytes, bytes, frozenset[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shortcut:
    """Where a request leads: a result in memory, and the headers of 200 and 304."""

    key: str
    etag: str
    full: RawHeaders
    unmodified: RawHeaders
    until: float


class HitPath:
    """An ASGI layer in front of the application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._shortcuts: OrderedDict[_Key, Shortcut] = OrderedDict()
        self._memory_tier: MemoryTier | None = None
        # Plain numbers, which the metrics fetch when they are asked for: a counter with its lock
        # is a tenth of what a hit costs.
        self._answered: dict[tuple[str, str, int], int] = {}
        self._sent = 0
        self._logging = False

    def open(self, memory_tier: MemoryTier, metrics: Metrics) -> None:
        """Begin to answer from a memory tier."""
        self._memory_tier = memory_tier
        self._logging = log.is_enabled_for(logging.DEBUG)

        def count() -> None:
            answered, self._answered = self._answered, {}
            sent, self._sent = self._sent, 0
            for (method, route, status), number in answered.items():
                metrics.requests.labels(method, route, str(status)).inc(number)
                metrics.results.labels("memory").inc(number)
            metrics.sent_bytes.inc(sent)

        metrics.before_collecting.append(count)

    def close(self) -> None:
        """Answer nothing any more: every request takes the long way."""
        self._memory_tier = None
        self._shortcuts.clear()

    def record(self, scope: Scope, shortcut: Shortcut) -> None:
        """Let requests like this one take a shortcut from now on."""
        path, query = scope["raw_path"], scope["query_string"]
        if len(path) + len(query) > _LONGEST:
            return
        if self._memory_tier is None or shortcut.key not in self._memory_tier:
            return  # it would lead nowhere, and take memory
        accept = b", ".join(value for name, value in scope["headers"] if name == b"accept")
        self._shortcuts[path, query, accepted(accept)] = shortcut
        while len(self._shortcuts) > _LIMIT:
            self._shortcuts.popitem(last=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if (
            scope["type"] != "http"
            or self._memory_tier is None
            or scope["method"] not in ("GET", "HEAD")
            or not scope["raw_path"].startswith(b"/thumb")
        ):
            await self._app(scope, receive, send)
            return
        accept, if_none_match, given = b"", None, None
        for name, value in scope["headers"]:
            if name == b"accept":
                accept = value if not accept else accept + b", " + value
            elif name == b"if-none-match":
                if_none_match = value if if_none_match is None else if_none_match + b", " + value
            elif name == b"x-request-id":
                given = value
            elif name in (b"range", b"authorization", b"if-modified-since"):
                await self._app(scope, receive, send)
                return
        shortcut = self._shortcuts.get((scope["raw_path"], scope["query_string"], accepted(accept)))
        found = None
        if (
            shortcut is not None
            and shortcut.until > time.monotonic()
            and shortcut.key in self._memory_tier  # whoever takes the long way is counted there
        ):
            found = self._memory_tier.get(shortcut.key)
        if shortcut is None or found is None:
            if shortcut is not None:
                del self._shortcuts[scope["raw_path"], scope["query_string"], accepted(accept)]
            await self._app(scope, receive, send)
            return

        status, headers, body = 200, shortcut.full, found.data
        if if_none_match is not None and matches(if_none_match.decode("latin-1"), shortcut.etag):
            status, headers, body = 304, shortcut.unmodified, b""
        elif scope["method"] == "HEAD":
            body = b""
        given = request_id(given)
        await send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, (b"x-request-id", given)],
            }
        )
        await send({"type": "http.response.body", "body": body})
        self._count(scope, status, found, len(body), given)

    def _count(
        self, scope: Scope, status: int, found: Rendered, sent: int, request_id: bytes
    ) -> None:
        route = _ROUTES[scope["raw_path"] != b"/thumb"]
        counted = (scope["method"], route, status)
        self._answered[counted] = self._answered.get(counted, 0) + 1
        self._sent += sent
        trace: Trace | None = scope.get("trace")
        if trace is not None:
            trace.route, trace.bytes_out = route, sent
            trace.facts |= {
                "tier": "memory",
                "format": found.format.name,
                "request_id": request_id.decode(),
            }
        if self._logging:
            trace = trace or trace_of(scope)
            log.debug(
                "request",
                method=scope["method"],
                route=route,
                path=scope["path"],
                status=status,
                bytes_out=sent,
                tier="memory",
                format=found.format.name,
                request_id=request_id.decode(),
                **({} if trace.trace_id is None else {"trace_id": trace.trace_id}),
            )
