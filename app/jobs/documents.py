"""JSON as clients send it, read strictly: what two readers could take for two things is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final, NoReturn

from app.errors import InvalidRequest


def read_document(data: bytes, *, what: str = "The body") -> Any:
    """The value of a JSON document in UTF-8 (RFC 8259). Raises InvalidRequest.

    A name that is given twice, a number that is none, and a text that no database keeps (half of a
    surrogate pair, a NUL) are refused too.
    """
    try:
        text = data.decode()
        value = _DECODER.decode(text)
        if "\\u" in text:
            # Only escapes can stand for them: the bytes were UTF-8, and JSON has no raw NUL.
            for found in _texts(value):
                found.encode()
                if "\0" in found:
                    raise InvalidRequest(f"{what} has a NUL in a text")
    except (ValueError, RecursionError):
        raise InvalidRequest(f"{what} is not JSON") from None
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)[:64]
        raise InvalidRequest(f"{twice} is given twice", param=twice)
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise InvalidRequest(f"{text} is not a number of JSON")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, dict):
        yield from value
        for part in value.values():
            yield from _texts(part)


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse_constant)
