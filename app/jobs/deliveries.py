"""Webhooks that are to be sent: they enter the ledger with the end that they tell of.

A delivery is pending until a receiver has taken it or it is given up. Whoever sends it puts off
`next_at` first, so that nobody else sends it meanwhile; should that process die, it comes again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

import sqlalchemy as sa

from app.errors import RecordConflict, RecordMissing
from app.jobs.database import Connection
from app.jobs.ids import new_id
from app.jobs.records import Batch, Job, shown_time, shown_url
from app.jobs.schema import deliveries

_LONGEST_LOG: Final = 30
"""Attempts that are told of: those of one delivery, and of some that were asked for again."""
_LOOKED_THROUGH: Final = 200


class DeliveryState(StrEnum):
    """What has become of a delivery."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A delivery as it is in the ledger. Times are seconds since the epoch."""

    id: str
    job_id: str | None
    batch_id: str | None
    event: str
    url: str
    host: str
    payload: str
    state: DeliveryState
    attempt: int
    next_at: float
    created_at: float
    finished_at: float | None
    log: str

    def as_json(self) -> dict[str, Any]:
        """What a client is told, but for the payload. The URL's query may be a secret."""
        pending = self.state is DeliveryState.PENDING
        log = json.loads(self.log)
        shown = {
            "id": self.id,
            "state": self.state.value,
            "type": self.event,
            "url": shown_url(self.url),
            "job": self.job_id,
            "batch": self.batch_id,
            "attempt": self.attempt,
            "status": log[-1].get("status") if log else None,
            "error": log[-1].get("error") if log else None,
            "created_at": shown_time(self.created_at),
            "next_at": shown_time(self.next_at) if pending else None,
            "finished_at": shown_time(self.finished_at),
            "log": log,
        }
        return {name: value for name, value in shown.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """How an attempt went: the receiver's status where it gave one, and what was wrong."""

    at: float
    milliseconds: float
    status: int | None = None
    error: str | None = None

    def as_json(self, number: int) -> dict[str, Any]:
        """An entry of the log."""
        shown = {
            "attempt": number,
            "at": shown_time(self.at),
            "milliseconds": self.milliseconds,
            "status": self.status,
            "error": self.error,
        }
        return {name: value for name, value in shown.items() if value is not None}


def announce_job(tx: Connection, job: Job, *, now: float) -> None:
    """Have the end of a job told to its webhook."""
    assert job.webhook is not None  # noqa: S101 - the caller has looked
    event = f"job.{job.state}"
    _announce(tx, event, job.webhook, job.as_news(), now=now, job_id=job.id)


def announce_batch(tx: Connection, batch: Batch, counts: dict[str, int], *, now: float) -> None:
    """Have the end of a batch told to its webhook."""
    assert batch.webhook is not None  # noqa: S101 - the caller has looked
    data = {**batch.as_json(), "counts": counts}
    _announce(tx, f"batch.{batch.state}", batch.webhook, data, now=now, batch_id=batch.id)


def find(tx: Connection, delivery_id: str) -> Delivery:
    """The delivery of an id. Raises RecordMissing."""
    query = sa.select(deliveries).where(deliveries.c.id == delivery_id)
    row = tx.execute(query).mappings().first()
    if row is None:
        raise RecordMissing(f"There is no delivery {delivery_id[:64]!r}")
    return _delivery(row)


def find_page(
    tx: Connection,
    *,
    limit: int,
    state: DeliveryState | None = None,
    job_id: str | None = None,
    batch_id: str | None = None,
    before: str | None = None,
) -> list[Delivery]:
    """Deliveries from the newest to the oldest, those older than the id `before`."""
    query = sa.select(deliveries).order_by(deliveries.c.id.desc()).limit(limit)
    if state is not None:
        query = query.where(deliveries.c.state == state)
    if job_id is not None:
        query = query.where(deliveries.c.job_id == job_id)
    if batch_id is not None:
        query = query.where(deliveries.c.batch_id == batch_id)
    if before is not None:
        query = query.where(deliveries.c.id < before)
    return [_delivery(row) for row in tx.execute(query).mappings()]


_ANY_DUE: Final = (
    sa.select(deliveries.c.id)
    .where(
        deliveries.c.state == DeliveryState.PENDING.value,
        deliveries.c.next_at <= sa.bindparam("now"),
    )
    .limit(1)
)


def is_any_due(tx: Connection, *, now: float) -> bool:
    """Whether there is something to be sent."""
    return tx.execute(_ANY_DUE, {"now": now}).first() is not None


def claim(
    tx: Connection,
    *,
    limit: int,
    until: float,
    now: float,
    in_hand: Mapping[str, int],
    each: int,
) -> list[Delivery]:
    """Take deliveries that are due: nobody else does before `until`.

    No host has more than `each` at once, with those that are `in_hand` already: one that does not
    answer must not keep the others waiting.
    """
    hosts = Counter(in_hand)
    full = [host for host, count in hosts.items() if count >= each]
    query = (
        sa.select(deliveries)
        .where(_due(now), deliveries.c.host.not_in(full))
        .order_by(deliveries.c.next_at, deliveries.c.id)
        .limit(_LOOKED_THROUGH)
    )
    taken: list[Delivery] = []
    for row in tx.execute(query).mappings().all():
        if len(taken) == limit:
            break
        if hosts[row["host"]] >= each:
            continue
        mine = tx.execute(
            deliveries.update()
            .where(_unchanged(_delivery(row)))
            .values(next_at=until, attempt=row["attempt"] + 1)
        )
        if mine.rowcount:
            hosts[row["host"]] += 1
            taken.append(_delivery({**row, "next_at": until, "attempt": row["attempt"] + 1}))
    return taken


def note(
    tx: Connection, delivery: Delivery, attempt: Try, *, next_at: float | None, now: float
) -> bool:
    """Note how an attempt went: the next one is at a time, or the delivery has ended.

    False where the delivery is no longer this process's: nothing is changed.
    """
    log = [*json.loads(delivery.log), attempt.as_json(delivery.attempt)][-_LONGEST_LOG:]
    values: dict[str, Any] = {"log": json.dumps(log)}
    if next_at is not None:
        values["next_at"] = next_at
    else:
        ended = DeliveryState.DELIVERED if attempt.error is None else DeliveryState.FAILED
        values |= {"state": ended, "finished_at": now}
    return bool(
        tx.execute(deliveries.update().where(_unchanged(delivery)).values(**values)).rowcount
    )


def replay(tx: Connection, delivery_id: str, *, now: float) -> Delivery:
    """Send a delivery again that has ended, under its old id. It has all its attempts again.

    Raises RecordMissing, and RecordConflict where it is still being sent.
    """
    delivery = find(tx, delivery_id)
    if delivery.state is DeliveryState.PENDING:
        raise RecordConflict("The delivery is still to be sent by itself")
    tx.execute(
        deliveries.update()
        .where(deliveries.c.id == delivery_id)
        .values(state=DeliveryState.PENDING, attempt=0, next_at=now, finished_at=None)
    )
    return find(tx, delivery_id)


def _announce(
    tx: Connection, event: str, url: str, data: dict[str, Any], *, now: float, **subject: str
) -> None:
    payload = {"type": event, "timestamp": shown_time(now), "data": data}
    tx.execute(
        deliveries.insert().values(
            id=new_id(),
            event=event,
            url=url,
            host=(urlsplit(url).hostname or "")[:255],
            payload=json.dumps(payload, ensure_ascii=False),
            state=DeliveryState.PENDING,
            next_at=now,
            created_at=now,
            **subject,
        )
    )


def _due(now: float) -> sa.ColumnElement[bool]:
    return sa.and_(deliveries.c.state == DeliveryState.PENDING, deliveries.c.next_at <= now)


def _unchanged(delivery: Delivery) -> sa.ColumnElement[bool]:
    """Whether nobody has taken the delivery since, or ended it."""
    return sa.and_(
        deliveries.c.id == delivery.id,
        deliveries.c.state == DeliveryState.PENDING,
        deliveries.c.attempt == delivery.attempt,
        deliveries.c.next_at == delivery.next_at,
    )


def _delivery(row: Any) -> Delivery:
    values = dict(row)
    values["state"] = DeliveryState(values["state"])
    return Delivery(**values)
