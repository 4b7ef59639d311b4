"""GET /info: what can be told of an original."""

from __future__ import annotations

from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.access import Grant
from app.admission import Lane
from app.tokens import Scope
from routers import openapi
from routers.delivery import (
    cache_control,
    etag_of,
    unmodified_response,
    validator_headers,
)
from routers.methods import get_and_head
from routers.requests import flag_of, read_of, while_connected

router = APIRouter(tags=["originals"])

_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "What is known of the original",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
    304: {"description": "The client has it already"},
    **openapi.problems(400, 401, 403, 404, 409, 413, 415, 422, 502, 503, 504),
}


@get_and_head(
    router,
    "/info/{id:path}",
    summary="What can be told of an original in the store",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=openapi.own_parameters("id", *openapi.OF_INFO),
)
async def info_by_id(request: Request) -> Response:
    """Size, format, metadata, colours and placeholders. `width` and `height` are upright."""
    return await _info(request)


@get_and_head(
    router,
    "/info",
    summary="What can be told of an original on the web",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=openapi.own_parameters("url", *openapi.OF_INFO),
)
async def info_by_url(request: Request) -> Response:
    """The same of an original on one of the allowed hosts."""
    return await _info(request)


async def _info(request: Request) -> Response:
    read = read_of(request)
    service, pairs, ref, grant = read.service, read.pairs, read.ref, read.grant
    place = flag_of(pairs, "gps", default=False)
    if place:
        service.access.check(read.caller, Scope.IMAGES)  # where somebody was is not for everybody
        grant = Grant(expires=grant.expires, shared=False)
    describer = service.describer
    asked = await while_connected(
        request,
        describer.identify(ref, colours=flag_of(pairs, "colours", default=True), place=place),
    )
    modified = asked.identity.modified
    headers = validator_headers(
        etag=etag_of(asked.key),
        caching=cache_control(service.settings, grant, versioned=read.versioned),
        varies=False,
        modified=modified,
    )
    if response := unmodified_response(request, headers, modified):
        return response
    rendered = await while_connected(request, describer.answer(asked, lane=Lane.INTERACTIVE))
    return Response(rendered.data, headers=headers, media_type=rendered.format.media_type)
