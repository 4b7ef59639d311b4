"""What Alembic runs: the connection is given, and in a transaction already."""

from __future__ import annotations

from alembic import context

from app.jobs.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
)
context.run_migrations()
