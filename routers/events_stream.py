"""GET /jobs/{id}/events and /batches/{id}/events: what happens, as it happens.

Server-Sent Events as the HTML standard has them. An event's id is a place from which a client that
was cut off goes on: it sends it back as `Last-Event-ID`.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.errors import InvalidRequest
from app.jobs.following import Follower, Place, Told, has_all
from app.tokens import Scope
from routers import openapi
from routers.batches import BATCH_ID, shown_batch
from routers.jobs import shown
from routers.requests import flag_of, jobs_of, pairs_of
from routers.streams import Streamed

router = APIRouter(tags=["jobs"])

_MEDIA_TYPE: Final = "text/event-stream"
_RETRY: Final = b"retry: 2000\n\n"
"""Milliseconds after which a client that was cut off comes again."""
_ALIVE: Final = b": alive\n\n"
_LAST: Final[dict[str, Any]] = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The id of the last event that was received: it goes on behind that.",
    "schema": {"type": "string", "maxLength": 100},
}
_ENDS: Final[dict[str, Any]] = {
    "name": "jobs",
    "in": "query",
    "description": "0: the counts only, without an event for each job.",
    "schema": {"type": "string", "enum": ["0", "1"]},
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "`progress`, `job` for the end of each job, and `end`; then it is over",
        "content": {_MEDIA_TYPE: {"schema": {"type": "string"}}},
    },
    204: {"description": "The client has been told of the end: it need not come again"},
    **openapi.problems(400, 401, 403, 404, 503),
}


@router.get(
    "/jobs/{id}/events",
    summary="What happens to a job, as it happens",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra={"parameters": [*openapi.own_parameters("job")["parameters"], _LAST]},
)
async def job_events(request: Request) -> Response:
    """Ends with the job."""
    jobs = jobs_of(request, Scope.JOBS_READ)
    after = _place_of(request)
    job = await jobs.find(request.path_params["id"])
    if has_all(after, job.finished_at):
        return Response(status_code=204)
    return _answer(jobs.follower, jobs.follower.follow_job(job.id, after=after), _shown_job)


@router.get(
    "/batches/{id}/events",
    summary="What happens to a batch, as it happens",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra={"parameters": [BATCH_ID, _ENDS, _LAST]},
)
async def batch_events(request: Request) -> Response:
    """Begins with the ends that there were, unless a place is given. Ends with the batch."""
    jobs = jobs_of(request, Scope.JOBS_READ)
    after = _place_of(request)
    ends = flag_of(pairs_of(request), "jobs", default=True)
    batch = await jobs.batches.find(request.path_params["id"])
    if has_all(after, batch.finished_at):
        return Response(status_code=204)
    told = jobs.follower.follow_batch(batch.id, after=after, ends=ends)
    return _answer(jobs.follower, told, _shown_batch)


def _answer(
    follower: Follower, told: AsyncGenerator[Told, None], show: Callable[[Told], dict[str, Any]]
) -> Response:
    follower.enter()
    return Streamed(
        _written(told, show),
        media_type=_MEDIA_TYPE,
        # A proxy that collects answers would hold the events back.
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        release=follower.leave,
    )


async def _written(
    told: AsyncGenerator[Told, None], show: Callable[[Told], dict[str, Any]]
) -> AsyncGenerator[bytes, None]:
    yield _RETRY
    async with aclosing(told) as found:
        async for one in found:
            yield _ALIVE if one.name is None else _event(one, show(one))


def _event(told: Told, data: dict[str, Any]) -> bytes:
    place = "" if told.place is None else f"id: {told.place}\n"
    text = json.dumps(data, ensure_ascii=False)
    return f"{place}event: {told.name}\ndata: {text}\n\n".encode()


def _shown_job(told: Told) -> dict[str, Any]:
    assert told.job is not None  # noqa: S101 - all that is told of a job has it
    return shown(told.job)


def _shown_batch(told: Told) -> dict[str, Any]:
    if told.job is not None:
        return shown(told.job)
    assert told.batch is not None  # noqa: S101 - it is of one or the other
    return shown_batch(told.batch, told.progress)


def _place_of(request: Request) -> Place:
    """Where the client was when it was cut off. Raises InvalidRequest."""
    text = request.headers.get("last-event-id", "")
    if not text:
        return Place()
    place = Place.read(text)
    if place is None:
        raise InvalidRequest("Last-Event-ID must be one that an event had", param="Last-Event-ID")
    return place
