"""/batches: many jobs at once, listed, streamed, from a manifest or selected."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app.errors import InvalidRequest
from app.jobs import idempotency
from app.jobs.batch_spec import BatchBody
from app.jobs.batching import RETRIES, Batches
from app.jobs.documents import read_document
from app.jobs.progress import Progress
from app.jobs.records import Batch, BatchState, State
from app.jobs.reports import MEDIA_TYPE
from app.tokens import Scope
from routers import openapi
from routers.jobs import idempotency_key, shown, state_of
from routers.methods import get_and_head
from routers.pages import cursor_of, limit_of, page
from routers.requests import body_of, jobs_of, pairs_of, read_json, value_of
from routers.streams import Streamed

router = APIRouter(prefix="/batches", tags=["jobs"])

_LARGEST: Final = 16 << 20
_LINES: Final = (
    MEDIA_TYPE,
    "application/ndjson",
    "application/jsonl",
    "application/x-jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
)
_NUMBER: Final = re.compile(r"-?\d{1,15}(\.\d{1,15})?")
_NUMBERS: Final = ("priority", "timeout", "retries", "delay", "expires", "max_failures")
_TEXTS: Final = ("label", "webhook", "on_error")
_OWN: Final = (*_TEXTS, *_NUMBERS, "metadata", "report", "report_only", "dry_run")

BATCH_ID: Final[dict[str, Any]] = {
    "name": "id",
    "in": "path",
    "required": True,
    "description": "The batch's id.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[^/]+$"},
    "example": "01m86y9z9pz12s0jh091j5caeb",
}
_BATCH: Final[dict[str, Any]] = {
    "content": {
        "application/json": {
            "schema": {"type": "object"},
            "example": {
                "id": "01m86y9z9pz12s0jh091j5caeb",
                "state": "running",
                "total": 1000,
                "rejected": 0,
                "counts": {
                    "queued": 894,
                    "running": 6,
                    "succeeded": 100,
                    "failed": 0,
                    "cancelled": 0,
                },
                "rate": 50.1,
                "eta": 18.0,
                "links": {"self": "/batches/01m86y9z9pz12s0jh091j5caeb"},
            },
        }
    }
}
_DRY: Final[dict[str, Any]] = {
    "description": "A dry run: how much it would be",
    "content": {"application/json": {"schema": {"type": "object"}}},
}


def _state_of(pairs: list[tuple[str, str]]) -> BatchState | None:
    """The state in which batches are wanted. Raises InvalidRequest."""
    text = value_of(pairs, "state")
    if text is None:
        return None
    if text not in list(BatchState):
        raise InvalidRequest(
            f"state must be one of {', '.join(BatchState)}, got {text[:64]!r}", param="state"
        )
    return BatchState(text)


def _option(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": schema}


_OPTIONS: Final[list[dict[str, Any]]] = [
    _option("label", "A name for the batch and its jobs.", type="string", maxLength=64),
    _option("webhook", "URL that is told of the batch's end.", type="string"),
    _option("priority", "0 low, 1 normal, 2 high.", type="integer", minimum=0, maximum=2),
    _option("timeout", "Seconds for one attempt.", type="number", minimum=1, maximum=3600),
    _option("retries", "Attempts after one that failed.", type="integer", minimum=0, maximum=20),
    _option("delay", "Seconds before jobs may begin.", type="number", minimum=0),
    _option("expires", "Seconds after which they do not.", type="number", minimum=0),
    _option("max_failures", "More failed jobs cancel the rest.", type="integer", minimum=0),
    _option("on_error", "`stop`: max_failures 0.", type="string", enum=["continue", "stop"]),
    _option("metadata", "Yours, as JSON; it comes back with the batch.", type="string"),
    _option("report", "Where a list of the results is written at the end.", type="string"),
    _option("report_only", "Of which jobs.", type="string", enum=["all", "failed"]),
    _option("dry_run", "Accept nothing: tell how much it is.", type="string", enum=["0", "1"]),
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A request that is sent again with the same key is done once.",
        "schema": {"type": "string", "maxLength": idempotency.LONGEST},
    },
]
_BODY: Final[dict[str, Any]] = {
    "required": True,
    "description": "A list of jobs, or an object that has one of `jobs`, `sources`, `manifest` and "
    "`select`; or a job a line, which are accepted while they come. What has no options of its own "
    "has those of the query.",
    "content": {
        "application/json": {
            "schema": {
                "anyOf": [
                    {"type": "array", "items": {"type": "object"}, "minItems": 1},
                    openapi.json_body(BatchBody)["requestBody"]["content"]["application/json"][
                        "schema"
                    ],
                ]
            }
        },
        MEDIA_TYPE: {"schema": {"type": "string"}},
    },
}


@router.post(
    "",
    status_code=202,
    summary="Submit a batch of jobs",
    responses={
        200: _DRY,
        202: {**_BATCH, "description": "The batch is accepted: nothing loses it any more"},
        **openapi.problems(400, 401, 403, 404, 408, 409, 413, 422, 502, 503, 504),
    },
    openapi_extra={"parameters": _OPTIONS, "requestBody": _BODY},
)
async def post_batch(request: Request) -> Response:
    """Entries that are no jobs do not stop the others: `errors` has the first hundred of them."""
    batches = jobs_of(request, Scope.JOBS_WRITE).batches
    key = idempotency_key(request)
    options = _options_of(pairs_of(request))
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() in _LINES:
        plan = batches.read_options(options)
        chunks = aiter(request.stream())
        if plan.dry_run:
            return JSONResponse(await batches.try_out_lines(plan, chunks))
        batch, new = await batches.accept_lines(plan, chunks, key=key)
    else:
        body = await body_of(request, cap=_LARGEST)
        # One of the largest takes seconds to read, in which others are answered.
        plan = await asyncio.to_thread(lambda: batches.read(read_json(body), options))
        if plan.dry_run:
            return JSONResponse(await batches.try_out(plan))
        given = json.dumps(options, sort_keys=True).encode()
        fingerprint = hashlib.sha256(given + b"\n" + body).hexdigest()
        batch, new = await batches.accept(plan, key=key, fingerprint=fingerprint)
    headers = {"location": f"/batches/{batch.id}"}
    if not new:
        headers["idempotency-replayed"] = "true"
    told = shown_batch(batch, await batches.progress(batch))
    return JSONResponse(told, status_code=202, headers=headers)


@get_and_head(
    router,
    "",
    summary="Batches, the newest first",
    responses=openapi.problems(400, 401, 403, 404, 503),
    openapi_extra={
        "parameters": [
            _option("state", "Only those in this state.", type="string", enum=list(BatchState)),
            *openapi.own_parameters("label", "cursor", "limit")["parameters"],
        ]
    },
)
async def list_batches(request: Request) -> dict[str, Any]:
    """A page of batches, without their counts: all, or those in a state or with a label."""
    batches = jobs_of(request, Scope.JOBS_READ).batches
    pairs = pairs_of(request)
    limit = limit_of(pairs)
    found = await batches.find_page(
        limit=limit + 1,
        state=_state_of(pairs),
        label=value_of(pairs, "label"),
        before=cursor_of(pairs),
    )
    return page("/batches", [shown_batch(batch, None) for batch in found], pairs, limit=limit)


@get_and_head(
    router,
    "/{id}",
    summary="A batch, and how it comes along",
    responses={200: _BATCH, **openapi.problems(400, 401, 403, 404, 503)},
    openapi_extra={"parameters": [BATCH_ID]},
)
async def get_batch(request: Request) -> dict[str, Any]:
    """Its jobs by state, how many end in a second, and the seconds until the last one does."""
    return await _told(jobs_of(request, Scope.JOBS_READ).batches, request.path_params["id"])


@get_and_head(
    router,
    "/{id}/results",
    summary="What has become of the jobs of a batch",
    response_class=Response,
    responses={
        200: {
            "description": "A job a line, in the order in which they were accepted",
            "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
        },
        **openapi.problems(400, 401, 403, 404, 503),
    },
    openapi_extra={"parameters": [BATCH_ID, *openapi.own_parameters("state")["parameters"]]},
)
async def get_results(request: Request) -> Response:
    """All of them, or those in a state."""
    batches = jobs_of(request, Scope.JOBS_READ).batches
    state = state_of(pairs_of(request))
    batch = await batches.find(request.path_params["id"])
    if request.method == "HEAD":
        return Response(media_type=MEDIA_TYPE)
    return Streamed(_lines(batches, batch.id, state), media_type=MEDIA_TYPE)


@router.post(
    "/{id}/cancel",
    summary="Cancel a batch",
    responses={200: _BATCH, **openapi.problems(400, 401, 403, 404, 409, 503)},
    openapi_extra={"parameters": [BATCH_ID]},
)
async def cancel_batch(request: Request) -> dict[str, Any]:
    """Its jobs that have not ended are cancelled, and no more are added."""
    jobs = jobs_of(request, Scope.JOBS_WRITE)
    batch = await jobs.cancel_batch(request.path_params["id"])
    return await _told(jobs.batches, batch.id)


@router.post(
    "/{id}/retry",
    summary="Try the jobs of a batch again that have failed",
    responses={200: _BATCH, **openapi.problems(400, 401, 403, 404, 409, 503)},
    openapi_extra={
        "parameters": [
            BATCH_ID,
            _option("only", "Which of them.", type="string", enum=list(RETRIES), default="failed"),
        ]
    },
)
async def retry_batch(request: Request) -> dict[str, Any]:
    """Or those that were cancelled, or both. `retried` says how many there were."""
    batches = jobs_of(request, Scope.JOBS_WRITE).batches
    only = value_of(pairs_of(request), "only") or "failed"
    batch, count = await batches.retry(request.path_params["id"], only=only)
    return {**await _told(batches, batch.id), "retried": count}


def shown_batch(batch: Batch, progress: Progress | None) -> dict[str, Any]:
    """A batch as a client is told of it, with links to what can be done."""
    here = f"/batches/{batch.id}"
    links = {
        "self": here,
        "jobs": f"/jobs?batch={batch.id}",
        "events": f"{here}/events",
        "results": f"{here}/results",
    }
    if batch.finished_at is None:
        links["cancel"] = f"{here}/cancel"
    else:
        links["retry"] = f"{here}/retry"
    told = {} if progress is None else progress.as_json()
    return {**batch.as_json(), **told, "links": links}


async def _told(batches: Batches, batch_id: str) -> dict[str, Any]:
    batch = await batches.find(batch_id)
    return shown_batch(batch, await batches.progress(batch))


async def _lines(
    batches: Batches, batch_id: str, state: State | None
) -> AsyncGenerator[bytes, None]:
    async with aclosing(batches.results(batch_id, state=state)) as pages:
        async for found in pages:
            lines = [json.dumps(shown(job), ensure_ascii=False) + "\n" for job in found]
            if lines:
                yield "".join(lines).encode()


def _options_of(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """The options that came with the query, as JSON would have them. Raises InvalidRequest."""
    options: dict[str, Any] = {}
    for name, _ in pairs:
        if name not in _OWN:
            raise InvalidRequest(f"{name[:64]} is not a parameter here", param=name[:64])
        text = value_of(pairs, name)
        if text is not None:
            options[name] = _value(name, text)
    only = options.pop("report_only", None)
    if "report" in options:
        options["report"] = {"target": options["report"], "only": only or "all"}
    elif only is not None:
        raise InvalidRequest("report_only needs report", param="report_only")
    return options


def _value(name: str, text: str) -> Any:
    if name == "metadata":
        return read_document(text.encode("utf-8", "replace"), what="metadata")
    if name == "dry_run" and text in ("0", "1", "false", "true"):
        return text in ("1", "true")
    if name in _NUMBERS and _NUMBER.fullmatch(text):
        return float(text) if "." in text else int(text)
    return text
