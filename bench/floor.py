"""The floor of HTTP: a bare ASGI application with ready-made answers, under the service's uvicorn.

python -m bench.floor ANSWERS.json --port N, where the file has, for each path, a status, headers
and the length of a body.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import uvicorn


class Floor:
    """Answers each path with what was prepared for it."""

    def __init__(self, answers: dict[str, Any]) -> None:
        self._answers = {path: _messages(**answer) for path, answer in answers.items()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for happened in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{happened}.complete"})
            return
        start, body = self._answers[scope["path"]]
        await send(start)
        await send(body)


def _messages(status: int, headers: list[tuple[str, str]], length: int) -> tuple[Any, Any]:
    raw = [(name.encode(), value.encode()) for name, value in headers]
    return (
        {"type": "http.response.start", "status": status, "headers": raw},
        {"type": "http.response.body", "body": b"\xff" * length},
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("answers", type=Path)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    uvicorn.run(
        Floor(json.loads(options.answers.read_text())),
        host="127.0.0.1",
        port=options.port,
        # As in app/server.py.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=25,
        access_log=False,
        log_level="warning",
        server_header=False,
        lifespan="on",
        proxy_headers=False,
    )


if __name__ == "__main__":
    main()
