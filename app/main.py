"""The application: the parts of the service and the routes to them, put together.

The only module of this floor that knows the routers.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app import __version__
from app.service import open_service
from app.settings import Settings
from app.sources.guard import Resolver, resolve
from app.telemetry.tracing import open_tracer
from routers import (
    batches,
    dead_letters,
    events,
    events_stream,
    images,
    info,
    jobs,
    kit,
    ops,
    problems,
    purge,
    queue,
    rules,
    schedules,
    thumb,
    transform,
    webhooks,
)
from routers.envelope import Envelope
from routers.hits import HitPath
from routers.spans import Spans


@dataclass(frozen=True, slots=True)
class Application:
    """The ASGI application of one process, and the FastAPI application within it."""

    api: FastAPI
    envelope: Envelope
    hit_path: HitPath
    entry: ASGIApp
    """The outermost layer."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.entry(scope, receive, send)

    def drain(self) -> None:
        """Turn readiness, and have clients close their connections."""
        service = getattr(self.api.state, "service", None)
        if service is not None:  # it may be starting
            service.drain()
        self.envelope.closing = True
        self.hit_path.close()  # its answers do not say that the connection closes


def create_app(settings: Settings, *, resolver: Resolver = resolve) -> Application:
    """Put one process's application together.

    A request meets the layers in this order: where spans are collected the one that begins them,
    the hit path, the envelope, FastAPI's routes.
    """
    tracer = open_tracer(os.environ)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with open_service(settings, resolver=resolver) as service:
                app.state.service = service
                envelope.metrics = service.metrics
                hit_path.open(service.memory_tier, service.metrics)
                try:
                    yield
                finally:
                    hit_path.close()
        finally:
            # Last: a collector that does not answer takes none of the time for writes and jobs.
            if tracer is not None:
                await asyncio.to_thread(tracer.close)

    app = FastAPI(
        title="Pixelmill",
        version=__version__,
        description="Originals in an object store, results by URL.",
        lifespan=lifespan,
        # Their pages load scripts from elsewhere; the document itself is at /openapi.json.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        # Their spans begin below the hit path, and tell the query and what is wrong with it.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    problems.install(app)
    for router in (
        thumb.router,
        info.router,
        kit.router,
        images.router,
        transform.router,
        jobs.router,
        batches.router,
        schedules.router,
        events_stream.router,
        events.router,
        rules.router,
        webhooks.router,
        dead_letters.router,
        queue.router,
        purge.router,
        ops.router,
    ):
        app.include_router(router)
    envelope = Envelope(app)
    hit_path = HitPath(envelope)
    app.state.hit_path = hit_path
    return Application(
        api=app,
        envelope=envelope,
        hit_path=hit_path,
        entry=hit_path if tracer is None else Spans(hit_path, tracer),
    )
