"""Conditional and range requests: RFC 9110, sections 13 and 14."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from starlette.datastructures import Headers

from app.dates import parse_http_date

_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')
_RANGE: Final = re.compile(r"bytes=(\d{0,18})-(\d{0,18})", re.ASCII)


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes from `start` up to but without `stop`."""

    start: int
    stop: int


class Unsatisfiable(Exception):
    """The range lies outside the representation."""


def matches(if_none_match: str, etag: str) -> bool:
    """Whether an If-None-Match header names an entity tag (weak comparison, 13.1.2)."""
    if if_none_match.strip() == "*":
        return True
    opaque = etag.strip('"')
    return any(match[1] == opaque for match in _TAG.finditer(if_none_match))


def is_unmodified(headers: Headers, etag: str, modified: datetime | None) -> bool:
    """Whether the client has this representation already, so that 304 answers it."""
    tags = headers.getlist("if-none-match")  # a list may come in several lines
    if tags:
        return matches(", ".join(tags), etag)
    since = parse_http_date(headers.get("if-modified-since"))
    return since is not None and modified is not None and modified.replace(microsecond=0) <= since


def parse_range(headers: Headers, size: int, etag: str) -> ByteRange | None:
    """The one range asked for, or None where the whole is to be sent.

    Several ranges, another unit, or an If-Range that does not fit are answered with the whole, as
    14.2 allows. Raises Unsatisfiable.
    """
    match = _RANGE.fullmatch(headers.get("range", "").strip())
    if_range = headers.get("if-range")
    if match is None or (if_range is not None and if_range.strip() != etag):
        return None
    first, last = match[1], match[2]
    if first:
        start, stop = int(first), min(int(last) + 1 if last else size, size)
        if last and int(last) < int(first):
            return None
    elif last:
        start, stop = max(0, size - int(last)), size
    else:
        return None
    if start >= size or start >= stop:
        raise Unsatisfiable
    return ByteRange(start, stop)
