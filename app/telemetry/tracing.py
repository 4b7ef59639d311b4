"""Spans for OpenTelemetry, where the extra `otel` is installed and a collector is named.

One span for each request, and below it one for each stage. Everything that OpenTelemetry itself
reads from the environment holds: the endpoint, its headers, the sampler, the name of the service.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

import structlog

from app import __version__
from app.telemetry.trace import Span as SpanOfTrace
from app.telemetry.trace import Trace
from app.telemetry.traceparent import TraceParent

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, Tracer

log = structlog.get_logger(__name__)

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_SPOKEN: Final = "http/protobuf"
_NEEDED: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")
_FLUSH_SECONDS: Final = 5.0
"""How long a process that ends waits for its last spans to be taken."""


class RequestSpan:
    """The span of one request, and of its stages."""

    def __init__(self, tracer: Tracer, span: Span) -> None:
        self._tracer = tracer
        self.span = span

    def add_stage(self, stage: str, *, seconds: float, ago: float) -> None:
        """Add a child; also where the request has been answered, as when its result is kept."""
        from opentelemetry.trace import set_span_in_context  # noqa: PLC0415 - an extra brings it

        ended = time.time_ns() - round(ago * 1e9)
        child = self._tracer.start_span(
            stage,
            context=set_span_in_context(self.span),
            start_time=ended - round(seconds * 1e9),
        )
        child.end(ended)

    def link(self, other: SpanOfTrace) -> None:
        """Tell that this request waited for the render of another one."""
        if isinstance(other, RequestSpan):
            attributes = {"pixelmill.link": "render"}
            self.span.add_link(other.span.get_span_context(), attributes)

    def end(self, trace: Trace, *, method: str, route: str | None, status: int) -> None:
        """End it, as what it turned out to be. Names are those of the semantic conventions.

        `route` is None where none took the request.
        """
        from opentelemetry.trace import StatusCode  # noqa: PLC0415 - an extra brings it

        self.span.update_name(method if route is None else f"{method} {route}")
        self.span.set_attributes(
            {
                **({} if route is None else {"http.route": route}),
                "http.request.body.size": trace.bytes_in,
                "http.response.body.size": trace.bytes_out,
                **{f"pixelmill.{name}": value for name, value in trace.facts.items()},
            }
        )
        if status:
            self.span.set_attribute("http.response.status_code", status)
        if status >= 500:
            self.span.set_attribute("error.type", str(status))
            self.span.set_status(StatusCode.ERROR)
        self.span.end()


class RequestTracer:
    """Begins spans, and sends them to the collector in the background."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("pixelmill", __version__)

    def begin(
        self, parent: TraceParent | None, attributes: Mapping[str, Any]
    ) -> tuple[Trace, RequestSpan]:
        """The span of a request, and the trace that leads to it."""
        from opentelemetry import trace as otel  # noqa: PLC0415 - an extra brings it

        context = None
        if parent is not None:
            remote = otel.SpanContext(
                trace_id=int(parent.trace_id, 16),
                span_id=int(parent.span_id, 16),
                is_remote=True,
                trace_flags=otel.TraceFlags(int(parent.sampled)),
                trace_state=otel.TraceState(parent.state),
            )
            context = otel.set_span_in_context(otel.NonRecordingSpan(remote))
        span = self._tracer.start_span(
            "request", context=context, kind=otel.SpanKind.SERVER, attributes=attributes
        )
        request = RequestSpan(self._tracer, span)
        trace_id = f"{span.get_span_context().trace_id:032x}"
        return Trace(trace_id=trace_id, span=request if span.is_recording() else None), request

    def close(self) -> None:
        """Send what is left, within a bound. Blocks."""
        # A collector that does not answer must not hold the exit.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_FLUSH_SECONDS)


def open_tracer(environ: Mapping[str, str]) -> RequestTracer | None:
    """What begins spans, or None where the environment names no collector.

    Where it names one that cannot be spoken to, the log says why: that is no reason not to serve.
    """
    named = next((name for name in _ENDPOINTS if environ.get(name)), None)
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if named is None or off or environ.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), _SPOKEN)
    if protocol != _SPOKEN:
        log.warning("tracing_off", reason=f"of the protocols of OTLP, only {_SPOKEN} is spoken")
        return None
    if not all(map(_is_installed, _NEEDED)):
        log.warning("tracing_off", reason=f"{named} is set: install pixelmill[otel]")
        return None
    return RequestTracer(_make_provider(environ))


def _make_provider(environ: Mapping[str, str]) -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - an extra brings it
        OTLPSpanExporter,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    attributes = {"service.version": __version__}
    given = environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not environ.get("OTEL_SERVICE_NAME") and "service.name=" not in given:
        attributes["service.name"] = "pixelmill"
    provider = TracerProvider(resource=Resource.create(attributes), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:  # nor is what it is a part of
        return False
