"""How long what has ended is kept in the ledger."""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

from app.jobs import idempotency
from app.jobs.batches import IS_OF_OPEN
from app.jobs.database import Connection
from app.jobs.schema import attempts, batches, deliveries, jobs, seen

_PAGE: Final = 1000
"""Jobs that are forgotten in one transaction: others write in between."""


def sweep(tx: Connection, *, now: float, keep: float) -> bool:
    """Forget what ended more than `keep` seconds ago. Whether there may be more.

    The jobs of a batch stay until it has ended: it does by what they have come to.
    """
    before = now - keep
    # One that another process forgets, or that is being tried again, is left to that.
    old = sa.select(jobs.c.id).where(jobs.c.finished_at < before, ~IS_OF_OPEN).limit(_PAGE)
    old = old.with_for_update(of=jobs, skip_locked=True)
    ids = list(tx.execute(old).scalars())
    for start in range(0, len(ids), 500):
        chunk = ids[start : start + 500]
        tx.execute(attempts.delete().where(attempts.c.job_id.in_(chunk)))
        tx.execute(jobs.delete().where(jobs.c.id.in_(chunk)))
    # A batch goes when its last job has: until then its counts hold.
    has_jobs = sa.exists().where(jobs.c.batch_id == batches.c.id)
    tx.execute(batches.delete().where(batches.c.finished_at < before, ~has_jobs))
    tx.execute(deliveries.delete().where(deliveries.c.finished_at < before))
    tx.execute(seen.delete().where(seen.c.until < now))
    idempotency.sweep(tx, now=now)
    return len(ids) == _PAGE
