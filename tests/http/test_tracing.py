"""Spans reach a collector over OTLP: one for each request, and below it one for each stage."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

pytest.importorskip("opentelemetry.proto")
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from app.telemetry import tracing
from tests.http import originals as draw
from tests.serving import serving

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CLIENT = "00f067aa0ba902b7"


@dataclass
class Collector:
    """A collector of traces, and what it has been sent."""

    url: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    spans: list[Span] = field(default_factory=list)
    resource: dict[str, str] = field(default_factory=dict)

    def take(self, body: bytes) -> None:
        for resource_spans in ExportTraceServiceRequest.FromString(body).resource_spans:
            for attribute in resource_spans.resource.attributes:
                self.resource[attribute.key] = attribute.value.string_value
            for scope_spans in resource_spans.scope_spans:
                self.spans.extend(scope_spans.spans)

    def of(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def below(self, parent: Span) -> list[str]:
        """The names of a span's children in the order in which they began."""
        children = [span for span in self.spans if span.parent_span_id == parent.span_id]
        return [span.name for span in sorted(children, key=lambda span: span.start_time_unix_nano)]


def attributes(span: Span) -> dict[str, str | int]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes
    }


@pytest.fixture
def collector(monkeypatch) -> Iterator[Collector]:
    """What spans are sent to: services that start now are told so by the environment."""
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            found.headers = {name.lower(): value for name, value in self.headers.items()}
            found.take(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        found.url = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", found.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        yield found
        server.shutdown()
        thread.join()


def test_a_request_is_a_span_of_its_clients_trace_and_its_stages_are_below(
    serve, folder, collector, until
):
    served = serve()
    headers = {
        "traceparent": f"00-{TRACE}-{CLIENT}-01",
        "tracestate": "vendor=opaque",
        "x-request-id": "mine",
    }
    size = len(served.get("/thumb/cat.jpg?w=20&sig=never-told", headers=headers).content)
    until(lambda: collector.of("keep") and collector.of("GET /thumb/{id}"))
    (span,) = collector.of("GET /thumb/{id}")
    assert span.kind == Span.SPAN_KIND_SERVER
    assert span.trace_id.hex() == TRACE
    assert span.parent_span_id.hex() == CLIENT
    assert span.trace_state == "vendor=opaque"
    assert span.status.code == Status.STATUS_CODE_UNSET
    told = attributes(span)
    assert told == {
        "http.request.method": "GET",
        "http.route": "/thumb/{id}",
        "http.response.status_code": 200,
        "http.request.body.size": 0,
        "http.response.body.size": size,
        "url.path": "/thumb/cat.jpg",
        "url.scheme": "http",
        "pixelmill.tier": "render",
        "pixelmill.format": "jpeg",
        "pixelmill.lane": "interactive",
        "pixelmill.original_bytes": len(draw.jpeg()),
        "pixelmill.request_id": "mine",
    }
    stages = ["stored", "fetch", "look", "queue", "decode", "encode", "keep"]
    assert collector.below(span) == stages
    for name in stages:
        (stage,) = collector.of(name)
        assert stage.trace_id == span.trace_id
        assert span.start_time_unix_nano <= stage.start_time_unix_nano
        assert stage.start_time_unix_nano <= stage.end_time_unix_nano
        if name != "keep":  # that is behind the answer
            assert stage.end_time_unix_nano <= span.end_time_unix_nano
    assert collector.resource["service.name"] == "pixelmill"


def test_hits_and_failures_are_spans_too(serve, folder, collector, until, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pictures")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=images")
    served = serve(allowed_sources="127.0.0.1:1", allow_private_networks=True)
    for path in ("/thumb/cat.jpg?w=20", "/thumb/cat.jpg?w=20", "/thumb?url=http://127.0.0.1:1/a"):
        served.get(path)
    served.client.request("PROPFIND", "/nowhere", headers={"traceparent": f"00-{TRACE}-{CLIENT}"})
    until(lambda: len([s for s in collector.spans if s.kind == Span.SPAN_KIND_SERVER]) == 4)
    made, hit = collector.of("GET /thumb/{id}")
    assert attributes(hit)["pixelmill.tier"] == "memory"
    assert attributes(hit)["http.response.body.size"] > 0
    assert collector.below(hit) == []
    assert hit.trace_id != made.trace_id
    (failed,) = collector.of("GET /thumb")
    assert failed.status.code == Status.STATUS_CODE_ERROR
    assert attributes(failed)["error.type"] == "502"
    (lost,) = collector.of("HTTP")
    assert "http.route" not in attributes(lost)
    assert attributes(lost)["http.request.method"] == "_OTHER"
    assert attributes(lost)["http.response.status_code"] in (404, 405)
    assert lost.parent_span_id == b""
    assert collector.resource["service.name"] == "pictures"
    assert collector.headers["x-team"] == "images"


def test_the_stages_of_a_shared_render_are_with_one_request_and_the_other_leads_there(
    serve, folder, collector, call, gate, until
):
    served = serve(results="off")
    callers = [call(served).send("/thumb/cat.jpg?w=20") for _ in range(2)]
    rendering = served.app.api.state.service.renderer._rendering
    until(lambda: [flight.waiters for flight in list(rendering._flights.values())] == [2])
    gate.set()
    assert [caller.read().status for caller in callers] == [200, 200]
    until(lambda: len(collector.of("GET /thumb/{id}")) == 2)
    (renders,) = (s for s in collector.of("GET /thumb/{id}") if "decode" in collector.below(s))
    (waits,) = (s for s in collector.of("GET /thumb/{id}") if s is not renders)
    assert len(collector.of("decode")) == 1
    assert "encode" not in collector.below(waits)
    assert [link.span_id for link in waits.links] == [renders.span_id]
    assert not renders.links
    assert attributes(waits)["pixelmill.lane"] == "interactive"


def test_what_the_client_does_not_sample_is_not_collected(serve, folder, collector, until):
    served = serve()
    served.get("/livez", headers={"traceparent": f"00-{TRACE}-{CLIENT}-00"})
    served.get("/livez", headers={"traceparent": f"00-{TRACE}-{CLIENT}-01"})
    until(lambda: bool(collector.spans))
    assert len(collector.spans) == 1


def test_the_last_spans_are_sent_before_the_process_ends(tmp_path, collector, monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    (tmp_path / "originals").mkdir()
    with serving(originals=f"file:{tmp_path / 'originals'}", results="off") as served:
        served.get("/livez")
        assert not collector.spans
    assert [span.name for span in collector.spans] == ["GET /livez"]


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"}, None),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "http/protobuf",
        ),
    ],
)
def test_spans_are_off_unless_there_is_a_collector_that_can_be_spoken_to(
    environment, said, warnings_of
):
    assert tracing.open_tracer(environment) is None
    assert [said in event["reason"] for event in warnings_of()] == ([] if said is None else [True])


def test_without_its_packages_the_log_says_which_to_install(monkeypatch, warnings_of):
    monkeypatch.setattr(tracing, "_NEEDED", ("opentelemetry.exporter.otlp.proto.nowhere",))
    named = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:1/v1/traces"}
    assert tracing.open_tracer(named) is None
    (event,) = warnings_of()
    assert event["event"] == "tracing_off"
    assert event["reason"] == ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set: install pixelmill[otel]")


@pytest.fixture
def warnings_of(monkeypatch):
    """What the module has warned of."""
    events = []

    class Log:
        @staticmethod
        def warning(event, **facts):
            events.append({"event": event, **facts})

    monkeypatch.setattr(tracing, "log", Log)
    return lambda: events
