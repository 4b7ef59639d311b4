"""/schedules: jobs and batches that run at times."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.jobs.records import shown_time
from app.jobs.schedule_spec import ScheduleBody, check_id
from app.jobs.scheduler import Scheduler
from app.jobs.schedules import Schedule
from app.tokens import Scope
from routers import openapi
from routers.methods import get_and_head
from routers.pages import limit_of, page
from routers.requests import (
    body_of,
    jobs_of,
    pairs_of,
    read_json,
    value_of,
)

router = APIRouter(prefix="/schedules", tags=["jobs"])

_LARGEST: Final = 1 << 20
_SCHEDULE: Final[dict[str, Any]] = {
    "content": {
        "application/json": {
            "schema": {"type": "object"},
            "example": {
                "id": "nightly-cards",
                "state": "active",
                "cron": "0 3 * * *",
                "timezone": "Europe/Berlin",
                "job": {"source": "b.jpg", "outputs": [{"preset": "card"}]},
                "created_at": "2026-03-01T09:12:00.000Z",
                "next_at": "2026-03-02T02:00:00.000Z",
                "runs": 0,
                "skipped": 0,
                "links": {"self": "/schedules/nightly-cards"},
            },
        }
    }
}
_BODY: Final = openapi.json_body(ScheduleBody)
_OF_CHANGES: Final = openapi.problems(400, 401, 403, 404, 503)


@router.post(
    "",
    status_code=201,
    summary="Create a schedule under an id of the service's making",
    responses={
        201: {**_SCHEDULE, "description": "The schedule is kept"},
        **openapi.problems(400, 401, 403, 404, 408, 413, 503),
    },
    openapi_extra=_BODY,
)
async def post_schedule(request: Request) -> Response:
    """A job or a batch that runs by `cron`, by `run_every`, or once at `start_at`."""
    scheduler = _scheduler_to_change(request)
    body = await body_of(request, cap=_LARGEST)
    schedule, _ = await scheduler.put(read_json(body))
    here = f"/schedules/{schedule.id}"
    return JSONResponse(_shown(schedule), status_code=201, headers={"location": here})


@get_and_head(
    router,
    "",
    summary="Schedules, by id",
    responses=openapi.problems(400, 401, 403, 404, 503),
    openapi_extra=openapi.own_parameters("after", "limit"),
)
async def list_schedules(request: Request) -> dict[str, Any]:
    """A page of schedules. `next`, where there is more, is the URL of the following page."""
    scheduler = _scheduler_to_read(request)
    pairs = pairs_of(request)
    limit = limit_of(pairs)
    after = value_of(pairs, "cursor")
    if after is not None:
        after = check_id(after, param="cursor")
    found = await scheduler.find_page(limit=limit + 1, after=after)
    return page("/schedules", [_shown(schedule) for schedule in found], pairs, limit=limit)


@router.put(
    "/{id}",
    status_code=201,
    summary="Create a schedule under an id of your own, or replace it",
    responses={
        200: {**_SCHEDULE, "description": "The schedule was there, and is now as the body says"},
        201: {**_SCHEDULE, "description": "The schedule is kept"},
        **openapi.problems(400, 401, 403, 404, 408, 409, 413, 503),
    },
    openapi_extra={**openapi.own_parameters("schedule"), **_BODY},
)
async def put_schedule(request: Request) -> Response:
    """One that is replaced begins anew: its runs are counted from 0, and it stays paused if it is.

    The same body once more changes nothing.
    """
    scheduler = _scheduler_to_change(request)
    chosen = check_id(request.path_params["id"], param="id")
    body = await body_of(request, cap=_LARGEST)
    schedule, created = await scheduler.put(read_json(body), chosen)
    return JSONResponse(_shown(schedule), status_code=201 if created else 200)


@get_and_head(
    router,
    "/{id}",
    summary="A schedule",
    responses={200: _SCHEDULE, **_OF_CHANGES},
    openapi_extra=openapi.own_parameters("schedule"),
)
async def get_schedule(request: Request) -> dict[str, Any]:
    """When it runs next, five times ahead, and what it ran last."""
    schedule = await _scheduler_to_read(request).find(request.path_params["id"])
    return {**_shown(schedule), "upcoming": [shown_time(at) for at in schedule.upcoming()]}


@router.delete(
    "/{id}",
    status_code=204,
    summary="Delete a schedule",
    responses=_OF_CHANGES,
    openapi_extra=openapi.own_parameters("schedule"),
)
async def delete_schedule(request: Request) -> Response:
    """What it has started goes on."""
    await _scheduler_to_change(request).delete(request.path_params["id"])
    return Response(status_code=204)


@router.post(
    "/{id}/pause",
    summary="Pause a schedule",
    responses={200: _SCHEDULE, **_OF_CHANGES},
    openapi_extra=openapi.own_parameters("schedule"),
)
async def pause_schedule(request: Request) -> dict[str, Any]:
    """It runs no more until it is resumed, but by hand."""
    return _shown(await _scheduler_to_change(request).pause(request.path_params["id"]))


@router.post(
    "/{id}/resume",
    summary="Resume a schedule",
    responses={200: _SCHEDULE, **_OF_CHANGES},
    openapi_extra=openapi.own_parameters("schedule"),
)
async def resume_schedule(request: Request) -> dict[str, Any]:
    """It runs from its next time on: what has passed while it was paused is not made up for."""
    return _shown(await _scheduler_to_change(request).resume(request.path_params["id"]))


@router.post(
    "/{id}/run",
    status_code=202,
    summary="Run what a schedule runs, now",
    responses={
        202: {**_SCHEDULE, "description": "It runs: `last_id` and `links.last` say as what"},
        **openapi.problems(400, 401, 403, 404, 409, 502, 503, 504),
    },
    openapi_extra=openapi.own_parameters("schedule"),
)
async def run_schedule(request: Request) -> Response:
    """Also while it is paused or has ended. Its own times, and `run_times`, stay as they are."""
    schedule = await _scheduler_to_change(request).run(request.path_params["id"])
    shown = _shown(schedule)
    return JSONResponse(shown, status_code=202, headers={"location": shown["links"]["last"]})


def _scheduler_to_read(request: Request) -> Scheduler:
    return jobs_of(request, Scope.JOBS_READ).scheduler


def _scheduler_to_change(request: Request) -> Scheduler:
    return jobs_of(request, Scope.ADMIN).scheduler


def _shown(schedule: Schedule) -> dict[str, Any]:
    """A schedule as a client is told of it, with links to what can be done."""
    here = f"/schedules/{schedule.id}"
    links = {"self": here, "run": f"{here}/run"}
    links |= {"resume": f"{here}/resume"} if schedule.paused else {"pause": f"{here}/pause"}
    if schedule.last_id is not None:
        folder = "jobs" if schedule.body.kind == "job" else "batches"
        links["last"] = f"/{folder}/{schedule.last_id}"
    return {**schedule.as_json(), "links": links}
