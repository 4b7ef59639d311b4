"""For those who run the service: health, metrics, and what it understands."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app import __version__
from routers import openapi
from routers.methods import get_and_head
from routers.requests import service_of
from transforms import libvips

router = APIRouter(tags=["operations"])

_NUMBERS: Final = (
    "workers",
    "running",
    "queued",
    "utilisation",
    "demand",
    "queue_wait_seconds",
    "queue_seconds",
    "shed_share",
)
_AUTOSCALE: Final[dict[str, Any]] = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {
                    **{name: {"type": "number"} for name in _NUMBERS},
                    "draining": {"type": "boolean"},
                    "jobs": {
                        "type": ["object", "null"],
                        "properties": {
                            name: {"type": "number"}
                            for name in ("due", "backlog_seconds", "oldest_seconds")
                        },
                    },
                },
            }
        }
    }
}


@get_and_head(
    router,
    "/livez",
    summary="Whether the process answers",
    responses={
        503: {
            "description": "Every processor is held by a render that does not end",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
)
async def livez(request: Request) -> Response:
    """Restart the process when this fails. It depends on nothing outside it.

    A decoder that hangs cannot be stopped; where all do, for a minute beyond their time, only a new
    process renders again.
    """
    stuck = service_of(request).engine.is_stuck
    return JSONResponse(
        {"status": "stuck" if stuck else "alive"}, status_code=503 if stuck else 200
    )


@get_and_head(
    router,
    "/readyz",
    summary="Whether to send requests here",
    responses={
        503: {
            "description": "This replica is going away, or has no folder of originals",
            "content": {"application/json": {"schema": {"type": "object"}}},
        }
    },
)
async def readyz(request: Request) -> Response:
    """Take the replica out of rotation when this fails.

    A bucket that fails does not make a replica unready: it would fail for all of them at once. A
    folder of originals that is not there does: `detail` says so, and the log where it should be.
    """
    service = service_of(request)
    fault = None if service.draining else await service.find_fault()
    status = "draining" if service.draining else "misconfigured" if fault else "ready"
    return JSONResponse(
        {
            "status": status,
            **({"detail": fault} if fault else {}),
            "version": __version__,
            "libvips": "{}.{}.{}".format(*libvips.VERSION),
            "renders_running": service.admission.running,
            "renders_queued": service.admission.queued,
        },
        status_code=200 if status == "ready" else 503,
    )


@get_and_head(
    router, "/metrics", summary="Metrics in Prometheus' text format", response_class=Response
)
async def metrics(request: Request) -> Response:
    """Counters, gauges and histograms; see docs/operations.md for what they mean."""
    return Response(
        service_of(request).metrics.render_text(),
        media_type="text/plain; version=0.0.4; charset=utf-8",
    )


@get_and_head(
    router,
    "/autoscale",
    summary="How much there is to do, for a scaler",
    response_class=JSONResponse,
    responses={200: _AUTOSCALE},
)
async def autoscale(request: Request) -> dict[str, Any]:
    """Load of this replica's processors over the last 15 seconds, and the backlog of all jobs.

    `utilisation` and `shed_share` are shares from 0 to 1, times are in seconds and
    `queue_wait_seconds` is the 95th percentile. `jobs` is null where there is no database, or it
    does not answer within a second.
    """
    service = service_of(request)
    return (await service.demand.measure(draining=service.draining)).as_json()


@get_and_head(router, "/schema", summary="Every transform parameter")
async def schema(request: Request) -> dict[str, Any]:
    """The option table: names, ranges, defaults and help, for tools that build URLs.

    `requests` are the parameters that are no transform's, with the routes that know them.
    """
    return {
        "parameters": openapi.option_rows(),
        "requests": openapi.request_rows(),
        "formats": list(service_of(request).settings.formats),
    }


@get_and_head(router, "/presets", summary="Every preset")
async def presets(request: Request) -> dict[str, Any]:
    """Named transforms: their parameters, and which of them a URL may vary."""
    return {"presets": service_of(request).presets.as_json()}


@get_and_head(router, "/", summary="What this is")
async def index() -> dict[str, Any]:
    """A signpost for whoever opens the service in a browser."""
    return {
        "service": "pixelmill",
        "version": __version__,
        "try": "/thumb/ID?w=200&h=200",
        "parameters": "/schema",
        "openapi": "/openapi.json",
    }
