"""How the ledger's tables came to be: `upgrade` brings a database to where it should be."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from app.jobs.database import Database


def upgrade(database: Database) -> None:
    """Create or change the tables. Safe to be called by several processes at once."""
    config = _config()
    with database.exclusively() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def find_revision(database: Database) -> str | None:
    """The revision that the tables have, or None where there are none. Changes nothing."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def known_revisions() -> list[str]:
    """Every revision that this version knows, the newest first."""
    script = ScriptDirectory.from_config(_config())
    return [revision.revision for revision in script.walk_revisions()]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    return config
