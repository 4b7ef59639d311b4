"""GET /kit: all that a page needs to show one picture, in one call."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from app import kits
from app.admission import Lane
from app.errors import InvalidRequest
from app.keys import Fetched
from app.kits import Kit, Variant
from app.ladders import ladder_of
from app.presets import Pairs
from app.service import Service
from app.sources.base import Ref
from app.tokens import Scope
from app.variations import Rung, Variations
from routers import openapi
from routers.delivery import cache_control, unmodified_response
from routers.links import Links
from routers.methods import get_and_head
from routers.negotiation import choose_output
from routers.requests import flag_of, read_of, transform_of, value_of, while_connected
from transforms.describe import miniature
from transforms.errors import InvalidOption
from transforms.options import MAX_SIDE
from transforms.transform import Transform

router = APIRouter(tags=["results"])

_MOST_TTL: Final = 31_536_000
_LONGEST: Final = 500
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
    openapi_extra=openapi.parameters("id", *openapi.OF_KIT),
)
async def kit_by_id(request: Request) -> Response:
    """URLs for each width and format, sizes, a placeholder and ready HTML.

    The transform's parameters hold for every file; `w` is the widest that is wanted, and with `h`
    it is the ratio of all. Lengths in pixels are those of the widest file, and shrink with it in
    the others, so that all of them show the same picture. `width` and `height` are the widest's.
    """
    return await _kit(request)


@get_and_head(
    router,
    "/kit",
    summary="All that a page needs to show an original of the web",
    response_class=Response,
    responses=_RESPONSES,
    openapi_extra=openapi.parameters("url", *openapi.OF_KIT),
)
async def kit_by_url(request: Request) -> Response:
    """The same for an original on one of the allowed hosts."""
    return await _kit(request)


async def _kit(request: Request) -> Response:
    read = read_of(request)
    service, pairs = read.service, read.pairs
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
    widths, named = _widths(service, pairs)
    newer = _newer(service, pairs)
    sizes, alt = _text(pairs, "sizes", "100vw"), _text(pairs, "alt", "")
    links = Links(service, read.ref, pairs, read.grant, expires=_expiry(pairs))
    variations = Variations(service.presets, pairs)
    fm, _ = choose_output(transform, b"", service.settings.formats)

    renderer = service.renderer
    keyed = await while_connected(request, renderer.identify(read.ref, transform.with_output(fm)))
    fetched = await while_connected(request, renderer.fetch(keyed))
    probe = replace(miniature(transform), fm="auto", frames=transform.frames)
    work = await asyncio.to_thread(renderer.plan, fetched, probe)
    ladder = ladder_of(work.header, transform)
    rungs = variations.rungs(ladder, widths, named=named)
    _, widest = ladder.steps(widths)
    colours = await while_connected(
        request,
        service.describer.see(fetched, ladder.at(widest, widest=widest), lane=Lane.INTERACTIVE),
    )
    formats = _formats(
        variations,
        transform,
        newer,
        enabled=service.settings.formats,
        moves=work.frames > 1,
        transparent=colours.transparent,
    )
    files = _Files(service, fetched, variations, links, frozenset(widths) if named else frozenset())
    variants = await asyncio.to_thread(files.plan, rungs, formats)
    kit = Kit(variants=variants, colours=colours, sizes=sizes, alt=alt)
    if warm:
        await while_connected(request, _warm(service, read.ref, kit))
    told = kit.as_json()
    etag = hashlib.sha256(repr(told).encode()).hexdigest()[:32]
    headers = {
        "etag": f'"{etag}"',
        "cache-control": cache_control(service.settings, links.grant, versioned=False),
    }
    if response := unmodified_response(request, headers, None):
        return response
    return JSONResponse(told, headers=headers)


@dataclass(frozen=True, slots=True)
class _Files:
    """Plans the files of one kit: each is what its own URL is answered with."""

    service: Service
    fetched: Fetched
    variations: Variations
    links: Links
    named: frozenset[int]
    """The widths that the request names."""

    def plan(self, rungs: Sequence[Rung], formats: Sequence[str]) -> dict[str, list[Variant]]:
        """The files by format, each once; formats that cannot be made are left out.

        Raises InvalidOption where a width that is named, or the last of the formats, is refused.
        """
        *newer, last = formats
        needed = self._sizes(rungs, last, needed=True)
        found = {fm: self._sizes(rungs, fm, needed=False) for fm in newer}
        return {fm: variants for fm, variants in found.items() if variants} | {last: needed}

    def _sizes(self, rungs: Sequence[Rung], fm: str, *, needed: bool) -> list[Variant]:
        found: dict[int, Variant] = {}
        refused = None
        for rung in rungs:
            try:
                variant = self._variant(rung, fm)
            except InvalidOption as error:
                if needed and rung.width in self.named:
                    raise InvalidOption("widths", f"widths: {error.detail}") from None
                refused = refused or error
            else:
                found.setdefault(variant.size.width, variant)
        if refused and not found:
            try:
                return [self._variant(self.variations.itself, fm)]
            except InvalidOption:
                if needed:
                    raise refused from None
        return [found[width] for width in sorted(found)]

    def _variant(self, rung: Rung, fm: str) -> Variant:
        settings, renderer = self.service.settings, self.service.renderer
        pairs = self.variations.with_format(rung.pairs, fm)
        # As it is read from the URL, so that the file is the one that the URL gives.
        wanted = transform_of(self.service, pairs)
        settled = wanted.with_output(fm, defaults=settings.defaults)
        work = renderer.plan(self.fetched, settled)
        renderer.check_time(work)
        url = self.links.url(self.variations.shown(wanted, pairs))
        return Variant(transform=settled, size=work.plan.result, url=url)


async def _warm(service: Service, ref: Ref, kit: Kit) -> None:
    """Render every file of a kit, from one download and one decode."""
    keyeds = [
        await service.renderer.identify(ref, variant.transform)
        for variants in kit.variants.values()
        for variant in variants
    ]
    await service.renderer.answer_all(keyeds, lane=Lane.API)


def _widths(service: Service, pairs: Pairs) -> tuple[tuple[int, ...], bool]:
    """The ladder of widths, and whether the request names it."""
    text = value_of(pairs, "widths")
    if text is None:
        return tuple(service.settings.allowed_widths) or kits.WIDTHS, False
    words = text.split(",")
    if not 1 <= len(words) <= kits.MOST_WIDTHS or not all(
        word.isascii() and word.isdigit() and 1 <= int(word[:9]) <= MAX_SIDE for word in words
    ):
        raise InvalidRequest(
            f"widths must be 1 to {kits.MOST_WIDTHS} numbers of 1 to {MAX_SIDE}, got {text[:64]!r}",
            param="widths",
        )
    return tuple(int(word) for word in words), True


def _newer(service: Service, pairs: Pairs) -> list[str] | None:
    """The newer formats that the request names, if it does."""
    text = value_of(pairs, "formats")
    if text is None:
        return None
    known = [name for name in kits.NEWER if name in service.settings.formats]
    wanted = [word.strip() for word in text.lower().split(",") if word.strip()]
    if unknown := [word for word in wanted if word not in known]:
        raise InvalidRequest(
            f"formats must be of {', '.join(known)}, got {unknown[0][:64]!r}", param="formats"
        )
    return list(dict.fromkeys(wanted))


def _formats(
    variations: Variations,
    transform: Transform,
    newer: list[str] | None,
    *,
    enabled: Sequence[str],
    moves: bool,
    transparent: bool,
) -> list[str]:
    """The newer formats that are offered, then the one that every client shows."""
    if not variations.any_format:
        own, _ = choose_output(transform, b"", enabled)
        if newer and newer != [own]:
            raise InvalidOption(
                "formats",
                f"formats cannot be given with the preset {variations.preset}: it does "
                "not let fm vary",
            )
        return [own]
    if newer is None:
        newer = [name for name in kits.NEWER if name in enabled]
    if transform.fm is not None:
        return [*(name for name in newer if name != transform.fm), transform.fm]
    if moves and "gif" in enabled:
        return [*(name for name in newer if name == "webp"), "gif"]
    return [*newer, "png" if transparent else "jpeg"]


def _text(pairs: Pairs, name: str, default: str) -> str:
    text = value_of(pairs, name)
    if text is not None and len(text) > _LONGEST:
        raise InvalidRequest(f"{name} must have at most {_LONGEST} characters", param=name)
    return default if text is None else text


def _expiry(pairs: Pairs) -> int | None:
    text = value_of(pairs, "ttl")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST_TTL:
        raise InvalidRequest(
            f"ttl must be 1 to {_MOST_TTL} seconds, got {text[:64]!r}", param="ttl"
        )
    return int(time.time()) + int(text)
