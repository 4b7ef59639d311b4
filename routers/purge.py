"""POST /purge: results that are to be served no more, on any replica."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.errors import InvalidRequest
from app.jobs.bodies import validate
from app.service import Service
from app.stores.base import can_begin_key, check_key
from app.subjects import Kind, Purge, Subject
from app.tags import tag_of_subject
from app.tokens import Scope
from routers import openapi
from routers.requests import body_of, caller_of, read_json, service_of

router = APIRouter(tags=["operations"])

_LARGEST: Final = 1 << 20
_MOST: Final = 1000
_LONGEST: Final = 8192


class PurgeBody(BaseModel):
    """What to purge: at least one subject, at most 1,000 of a kind."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: list[str] = Field([], max_length=_MOST, description="Originals in the store.")
    urls: list[str] = Field([], max_length=_MOST, description="Originals on the web.")
    prefixes: list[str] = Field(
        [],
        max_length=_MOST,
        description="Every id that begins so. Tags of caches are those of folders: end it with /.",
    )
    presets: list[str] = Field(
        [], max_length=_MOST, description="What was asked for through these presets."
    )
    soft: bool = Field(
        default=False,
        description="Answer results of before until each has been made anew, which the first "
        "request for it causes.",
    )


@router.post(
    "/purge",
    summary="Serve results no more, on any replica",
    responses={
        200: {
            "description": "What was purged, how many objects were removed from the store, and "
            "the tags by which caches before this service know them",
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **openapi.problems(400, 401, 403, 408, 413, 502, 504),
    },
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": PurgeBody.model_json_schema()}},
        }
    },
)
async def purge(request: Request) -> Response:
    """When this answers, it is done on this replica, and the others hear of it within a second.

    Originals stay: DELETE /images/ID deletes one, and purges it too.
    """
    service = service_of(request)
    service.access.check(caller_of(request), Scope.ADMIN)
    body: PurgeBody = validate(PurgeBody, read_json(await body_of(request, cap=_LARGEST)))
    purges = [Purge(subject, soft=body.soft) for subject in _subjects(service, body)]
    if not purges:
        raise InvalidRequest("Name ids, urls, prefixes or presets to purge", param="ids")
    removed = await service.purger.purge(purges)
    tags = [tag_of_subject(purge.subject) for purge in purges]
    told: dict[str, Any] = {
        "purged": len(purges),
        "soft": body.soft,
        "removed": removed,
        "tags": tags,
    }
    return JSONResponse(told)


def _subjects(service: Service, body: PurgeBody) -> list[Subject]:
    """What is named, each once. Raises InvalidRequest, which says where."""
    found: dict[Subject, None] = {}
    for number, name in enumerate(body.ids):
        found[Subject(Kind.ID, check_key(name, param=f"ids[{number}]"))] = None
    for number, url in enumerate(body.urls):
        param = f"urls[{number}]"
        if not url.startswith(("http://", "https://")) or len(url) > _LONGEST:
            raise InvalidRequest(
                f"{param} must be a URL that begins with http:// or https://, of at most "
                f"{_LONGEST} characters",
                param=param,
            )
        found[Subject(Kind.URL, url)] = None
    for number, prefix in enumerate(body.prefixes):
        param = f"prefixes[{number}]"
        if not prefix or not can_begin_key(prefix):
            raise InvalidRequest(f"{param} must be how an id can begin", param=param)
        found[Subject(Kind.PREFIX, prefix)] = None
    for number, name in enumerate(body.presets):
        param = f"presets[{number}]"
        if name not in service.presets.by_name:
            known = ", ".join(service.presets.names[:8]) or "none"
            raise InvalidRequest(
                f"{param} must be one of the presets of this service ({known}), got {name[:64]!r}",
                param=param,
            )
        found[Subject(Kind.PRESET, name)] = None
    return list(found)
