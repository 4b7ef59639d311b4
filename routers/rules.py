"""/rules: what becomes of originals as they arrive."""

from __future__ import annotations

import re
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.errors import InvalidRequest
from app.jobs.rules import Rule, RuleBody, Rules
from app.tokens import Scope
from routers import openapi
from routers.methods import get_and_head
from routers.requests import body_of, jobs_of, read_json

router = APIRouter(prefix="/rules", tags=["jobs"])

_LARGEST: Final = 1 << 18
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,57}")
_RULE: Final[dict[str, Any]] = {
    "content": {
        "application/json": {
            "schema": {"type": "object", "required": ["id", "since", "outputs", "links"]},
            "example": {
                "id": "thumbnails",
                "since": "2025-01-01T12:00:00.000Z",
                "prefix": "products/",
                "outputs": [{"transform": "w=200", "target": "thumbs/{stem}.webp"}],
                "links": {"self": "/rules/thumbnails"},
            },
        }
    }
}
_BODY: Final = openapi.json_body(RuleBody)


@router.post(
    "",
    status_code=201,
    summary="Make a rule",
    responses={
        201: {**_RULE, "description": "The rule holds from now on"},
        **openapi.problems(400, 401, 403, 404, 408, 409, 413, 503),
    },
    openapi_extra=_BODY,
)
async def post_rule(request: Request) -> Response:
    """From now on, results are made of each original that is new or has changed."""
    rules = _rules(request)
    rule = await rules.create(read_json(await body_of(request, cap=_LARGEST)))
    return JSONResponse(_shown(rule), status_code=201, headers={"location": f"/rules/{rule.id}"})


@get_and_head(
    router,
    "",
    summary="Every rule",
    responses=openapi.problems(401, 403, 404, 503),
)
async def list_rules(request: Request) -> dict[str, Any]:
    """All of them, by their ids."""
    return {"items": [_shown(rule) for rule in await _rules(request).find_all()]}


@get_and_head(
    router,
    "/{id}",
    summary="A rule",
    responses={200: _RULE, **openapi.problems(400, 401, 403, 404, 503)},
    openapi_extra=openapi.own_parameters("rule"),
)
async def get_rule(request: Request) -> dict[str, Any]:
    """As it was sent. `since` is when it was made or last changed."""
    return _shown(await _rules(request).find(_id(request)))


@router.put(
    "/{id}",
    summary="Make or change a rule",
    responses={
        200: {**_RULE, "description": "It was there, and is now as it was sent"},
        201: {**_RULE, "description": "The rule holds from now on"},
        **openapi.problems(400, 401, 403, 404, 408, 409, 413, 503),
    },
    openapi_extra={**openapi.own_parameters("rule"), **_BODY},
)
async def put_rule(request: Request) -> Response:
    """One that is changed is as new: with `backfill` it takes in again what is there."""
    rules, rule_id = _rules(request), _id(request)
    rule, new = await rules.put(rule_id, read_json(await body_of(request, cap=_LARGEST)))
    headers = {"location": f"/rules/{rule.id}"}
    return JSONResponse(_shown(rule), status_code=201 if new else 200, headers=headers)


@router.delete(
    "/{id}",
    status_code=204,
    summary="Delete a rule",
    responses=openapi.problems(400, 401, 403, 404, 503),
    openapi_extra=openapi.own_parameters("rule"),
)
async def delete_rule(request: Request) -> Response:
    """Its jobs and their results stay. Deleting what is not there is no error."""
    await _rules(request).delete(_id(request))
    return Response(status_code=204)


def _rules(request: Request) -> Rules:
    """The rules, for those who may see and change them."""
    return jobs_of(request, Scope.ADMIN).arrivals.rules


def _id(request: Request) -> str:
    text: str = request.path_params["id"]
    if not _ID.fullmatch(text):
        raise InvalidRequest(
            "id must be 1 to 58 letters, digits, dots, dashes and underscores", param="id"
        )
    return text


def _shown(rule: Rule) -> dict[str, Any]:
    return {**rule.as_json(), "links": {"self": f"/rules/{rule.id}"}}
