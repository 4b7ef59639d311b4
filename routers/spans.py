"""A span for each request, where there is somebody to collect them. Pure ASGI.

The outermost layer, and only there when it has something to do: hits pass it, too.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.telemetry.metrics import bounded_method
from app.telemetry.traceparent import parent_of
from app.telemetry.tracing import RequestTracer
from routers.envelope import UNMATCHED, route_of


class Spans:
    """Begins and ends the span of each request."""

    def __init__(self, app: ASGIApp, tracer: RequestTracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = bounded_method(scope["method"])
        method = "HTTP" if method == "other" else method
        attributes = {
            "http.request.method": "_OTHER" if method == "HTTP" else method,
            "url.scheme": scope.get("scheme", "http"),
            # Without the query: signatures and the URLs of originals are in it.
            "url.path": scope["path"],
        }
        trace, span = self._tracer.begin(parent_of(scope["headers"]), attributes)
        scope["trace"] = trace
        status = 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting)
        finally:
            trace.facts.setdefault("request_id", scope.get("request_id", ""))
            route = trace.route or route_of(scope)
            known = None if route == UNMATCHED else route
            span.end(trace, method=method, route=known, status=status)
