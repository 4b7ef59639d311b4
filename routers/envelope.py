"""What every answer carries, and what is recorded of every request. Pure ASGI.

The memory-hit path answers before this layer and writes the same headers itself.
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
from routers.problems import CLIENT_CLOSED, problem_response

log = structlog.get_logger(__name__)

_GIVEN_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_PROCESS: Final = secrets.token_hex(6).encode()
_RESULT_ROUTES: Final = ("/thumb", "/thumb/{id}", "/transform")
_NUMBERS: Final = itertools.count(1)

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
        given = next((v for n, v in scope["headers"] if n == b"x-request-id"), None)
        scope["request_id"] = request_id(given).decode()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=scope["request_id"])
        status = 0
        sent = 0
        complete = False

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
            await self._app(scope, receive, send_wrapped)
        except asyncio.CancelledError:
            if status or not self.closing:
                self._record(scope, status or 500, sent, perf_counter() - began)
                raise
            # The drain is over: another replica has the time that this one has not.
            await _refuse(scope, receive, send_wrapped)
            self._record(scope, status, sent, perf_counter() - began)
        except Exception:
            self._record(scope, 500, sent, perf_counter() - began)
            log.exception("defect", path=scope["path"])
            if not complete:
                raise  # the answer has begun: cutting the connection is all that can be said
        else:
            self._record(scope, status, sent, perf_counter() - began)

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

    def _record(self, scope: Scope, status: int, sent: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched").replace(":path", "")
        status = CLIENT_CLOSED if scope.get("client_left") else status
        if self.metrics is not None:
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.request_seconds.labels(route).observe(seconds)
            if route in _RESULT_ROUTES and status < 300 and scope["method"] != "HEAD":
                self.metrics.sent_bytes.inc(sent)
        log.info(
            "request",
            method=scope["method"],
            path=scope["path"],
            status=status,
            bytes=sent,
            milliseconds=round(seconds * 1000, 1),
        )


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    problem = problem_of(Leaving("The service is stopping: ask again", retry_after=1))
    assert problem is not None  # noqa: S101 - it is one of ours
    await problem_response(problem, request_id=scope["request_id"])(scope, receive, send)
