"""GET and HEAD /thumb: a result of an original, by id or by URL."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.admission import Lane
from app.explanation import explain
from app.tags import tags_of
from routers import openapi
from routers.delivery import (
    STALE_AGE,
    brief_age,
    cache_control,
    etag_of,
    record_hit,
    result_response,
    tag_headers,
    unmodified_response,
    validator_headers,
)
from routers.methods import get_and_head
from routers.negotiation import choose_output
from routers.requests import accept_of, flag_of, read_of, transform_of, while_connected
from transforms.options import BY_NAME
from transforms.transform import Transform

router = APIRouter(tags=["results"])


@get_and_head(
    router,
    "/thumb/{id:path}",
    summary="A result of an original in the store",
    response_class=Response,
    responses=openapi.RESULT_RESPONSES,
    openapi_extra=openapi.parameters("id", *openapi.OF_THUMB),
)
async def thumb_by_id(request: Request) -> Response:
    """Fetch the original of this id, transform it as the parameters say, and answer the result.

    Unknown parameters do not matter. Without any, the original comes upright and in sRGB, in the
    best format that the client accepts.
    """
    return await _thumb(request)


@get_and_head(
    router,
    "/thumb",
    summary="A result of an original on the web",
    response_class=Response,
    responses=openapi.RESULT_RESPONSES,
    openapi_extra=openapi.parameters("url", *openapi.OF_THUMB),
)
async def thumb_by_url(request: Request) -> Response:
    """Fetch the original from a URL on one of the allowed hosts, and answer the result."""
    return await _thumb(request)


async def _thumb(request: Request) -> Response:
    read = read_of(request)
    service, pairs, ref, grant = read.service, read.pairs, read.ref, read.grant
    settings = service.settings
    transform = transform_of(service, pairs)
    fm, varies = choose_output(transform, accept_of(request), settings.formats)
    reason = _reason(transform, pairs, fm, varies=varies)
    transform = transform.with_output(fm, defaults=settings.defaults)

    renderer = service.renderer
    preset = service.presets.named_in(pairs)
    keyed = await while_connected(
        request, renderer.identify(ref, transform, preset=preset, recall=True)
    )
    if flag_of(pairs, "explain", default=False):
        explained = await while_connected(request, renderer.explain(keyed))
        told = explain(
            explained,
            keyed=keyed,
            reason=reason,
            settings=settings,
            refused=renderer.refusal_of(explained),
        )
        return JSONResponse(told, headers={"cache-control": "no-store"})
    modified = keyed.identity.modified
    caching = partial(cache_control, settings, grant, versioned=read.versioned)
    tags = tag_headers(settings, tags_of(keyed.refs, preset)) if settings.cache_tags else {}
    headers = tags | validator_headers(
        etag=etag_of(keyed.key),
        caching=caching(brief=STALE_AGE if keyed.doubtful else None),
        varies=varies,
        modified=modified,
    )
    if response := unmodified_response(request, headers, modified):
        return response

    answer = await while_connected(request, renderer.answer(keyed, lane=Lane.INTERACTIVE))
    rendered = answer.rendered
    headers = tags | validator_headers(  # the original may have been replaced meanwhile
        etag=etag_of(rendered.key),
        caching=caching(brief=brief_age(answer)),
        varies=varies,
        # By its date alone, what was made under pressure would pass for the result itself.
        modified=None if rendered.reduced else rendered.modified,
    )
    if grant.shared and grant.expires is None:
        # What a token was let to see, or a signature for a time, is not for whoever asks next.
        fresh_for = min(map(renderer.originals.fresh_for, keyed.refs))
        record_hit(request.app.state.hit_path, request, answer, headers, seconds=fresh_for)
    return result_response(request, answer, headers)


def _reason(transform: Transform, pairs: list[tuple[str, str]], fm: str, *, varies: bool) -> str:
    """Why the result has its format. The transform is as it was asked for."""
    if transform.fm is not None:
        by_request = any(name in BY_NAME["fm"].spellings for name, _ in pairs)
        return "fm names it" if by_request else "the preset names it"
    match fm:
        case "same":
            return "auto=none: the original's own"
        case "auto":
            newer = "Accept names no newer format" if varies else "no newer format is made here"
            return f"{newer}: GIF where it moves, PNG where it is transparent, else JPEG"
        case _:
            return "Accept names it"
