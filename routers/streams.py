"""Answers that go on for long: sent as they are made, ended when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import structlog
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.errors import ServiceError

log = structlog.get_logger(__name__)

_SEND_TIMEOUT: Final = 30.0
"""Seconds that a client may take for one chunk: a stalled reader must not hold a connection."""


class Streamed(Response):
    """Sends chunks as they come. `release` is called on every way out."""

    def __init__(
        self,
        chunks: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        headers: dict[str, str] | None = None,
        release: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(media_type=media_type, headers=headers)
        # How long it will be shows in the end.
        del self.headers["content-length"]
        self._chunks = chunks
        self._release = release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sending = asyncio.create_task(self._send_all(send))
        leaving = asyncio.create_task(until_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                log.info("client_left", path=scope["path"])
                return
            sending.result()
        except (ServiceError, TimeoutError) as error:
            # The answer has begun. Not ending it tells the client that it has not got all.
            log.warning("stream_cut", path=scope["path"], error=str(error) or "stalled reader")
        finally:
            for task in (sending, leaving):
                task.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            if self._release is not None:
                self._release()

    async def _send_all(self, send: Send) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": self.status_code,
                "headers": self.raw_headers,
            }
        )
        async with aclosing(self._chunks) as chunks:
            async for chunk in chunks:
                async with asyncio.timeout(_SEND_TIMEOUT):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def until_left(receive: Receive) -> None:
    """Wait until the client has left. The request's body must have been read."""
    while (await receive())["type"] != "http.disconnect":
        pass
