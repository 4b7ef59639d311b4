"""The entries of a batch, read one by one into jobs: a bad one does not stop the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from app.errors import InvalidRequest, Problem, ServiceError, problem_of
from app.jobs.documents import read_document
from app.jobs.lines import LONGEST
from app.jobs.records import Draft
from app.jobs.spec import SpecReader
from app.sources import stored
from app.sources.base import Ref

T = TypeVar("T")

_SLICE: Final = 8
"""Entries that are read between two looks at what else there is to do."""


class JobsOfBatch:
    """Reads entries of one batch into jobs. `shared` is what those have that do not say."""

    def __init__(
        self, reader: SpecReader, shared: Mapping[str, Any], *, batch_id: str, now: float
    ) -> None:
        self._reader = reader
        self._shared = shared
        self._batch_id = batch_id
        self._now = now
        self._usual: Draft | None = None

    def read_line(self, data: bytes | None, line: int) -> Draft | None:
        """The job of a line of JSON, or None of an empty one. Raises as `read` does."""
        if data is None:
            raise InvalidRequest(f"The line has more than {LONGEST} bytes")
        if not data.strip():
            return None
        return self.read(read_document(data, what="The line"), line)

    def of_original(self, key: str) -> Draft:
        """The job of an original of the store, with what all have. Raises as `read` does."""
        if self._usual is None:
            self._usual = replace(self.read({"source": key}, 0), line=None)
        return replace(self._usual, source=(Ref(stored.KIND, key),))

    def read(self, entry: Any, line: int) -> Draft:
        """The job of an entry, with what all have. Raises InvalidRequest, TargetRefused."""
        if isinstance(entry, dict):
            entry = {**self._shared, **entry}
        return self._reader.read_job(
            entry, now=self._now, what="The job", batch_id=self._batch_id, line=line
        )


async def read_each(
    entries: Iterable[tuple[int, T]], read: Callable[[T, int], Draft | None]
) -> AsyncIterator[tuple[int, Draft | Problem]]:
    """The job of each numbered entry, or why it is none; nothing of an empty one.

    Lets others have their turns in between.
    """
    for count, (number, entry) in enumerate(entries, start=1):
        if not count % _SLICE:
            await asyncio.sleep(0)
        try:
            draft = read(entry, number)
        except ServiceError as error:
            problem = problem_of(error)
            assert problem is not None  # noqa: S101 - it is one of ours
            yield number, problem
            continue
        if draft is not None:
            yield number, draft
