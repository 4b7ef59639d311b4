"""POST /events/s3: stores tell of their objects."""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, replace
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.access import Caller
from app.errors import Unauthorised, problem_of
from app.jobs import s3events
from app.tokens import Scope
from routers import openapi
from routers.problems import problem_response
from routers.requests import body_of, caller_of, jobs_of, pairs_of, value_of

router = APIRouter(prefix="/events", tags=["jobs"])

_LARGEST: Final = 1 << 20
_CHALLENGE: Final = 'Basic realm="events", charset="UTF-8"'
_COUNT: Final = {"type": "integer", "minimum": 0}
_TAKEN: Final[dict[str, Any]] = {
    "description": "What the events ask for has been written down",
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["accepted", "ignored", "jobs"],
                "properties": {"accepted": _COUNT, "ignored": _COUNT, "jobs": _COUNT},
            },
            "example": {"accepted": 1, "ignored": 0, "jobs": 1},
        }
    },
}


@router.post(
    "/s3",
    summary="Tell of objects that were written or removed",
    responses={200: _TAKEN, **openapi.problems(400, 401, 403, 404, 408, 413, 502, 503, 504)},
    openapi_extra={
        **openapi.own_parameters("token"),
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
    },
)
async def post_s3_event(request: Request) -> Response:
    """For the webhooks of stores: S3 by SNS or EventBridge, MinIO, Ceph and SeaweedFS.

    `accepted` events were about originals, whose old results are removed and for which rules make
    jobs, once; `ignored` ones were not. What cannot be done now is answered with 502 to 504: the
    store sends it again. A token is taken as Bearer, bare, as the password of Basic, or as `token`.
    """
    try:
        arrivals = jobs_of(request, Scope.EVENTS, caller=_caller(request)).arrivals
    except Unauthorised as error:
        return _challenged(request, error)
    message = s3events.read_message(await body_of(request, cap=_LARGEST))
    return JSONResponse(asdict(await arrivals.take_message(message)))


def _caller(request: Request) -> Caller:
    """Who tells: stores have their own ways to send a token."""
    caller = caller_of(request)
    header = request.headers.get("authorization", "").strip()
    scheme, _, rest = header.partition(" ")
    token = caller.token
    if scheme.lower() == "basic":
        token = _password(rest)
    elif header and not rest:
        token = header  # MinIO sends its token as it is configured
    elif not header:
        token = value_of(pairs_of(request), "token")
    return replace(caller, token=token or None)


def _password(credentials: str) -> str | None:
    """The password of Basic credentials (RFC 7617), or None where they are none."""
    try:
        return base64.b64decode(credentials.strip(), validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return None


def _challenged(request: Request, error: Unauthorised) -> Response:
    """SNS sends the password of its endpoint's URL only to who asks for it."""
    problem = problem_of(error)
    assert problem is not None  # noqa: S101 - it is one of ours
    response = problem_response(problem, request_id=request.scope.get("request_id", ""))
    response.headers.append("www-authenticate", _CHALLENGE)
    return response
