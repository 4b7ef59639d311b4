"""What every answer carries, and what is recorded of every request. Pure ASGI.

The hit path answers before this layer and writes the same headers itself. Its hits are counted, and
logged at level `debug` alone: writing an event costs more than answering.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import secrets
from time import perf_counter
from typing import Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import Leaving, problem_of
from app.telemetry import Metrics
from app.telemetry.metrics import bounded_method
from app.telemetry.trace import CURRENT, Trace
from app.telemetry.traceparent import parent_of
from routers.problems import CLIENT_CLOSED, problem_response

log = structlog.get_logger(__name__)

_GIVEN_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PROCESS: Final = secrets.token_hex(6).encode()
_RESULT_ROUTES: Final = ("/thumb", "/thumb/{id}", "/transform")
_UPLOAD_ROUTES: Final = ("/images", "/images/{id}", "/transform")
_PROBES: Final = ("/livez", "/readyz", "/metrics", "/autoscale")
_NUMBERS: Final = itertools.count(1)
UNMATCHED: Final = "unmatched"
"""The route of what no route takes."""
_LONGEST_PATH: Final = 500
"""Characters of a path in the log. What is longer is no path of anybody's picture."""

COMMON_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; sandbox"),
    (b"cross-origin-resource-policy", b"cross-origin"),
    (b"access-control-allow-origin", b"*"),
    (b"timing-allow-origin", b"*"),
)


def request_id(given: bytes | None) -> bytes:
    """The client's request id where it is a plain token, else a new one."""
    if given is not None and _GIVEN_ID.fullmatch(given):
        return given
    return b"%b-%x" % (_PROCESS, next(_NUMBERS))


def route_of(scope: Scope) -> str:
    """The template of the route that has answered, which is one of few whatever is asked for."""
    return str(getattr(scope.get("route"), "path", UNMATCHED)).replace(":path", "")


def trace_of(scope: Scope) -> Trace:
    """A trace for a request of which no spans are collected: it has its id from the client."""
    parent = parent_of(scope["headers"])
    return Trace(trace_id=None if parent is None else parent.trace_id)


def _begin(scope: Scope) -> Trace:
    """Give a request its id and its trace, which logs tell from here on."""
    given = next((v for n, v in scope["headers"] if n == b"x-request-id"), None)
    scope["request_id"] = request_id(given).decode()
    trace: Trace = scope.get("trace") or trace_of(scope)
    CURRENT.set(trace)
    structlog.contextvars.clear_contextvars()
    structlog.contextvars.bind_contextvars(request_id=scope["request_id"])
    if trace.trace_id is not None:
        structlog.contextvars.bind_contextvars(trace_id=trace.trace_id)
    return trace


class Envelope:
    """Adds the common headers, counts and logs."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.metrics: Metrics | None = None
        self.closing = False
        """Whether answers ask the client to close its connection, because this replica drains."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        trace = _begin(scope)
        status = 0
        sent = 0
        received = 0
        complete = False

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def send_wrapped(message: Message) -> None:
            nonlocal status, sent, complete
            if message["type"] == "http.response.start":
                status = message["status"]
                if scope.get("client_left"):
                    return
                message["headers"] = self._complete(message["headers"], scope, began)
            elif message["type"] == "http.response.body":
                if scope.get("client_left"):
                    return
                sent += len(message.get("body", b""))
                complete = not message.get("more_body", False)
            await send(message)

        try:
            await self._app(scope, receive_counted, send_wrapped)
        except asyncio.CancelledError:
            if status or not self.closing:
                status = status or 500
                raise
            # The drain is over: another replica has the time that this one has not.
            await _refuse(scope, receive, send_wrapped)
        except Exception:
            status = 500
            log.exception("defect", path=scope["path"][:_LONGEST_PATH])
            if not complete:
                raise  # the answer has begun: cutting the connection is all that can be said
        finally:
            trace.bytes_in, trace.bytes_out = received, sent
            self._record(scope, status, trace, perf_counter() - began)

    def _complete(
        self, headers: list[tuple[bytes, bytes]], scope: Scope, began: float
    ) -> list[tuple[bytes, bytes]]:
        present = {name for name, _ in headers}
        complete = [*headers, *(pair for pair in COMMON_HEADERS if pair[0] not in present)]
        complete.append((b"x-request-id", scope["request_id"].encode()))
        if b"server-timing" not in present:
            complete.append(
                (b"server-timing", f"total;dur={(perf_counter() - began) * 1000:.1f}".encode())
            )
        if b"cache-control" not in present:
            complete.append((b"cache-control", b"no-store"))
        if self.closing:
            complete.append((b"connection", b"close"))
        return complete

    def _record(self, scope: Scope, status: int, trace: Trace, seconds: float) -> None:
        route = route_of(scope)
        status = CLIENT_CLOSED if scope.get("client_left") or not status else status
        if self.metrics is not None:
            method = bounded_method(scope["method"])
            self.metrics.requests.labels(method, route, str(status)).inc()
            self.metrics.request_seconds.labels(method, route).observe(seconds)
            if route in _RESULT_ROUTES and status < 300 and scope["method"] != "HEAD":
                self.metrics.sent_bytes.inc(trace.bytes_out)
            if route in _UPLOAD_ROUTES and trace.bytes_in:
                self.metrics.received_bytes.labels("upload").inc(trace.bytes_in)
        waited = trace.stages.get("queue")
        # A balancer's checks, one a second for each, would be most of the log.
        tell = log.debug if route in _PROBES and status == 200 else log.info
        tell(
            "request",
            method=scope["method"],
            route=route,
            path=scope["path"][:_LONGEST_PATH],
            status=status,
            ms=round(seconds * 1000, 1),
            **({} if waited is None else {"queue_ms": round(waited * 1000, 1)}),
            bytes_in=trace.bytes_in,
            bytes_out=trace.bytes_out,
            **trace.facts,
        )


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    problem = problem_of(Leaving("The service is stopping: ask again", retry_after=1))
    assert problem is not None  # noqa: S101 - it is one of ours
    await problem_response(problem, request_id=scope["request_id"])(scope, receive, send)
