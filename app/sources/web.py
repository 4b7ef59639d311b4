"""Originals by URL.

The version of an original is the digest of its bytes: it needs no trust in the origin's headers and
is the same on every replica. Within the time that a version is trusted nothing is asked; after it,
the origin is asked for changes only.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Final
from urllib.parse import SplitResult, urljoin

from app.dates import parse_http_date
from app.downloads import Downloads
from app.errors import (
    InvalidRequest,
    OriginalChanged,
    OriginalMissing,
    OriginalTooLarge,
    SourceBusy,
    SourceFailed,
    SourceRefused,
    SourceUnfit,
)
from app.outbound import Answer, Headers, Outbound, translated
from app.sources.base import Identity, Ref, receive
from app.sources.guard import Guard
from app.sources.origins import Origins
from transforms.limits import Limits

KIND: Final = "url"
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_BUSY: Final = (408, 425, 429)
"""What an origin answers that has the picture for whoever comes later."""
_ACCEPT: Final = ("accept", "image/*")
_LONGEST_VALIDATOR: Final = 1024


class WebSource:
    """Finds and fetches originals over HTTP, from allowed hosts."""

    def __init__(
        self,
        guard: Guard,
        *,
        origins: Origins,
        downloads: Downloads,
        cap: int,
        limits: Limits,
        timeout: float,
        redirects: int,
        connections: int,
    ) -> None:
        self._guard = guard
        self._origins = origins
        self._downloads = downloads
        self._cap = cap
        self._limits = limits
        self._timeout = timeout
        self._redirects = redirects
        self._outbound = Outbound(guard, connections=connections)

    async def identify(self, name: str, known: Identity | None) -> Identity:
        self._guard.check_url(name)  # what is refused takes no slot
        return await self._get(name, known)

    async def fetch(self, identity: Identity) -> bytes:
        if identity.body is not None:
            return identity.body
        fresh = await self._get(identity.ref.name, None)
        if fresh.version != identity.version or fresh.body is None:
            raise OriginalChanged("The origin now sends another picture")
        return fresh.body

    async def fetch_start(self, identity: Identity, size: int) -> bytes:
        del size  # the version of a URL is that of all its bytes, so all are here or needed
        return await self.fetch(identity)

    async def close(self) -> None:
        """Let go of connections."""
        await self._outbound.close()

    async def _get(self, url: str, known: Identity | None) -> Identity:
        with self._downloads.counted(KIND):
            return await self._get_within(url, known)

    async def _get_within(self, url: str, known: Identity | None) -> Identity:
        with self._translated():
            async with asyncio.timeout(self._timeout) as deadline:
                return await self._follow(url, known, deadline)

    def _translated(self) -> AbstractContextManager[None]:
        late = f"The origin did not send the original within {self._timeout:g} s"
        return translated("origin", late=late)

    async def _follow(
        self, url: str, known: Identity | None, deadline: asyncio.Timeout
    ) -> Identity:
        at = url
        for _ in range(self._redirects + 1):
            parts = self._check(at, redirected=at is not url)
            # Validators are for the URL that gave them: after a redirect that is another.
            asks = known is not None and known.validators_of == at
            headers = (_ACCEPT, *(known.validators if known and asks else ()))
            async with self._asking(at, parts, headers, deadline) as answer:
                if answer.status not in _REDIRECTS:
                    return await self._take(url, at, answer, known if asks else None)
                target = urljoin(at, answer.headers.get("location", ""))
            if parts.scheme == "https" and not target.startswith("https:"):
                raise SourceRefused(
                    "The origin redirects from https to http", param=self._guard.param
                )
            at = target
        raise SourceUnfit(f"The origin redirects more than {self._redirects} times")

    @asynccontextmanager
    async def _asking(
        self, at: str, parts: SplitResult, headers: Headers, deadline: asyncio.Timeout
    ) -> AsyncIterator[Answer]:
        """Ask one origin. A slot is taken when it has a place, so that it keeps none waiting."""
        async with self._origins.place(parts) as breaker, self._downloads.slot(0):
            # What goes wrong has its name before the breaker is told of it.
            with breaker.attempt(deadline), self._translated():
                async with self._outbound.stream(
                    "GET", at, headers=headers, timeout=self._timeout
                ) as answer:
                    yield answer

    def _check(self, at: str, *, redirected: bool) -> SplitResult:
        try:
            return self._guard.check_url(at)
        except InvalidRequest:
            if redirected:
                raise SourceUnfit("The origin redirects to what is no web address") from None
            raise

    async def _take(self, url: str, at: str, answer: Answer, known: Identity | None) -> Identity:
        status = answer.status
        if status == 304 and known is not None:
            return known
        if status in (404, 410):
            raise OriginalMissing("The origin has no such picture")
        if status in _BUSY:
            raise SourceBusy(f"The origin answered {status}")
        if status >= 500:
            raise SourceFailed(f"The origin answered {status}")
        if status != 200:
            raise SourceUnfit(f"The origin answered {status}")
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise SourceUnfit("The origin sends a compressed body, though it was asked not to")
        declared = answer.headers.get("content-length", "")
        size = int(declared) if declared.isdigit() and len(declared) < 19 else self._cap
        if size > self._cap:
            raise OriginalTooLarge(
                f"The original has {declared} bytes; at most {self._cap} are read"
            )
        async with self._downloads.room(size):
            body = await receive(answer.chunks, cap=self._cap, limits=self._limits)
        self._downloads.count_bytes(KIND, len(body))
        validators = []
        etag, modified = (
            answer.raw_headers[name].decode("latin-1") if name in answer.raw_headers else None
            for name in (b"etag", b"last-modified")
        )
        for name, value in (
            ("if-none-match", etag),
            ("if-modified-since", modified),
        ):
            if value and len(value) <= _LONGEST_VALIDATOR:
                validators.append((name, value))
        return Identity(
            ref=Ref(KIND, url),
            version=hashlib.sha256(body).hexdigest(),
            size=len(body),
            modified=parse_http_date(modified),
            validators=tuple(validators),
            validators_of=at,
            body=body,
        )
