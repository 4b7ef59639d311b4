"""Webhooks that are to be sent: they enter the ledger with the end that they tell of."""

from __future__ import annotations

import json
from typing import Any

from app.jobs.database import Connection
from app.jobs.ids import new_id
from app.jobs.records import Batch, Job, shown_time
from app.jobs.schema import deliveries


def announce_job(tx: Connection, job: Job, *, now: float) -> None:
    """Have the end of a job told to its webhook."""
    assert job.webhook is not None  # noqa: S101 - the caller has looked
    event = f"job.{job.state}"
    _announce(tx, event, job.webhook, job.as_json(), now=now, job_id=job.id)


def announce_batch(tx: Connection, batch: Batch, counts: dict[str, int], *, now: float) -> None:
    """Have the end of a batch told to its webhook."""
    assert batch.webhook is not None  # noqa: S101 - the caller has looked
    data = {**batch.as_json(), "counts": counts}
    _announce(tx, f"batch.{batch.state}", batch.webhook, data, now=now, batch_id=batch.id)


def _announce(
    tx: Connection, event: str, url: str, data: dict[str, Any], *, now: float, **subject: str
) -> None:
    payload = {"type": event, "timestamp": shown_time(now), "data": data}
    tx.execute(
        deliveries.insert().values(
            id=new_id(),
            event=event,
            url=url,
            payload=json.dumps(payload, ensure_ascii=False),
            state="pending",
            next_at=now,
            created_at=now,
            **subject,
        )
    )
