"""/webhooks: what was told to whom, how that went, and telling it again."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request

from app.errors import InvalidRequest
from app.jobs import deliveries
from app.jobs.deliveries import Delivery, DeliveryState
from app.tokens import Scope
from routers import openapi
from routers.methods import get_and_head
from routers.pages import cursor_of, limit_of, page
from routers.requests import jobs_of, pairs_of, value_of

router = APIRouter(prefix="/webhooks", tags=["jobs"])

_DELIVERY: Final[dict[str, Any]] = {
    "content": {
        "application/json": {
            "schema": {"type": "object"},
            "example": {
                "id": "01m86y9z9pz12s0jh091j5caec",
                "state": "delivered",
                "type": "job.succeeded",
                "url": "https://hooks.example.com/pixelmill",
                "job": "01m86y9z9pz12s0jh091j5caeb",
                "attempt": 2,
                "status": 204,
            },
        }
    }
}


@get_and_head(
    router,
    "/deliveries",
    summary="Deliveries to webhooks, the newest first",
    responses=openapi.problems(400, 401, 403, 404, 503),
    openapi_extra=openapi.own_parameters("delivery_state", "of_job", "batch", "cursor", "limit"),
)
async def list_deliveries(request: Request) -> dict[str, Any]:
    """A page of deliveries, each with the log of its attempts."""
    jobs = jobs_of(request, Scope.JOBS_READ)
    pairs = pairs_of(request)
    limit, before = limit_of(pairs), cursor_of(pairs)
    state = value_of(pairs, "state")
    if state is not None and state not in list(DeliveryState):
        raise InvalidRequest(
            f"state must be one of {', '.join(DeliveryState)}, got {state[:64]!r}", param="state"
        )
    job_id, batch_id = value_of(pairs, "job"), value_of(pairs, "batch")
    found = await jobs.database.read(
        lambda tx: deliveries.find_page(
            tx,
            limit=limit + 1,
            state=None if state is None else DeliveryState(state),
            job_id=job_id,
            batch_id=batch_id,
            before=before,
        )
    )
    items = [_shown(delivery) for delivery in found]
    return page("/webhooks/deliveries", items, pairs, limit=limit)


@get_and_head(
    router,
    "/deliveries/{id}",
    summary="A delivery with what it tells",
    responses={200: _DELIVERY, **openapi.problems(400, 401, 403, 404, 503)},
    openapi_extra=openapi.own_parameters("delivery"),
)
async def get_delivery(request: Request) -> dict[str, Any]:
    """The attempts so far, and the payload as it is sent."""
    jobs = jobs_of(request, Scope.JOBS_READ)
    delivery_id = request.path_params["id"]
    found = await jobs.database.read(lambda tx: deliveries.find(tx, delivery_id))
    return {**_shown(found), "payload": json.loads(found.payload)}


@router.post(
    "/deliveries/{id}/replay",
    status_code=202,
    summary="Send a delivery again",
    responses={202: _DELIVERY, **openapi.problems(400, 401, 403, 404, 409, 503)},
    openapi_extra=openapi.own_parameters("delivery"),
)
async def replay_delivery(request: Request) -> dict[str, Any]:
    """It keeps its id, by which receivers know it. One that has not ended is sent by itself."""
    jobs = jobs_of(request, Scope.JOBS_WRITE)
    delivery_id = request.path_params["id"]
    again = await jobs.database.write(
        lambda tx: deliveries.replay(tx, delivery_id, now=time.time())
    )
    return _shown(again)


def _shown(delivery: Delivery) -> dict[str, Any]:
    """A delivery as a client is told of it, with links to what can be done."""
    here = f"/webhooks/deliveries/{delivery.id}"
    links = {"self": here}
    if delivery.state is not DeliveryState.PENDING:
        links["replay"] = f"{here}/replay"
    if delivery.job_id is not None:
        links["job"] = f"/jobs/{delivery.job_id}"
    if delivery.batch_id is not None:
        links["batch"] = f"/batches/{delivery.batch_id}"
    return {**delivery.as_json(), "links": links}
