"""Dates as HTTP writes them (RFC 9110, 5.6.7)."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime, parsedate_to_datetime


def parse_http_date(text: str | None) -> datetime | None:
    """The moment that a header names, in UTC, or None where it names none."""
    try:
        moment = parsedate_to_datetime(text) if text else None
        if moment is None or moment.tzinfo is None:
            return moment and moment.replace(tzinfo=UTC)
        return moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def show_http_date(moment: datetime) -> str:
    """A moment as HTTP writes it."""
    return format_datetime(moment.astimezone(UTC), usegmt=True)


def pause_asked(text: str | None, *, now: float) -> float:
    """Seconds that `Retry-After` asks for (RFC 9110, 10.2.3); 0 where it asks for none."""
    if text is None:
        return 0.0
    if text.isascii() and text.isdigit():
        return float(text[:9])
    moment = parse_http_date(text)
    return 0.0 if moment is None else max(0.0, moment.timestamp() - now)
