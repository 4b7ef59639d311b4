"""Requests that are sent twice: one key, one answer.

What the IETF draft "The Idempotency-Key HTTP Header Field" asks for. A key is reserved before the
work and answered with it, in one transaction; a process that dies between both leaves a reservation
that passes by itself.
"""

from __future__ import annotations

import json
from typing import Any, Final

import sqlalchemy as sa

from app.errors import IdempotencyInFlight, IdempotencyMismatch, InvalidRequest
from app.jobs.database import Connection, insert_once
from app.jobs.schema import idempotency

LONGEST: Final = 255
_KEPT: Final = 86_400.0
_RESERVED: Final = 60.0


def check_key(key: str) -> str:
    """Return a key that a client may give. Raises InvalidRequest."""
    if not key or len(key) > LONGEST or not key.isprintable():
        raise InvalidRequest(
            f"Idempotency-Key must have 1 to {LONGEST} printable characters",
            param="Idempotency-Key",
        )
    return key


def reserve(
    tx: Connection, key: str, *, fingerprint: str | None, now: float, record: sa.Table
) -> dict[str, Any] | None:
    """The answer that the key has had, or None where the caller now makes it.

    `fingerprint` is of the request's body, None where that shows only later: see `check`. An answer
    is kept no longer than the record that it names, which is in the given table. Raises
    IdempotencyInFlight, IdempotencyMismatch.
    """
    tx.execute(idempotency.delete().where(idempotency.c.key == key, idempotency.c.until < now))
    known = tx.execute(sa.select(idempotency.c.answer).where(idempotency.c.key == key)).scalar()
    if known is not None:
        named = sa.select(record.c.id).where(record.c.id == json.loads(known)["id"])
        if tx.execute(named).first() is None:
            tx.execute(
                idempotency.delete().where(idempotency.c.key == key, idempotency.c.answer == known)
            )
    until = now + _RESERVED
    if insert_once(tx, idempotency, key=key, fingerprint=fingerprint, until=until):
        return None
    row = tx.execute(sa.select(idempotency).where(idempotency.c.key == key)).first()
    # Where it is gone, who had it has just let go of it.
    if row is None or row.answer is None:
        raise IdempotencyInFlight("A request with this Idempotency-Key is under way", retry_after=1)
    if fingerprint is not None:
        check(row.fingerprint, fingerprint)
    answer: dict[str, Any] = json.loads(row.answer)
    return answer


def check(known: str, given: str) -> None:
    """Raise IdempotencyMismatch where two bodies differ."""
    if known != given:
        raise IdempotencyMismatch("This Idempotency-Key was sent with another body")


def prolong(tx: Connection, key: str, *, now: float) -> None:
    """Keep a reservation for work that takes long."""
    tx.execute(
        idempotency.update()
        .where(idempotency.c.key == key, idempotency.c.answer.is_(None))
        .values(until=now + _RESERVED)
    )


def answer(
    tx: Connection, key: str, value: dict[str, Any], *, fingerprint: str, now: float
) -> None:
    """Note what the key was answered with, in the transaction of the work.

    Raises IdempotencyInFlight, which undoes the work, where the reservation has passed and another
    request has been answered, or has let go of the key: one of them is done.
    """
    noted = tx.execute(
        idempotency.update()
        .where(idempotency.c.key == key, idempotency.c.answer.is_(None))
        .values(answer=json.dumps(value), fingerprint=fingerprint, until=now + _KEPT)
    )
    if not noted.rowcount:
        raise IdempotencyInFlight(
            "Another request with this Idempotency-Key came first", retry_after=1
        )


def release(tx: Connection, key: str) -> None:
    """Let go of a key whose request was refused: it may be sent again, and better."""
    tx.execute(idempotency.delete().where(idempotency.c.key == key, idempotency.c.answer.is_(None)))


def sweep(tx: Connection, *, now: float) -> int:
    """Forget what has passed. Returns how many."""
    return tx.execute(idempotency.delete().where(idempotency.c.until < now)).rowcount
