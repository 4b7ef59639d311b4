"""Originals by URL. The only file that knows the HTTP client.

The version of an original is the digest of its bytes: it needs no trust in the origin's headers and
is the same on every replica. Within the time that a version is trusted nothing is asked; after it,
the origin is asked for changes only.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Iterable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final
from urllib.parse import SplitResult, urljoin

import anyio
import httpcore
import httpx
from httpcore import AsyncNetworkStream

from app.dates import parse_http_date
from app.downloads import Downloads
from app.errors import (
    InvalidRequest,
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
_LONGEST_VALIDATOR: Final = 1024


class _Stream(AsyncNetworkStream):
    """A connection that is closed when a handshake on it is given up, not only when it fails."""

    def __init__(self, inner: AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's
        return await self._inner.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109 - the same
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the same
    ) -> AsyncNetworkStream:
        try:
            return await self._inner.start_tls(ssl_context, server_hostname, timeout)
        except asyncio.CancelledError:
            with anyio.CancelScope(shield=True):
                await self._inner.aclose()
            raise

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


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
                return _Stream(
                    await self._inner.connect_tcp(
                        address, port, timeout, local_address, socket_options
                    )
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
            # Bytes that follow an answer would be taken for the next one: each has a connection
            # of its own, whose address has been checked just now.
            max_keepalive_connections=0,
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
            # What one origin sets in one answer must not be told to it, or another, in the next.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
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

    async def fetch_start(self, identity: Identity, size: int) -> bytes:
        del size  # the version of a URL is that of all its bytes, so all are here or needed
        return await self.fetch(identity)

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    async def _get(self, url: str, known: Identity | None) -> Identity:
        with self._downloads.counted(KIND):
            return await self._get_within(url, known)

    async def _get_within(self, url: str, known: Identity | None) -> Identity:
        try:
            async with asyncio.timeout(self._timeout), self._downloads.slot(0):
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
            parts = self._check(at, redirected=at is not url)
            # Validators are for the URL that gave them: after a redirect that is another.
            asks = known is not None and known.validators_of == at
            headers = known.validators if known and asks else ()
            async with self._client.stream("GET", at, headers=_encoded(headers)) as answer:
                if answer.status_code not in _REDIRECTS:
                    return await self._take(url, at, answer, known if asks else None)
                target = urljoin(at, answer.headers.get("location", ""))
            if parts.scheme == "https" and not target.startswith("https:"):
                raise SourceRefused("The origin redirects from https to http", param="url")
            at = target
        raise SourceFailed(f"The origin redirects more than {self._redirects} times")

    def _check(self, at: str, *, redirected: bool) -> SplitResult:
        try:
            return self._guard.check_url(at)
        except InvalidRequest:
            if redirected:
                raise SourceFailed("The origin redirects to what is no web address") from None
            raise

    async def _take(
        self, url: str, at: str, answer: httpx.Response, known: Identity | None
    ) -> Identity:
        status = answer.status_code
        if status == 304 and known is not None:
            return known
        if status in (404, 410):
            raise OriginalMissing("The origin has no such picture")
        if status != 200:
            raise SourceFailed(f"The origin answered {status}")
        if answer.headers.get("content-encoding", "identity").lower() != "identity":
            raise SourceFailed("The origin sends a compressed body, though it was asked not to")
        declared = answer.headers.get("content-length", "")
        size = int(declared) if declared.isdigit() and len(declared) < 19 else self._cap
        if size > self._cap:
            raise OriginalTooLarge(
                f"The original has {declared} bytes; at most {self._cap} are read"
            )
        async with self._downloads.room(size):
            body = await receive(answer.aiter_raw(), cap=self._cap, limits=self._limits)
        validators = []
        headers = {name.lower(): value.decode("latin-1") for name, value in answer.headers.raw}
        modified = headers.get(b"last-modified")
        for name, value in (
            ("if-none-match", headers.get(b"etag")),
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


def _encoded(headers: Iterable[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    """Headers byte for byte as they came: httpx would guess at their encoding."""
    return [(name.encode(), value.encode("latin-1")) for name, value in headers]
