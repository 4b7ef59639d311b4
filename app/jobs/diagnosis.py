"""What can be said of the database of jobs without changing it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from app.errors import LedgerUnavailable
from app.jobs.database import Database
from app.jobs.migrations import find_revision, known_revisions
from app.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What was found of a database, and whether jobs can be had of it."""

    found: str
    usable: bool


def diagnose(settings: Settings) -> Diagnosis:
    """Look whether the database is there and its tables are those of this version."""
    if settings.database == "off":
        return Diagnosis(found="off", usable=True)
    if settings.database.startswith("sqlite:") and not _file_of(settings.database).exists():
        return Diagnosis(found="not there yet: it is made at the start", usable=True)
    database = None
    try:
        database = Database(settings.database)
        revision = find_revision(database)
    except (LedgerUnavailable, SQLAlchemyError, OSError) as error:
        return Diagnosis(found=f"cannot be used: {reason_of(error)}", usable=False)
    finally:
        if database is not None:
            database.close()
    return _judge(revision, known_revisions())


def reason_of(error: Exception) -> str:
    """Why a database fails, in the first line of what its driver says."""
    cause = error.__cause__ if isinstance(error, LedgerUnavailable) else error
    return str(getattr(cause, "orig", None) or cause or error).strip().splitlines()[0]


def _judge(revision: str | None, known: list[str]) -> Diagnosis:
    if revision is None:
        return Diagnosis(found="reached, without tables: they are made at the start", usable=True)
    if revision == known[0]:
        return Diagnosis(found=f"reached, at revision {revision}, which is current", usable=True)
    if revision in known:
        return Diagnosis(
            found=f"reached, at revision {revision}: brought to {known[0]} at the start",
            usable=True,
        )
    return Diagnosis(
        found=f"reached, at revision {revision}, which this version does not know", usable=False
    )


def _file_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///").partition("?")[0])
