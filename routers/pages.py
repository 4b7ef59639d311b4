"""Lists, a page at a time: where one begins, how long it is, and where the next one is."""

from __future__ import annotations

from typing import Any, Final

from app.errors import InvalidRequest
from app.jobs.ids import is_id
from routers import openapi
from routers.requests import value_of

_MOST: Final = 1000
_USUAL: Final = 50


def page(
    path: str,
    items: list[dict[str, Any]],
    pairs: list[tuple[str, str]],
    *,
    limit: int,
    key: str = "id",
) -> dict[str, Any]:
    """A page of records, known by `key`, of which one more than `limit` was looked for."""
    told: dict[str, Any] = {"items": items[:limit]}
    if len(items) > limit:
        kept = [pair for pair in pairs if pair[0] != "cursor"]
        told["next"] = openapi.link(path, [*kept, ("cursor", items[limit - 1][key])])
    return told


def limit_of(pairs: list[tuple[str, str]]) -> int:
    """How many records a page has. Raises InvalidRequest."""
    text = value_of(pairs, "limit")
    if text is None:
        return _USUAL
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= _MOST:
        raise InvalidRequest(f"limit must be 1 to {_MOST}, got {text[:64]!r}", param="limit")
    return int(text)


def cursor_of(pairs: list[tuple[str, str]]) -> str | None:
    """Where a page begins: after the record of this id. Raises InvalidRequest."""
    text = value_of(pairs, "cursor")
    if text is not None and not is_id(text):
        raise InvalidRequest("cursor must be one that a page has given", param="cursor")
    return text
