"""A fresh ledger in a file: its tables are made once, and copied for every test that wants some."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from app.jobs.database import Database
from app.jobs.migrations import upgrade

_FILE = "sqlite:///"


def lay_ledger(url: str) -> None:
    """Put a fresh ledger where this URL has a file that is not there. Takes other URLs as well."""
    path = Path(url.removeprefix(_FILE))
    if not url.startswith(_FILE) or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_ledger())


@cache
def _ledger() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        database = Database(f"{_FILE}{path}")
        upgrade(database)
        database.close()
        return path.read_bytes()
