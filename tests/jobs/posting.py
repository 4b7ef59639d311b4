"""Posting batches and waiting for their ends, for tests that do."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

from tests.serving import Served

NDJSON = {"content-type": "application/x-ndjson"}


def lines_of(bodies: Iterable[Any]) -> bytes:
    """Bodies of jobs, one a line."""
    return b"".join(json.dumps(body).encode() + b"\n" for body in bodies)


def until(holds: Callable[[], Any]) -> Any:
    """Wait for something that must come to pass, and return it."""
    deadline = time.monotonic() + 30
    while not (found := holds()):
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)
    return found


def post(served: Served, body: Any, path: str = "/batches", **headers: str) -> dict[str, Any]:
    """Post a batch that is accepted."""
    answer = served.client.post(path, json=body, headers=headers)
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/batches/{answer.json()['id']}"
    return answer.json()


def ended(served: Served, batch: dict[str, Any]) -> dict[str, Any]:
    """The batch when it has ended."""

    def look() -> Any:
        found = served.get(f"/batches/{batch['id']}").json()
        return found if "finished_at" in found else None

    return until(look)


def results(served: Served, batch: dict[str, Any], **parameters: str) -> list[Any]:
    """The jobs of a batch."""
    answer = served.get(f"/batches/{batch['id']}/results", params=parameters)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    return [json.loads(line) for line in answer.text.splitlines()]
