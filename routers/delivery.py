"""Delivery: a result as an HTTP answer, with its caching, validators and ranges."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from app.access import Grant
from app.dates import show_http_date
from app.pressure import MAX_AGE
from app.render import Answer
from app.settings import Settings
from routers.conditional import Unsatisfiable, is_unmodified, parse_range
from routers.envelope import COMMON_HEADERS
from routers.hits import HitPath, Shortcut

_YEAR: Final = 31_536_000
_IF_ERROR: Final = "stale-if-error=604800"
_STALE: Final = f"stale-while-revalidate=86400, {_IF_ERROR}"
STALE_AGE: Final = 10
"""Seconds for which a result may be kept that may be outdated."""
_CACHE_STATUS: Final = {
    "memory": "pixelmill-memory; hit{}",
    "stored": "pixelmill-stored; hit{}, pixelmill-memory; fwd=miss",
    "render": "pixelmill-stored; fwd=miss, pixelmill-memory; fwd=miss",
}
"""RFC 9211, 2: the cache that is nearest to the origin comes first."""
_STALE_STATUS: Final = "; ttl=-1; detail=stale"
"""RFC 9211, 2.4: a negative ttl is that of an answer that was stale when it was sent."""
_SHOWN_TAGS: Final = 32
"""Headers are to stay small; the tags of the originals themselves come first."""


def etag_of(key: str) -> str:
    """The strong entity tag of a result: its key names its bytes, on every replica alike."""
    return f'"{key}"'


def tag_headers(settings: Settings, tags: Sequence[str]) -> dict[str, str]:
    """The tags of a result in the headers that the caches before this service read."""
    tags = tags[:_SHOWN_TAGS]
    shown = {
        "cache-groups": ", ".join(f'"{tag}"' for tag in tags),  # RFC 9875
        "surrogate-key": " ".join(tags),
        "cache-tag": ",".join(tags),
    }
    return {name: shown[name] for name in settings.cache_tags}


def brief_age(answer: Answer) -> int | None:
    """For how many seconds a result may be kept at most, where a better one is to be had soon."""
    if answer.stale:
        return STALE_AGE
    return MAX_AGE if answer.rendered.reduced else None


def cache_control(
    settings: Settings, grant: Grant, *, versioned: bool, brief: int | None = None
) -> str:
    """How long a result may be kept. A URL that names a version never changes its meaning.

    `brief` is for how many seconds at most, where there will be a better one.
    """
    most = int(settings.cache_max_age)
    most = most if brief is None else min(most, brief)
    if not grant.shared:
        return f"private, max-age={most}"
    if grant.expires is not None:
        # No cache may outlive the signature.
        age = max(0, min(most, int(grant.expires - time.time())))
        return f"public, max-age={age}"
    if brief is not None:
        return f"public, max-age={most}, {_IF_ERROR}"
    if versioned:
        return f"public, max-age={_YEAR}, immutable"
    return f"public, max-age={most}, {_STALE}"


def validator_headers(
    *, etag: str, caching: str, varies: bool, modified: datetime | None
) -> dict[str, str]:
    """The headers that a 304 shares with the 200 it stands for (RFC 9110, 15.4.5)."""
    headers = {"etag": etag, "cache-control": caching}
    if varies:
        headers["vary"] = "Accept"
    if modified is not None:
        headers["last-modified"] = show_http_date(modified)
    return headers


def unmodified_response(
    request: Request, headers: dict[str, str], modified: datetime | None
) -> Response | None:
    """A 304, where the client has the representation already."""
    if not is_unmodified(request.headers, headers["etag"], modified):
        return None
    return Response(status_code=304, headers=headers)


def result_response(request: Request, answer: Answer, headers: dict[str, str]) -> Response:
    """A 200, 206 or 416 with a result's bytes. For HEAD, the server sends no body."""
    rendered = answer.rendered
    headers = {
        **headers,
        "accept-ranges": "bytes",
        "cache-status": _CACHE_STATUS[answer.tier].format(_STALE_STATUS if answer.stale else ""),
    }
    if timing := answer.timings.header():
        headers["server-timing"] = timing
    data = rendered.data
    status = 200
    wanted = None
    try:
        if request.method != "POST":
            wanted = parse_range(request.headers, len(data), headers["etag"])
    except Unsatisfiable:
        headers["content-range"] = f"bytes */{len(data)}"
        return Response(status_code=416, headers=headers)
    if wanted is not None:
        headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{len(data)}"
        data, status = data[wanted.start : wanted.stop], 206
    headers["content-length"] = str(len(data))
    body = b"" if request.method == "HEAD" else data
    return Response(
        body, status_code=status, headers=headers, media_type=rendered.format.media_type
    )


def record_hit(
    hit_path: HitPath,
    request: Request,
    answer: Answer,
    headers: dict[str, str],
    *,
    seconds: float,
) -> None:
    """Leave a shortcut to a result for `seconds`."""
    if seconds <= 0 or answer.stale:
        return
    rendered = answer.rendered
    unmodified = [
        *((name.encode(), value.encode("latin-1")) for name, value in headers.items()),
        *COMMON_HEADERS,
        (b"cache-status", _CACHE_STATUS["memory"].format("").encode()),
        (b"server-timing", b"total;dur=0"),
    ]
    full = [
        *unmodified,
        (b"accept-ranges", b"bytes"),
        (b"content-type", rendered.format.media_type.encode()),
        (b"content-length", str(len(rendered.data)).encode()),
    ]
    hit_path.record(
        request.scope,
        Shortcut(
            key=rendered.key,
            etag=headers["etag"],
            full=full,
            unmodified=unmodified,
            until=time.monotonic() + seconds,
        ),
    )
