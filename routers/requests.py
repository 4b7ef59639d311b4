"""What a request says, read once and in one way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

from starlette.requests import Request

from app.access import Caller, Grant
from app.errors import BodyTooLarge, InvalidRequest, JobsOff, UploadTimeout
from app.jobs.documents import read_document
from app.jobs.service import Jobs
from app.service import Service
from app.sizes import guard_size
from app.sources import stored, web
from app.sources.base import Ref
from app.stores.base import check_key
from app.tokens import Scope
from routers.streams import until_left
from transforms.kinds import BadValue, Flag
from transforms.transform import Transform

T = TypeVar("T")

_MAX_PARAMETERS: Final = 100
OWN_PARAMETERS: Final = ("url", "v", "sig", "exp")
"""Parameters of a request that are not a transform's."""


class Disconnected(Exception):
    """The client has gone: there is nobody to answer."""


def service_of(request: Request) -> Service:
    """The service that this application runs."""
    service: Service = request.app.state.service
    return service


def jobs_of(request: Request, scope: Scope, *, caller: Caller | None = None) -> Jobs:
    """The jobs of this service, where the caller may do what this scope is for.

    `caller` is who asks, where the request says so in a way of its own. Raises Unauthorised,
    ScopeMissing, JobsOff.
    """
    service = service_of(request)
    service.access.check(caller or caller_of(request), scope)
    jobs = service.jobs
    if jobs is None:
        raise JobsOff("This service has no database of jobs: PIXELMILL_DATABASE is off")
    return jobs


def pairs_of(request: Request) -> list[tuple[str, str]]:
    """The decoded parameters of the query, in order. Raises InvalidRequest."""
    try:
        pairs = parse_qsl(
            request.scope["query_string"].decode("latin-1"),
            keep_blank_values=True,
            max_num_fields=_MAX_PARAMETERS,
        )
    except ValueError:
        raise InvalidRequest(f"More than {_MAX_PARAMETERS} parameters") from None
    for name, value in pairs:
        if "\0" in value:
            raise InvalidRequest(f"{name[:64]} holds a NUL character", param=name[:64])
    for name in OWN_PARAMETERS:
        if sum(given == name for given, _ in pairs) > 1:
            raise InvalidRequest(f"{name} is given twice", param=name)
    return pairs


def transform_of(service: Service, pairs: list[tuple[str, str]]) -> Transform:
    """The transform that a GET asks for, of an allowed size. Raises InvalidOption."""
    settings, presets = service.settings, service.presets
    resolved = presets.resolve(pairs, required=settings.only_presets)
    return guard_size(
        Transform.from_query(resolved, defaults=settings.defaults),
        widths=settings.allowed_widths,
        heights=settings.allowed_heights,
        snap=settings.sizes == "snap",
        own=presets.own_sizes(pairs),
    )


def ref_of(request: Request, pairs: list[tuple[str, str]]) -> Ref:
    """The original that a request is about: by the id in its path, or by `url`.

    Raises InvalidRequest.
    """
    if "id" in request.path_params:
        return Ref(stored.KIND, check_key(request.path_params["id"]))
    url = next((value for name, value in pairs if name == "url"), "")
    if not url:
        path = request.scope["path"]
        raise InvalidRequest(f"Name an original: {path}/ID, or {path}?url=https://...", param="url")
    return Ref(web.KIND, url)


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """A request to read something of an original, let pass: see `read_of`."""

    service: Service
    pairs: list[tuple[str, str]]
    ref: Ref
    caller: Caller
    grant: Grant

    @property
    def versioned(self) -> bool:
        """Whether the URL names a version of the original."""
        return any(name == "v" for name, _ in self.pairs)


def read_of(request: Request) -> Read:
    """What is asked of which original, by whom. Raises InvalidRequest, SignatureInvalid."""
    service = service_of(request)
    pairs = pairs_of(request)
    ref = ref_of(request, pairs)
    caller = caller_of(request)
    grant = service.access.check_read(
        caller, request.scope["path"], pairs, by_url=ref.kind == web.KIND
    )
    return Read(service=service, pairs=pairs, ref=ref, caller=caller, grant=grant)


def flag_of(pairs: list[tuple[str, str]], name: str, *, default: bool) -> bool:
    """A parameter of a request's own that is yes or no. Raises InvalidRequest."""
    text = value_of(pairs, name)
    try:
        return default if text is None else Flag().read(text)
    except BadValue as error:
        raise InvalidRequest(f"{name} {error}", param=name) from None


def value_of(pairs: list[tuple[str, str]], name: str) -> str | None:
    """A parameter of a request's own. Raises InvalidRequest where it is given twice."""
    given = [value for known, value in pairs if known == name]
    if len(given) > 1:
        raise InvalidRequest(f"{name} is given twice", param=name)
    return given[0] if given else None


def accept_of(request: Request) -> bytes:
    """What the client accepts; a list may come in several lines."""
    return ", ".join(request.headers.getlist("accept")).encode("latin-1")


def caller_of(request: Request) -> Caller:
    """Who asks."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return Caller(
        address=request.client.host if request.client else None,
        token=token.strip() if scheme.lower() == "bearer" and token.strip() else None,
        # Whoever passes a proxy on the same machine also comes from loopback; and so does a page
        # of another site in a browser there.
        forwarded="x-forwarded-for" in request.headers
        or "forwarded" in request.headers
        or _is_foreign(request),
    )


def _is_foreign(request: Request) -> bool:
    """Whether a browser says that a page of another site is asking."""
    origin = request.headers.get("origin")
    if origin is None:
        return False
    try:
        return urlsplit(origin).netloc != request.headers.get("host", "")
    except ValueError:
        return True  # no browser sends what is no origin


async def while_connected(request: Request, work: Awaitable[T]) -> T:
    """Await the work, and cancel it when the client leaves. Raises Disconnected then.

    The request's body must have been read.
    """
    task = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(until_left(request.receive))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise Disconnected
    finally:
        leaving.cancel()
        task.cancel()


async def body_of(request: Request, *, cap: int) -> bytes:
    """The body, of at most `cap` bytes. Raises BodyTooLarge, UploadTimeout."""
    timeout = service_of(request).settings.upload_timeout
    body = bytearray()
    try:
        async with asyncio.timeout(timeout):
            async for chunk in request.stream():
                body += chunk
                if len(body) > cap:
                    raise BodyTooLarge(f"The body has more than {cap} bytes")
    except TimeoutError:
        raise UploadTimeout(f"The body did not arrive within {timeout:g} s") from None
    return bytes(body)


def read_json(body: bytes) -> Any:
    """A JSON body, read strictly. Raises InvalidRequest."""
    return read_document(body)
