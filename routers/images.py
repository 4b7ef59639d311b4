"""/images: originals in the store. Upload, download, look, delete."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Annotated, Any, Final
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from app.dates import show_http_date
from app.errors import OriginalMissing, OriginalTooLarge, ServiceError, UploadTimeout
from app.service import Service
from app.sources import stored
from app.sources.base import Ref, receive
from app.stores.base import Reading, check_key
from app.tokens import Scope as AccessScope
from routers import openapi
from routers.conditional import ByteRange, Unsatisfiable, is_unmodified, parse_range
from routers.methods import get_and_head
from routers.requests import caller_of, pairs_of, service_of
from transforms.errors import TransformError
from transforms.formats import SNIFFED_BYTES, sniff
from transforms.inspect import Header
from transforms.pipeline import upright

log = structlog.get_logger(__name__)

router = APIRouter(prefix="/images", tags=["originals"])

_DIGITS: Final = 32
_SEND_TIMEOUT: Final = 30.0
"""Seconds that a client may take for one chunk: a stalled reader must not hold a connection."""

Id = Annotated[str, Path(description="The original's id. It may hold slashes.", max_length=1024)]

UPLOAD_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "image/*": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}
# What is no picture is sent as bytes, to be saved and never shown.
_CONTENT: Final[dict[str, Any]] = {"image/*": {}, "application/octet-stream": {}}
_KEPT: Final[dict[str, Any]] = {
    "description": "The original is kept",
    "content": {
        "application/json": {
            "schema": {"type": "object"},
            "example": {
                "id": "samples/cat.jpg",
                "url": "/thumb/samples/cat.jpg",
                "bytes": 48213,
                "format": "jpeg",
                "width": 1200,
                "height": 800,
            },
        }
    },
}


@router.put(
    "/{id:path}",
    status_code=201,
    summary="Keep an original under an id of your own",
    responses={
        200: {**_KEPT, "description": "An original was replaced, and its results removed"},
        201: _KEPT,
        **openapi.problems(400, 401, 408, 409, 413, 415, 422, 502, 504),
    },
    openapi_extra=UPLOAD_BODY,
)
async def put_image(id: Id, request: Request) -> Response:  # noqa: A002 - the parameter's name
    """Send the bytes as the body. What is not a picture of a supported format is not kept."""
    service = service_of(request)
    service.access.check(caller_of(request), AccessScope.IMAGES)
    key = check_key(id)
    data, header = await receive_upload(service, request)
    existed = await _exists(service, key)
    return await _keep(service, key, data, header, created=not existed)


@router.post(
    "",
    status_code=201,
    summary="Keep an original under an id made from its content",
    responses={
        200: {**_KEPT, "description": "This very original was there already"},
        201: _KEPT,
        **openapi.problems(400, 401, 408, 409, 413, 415, 422, 502, 504),
    },
    openapi_extra=UPLOAD_BODY,
)
async def post_image(request: Request) -> Response:
    """Equal bytes have equal ids, so sending them twice keeps them once."""
    service = service_of(request)
    service.access.check(caller_of(request), AccessScope.IMAGES)
    data, header = await receive_upload(service, request)
    key = f"{hashlib.sha256(data).hexdigest()[:_DIGITS]}.{header.format.extension}"
    if await _exists(service, key):
        return _kept(key, data, header, created=False)
    return await _keep(service, key, data, header, created=True)


@get_and_head(
    router,
    "/{id:path}",
    summary="An original as it was kept",
    response_class=Response,
    responses={
        200: {"description": "The original", "content": _CONTENT},
        206: {"description": "The part of it that was asked for", "content": _CONTENT},
        304: {"description": "The client has it already"},
        416: {"description": "The range lies outside the original"},
        **openapi.problems(400, 403, 404, 409, 502, 504),
    },
)
async def get_image(id: Id, request: Request) -> Response:  # noqa: A002 - the parameter's name
    """Needs a signature where all requests need one; a bearer token does as well."""
    service = service_of(request)
    grant = service.access.check_read(
        caller_of(request), request.scope["path"], pairs_of(request), by_url=False
    )
    key = check_key(id)
    stat = await service.originals.stat(key)
    headers = {
        "etag": f'"{stat.version}"',
        "cache-control": f"{'public' if grant.shared else 'private'}, max-age=0, must-revalidate",
        "accept-ranges": "bytes",
    }
    if stat.modified is not None:
        headers["last-modified"] = show_http_date(stat.modified)
    if is_unmodified(request.headers, headers["etag"], stat.modified):
        return Response(status_code=304, headers=headers)
    try:
        wanted = parse_range(request.headers, stat.size, headers["etag"])
    except Unsatisfiable:
        headers["content-range"] = f"bytes */{stat.size}"
        return Response(status_code=416, headers=headers)
    headers |= await _describe_content(service, key)
    if wanted is not None:
        headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{stat.size}"
    part = wanted or ByteRange(0, stat.size)
    headers["content-length"] = str(part.stop - part.start)
    status = 200 if wanted is None else 206
    if request.method == "HEAD" or part.start == part.stop:
        return Response(status_code=status, headers=headers)
    return _OriginalResponse(service, key, stat.version, part, status=status, headers=headers)


@router.delete(
    "/{id:path}",
    status_code=204,
    summary="Delete an original and every result of it",
    responses=openapi.problems(400, 401, 409, 502, 504),
)
async def delete_image(id: Id, request: Request) -> Response:  # noqa: A002 - the parameter's name
    """Deleting what is not there is no error."""
    service = service_of(request)
    service.access.check(caller_of(request), AccessScope.IMAGES)
    key = check_key(id)
    await service.originals.delete(key)
    await service.purger.purge_original(Ref(stored.KIND, key))
    return Response(status_code=204)


class _OriginalResponse(Response):
    """Streams an object from the store, and lets go of it on every way out."""

    def __init__(
        self,
        service: Service,
        key: str,
        version: str,
        part: ByteRange,
        *,
        status: int,
        headers: dict[str, str],
    ) -> None:
        super().__init__(status_code=status, headers=headers)
        self._service = service
        self._key = key
        self._version = version
        self._part = part

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive
        async with AsyncExitStack() as stack:
            reading: Reading = await stack.enter_async_context(
                self._service.originals.read(
                    self._key,
                    version=self._version,
                    start=self._part.start,
                    stop=self._part.stop,
                )
            )
            await send(
                {
                    "type": "http.response.start",
                    "status": self.status_code,
                    "headers": self.raw_headers,
                }
            )
            try:
                async for chunk in reading.chunks:
                    async with asyncio.timeout(_SEND_TIMEOUT):
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except (ServiceError, TimeoutError) as error:
                # The answer has begun. Ending it here, short of its length, cuts the connection:
                # the client knows that it has not got all.
                log.warning("original_cut", id=self._key, error=str(error) or "stalled reader")
                return
            await send({"type": "http.response.body", "body": b""})


async def _describe_content(service: Service, key: str) -> dict[str, str]:
    """The media type by the first bytes. What is no picture is never shown, only saved."""
    async with service.originals.read(key, start=0, stop=SNIFFED_BYTES) as reading:
        head = b"".join([chunk async for chunk in reading.chunks])
    with contextlib.suppress(TransformError):
        image_format = sniff(head)
        if not image_format.foreign:  # an SVG or PDF may run scripts where it is shown
            return {"content-type": image_format.media_type}
    return {"content-type": "application/octet-stream", "content-disposition": "attachment"}


async def receive_upload(service: Service, request: Request) -> tuple[bytes, Header]:
    """The body, found to be a picture within the limits. Raises what says why it is not."""
    data = await receive_body(service, request)
    return data, await service.renderer.executor.look(data)


async def receive_body(service: Service, request: Request) -> bytes:
    """The body, whose first bytes are a picture's. Raises what says why they are not."""
    settings = service.settings
    cap = int(settings.max_source_bytes)
    declared = request.headers.get("content-length", "")
    size = int(declared) if declared.isdigit() else cap
    if size > cap:
        raise OriginalTooLarge(f"The upload has {size} bytes; at most {cap} are kept")
    try:
        async with (
            asyncio.timeout(settings.upload_timeout),
            service.uploads.slot(size),
        ):
            return await receive(_body(request), cap=cap, limits=settings.limits)
    except TimeoutError:
        raise UploadTimeout(
            f"The body did not arrive within {settings.upload_timeout:g} s"
        ) from None


async def _body(request: Request) -> AsyncIterator[bytes]:
    async for chunk in request.stream():
        if chunk:
            yield chunk


async def _exists(service: Service, key: str) -> bool:
    try:
        await service.originals.stat(key)
    except OriginalMissing:
        return False
    return True


async def _keep(
    service: Service, key: str, data: bytes, header: Header, *, created: bool
) -> Response:
    await service.originals.write(key, data, content_type=header.format.media_type)
    ref = Ref(stored.KIND, key)
    if created:
        service.purger.drop(ref)
        return _kept(key, data, header, created=True)
    try:
        await service.purger.purge_original(ref)
    except ServiceError as error:
        # The original is kept. Results of the one before have other keys: they are only in the way.
        log.warning("results_not_purged", id=key, error=error.detail)
    return _kept(key, data, header, created=created)


def _kept(key: str, data: bytes, header: Header, *, created: bool) -> Response:
    path = quote(key)
    return JSONResponse(
        {
            "id": key,
            "url": f"/thumb/{path}",
            "bytes": len(data),
            "format": header.format.name,
            "width": upright(header).width,
            "height": upright(header).height,
        },
        status_code=201 if created else 200,
        headers={"location": f"/images/{path}"},
    )
