"""/dead-letters: jobs that have failed for good; /quarantine: originals that end their workers."""

from __future__ import annotations

import re
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.errors import InvalidRequest
from app.jobs import dead_letters
from app.jobs.bodies import validate
from app.jobs.dead_letters import CODE, MOST_AT_ONCE, Choice, ChoiceBody
from app.jobs.records import Job
from app.tokens import Scope
from routers import openapi
from routers.jobs import shown
from routers.methods import get_and_head
from routers.pages import cursor_of, limit_of, page
from routers.requests import (
    body_of,
    jobs_of,
    pairs_of,
    read_json,
    value_of,
)

router = APIRouter(tags=["jobs"])

_LARGEST: Final = 1 << 16
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")

_CHOICE: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": ChoiceBody.model_json_schema()}},
    }
}


def _answered(name: str) -> dict[int | str, dict[str, Any]]:
    described = {
        "type": "object",
        "required": [name, "more"],
        "properties": {name: {"type": "integer"}, "more": {"type": "boolean"}},
    }
    return {
        200: {
            "description": f"How many, at most {MOST_AT_ONCE}, and whether there may be more",
            "content": {"application/json": {"schema": described}},
        },
        **openapi.problems(400, 401, 403, 404, 408, 413, 503),
    }


@get_and_head(
    router,
    "/dead-letters",
    summary="Jobs that have failed, the newest first",
    responses=openapi.problems(400, 401, 403, 404, 503),
    openapi_extra=openapi.own_parameters("label", "code", "batch", "cursor", "limit"),
)
async def list_dead_letters(request: Request) -> dict[str, Any]:
    """A page of them, each with its error and the number of its attempts."""
    jobs = jobs_of(request, Scope.JOBS_READ)
    pairs = pairs_of(request)
    limit, before = limit_of(pairs), cursor_of(pairs)
    code = value_of(pairs, "code")
    if code is not None and not re.fullmatch(CODE, code):
        raise InvalidRequest(f"code must be that of a problem, got {code[:64]!r}", param="code")
    choice = Choice(label=value_of(pairs, "label"), code=code, batch_id=value_of(pairs, "batch"))
    found = await jobs.dead_letters.find_page(choice, limit=limit + 1, before=before)
    return page("/dead-letters", [_shown(job) for job in found], pairs, limit=limit)


@get_and_head(
    router,
    "/dead-letters/{id}",
    summary="A job that has failed, with its attempts",
    responses=openapi.problems(400, 401, 403, 404, 503),
    openapi_extra=openapi.own_parameters("job"),
)
async def get_dead_letter(request: Request) -> dict[str, Any]:
    """Each attempt has its worker, its times and its error."""
    letter = await jobs_of(request, Scope.JOBS_READ).dead_letters.find(request.path_params["id"])
    return {**_shown(letter.job), "attempts": letter.attempts}


@router.post(
    "/dead-letters/redrive",
    summary="Try jobs again that have failed",
    responses=_answered("redriven"),
    openapi_extra=_CHOICE,
)
async def redrive_dead_letters(request: Request) -> dict[str, Any]:
    """They have all their attempts again. What is in quarantine fails until it is let out."""
    jobs = jobs_of(request, Scope.JOBS_WRITE)
    redriven, more = await jobs.dead_letters.redrive(await _choice_of(request))
    return {"redriven": redriven, "more": more}


@router.post(
    "/dead-letters/purge",
    summary="Forget jobs that have failed",
    responses=_answered("purged"),
    openapi_extra=_CHOICE,
)
async def purge_dead_letters(request: Request) -> dict[str, Any]:
    """They cannot be looked at or tried again."""
    jobs = jobs_of(request, Scope.ADMIN)
    purged, more = await jobs.dead_letters.purge(await _choice_of(request))
    return {"purged": purged, "more": more}


@get_and_head(
    router,
    "/quarantine",
    summary="Versions of originals that jobs do not render",
    responses=openapi.problems(400, 401, 403, 404, 503),
    openapi_extra=openapi.own_parameters("digest_cursor", "limit"),
)
async def list_quarantine(request: Request) -> dict[str, Any]:
    """They have ended their workers too often. A replaced original has another version."""
    jobs = jobs_of(request, Scope.JOBS_READ)
    pairs = pairs_of(request)
    limit, after = limit_of(pairs), value_of(pairs, "cursor")
    if after is not None and not _DIGEST.fullmatch(after):
        raise InvalidRequest("cursor must be one that a page has given", param="cursor")
    found = await jobs.database.read(
        lambda tx: dead_letters.find_quarantined(tx, limit=limit + 1, after=after)
    )
    items = [entry.as_json() for entry in found]
    return page("/quarantine", items, pairs, limit=limit, key="digest")


@router.delete(
    "/quarantine/{digest}",
    status_code=204,
    summary="Let a version out of quarantine",
    response_class=Response,
    responses=openapi.problems(400, 401, 403, 404, 503),
    openapi_extra=openapi.own_parameters("digest"),
)
async def delete_quarantined(request: Request) -> Response:
    """Jobs render it again: those that have failed are to be redriven."""
    digest = request.path_params["digest"]
    await jobs_of(request, Scope.ADMIN).database.write(lambda tx: dead_letters.release(tx, digest))
    return Response(status_code=204)


async def _choice_of(request: Request) -> Choice:
    body: ChoiceBody = validate(ChoiceBody, read_json(await body_of(request, cap=_LARGEST)))
    return body.choice()


def _shown(job: Job) -> dict[str, Any]:
    told = shown(job)
    told["links"]["self"] = f"/dead-letters/{job.id}"
    return {**told, "kind": job.kind.value}
