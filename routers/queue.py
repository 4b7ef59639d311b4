"""/queue: how much waits, and what is not to begin for now."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request

from app.jobs.bodies import validate
from app.jobs.pauses import PauseBody
from app.jobs.service import Jobs
from app.tokens import Scope
from routers import openapi
from routers.methods import get_and_head
from routers.requests import body_of, jobs_of, read_json

router = APIRouter(prefix="/queue", tags=["jobs"])

_LARGEST: Final = 4096
_QUEUE: Final[dict[str, Any]] = {
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["jobs", "depth", "age_seconds", "backlog_seconds", "pauses"],
                "properties": {
                    "jobs": {"type": "object", "additionalProperties": {"type": "integer"}},
                    "depth": {"type": "integer"},
                    "age_seconds": {"type": "number"},
                    "backlog_seconds": {"type": "number"},
                    "pauses": {"type": "array", "items": {"type": "object"}},
                },
            }
        }
    }
}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": PauseBody.model_json_schema()}},
    }
}


@get_and_head(
    router,
    "",
    summary="How much waits",
    responses={200: _QUEUE, **openapi.problems(401, 403, 404, 503)},
)
async def get_queue(request: Request) -> dict[str, Any]:
    """Jobs by state, and those that are due: how many, since when, and how long they will take."""
    return await _shown(jobs_of(request, Scope.JOBS_READ))


@router.post(
    "/pause",
    summary="Let no more jobs of a label begin",
    responses={200: _QUEUE, **openapi.problems(400, 401, 403, 404, 408, 413, 503)},
    openapi_extra=_BODY,
)
async def pause_queue(request: Request) -> dict[str, Any]:
    """What runs is left to end. Jobs that come in are accepted, and wait."""
    jobs, label = await _of(request)
    await jobs.pauses.pause(label)
    return await _shown(jobs)


@router.post(
    "/resume",
    summary="Let jobs of a label begin again",
    responses={200: _QUEUE, **openapi.problems(400, 401, 403, 404, 408, 413, 503)},
    openapi_extra=_BODY,
)
async def resume_queue(request: Request) -> dict[str, Any]:
    """Each pause is ended by itself: of a label, or of all jobs."""
    jobs, label = await _of(request)
    await jobs.pauses.resume(label)
    return await _shown(jobs)


async def _of(request: Request) -> tuple[Jobs, str]:
    jobs = jobs_of(request, Scope.ADMIN)
    body: PauseBody = validate(PauseBody, read_json(await body_of(request, cap=_LARGEST) or b"{}"))
    return jobs, body.paused_label


async def _shown(jobs: Jobs) -> dict[str, Any]:
    backlog = await jobs.backlog.measure()
    pauses = await jobs.pauses.find_all()
    return {**backlog.as_json(), "pauses": [pause.as_json() for pause in pauses]}
