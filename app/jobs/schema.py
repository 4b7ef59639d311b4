"""The tables of the ledger. `migrations/` makes them; a test holds both to be the same.

Times are seconds since the Unix epoch. What only travels through the ledger is JSON in a text.
"""

from __future__ import annotations

from typing import Final

import sqlalchemy as sa

METADATA: Final = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

DUE: Final = "state = 'queued' AND NOT paused"
PAUSED: Final = "state = 'queued' AND paused"
RUNNING: Final = "state = 'running'"
"""Conditions of partial indexes: a query must say the same, word for word, to be given them."""
_FALSE: Final = sa.text("false")

jobs: Final = sa.Table(
    "jobs",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False, server_default=_FALSE),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("run_after", sa.Double, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("started_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("expires_at", sa.Double),
    sa.Column("worker", sa.String(64)),
    sa.Column("lease_until", sa.Double),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("failures", sa.Integer, nullable=False, server_default="0"),
    sa.Column("deaths", sa.Integer, nullable=False, server_default="0"),
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("timeout", sa.Double, nullable=False),
    sa.Column("batch_id", sa.String(26)),
    sa.Column("line", sa.Integer),
    sa.Column("origin", sa.String(64)),
    sa.Column("label", sa.String(64)),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("digest", sa.String(64)),
    sa.Column("outputs", sa.Text, nullable=False),
    sa.Column("metadata", sa.Text),
    sa.Column("webhook", sa.Text),
    sa.Column("results", sa.Text),
    sa.Column("error", sa.Text),
)
"""One job each. `attempt` counts those begun, `failures` those that ended in an error, and `deaths`
those whose worker ended first; `digest` is of the original's version, where such an end made it
worth knowing. While a job is in a worker's hands and not begun, `run_after` is when it is nobody's
again."""

sa.Index(
    "ix_jobs_due",
    jobs.c.priority,
    jobs.c.run_after,
    jobs.c.id,
    sqlite_where=sa.text(DUE),
    postgresql_where=sa.text(DUE),
)
sa.Index(
    "ix_jobs_running",
    jobs.c.lease_until,
    sqlite_where=sa.text(RUNNING),
    postgresql_where=sa.text(RUNNING),
)
sa.Index(
    "ix_jobs_paused",
    jobs.c.label,
    jobs.c.id,
    sqlite_where=sa.text(PAUSED),
    postgresql_where=sa.text(PAUSED),
)
sa.Index("ix_jobs_state", jobs.c.state, jobs.c.id)
sa.Index("ix_jobs_label", jobs.c.label, jobs.c.id)
sa.Index(
    "ix_jobs_label_state",
    jobs.c.label,
    jobs.c.state,
    jobs.c.id,
    sqlite_where=sa.text("label IS NOT NULL"),
    postgresql_where=sa.text("label IS NOT NULL"),
)
sa.Index("ix_jobs_batch", jobs.c.batch_id, jobs.c.id)
sa.Index("ix_jobs_batch_state", jobs.c.batch_id, jobs.c.state, jobs.c.id, jobs.c.kind)
sa.Index(
    "ix_jobs_batch_finished",
    jobs.c.batch_id,
    jobs.c.finished_at,
    jobs.c.id,
    sqlite_where=sa.text("finished_at IS NOT NULL"),
    postgresql_where=sa.text("finished_at IS NOT NULL"),
)
sa.Index("ix_jobs_finished", jobs.c.finished_at, jobs.c.id)

attempts: Final = sa.Table(
    "attempts",
    METADATA,
    sa.Column("job_id", sa.String(26), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("worker", sa.String(64), nullable=False),
    sa.Column("started_at", sa.Double, nullable=False),
    sa.Column("ended_at", sa.Double),
    sa.Column("outcome", sa.String(16)),
    sa.Column("error", sa.Text),
)
"""Every attempt at a job: one without an outcome runs, or its worker has died."""

batches: Final = sa.Table(
    "batches",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("filled_at", sa.Double),
    sa.Column("finished_at", sa.Double),
    sa.Column("label", sa.String(64)),
    sa.Column("origin", sa.String(64)),
    sa.Column("metadata", sa.Text),
    sa.Column("webhook", sa.Text),
    sa.Column("total", sa.Integer, nullable=False, server_default="0"),
    sa.Column("rejected", sa.Integer, nullable=False, server_default="0"),
    sa.Column("skipped", sa.Integer, nullable=False, server_default="0"),
    sa.Column("rejections", sa.Text),
    sa.Column("max_failures", sa.Integer),
    sa.Column("order", sa.Text),
    sa.Column("cursor", sa.Text),
    sa.Column("report", sa.Text),
    sa.Column("report_due", sa.Boolean, nullable=False, server_default=_FALSE),
    sa.Column("error", sa.Text),
    sa.Index("ix_batches_open", "finished_at", "id"),
    sa.Index(
        "ix_batches_report",
        "id",
        sqlite_where=sa.text("report_due"),
        postgresql_where=sa.text("report_due"),
    ),
)
"""Jobs that belong together. `order` is what is still to be filled in from a selection or manifest,
and `cursor` how far that has come; where jobs come with a request, it is until when they do."""

idempotency: Final = sa.Table(
    "idempotency",
    METADATA,
    sa.Column("key", sa.String(300), primary_key=True),
    sa.Column("fingerprint", sa.String(64)),
    sa.Column("answer", sa.Text),
    sa.Column("until", sa.Double, nullable=False),
    sa.Index("ix_idempotency_until", "until"),
)
"""Answers by the client's key. Without an answer, the request is under way until `until`."""

pauses: Final = sa.Table(
    "pauses",
    METADATA,
    sa.Column("label", sa.String(64), primary_key=True),
    sa.Column("since", sa.Double, nullable=False),
)
"""Labels whose jobs do not begin; `*` means all jobs."""

quarantine: Final = sa.Table(
    "quarantine",
    METADATA,
    sa.Column("digest", sa.String(64), primary_key=True),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("job_id", sa.String(26), nullable=False),
    sa.Column("since", sa.Double, nullable=False),
)
"""Versions of originals that have ended their workers too often: they are not rendered by jobs."""

seen: Final = sa.Table(
    "seen",
    METADATA,
    sa.Column("key", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text),
    sa.Column("until", sa.Double, nullable=False),
    sa.Index("ix_seen_until", "until"),
)
"""Digests of what must be acted on once: ticks of schedules, and originals by rule, with the
version that was seen last as their `value`."""

written: Final = sa.Table(
    "written",
    METADATA,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("at", sa.Double, nullable=False),
    sa.Index("ix_written_at", "at"),
)
"""Results that were written among the originals, by place and version: they trigger no rule. While
a write is under way a mark of it stands for its version: see `writers`."""

schedules: Final = sa.Table(
    "schedules",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("paused", sa.Boolean, nullable=False, server_default=_FALSE),
    sa.Column("next_at", sa.Double),
    sa.Column("last_at", sa.Double),
    sa.Column("last_id", sa.String(26)),
    sa.Column("runs", sa.Integer, nullable=False, server_default="0"),
    sa.Column("skipped", sa.Integer, nullable=False, server_default="0"),
    sa.Column("error", sa.Text),
    sa.Index("ix_schedules_next", "next_at"),
)
"""What runs at times. `spec` is what the client has sent; `last_id` the job or batch it made last,
`skipped` counts ticks that made none, and `error` says what was wrong with the last where it is not
that the time had passed. `next_at` is missing while it is paused, and once it has ended."""

rules: Final = sa.Table(
    "rules",
    METADATA,
    sa.Column("id", sa.String(64), primary_key=True),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("poll_at", sa.Double),
    sa.Column("cursor", sa.Text),
    sa.Index("ix_rules_poll", "poll_at"),
)
"""What becomes of originals as they arrive. `poll_at` is when the store is looked through again."""

deliveries: Final = sa.Table(
    "deliveries",
    METADATA,
    sa.Column("id", sa.String(26), primary_key=True),
    sa.Column("job_id", sa.String(26)),
    sa.Column("batch_id", sa.String(26)),
    sa.Column("event", sa.String(32), nullable=False),
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False, server_default="0"),
    sa.Column("next_at", sa.Double, nullable=False),
    sa.Column("created_at", sa.Double, nullable=False),
    sa.Column("finished_at", sa.Double),
    sa.Column("log", sa.Text, nullable=False, server_default="[]"),
    sa.Index("ix_deliveries_batch", "batch_id", "id"),
    sa.Index("ix_deliveries_due", "state", "next_at"),
    sa.Index("ix_deliveries_finished", "finished_at"),
    sa.Index("ix_deliveries_job", "job_id", "id"),
    sa.Index("ix_deliveries_state", "state", "id"),
)
"""Webhooks that are sent or to be sent: states are `pending`, `delivered` and `failed`. `log` has
the attempts; while one is under way, `next_at` is when another process may make the next."""
