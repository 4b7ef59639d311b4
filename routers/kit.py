"""GET /kit: all that a page needs to show one picture, in one call."""

from __future__ import annotations

import hashlib
import time
from typing import Any, Final
from urllib.parse import quote, urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app import kits
from app.access import Grant
from app.admission import Lane
from app.errors import InvalidRequest
from app.kits import Kit
from app.presets import PARAMETER
from app.service import Service
from app.signing import Signer
from app.sources import web
from app.sources.base import Ref
from app.tokens import Scope
from routers import openapi
from routers.delivery import cache_control, unmodified_response
from routers.methods import get_and_head
from routers.requests import flag_of, read_of, transform_of, value_of, while_connected
from transforms import geometry
from transforms.describe import Facts
from transforms.options import BY_SPELLING, MAX_SIDE
from transforms.shapes import Size
from transforms.transform import Transform

router = APIRouter(tags=["results"])

_MOST_TTL: Final = 31_536_000
_LONGEST: Final = 500
_OWN: Final = ("widths", "formats", "sizes", "alt", "ttl", "warm")
_RUNG: Final = ("w", "h", "fit", "dpr", "fm", "auto")
"""What a rung of the ladder settles for itself."""
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The kit",
        "content": {"application/json": {"schema": {"type": "object"}}},
    },
    304: {"description": "The client has it already"},
    **openapi.problems(400, 401, 403, 404, 409, 413, 415, 422, 502, 503, 504),
}


@get_and_head(
    router,
    "/kit/{id:path}",
    summary="All that a page needs to show an original of the store",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=openapi.parameters("id", "preset", *_OWN, "v", "sig", "exp"),
)
async def kit_by_id(request: Request) -> Response:
    """URLs for each width and format, sizes, a placeholder and ready HTML.

    The transform's parameters hold for every file; `w` is the widest that is wanted, and with `h`
    it is the ratio of all.
    """
    return await _kit(request)


@get_and_head(
    router,
    "/kit",
    summary="All that a page needs to show an original of the web",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=openapi.parameters("url", "preset", *_OWN, "v", "sig", "exp"),
)
async def kit_by_url(request: Request) -> Response:
    """The same for an original on one of the allowed hosts."""
    return await _kit(request)


async def _kit(request: Request) -> Response:
    read = read_of(request)
    service, pairs, ref = read.service, read.pairs, read.ref
    warm = flag_of(pairs, "warm", default=False)
    if warm:
        service.access.check(read.caller, Scope.IMAGES)
    transform = transform_of(service, pairs)
    if transform.trim is not None:
        raise InvalidRequest(
            "trim cannot be in a kit: what it leaves shows only in the pixels, and a kit tells "
            "every size beforehand",
            param="trim",
        )
    asked = await while_connected(
        request, service.describer.identify(ref, colours=True, place=False)
    )
    description = await while_connected(
        request, service.describer.describe(asked, lane=Lane.INTERACTIVE)
    )
    if description.colours is None:
        raise AssertionError("colours were asked for")
    facts = description.facts
    stored = Size(facts.stored_width, facts.stored_height)
    rungs = [
        (rung, geometry.plan(stored, rung, orientation=facts.orientation).result)
        for rung in kits.climb(
            stored, transform, _widths(service, pairs), orientation=facts.orientation
        )
    ]
    link = _Link(service, ref, pairs, read.grant)
    kit = kits.build(
        rungs,
        _formats(service, pairs, facts),
        colours=description.colours,
        url_of=link.url,
        sizes=_text(pairs, "sizes", "100vw"),
        alt=_text(pairs, "alt", ""),
    )
    if warm:
        await while_connected(request, _warm(service, ref, kit, link))
    told = kit.as_json()
    etag = hashlib.sha256(repr(told).encode()).hexdigest()[:32]
    headers = {
        "etag": f'"{etag}"',
        "cache-control": cache_control(service.settings, link.grant, versioned=False),
    }
    if response := unmodified_response(request, headers, None):
        return response
    return JSONResponse(told, headers=headers)


class _Link:
    """Makes the URLs of one kit, signed where the service has keys and the caller may have them."""

    def __init__(
        self, service: Service, ref: Ref, pairs: list[tuple[str, str]], grant: Grant
    ) -> None:
        self._base = service.settings.public_url.rstrip("/")
        self._path = "/thumb" if ref.kind == web.KIND else f"/thumb/{quote(ref.name)}"
        self._fixed = [("url", ref.name)] if ref.kind == web.KIND else []
        self._fixed += [pair for pair in pairs if pair[0] == "v"]
        self._preset = [pair for pair in pairs if pair[0] == PARAMETER]
        self._given = [
            pair
            for pair in pairs
            if pair[0] in BY_SPELLING and BY_SPELLING[pair[0]].name not in _RUNG
        ]
        keys = service.settings.signing_keys
        self._signer = Signer(keys) if service.settings.require_signature != "off" else None
        self._expires = _expiry(pairs)
        self.grant = grant
        if self._signer is not None and self._expires is not None:
            soonest = min(self._expires, grant.expires or self._expires)
            self.grant = Grant(expires=soonest, shared=grant.shared)

    def pairs(self, transform: Transform) -> list[tuple[str, str]]:
        """The parameters of a result: all that is not default, or a preset and what varies it."""
        if not self._preset:
            return transform.items()
        rung = [pair for pair in transform.items() if pair[0] in ("w", "h", "fm")]
        return [*self._preset, *self._given, *rung]

    def url(self, transform: Transform) -> str:
        """The URL of a result."""
        query = urlencode([*self._fixed, *self.pairs(transform)], quote_via=quote, safe=",:|")
        path = f"{self._path}?{query}"
        if self._signer is not None:
            path = self._signer.sign(path, expires=self._expires)
        return self._base + path


async def _warm(service: Service, ref: Ref, kit: Kit, link: _Link) -> None:
    """Render every file of a kit, from one download and one decode."""
    keyeds = []
    for name, variants in kit.variants.items():
        for variant in variants:
            # As it is read from the URL, so that the key is the same.
            wanted = transform_of(service, link.pairs(variant.transform))
            settled = wanted.with_output(name, defaults=service.settings.defaults)
            keyeds.append(await service.renderer.identify(ref, settled))
    await service.renderer.answer_all(keyeds, lane=Lane.API)


def _widths(service: Service, pairs: list[tuple[str, str]]) -> tuple[int, ...]:
    text = value_of(pairs, "widths")
    if text is None:
        return tuple(service.settings.allowed_widths) or kits.WIDTHS
    words = text.split(",")
    if not 1 <= len(words) <= kits.MOST_WIDTHS or not all(
        word.isascii() and word.isdigit() and 1 <= int(word[:9]) <= MAX_SIDE for word in words
    ):
        raise InvalidRequest(
            f"widths must be 1 to {kits.MOST_WIDTHS} numbers of 1 to {MAX_SIDE}, got {text[:64]!r}",
            param="widths",
        )
    return tuple(int(word) for word in words)


def _formats(service: Service, pairs: list[tuple[str, str]], facts: Facts) -> list[str]:
    """The newer formats that are offered, then the one that every client shows."""
    text = value_of(pairs, "formats")
    enabled = service.settings.formats
    newer: list[str] = [name for name in kits.NEWER if name in enabled]
    if text is not None:
        wanted = [word.strip() for word in text.lower().split(",") if word.strip()]
        if unknown := [word for word in wanted if word not in newer]:
            raise InvalidRequest(
                f"formats must be of {', '.join(newer)}, got {unknown[0][:64]!r}", param="formats"
            )
        newer = list(dict.fromkeys(wanted))
    if facts.animated and "gif" in enabled:
        return [*(name for name in newer if name == "webp"), "gif"]
    return [*newer, "png" if facts.alpha else "jpeg"]


def _text(pairs: list[tuple[str, str]], name: str, default: str) -> str:
    text = value_of(pairs, name)
    if text is not None and len(text) > _LONGEST:
        raise InvalidRequest(f"{name} must have at most {_LONGEST} characters", param=name)
    return default if text is None else text


def _expiry(pairs: list[tuple[str, str]]) -> int | None:
    text = value_of(pairs, "ttl")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST_TTL:
        raise InvalidRequest(
            f"ttl must be 1 to {_MOST_TTL} seconds, got {text[:64]!r}", param="ttl"
        )
    return int(time.time()) + int(text)
