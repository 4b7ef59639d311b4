"""Writes the README's generated tables: `make docs`. A test holds them against the code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from app import errors
from app.settings import PREFIX, Settings
from routers.openapi import request_rows
from routers.problems import HTTP_CODES, internal_problem
from transforms.options import OPTIONS

README: Final = Path(__file__).resolve().parents[1] / "README.md"


def parameters() -> str:
    """The table of transform parameters."""
    rows = ["| parameter | value | default | what it does |", "|---|---|---|---|"]
    for option in OPTIONS:
        names = ", ".join(f"`{name}`" for name in (option.name, *option.aliases))
        default = "" if option.default is None else f"`{option.kind.show(option.default)}`"
        rows.append(f"| {names} | {option.kind.expects} | {default} | {option.help} |")
    return "\n".join(rows)


def requests() -> str:
    """The table of what requests say beside the transform."""
    rows = ["| parameter | of | what it does |", "|---|---|---|"]
    for row in request_rows():
        routes = ", ".join(f"`{path}`" for path in row["routes"])
        rows.append(f"| `{row['name']}` | {routes} | {row['help']} |")
    return "\n".join(rows)


def settings() -> str:
    """The table of settings."""
    rows = ["| setting | default | what it does |", "|---|---|---|"]
    for name, field in Settings.model_fields.items():
        default = _show(field.get_default(call_default_factory=True))
        rows.append(f"| `{PREFIX}{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows)


def problem_codes() -> str:
    """The table of error codes."""
    rows = ["| status | `code` | meaning |", "|---|---|---|"]
    found = [(c.status, c.code, c.title) for c in _kinds(errors.ServiceError)]
    for kind, public in errors.OF_TRANSFORMS.items():
        found.append((public.status, kind.code, public.title))
    found += [(status, code, HTTPStatus(status).phrase) for status, code in HTTP_CODES.items()]
    internal = internal_problem()
    found.append((internal.status, internal.code, internal.title))
    rows += [f"| {status} | `{code}` | {title} |" for status, code, title in sorted(set(found))]
    return "\n".join(rows)


def _kinds(base: type[errors.ServiceError]) -> Iterator[type[errors.ServiceError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from _kinds(kind)


TABLES: Final = {
    "parameters": parameters,
    "requests": requests,
    "settings": settings,
    "errors": problem_codes,
}


def fill(text: str) -> str:
    """The README's text with each table in its place."""
    for name, table in TABLES.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"README.md has no place for the table of {name}")
        filled = f"{begin}\n{table()}\n{end}"
        text = pattern.sub(lambda _, filled=filled: filled, text)
    return text


def _show(value: Any) -> str:
    if value in ((), "", PydanticUndefined) or isinstance(value, SecretStr):
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


if __name__ == "__main__":
    README.write_text(fill(README.read_text()))
