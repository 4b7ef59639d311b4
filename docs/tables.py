"""Writes the generated tables of the documents: `make docs`. A test holds them against the code."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector
from pydantic import SecretStr
from pydantic_core import PydanticUndefined

from app import errors
from app.settings import PREFIX, Settings
from app.telemetry import Metrics
from routers.openapi import request_rows
from routers.problems import HTTP_CODES, internal_problem
from transforms.options import OPTIONS

README: Final = Path(__file__).resolve().parents[1] / "README.md"
OPERATIONS: Final = Path(__file__).with_name("operations.md")


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


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A metric under the name that it is exposed with."""

    name: str
    kind: str
    labels: tuple[str, ...]
    text: str


def metric_rows() -> list[MetricRow]:
    """Every metric of the service's own, by name."""
    rows = []
    registry = Metrics().registry
    collectors: list[Collector] = list(registry._collector_to_names)  # noqa: SLF001 - it tells no labels
    for collector in collectors:
        labelled = isinstance(collector, MetricWrapperBase)
        labels = tuple(collector._labelnames) if labelled else ()  # noqa: SLF001
        for family in collector.collect():
            name = family.name + ("_total" if family.type == "counter" else "")
            if name.startswith("pixelmill_"):
                rows.append(MetricRow(name, family.type, labels, family.documentation))
    return sorted(rows, key=lambda row: row.name)


def metrics() -> str:
    """The table of metrics."""
    rows = ["| metric | type | labels | what it tells |", "|---|---|---|---|"]
    for row in metric_rows():
        labels = ", ".join(f"`{label}`" for label in row.labels)
        rows.append(f"| `{row.name}` | {row.kind} | {labels} | {row.text} |")
    return "\n".join(rows)


TABLES: Final = {
    "parameters": parameters,
    "requests": requests,
    "settings": settings,
    "errors": problem_codes,
}
TABLES_OF_OPERATIONS: Final = {"metrics": metrics}


def fill(text: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """A document's text with each table in its place."""
    for name, table in tables.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"there is no place for the table of {name}")
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
    OPERATIONS.write_text(fill(OPERATIONS.read_text(), TABLES_OF_OPERATIONS))
