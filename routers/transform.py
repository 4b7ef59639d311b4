"""POST /transform: a picture in, its result out. Nothing is kept."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.admission import Lane
from app.tokens import Scope
from routers import openapi
from routers.delivery import result_response
from routers.images import UPLOAD_BODY, receive_body
from routers.negotiation import choose_output
from routers.requests import accept_of, caller_of, pairs_of, service_of, while_connected
from transforms.transform import Transform

router = APIRouter(tags=["results"])


@router.post(
    "/transform",
    summary="The result of a picture that is sent along",
    response_class=Response,
    responses={
        200: openapi.RESULT_RESPONSES[200],
        **openapi.problems(400, 401, 404, 408, 409, 413, 415, 422, 502, 503, 504),
    },
    openapi_extra={**openapi.parameters("preset"), **UPLOAD_BODY},
)
async def post_transform(request: Request) -> Response:
    """Send the bytes as the body, and the transform as parameters. Unknown ones are refused."""
    service = service_of(request)
    settings = service.settings
    service.access.check(caller_of(request), Scope.IMAGES)
    transform = Transform.from_query(
        service.presets.resolve(pairs_of(request)), defaults=settings.defaults, unknown="refuse"
    )
    fm, _ = choose_output(transform, accept_of(request), settings.formats)
    transform = transform.with_output(fm, defaults=settings.defaults)
    # What waits for a processor holds its body: where the queue is full, none is received.
    service.admission.check(Lane.API)
    data = await receive_body(service, request)  # its header is read where it is rendered
    answer = await while_connected(
        request, service.renderer.render_upload(data, transform, lane=Lane.API)
    )
    return result_response(request, answer, {"cache-control": "no-store"})
