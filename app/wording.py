"""What pydantic finds wrong with a value, in the words of this service."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

_KINDS: Final[Mapping[str, str]] = {
    "string": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "list": "a list",
    "dict": "an object",
    "model": "an object",
}
"""What a value must be, by how the names of errors begin."""

_BOUNDS: Final[Mapping[str, str]] = {
    "greater_than_equal": "must be at least {ge:g}",
    "greater_than": "must be more than {gt:g}",
    "less_than_equal": "must be at most {le:g}",
    "less_than": "must be less than {lt:g}",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
    "int_from_float": "must be an integer",
    "byte_size": "must be a size in bytes, such as 50000000 or 64MiB",
    "byte_size_unit": "must be a size in bytes, such as 50000000 or 64MiB",
}


def sentence_of(errors: Iterable[Mapping[str, Any]]) -> str:
    """Completes the sentence "NAME ..." for the errors of one value, such as "must be a list".

    A value that may be of several kinds has an error for each of them.
    """
    found = list(errors)
    kinds = [kind for error in found if (kind := _kind_of(error["type"]))]
    if kinds and len(kinds) == len(found):
        return f"must be {' or '.join(dict.fromkeys(kinds))}"
    error = found[0]
    if bound := _BOUNDS.get(error["type"]):
        told = bound.format(**error.get("ctx", {}))
        return told.replace("at least 1 entries", "at least 1 entry")
    message = str(error["msg"]).removeprefix("Value error, ")
    return message.replace("Input should be", "must be").replace("String should", "must")


def _kind_of(error: str) -> str | None:
    name, _, rest = error.rpartition("_")
    return _KINDS.get(name.removesuffix("_attributes")) if rest in ("type", "parsing") else None
