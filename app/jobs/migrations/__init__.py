"""How the ledger's tables came to be: `upgrade` brings a database to where it should be."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config

from app.jobs.database import Database


def upgrade(database: Database) -> None:
    """Create or change the tables. Safe to be called by several processes at once."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    with database.exclusively() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
