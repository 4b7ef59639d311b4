"""GET and HEAD /thumb: a result of an original, by id or by URL."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.admission import Lane
from app.errors import InvalidRequest
from app.sources import stored, web
from app.sources.base import Ref
from app.stores.base import check_key
from routers import openapi
from routers.delivery import (
    cache_control,
    etag_of,
    record_hit,
    result_response,
    unmodified_response,
    validator_headers,
)
from routers.methods import get_and_head
from routers.negotiation import choose_output
from routers.requests import (
    accept_of,
    caller_of,
    pairs_of,
    service_of,
    transform_of,
    while_connected,
)

router = APIRouter(tags=["results"])


@get_and_head(
    router,
    "/thumb/{id:path}",
    summary="A result of an original in the store",
    response_class=Response,
    responses=openapi.RESULT_RESPONSES,
    openapi_extra=openapi.parameters("id", "preset", "v", "sig", "exp"),
)
async def thumb_by_id(request: Request) -> Response:
    """Fetch the original of this id, transform it as the parameters say, and answer the result.

    Unknown parameters do not matter. Without any, the original comes upright and in sRGB, in the
    best format that the client accepts.
    """
    return await _thumb(request, Ref(stored.KIND, check_key(request.path_params["id"])))


@get_and_head(
    router,
    "/thumb",
    summary="A result of an original on the web",
    response_class=Response,
    responses=openapi.RESULT_RESPONSES,
    openapi_extra=openapi.parameters("url", "preset", "v", "sig", "exp"),
)
async def thumb_by_url(request: Request) -> Response:
    """Fetch the original from a URL on one of the allowed hosts, and answer the result."""
    url = next((value for name, value in pairs_of(request) if name == "url"), "")
    if not url:
        raise InvalidRequest("Name an original: /thumb/ID, or /thumb?url=https://...", param="url")
    return await _thumb(request, Ref(web.KIND, url))


async def _thumb(request: Request, ref: Ref) -> Response:
    service = service_of(request)
    settings = service.settings
    pairs = pairs_of(request)
    grant = service.access.check_read(
        caller_of(request), request.scope["path"], pairs, by_url=ref.kind == web.KIND
    )
    transform = transform_of(service, pairs)
    fm, varies = choose_output(transform, accept_of(request), settings.formats)
    transform = transform.with_output(fm, defaults=settings.defaults)

    renderer = service.renderer
    keyed = await while_connected(request, renderer.identify(ref, transform))
    modified = keyed.identity.modified
    headers = validator_headers(
        etag=etag_of(keyed.key),
        caching=cache_control(settings, grant, versioned=any(name == "v" for name, _ in pairs)),
        varies=varies,
        modified=modified,
    )
    if response := unmodified_response(request, headers, modified):
        return response

    answer = await while_connected(request, renderer.answer(keyed, lane=Lane.INTERACTIVE))
    headers |= validator_headers(  # the original may have been replaced meanwhile
        etag=etag_of(answer.rendered.key),
        caching=headers["cache-control"],
        varies=varies,
        modified=answer.rendered.modified,
    )
    if grant.shared and grant.expires is None:
        # What a token was let to see, or a signature for a time, is not for whoever asks next.
        record_hit(
            request.app.state.hit_path, request, answer, headers, seconds=renderer.fresh_for(ref)
        )
    return result_response(request, answer, headers)
