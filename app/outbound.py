"""Requests to the outside, every one through the guard. The only file that knows the HTTP client.

No proxies, no cookies, no redirects, no retries: a request goes to the address that was checked for
its own URL, once, or fails.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import anyio
import httpcore
import httpx
from httpcore import AsyncNetworkStream

from app.errors import InvalidRequest, SourceFailed, SourceRefused, SourceTimeout
from app.sources.guard import Guard

MAX_REPLY: Final = 64 * 1024
"""Bytes of the body of a reply that are kept."""

_CONNECT_TIMEOUT: Final = 3.0
_HEADERS: Final = {
    "user-agent": "pixelmill",
    "accept": "*/*",
    # Bytes as they are: a compressed answer could expand without bound.
    "accept-encoding": "identity",
}
_OWN: Final = frozenset(
    (
        *("connection", "content-length", "expect", "host", "keep-alive", "proxy-authorization"),
        *("proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"),
    )
)
"""Headers that belong to the connection or are told by the URL and the body (RFC 9110, 7.6.1)."""
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", re.ASCII)
_VALUE: Final = re.compile(r"([\x21-\x7e\x80-\xff]([\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")

Headers = Mapping[str, str] | Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer whose body is yet to come, in chunks as the server sends them, still encoded.

    The names of headers are in lower case. The raw ones are byte for byte as they came.
    """

    status: int
    headers: Mapping[str, str]
    raw_headers: Mapping[bytes, bytes]
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer to what was sent: names of headers in lower case, at most MAX_REPLY of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Outbound:
    """Sends requests to where its guard allows.

    `connections` is how many there are at a time; further requests wait, within their own timeouts.
    """

    def __init__(self, guard: Guard, *, connections: int) -> None:
        self._guard = guard
        self._places = asyncio.Semaphore(connections)
        self._client = httpx.AsyncClient(
            transport=_GuardedTransport(guard),
            trust_env=False,
            # What one server sets in one answer must not be told to it, or another, in the next.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
            headers=_HEADERS,
        )

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Headers = (),
        body: bytes | None = None,
        timeout: float,  # noqa: ASYNC109 - for each step; the caller bounds the whole
    ) -> AsyncIterator[Answer]:
        """Send a request and hold its answer open.

        `timeout` is seconds for each step, such as the next chunk. Raises InvalidRequest and
        SourceRefused; what else goes wrong is for `translated` to tell, around all that is done
        with the answer.
        """
        self._guard.check_url(url)
        steps = httpx.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT))
        async with (
            self._places,
            self._client.stream(
                method, url, headers=_encoded(headers), content=body, timeout=steps
            ) as answer,
        ):
            yield Answer(
                status=answer.status_code,
                headers=dict(answer.headers),
                raw_headers={name.lower(): value for name, value in answer.headers.raw},
                chunks=answer.aiter_raw(),
            )

    async def send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes,
        timeout: float,  # noqa: ASYNC109 - a request's own, which its error names
    ) -> Reply:
        """Send a request, and return what the receiver says to it, a redirect too.

        `timeout` is seconds for all of it. A body longer than MAX_REPLY is not read on. Raises
        InvalidRequest where the URL or a header is none, SourceRefused, SourceFailed and
        SourceTimeout.
        """
        self._check_headers(headers)
        with translated("receiver", late=f"The receiver did not answer within {timeout:g} s"):
            async with (
                asyncio.timeout(timeout),
                self.stream(method, url, headers=headers, body=body, timeout=timeout) as answer,
            ):
                return Reply(
                    status=answer.status,
                    headers=answer.headers,
                    body=await _first(answer.chunks, MAX_REPLY),
                )

    async def close(self) -> None:
        """Let go of connections."""
        await self._client.aclose()

    def _check_headers(self, headers: Mapping[str, str]) -> None:
        for name, value in headers.items():
            if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
                problem = "is not one of HTTP"
            elif name.lower() in _OWN:
                problem = "cannot be chosen"
            else:
                continue
            param = self._guard.param
            raise InvalidRequest(f"The header {name[:64]!r} for {param} {problem}", param=param)


@contextmanager
def translated(party: str, *, late: str) -> Iterator[None]:
    """Raise what the client raises as errors of this service.

    The sentences speak of the `party` that was asked; `late` is the one for SourceTimeout.
    """
    try:
        yield
    except (TimeoutError, httpx.TimeoutException, httpcore.TimeoutException):
        raise SourceTimeout(late) from None
    except (httpcore.RemoteProtocolError, httpcore.ReadError):
        raise SourceFailed(f"The {party}'s answer was cut short or is not HTTP") from None
    except (httpx.HTTPError, httpx.InvalidURL, httpcore.NetworkError, OSError):
        raise SourceFailed(f"The {party} cannot be reached") from None
    except (httpcore.ProtocolError, httpcore.UnsupportedProtocol, UnicodeError, ValueError):
        raise SourceFailed(f"The {party}'s answer is not HTTP") from None


async def _first(chunks: AsyncIterator[bytes], most: int) -> bytes:
    """The first bytes of a body. What follows stays with the server."""
    kept = bytearray()
    async for chunk in chunks:
        kept += chunk[: most - len(kept)]
        if len(kept) == most:
            break
    return bytes(kept)


def _encoded(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Headers byte for byte as they came: httpx would guess at their encoding."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return [(name.encode(), value.encode("latin-1")) for name, value in pairs]


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
    """The body of an answer, with the connection that ends with it."""

    def __init__(self, stream: Any, connection: httpcore.AsyncHTTPConnection) -> None:
        self._stream = stream
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            yield chunk

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            await _close(self._connection)


class _GuardedTransport(httpx.AsyncBaseTransport):
    """httpx over guarded connections. No proxies, no retries.

    Bytes that follow an answer would be taken for the next one: each has a connection of its own,
    whose address has been checked just now. There is no pool, then: httpcore's loses a place for
    ever where a request is given up between getting it and using it.
    """

    def __init__(self, guard: Guard) -> None:
        self._tls: ssl.SSLContext | None = None
        self._backend = _GuardedBackend(guard)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        asked = request.url
        url = httpcore.URL(
            scheme=asked.raw_scheme, host=asked.raw_host, port=asked.port, target=asked.raw_path
        )
        connection = httpcore.AsyncHTTPConnection(
            url.origin,
            ssl_context=await self._trusted() if asked.scheme == "https" else None,
            network_backend=self._backend,
        )
        try:
            answer = await connection.handle_async_request(
                httpcore.Request(
                    method=request.method,
                    url=url,
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        except BaseException:
            await _close(connection)
            raise
        return httpx.Response(
            answer.status,
            headers=answer.headers,
            stream=_Body(answer.stream, connection),
            extensions=answer.extensions,
        )

    async def _trusted(self) -> ssl.SSLContext:
        """The authorities that are trusted, read when the first certificate is to be verified.

        Parsing them takes tens of milliseconds and megabytes, which a service that sends nothing
        never spends, and in which the event loop would stand still.
        """
        if self._tls is None:
            self._tls = await asyncio.to_thread(httpx.create_ssl_context)
        return self._tls


async def _close(connection: httpcore.AsyncHTTPConnection) -> None:
    with anyio.CancelScope(shield=True):
        await connection.aclose()
