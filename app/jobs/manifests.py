"""Manifests: lists of originals in the store, as CSV with a header or as lines of JSON.

A row of CSV is `source` (or `id`, or `url`), perhaps `target`, and parameters of a transform.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from app.errors import InvalidRequest
from app.jobs.lines import Line, LineReader
from app.jobs.spec import as_text
from app.presets import PARAMETER
from transforms.options import BY_SPELLING

_SOURCES: Final = ("source", "id", "url")
_MOST_COLUMNS: Final = 100


def is_csv(key: str) -> bool:
    """Whether a manifest is CSV, by the ending of its key; else it is lines of JSON.

    Raises InvalidRequest for another ending.
    """
    ending = key.rpartition(".")[2].lower()
    if ending not in ("csv", "ndjson", "jsonl"):
        raise InvalidRequest("manifest must end in .csv, .ndjson or .jsonl", param="manifest")
    return ending == "csv"


def csv_lines(*, number: int = 0, offset: int = 0) -> LineReader:
    """Cuts CSV into records: within quotes, a line's end is part of a value (RFC 4180)."""
    return LineReader(goes_on=_leaves_open, number=number, offset=offset)


def read_record(line: Line) -> list[str]:
    """The values of a record. Raises InvalidRequest."""
    if line.data is None:
        raise InvalidRequest("The row is too long")
    try:
        text = line.data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest("The row is not UTF-8") from None
    if "\0" in text:
        raise InvalidRequest("The row has a NUL in it")
    try:
        return next(csv.reader([text]), [])
    except csv.Error as error:
        raise InvalidRequest(f"The row is not CSV: {error}") from None


@dataclass(frozen=True, slots=True)
class Header:
    """What the columns of a manifest are."""

    names: tuple[str, ...]

    @classmethod
    def read(cls, line: Line) -> Header:
        """The header of a manifest's first record. Raises InvalidRequest."""
        names = tuple(name.strip() for name in read_record(line))
        if len(names) > _MOST_COLUMNS:
            raise InvalidRequest(
                f"manifest: at most {_MOST_COLUMNS} columns, got {len(names)}", param="manifest"
            )
        for name in names:
            if name not in (*_SOURCES, "target", PARAMETER) and name not in BY_SPELLING:
                raise InvalidRequest(
                    f"manifest: a column is source, target or a parameter, got {name[:64]!r}",
                    param="manifest",
                )
        known = [_meaning(name) for name in names]
        if known.count("source") != 1:
            raise InvalidRequest("manifest: one column must be source, id or url", param="manifest")
        if twice := next((name for name in known if known.count(name) > 1), None):
            raise InvalidRequest(f"manifest: two columns are {twice}", param="manifest")
        return cls(names)

    def read_row(self, line: Line) -> Row | None:
        """A row, or None where the line is empty. Raises InvalidRequest."""
        values = read_record(line)
        if not any(values):
            return None
        if len(values) > len(self.names):
            raise InvalidRequest(
                f"The row has {len(values)} values, and the header {len(self.names)} columns"
            )
        # An empty value is none: the parameter keeps its default.
        given = {_meaning(name): value for name, value in zip(self.names, values, strict=False)}
        source = given.pop("source", "")
        target = given.pop("target", "") or None
        return Row(source, target, tuple((n, v) for n, v in given.items() if v))


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a manifest: an original, where its result goes, and parameters."""

    source: str
    target: str | None
    parameters: tuple[tuple[str, str], ...]

    def as_body(self, outputs: Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
        """The job of a row: its own output, or those given, varied by its parameters.

        The row's target is that of the outputs that have none.
        """
        varied = [self._vary(output) for output in outputs or [{}]]
        return {"source": self.source, "outputs": varied}

    def _vary(self, output: Mapping[str, Any]) -> dict[str, Any]:
        own = {name for name, _ in self.parameters}
        kept = [pair for pair in _pairs_of(output) if _meaning(pair[0]) not in own]
        varied = {**output, "transform": urlencode([*kept, *self.parameters])}
        if PARAMETER in own:
            varied.pop("preset", None)
        if self.target is not None:
            varied.setdefault("target", self.target)
        return varied


def _pairs_of(output: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    transform = output.get("transform", "")
    if isinstance(transform, str):
        yield from parse_qsl(transform, keep_blank_values=True)
    else:
        for name, value in transform.items():
            if value is not None:
                yield name, as_text(value)


def _meaning(name: str) -> str:
    """A column by the one name that what it means has."""
    if name in _SOURCES:
        return "source"
    return BY_SPELLING[name].name if name in BY_SPELLING else name


def _leaves_open(line: bytes, within: bool) -> bool:  # noqa: FBT001 - a state that is carried on
    """Whether a quoted value goes on after a line, as the `csv` module reads it."""
    if b'"' not in line:
        return within
    at = 0
    while True:
        if not within:
            if line[at : at + 1] != b'"':
                # Quotes in the midst of an unquoted value are part of it.
                at = line.find(b",", at) + 1
                if not at:
                    return False
                continue
            at += 1
        while True:
            at = line.find(b'"', at) + 1
            if not at:
                return True
            if line[at : at + 1] != b'"':
                break
            at += 1  # a quote, written twice
        within = False
        at = line.find(b",", at) + 1
        if not at:
            return False
