"""/jobs: renders that are asked for now and made later."""

from __future__ import annotations

import hashlib
import re
import time
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.errors import InvalidRequest
from app.jobs import idempotency
from app.jobs.records import Job, State
from app.jobs.spec import JobBody
from app.tokens import Scope
from routers import openapi
from routers.methods import get_and_head
from routers.pages import cursor_of, limit_of, page
from routers.requests import (
    body_of,
    caller_of,
    jobs_of,
    pairs_of,
    read_json,
    value_of,
)

router = APIRouter(prefix="/jobs", tags=["jobs"])

_LARGEST: Final = 1 << 20
_LONGEST_WAIT: Final = 60
_HELD: Final = "paused"
"""How a queued job is shown that a pause holds: no state to list by."""
_WAIT: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,9})\"?", re.IGNORECASE)

_JOB: Final[dict[str, Any]] = {
    "content": {
        "application/json": {
            "schema": {"type": "object"},
            "example": {
                "id": "01m86y9z9pz12s0jh091j5caeb",
                "state": "queued",
                "source": "b.jpg",
                "outputs": [{"transform": "fit=cover&fm=jpeg&h=100&w=200", "target": "out/1.jpg"}],
                "links": {"self": "/jobs/01m86y9z9pz12s0jh091j5caeb"},
            },
        }
    }
}
_HEADERS: Final = {
    "parameters": [
        {
            "name": "Prefer",
            "in": "header",
            "description": "`wait=N`: answer 200 with the job's end if it comes within N seconds "
            f"(at most {_LONGEST_WAIT}); `respond-async`: do not wait (RFC 7240).",
            "schema": {"type": "string"},
            "example": "respond-async, wait=5",
        },
        {
            "name": "Idempotency-Key",
            "in": "header",
            "description": "A request that is sent again with the same key is done once.",
            "schema": {"type": "string", "maxLength": idempotency.LONGEST},
        },
    ]
}


@router.post(
    "",
    status_code=202,
    summary="Submit a job",
    responses={
        200: {**_JOB, "description": "The job has ended within the time that was waited for"},
        202: {**_JOB, "description": "The job is accepted: nothing loses it any more"},
        **openapi.problems(400, 401, 403, 404, 408, 409, 413, 422, 503),
    },
    openapi_extra={**_HEADERS, **openapi.json_body(JobBody)},
)
async def post_job(request: Request) -> Response:
    """One original, or several to be merged, and the results that are wanted of it."""
    jobs = jobs_of(request, Scope.JOBS_WRITE)
    seconds = _seconds_to_wait(request)
    key = idempotency_key(request)
    body = await body_of(request, cap=_LARGEST)
    draft = jobs.reader.read_job(read_json(body), now=time.time())
    job, new = await jobs.submit(draft, key=key, fingerprint=hashlib.sha256(body).hexdigest())
    if seconds:
        job = await jobs.wait(job.id, seconds)
    headers = {"location": f"/jobs/{job.id}"}
    if seconds is not None:
        headers["preference-applied"] = f"wait={seconds}"
    if not new:
        headers["idempotency-replayed"] = "true"
    status = 200 if seconds and job.state.final else 202
    return JSONResponse(shown(job), status_code=status, headers=headers)


@get_and_head(
    router,
    "",
    summary="Jobs, the newest first",
    responses=openapi.problems(400, 401, 403, 404, 503),
    openapi_extra=openapi.own_parameters("state", "label", "batch", "cursor", "limit"),
)
async def list_jobs(request: Request) -> dict[str, Any]:
    """A page of jobs. `next`, where there is more, is the URL of the following page."""
    jobs = jobs_of(request, Scope.JOBS_READ)
    pairs = pairs_of(request)
    limit = limit_of(pairs)
    found = await jobs.find_page(
        limit=limit + 1,
        state=state_of(pairs),
        label=value_of(pairs, "label"),
        batch_id=value_of(pairs, "batch"),
        before=cursor_of(pairs),
    )
    return page("/jobs", [shown(job) for job in found], pairs, limit=limit)


@get_and_head(
    router,
    "/{id}",
    summary="A job",
    responses={200: _JOB, **openapi.problems(400, 401, 403, 404, 503)},
    openapi_extra=openapi.own_parameters("job"),
)
async def get_job(request: Request) -> dict[str, Any]:
    """What has become of a job: its results, or the problem that ended it."""
    return shown(await jobs_of(request, Scope.JOBS_READ).find(request.path_params["id"]))


@router.post(
    "/{id}/cancel",
    summary="Cancel a job",
    responses={200: _JOB, **openapi.problems(400, 401, 403, 404, 409, 503)},
    openapi_extra=openapi.own_parameters("job"),
)
async def cancel_job(request: Request) -> dict[str, Any]:
    """A job that runs is stopped. To cancel it twice is no error, but one that has ended stays."""
    return shown(await jobs_of(request, Scope.JOBS_WRITE).cancel(request.path_params["id"]))


@router.post(
    "/{id}/retry",
    summary="Try a job again that has failed or was cancelled",
    responses={200: _JOB, **openapi.problems(400, 401, 403, 404, 409, 503)},
    openapi_extra=openapi.own_parameters("job"),
)
async def retry_job(request: Request) -> dict[str, Any]:
    """It has all its attempts again."""
    return shown(await jobs_of(request, Scope.JOBS_WRITE).retry(request.path_params["id"]))


def shown(job: Job) -> dict[str, Any]:
    """A job as a client is told of it, with links to what can be done."""
    here = f"/jobs/{job.id}"
    links = {"self": here, "events": f"{here}/events"}
    if not job.state.final:
        links["cancel"] = f"{here}/cancel"
    elif job.state in (State.FAILED, State.CANCELLED):
        links["retry"] = f"{here}/retry"
    if job.batch_id is not None:
        links["batch"] = f"/batches/{job.batch_id}"
    return {**job.as_json(), "links": links}


def state_of(pairs: list[tuple[str, str]]) -> State | None:
    """The state in which records are wanted. Raises InvalidRequest."""
    state = value_of(pairs, "state")
    if state is None:
        return None
    if state not in list(State):
        hint = ": what a pause holds is queued" if state == _HELD else ""
        raise InvalidRequest(
            f"state must be one of {', '.join(State)}, got {state[:64]!r}{hint}", param="state"
        )
    return State(state)


def idempotency_key(request: Request) -> str | None:
    """The client's key, apart for each path and token. Raises InvalidRequest."""
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1:
        raise InvalidRequest("Idempotency-Key is given twice", param="Idempotency-Key")
    key = idempotency.check_key(given[0])
    owner = f"{request.scope['path']}\n{caller_of(request).token or ''}\n{key}"
    return hashlib.sha256(owner.encode()).hexdigest()


def _seconds_to_wait(request: Request) -> int | None:
    """For how long `Prefer` asks to wait (RFC 7240). What is not understood does not matter."""
    match = _WAIT.search(", ".join(request.headers.getlist("prefer")))
    return None if match is None else min(int(match[1]), _LONGEST_WAIT)
