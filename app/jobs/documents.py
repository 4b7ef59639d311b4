"""JSON as clients send it, read strictly: what two readers could take for two things is refused."""

from __future__ import annotations

import json
import math
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
            for path, found in _texts(value, ""):
                _check_text(found, path, what)
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


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every text of a value, and every name, by where it is: `outputs[0].target`."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _texts(part, f"{path}[{number}]")
    elif isinstance(value, dict):
        for name, part in value.items():
            yield path, name
            yield from _texts(part, f"{path}.{name}" if path else name)


def _check_text(text: str, path: str, what: str) -> None:
    where = path[:64] or what
    if "\0" in text:
        raise InvalidRequest(f"{where} has a NUL in it", param=path[:64] or None)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidRequest(f"{where} is not valid UTF-8", param=path[:64] or None) from None


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidRequest(f"{text[:32]} is too large a number")
    return value


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_once, parse_constant=_refuse_constant, parse_float=_float
)
