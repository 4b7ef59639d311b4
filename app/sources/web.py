"""Originals by URL. The only file that knows the HTTP client.

The version of an original is the digest of its bytes: it needs no trust in the origin's headers and
is the same on every replica. Within the time that a version is trusted nothing is asked; after it,
the origin is asked for changes only.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urljoin

import httpcore
import httpx
from httpcore import AsyncNetworkStream

from app.downloads import Downloads
from app.errors import (
    OriginalChanged,
    OriginalMissing,
    OriginalTooLarge,
    SourceFailed,
    SourceRefused,
    SourceTimeout,
)
from app.sources.base import Identity, Ref, receive
from app.sources.guard import Guard
from transforms.limits import Limits

KIND: Final = "url"
_REDIRECTS: Final = (301, 302, 303, 307, 308)
_CONNECT_TIMEOUT: Final = 3.0
_IDLE_CONNECTIONS: Final = 20


class _GuardedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses only."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        failure: Exception | None = None
        for address in await self._guard.addresses(host, port):
            try:
                return await self._inner.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError("no address")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        socket_options: Iterable[Any] | None = None,
    ) -> AsyncNetworkStream:
        del path, timeout, socket_options
        raise SourceRefused("Sockets of the file system are not sources")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class _Body(httpx.AsyncByteStream):
    def __init__(self, stream: Any) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


class _GuardedTransport(httpx.AsyncBaseTransport):
    """httpx over a connection pool whose connections are guarded. No proxies, no retries."""

    def __init__(self, guard: Guard, *, connections: int) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(),
            max_connections=connections,
            max_keepalive_connections=_IDLE_CONNECTIONS,
            keepalive_expiry=30.0,
            network_backend=_GuardedBackend(guard),
        )

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = await self._pool.handle_async_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(
                    scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
                ),
                headers=request.headers.raw,
                content=request.stream,
                extensions=request.extensions,
            )
        )
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer.stream),
            extensions=answer.extensions,
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


class WebSource:
    """Finds and fetches originals over HTTP, from allowed hosts."""

    def __init__(
        self,
        guard: Guard,
        *,
        downloads: Downloads,
        cap: int,
        limits: Limits,
        timeout: float,
        redirects: int,
        connections: int,
    ) -> None:
        self._guard = guard
        self._downloads = downloads
        self._cap = cap
        self._limits = limits
        self._timeout = timeout
        self._redirects = redirects
        self._client = httpx.AsyncClient(
            transport=_GuardedTransport(guard, connections=connections),
            timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT)),
            trust_env=False,
            # Bytes as they are: a compressed answer could expand without bound.
            headers={"user-agent": "pixelmill", "accept": "image/*", "accept-encoding": "identity"},
        )

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

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    async def _get(self, url: str, known: Identity | None) -> Identity:
        try:
            async with asyncio.timeout(self._timeout), self._downloads.slot(KIND, self._cap):
                return await self._follow(url, known)
        except (TimeoutError, httpx.TimeoutException, httpcore.TimeoutException):
            raise SourceTimeout(
                f"The origin did not send the original within {self._timeout:g} s"
            ) from None
        except (httpcore.RemoteProtocolError, httpcore.ReadError):
            raise SourceFailed("The origin's answer was cut short or is not HTTP") from None
        except (httpx.HTTPError, httpx.InvalidURL, httpcore.NetworkError, OSError):
            raise SourceFailed("The origin cannot be reached") from None
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol, UnicodeError, ValueError):
            raise SourceFailed("The origin's answer is not HTTP") from None

    async def _follow(self, url: str, known: Identity | None) -> Identity:
        at = url
        for _ in range(self._redirects + 1):
            parts = self._guard.check_url(at)
            headers = dict(known.validators) if known else {}
            async with self._client.stream("GET", at, headers=headers) as answer:
                if answer.status_code not in _REDIRECTS:
                    return await self._take(url, answer, known)
                target = urljoin(at, answer.headers.get("location", ""))
            if parts.scheme == "https" and not target.startswith("https:"):
                raise SourceRefused("The origin redirects from https to http", param="url")
            at = target
        raise SourceFailed(f"The origin redirects more than {self._redirects} times")

    async def _take(self, url: str, answer: httpx.Response, known: Identity | None) -> Identity:
        status = answer.status_code
        if status == 304 and known is not None:
            return known
        if status in (404, 410):
            raise OriginalMissing("The origin has no such picture")
        if status != 200:
            raise SourceFailed(f"The origin answered {status}")
        if answer.headers.get("content-encoding", "identity") != "identity":
            raise SourceFailed("The origin sends a compressed body, though it was asked not to")
        declared = answer.headers.get("content-length", "")
        if declared.isdigit() and int(declared) > self._cap:
            raise OriginalTooLarge(
                f"The original has {declared} bytes; at most {self._cap} are read"
            )
        body = await receive(answer.aiter_raw(), cap=self._cap, limits=self._limits)
        validators = []
        if etag := answer.headers.get("etag"):
            validators.append(("if-none-match", etag))
        modified = answer.headers.get("last-modified")
        if modified:
            validators.append(("if-modified-since", modified))
        return Identity(
            ref=Ref(KIND, url),
            version=hashlib.sha256(body).hexdigest(),
            size=len(body),
            modified=_http_date(modified),
            validators=tuple(validators),
            body=body,
        )


def _http_date(text: str | None) -> datetime | None:
    try:
        return parsedate_to_datetime(text) if text else None
    except ValueError:
        return None
