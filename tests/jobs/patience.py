"""Waiting for what must come to pass."""

from __future__ import annotations

import time
from typing import Any

from tests.serving import Served


def ended(served: Served, job_id: str, *, seconds: float = 30) -> dict[str, Any]:
    """The job when it has ended."""
    deadline = time.monotonic() + seconds
    while True:
        job = served.get(f"/jobs/{job_id}").json()
        if job["state"] in ("succeeded", "failed", "cancelled"):
            return job
        assert time.monotonic() < deadline, job
        time.sleep(0.02)
