"""Errors as HTTP answers: problem+json (RFC 9457), in one shape everywhere."""

from __future__ import annotations

import json
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final

import structlog
from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Scope

from app.errors import Problem, ServiceError, problem_of
from app.wording import sentence_of
from routers.requests import Disconnected
from transforms.errors import TransformError

log = structlog.get_logger(__name__)

MEDIA_TYPE: Final = "application/problem+json"
CLIENT_CLOSED: Final = 499
"""The status under which a request is counted whose client left. It is never sent."""

HTTP_CODES: Final = {404: "not_found", 405: "method_not_allowed"}
"""Codes of what no route answers."""


def problem_response(problem: Problem, *, request_id: str) -> Response:
    """The answer that tells a problem."""
    body: dict[str, Any] = {
        "type": f"/problems/{problem.code}",
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "code": problem.code,
        "request_id": request_id,
    }
    for name in ("param", "suggestion", "retry_after"):
        if (value := getattr(problem, name)) is not None:
            body[name] = value
    age = problem.max_age
    headers = {"cache-control": f"public, max-age={age}" if age else "no-store"}
    if problem.retry_after is not None:
        headers["retry-after"] = str(problem.retry_after)
    if problem.status == 401:
        headers["www-authenticate"] = "Bearer"
    return Response(
        json.dumps(body, ensure_ascii=False).encode("utf-8", "replace"),
        status_code=problem.status,
        headers=headers,
        media_type=MEDIA_TYPE,
    )


def _methods(app: FastAPI, scope: Scope) -> list[str]:
    """Every method that some route takes at this path (RFC 9110, 10.2.1)."""
    return [
        method
        for method in ("DELETE", "GET", "HEAD", "POST", "PUT")
        if any(r.matches({**scope, "method": method})[0] is Match.FULL for r in app.routes)
    ]


def internal_problem() -> Problem:
    """What a client is told of a defect of ours: nothing but that it is one."""
    return Problem(
        status=500,
        code="internal",
        title="Internal error",
        detail="The service failed. The log has more under this request id.",
    )


def install(app: FastAPI) -> None:
    """Have every error of the application answered as a problem."""

    async def on_error(request: Request, error: Exception) -> Response:
        problem = problem_of(error)
        if problem is None:
            raise error
        if problem.retry_after is None and isinstance(error, ServiceError):
            problem = replace(problem, retry_after=error.retry_hint)
        if problem.status >= 500 and problem.code != "overloaded":
            log.warning("request_failed", code=problem.code, detail=problem.detail)
        return problem_response(problem, request_id=request.scope.get("request_id", ""))

    async def on_http(request: Request, error: Exception) -> Response:
        status = getattr(error, "status_code", 500)
        phrase = HTTPStatus(status).phrase
        response = problem_response(
            Problem(
                status=status,
                code=HTTP_CODES.get(status, phrase.lower().replace(" ", "_")),
                title=phrase,
                detail=f"{request.method} {request.url.path[:200]}: {phrase.lower()}",
            ),
            request_id=request.scope.get("request_id", ""),
        )
        response.headers.update(getattr(error, "headers", None) or {})
        if status == 405:
            response.headers["allow"] = ", ".join(_methods(app, request.scope))
        return response

    async def on_validation(request: Request, error: Exception) -> Response:
        first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
        param = ".".join(str(part) for part in first.get("loc", ())[1:]) or None
        told = sentence_of([first]) if first else "is invalid"
        return problem_response(
            Problem(
                status=400,
                code="invalid_parameter",
                title="A parameter is invalid",
                detail=f"{param or 'The request'} {told}",
                param=param,
            ),
            request_id=request.scope.get("request_id", ""),
        )

    async def on_defect(request: Request, error: Exception) -> Response:
        del error  # the envelope logs it
        return problem_response(internal_problem(), request_id=request.scope.get("request_id", ""))

    async def on_disconnect(request: Request, error: Exception) -> Response:
        del error
        request.scope["client_left"] = True
        return Response(status_code=CLIENT_CLOSED)

    app.add_exception_handler(ServiceError, on_error)
    app.add_exception_handler(TransformError, on_error)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(Disconnected, on_disconnect)
    app.add_exception_handler(ClientDisconnect, on_disconnect)
    app.add_exception_handler(Exception, on_defect)
