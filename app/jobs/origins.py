"""Where the jobs of a batch come from that were not sent with it: a manifest, or a selection.

Both are read page by page. A page says where the next one begins, so that whoever has written the
jobs of one down together with that place goes on from there, whatever happens in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from app.errors import InvalidRequest, OriginalChanged, OriginalMissing, Problem
from app.jobs.batch_spec import Manifest, Plan, Selection
from app.jobs.database import Database
from app.jobs.entries import JobsOfBatch, read_each
from app.jobs.lines import Line, LineReader
from app.jobs.manifests import Header, csv_lines, is_csv
from app.jobs.missing import Missing
from app.jobs.records import Draft, Output, shown_problem
from app.jobs.writers import own_among
from app.stores.base import ObjectStore, Stat

_OBJECTS: Final = 500
_ROWS: Final = 1000
_WINDOW: Final = 128 * 1024
"""Bytes of a manifest that are read at a time: more than a line has."""


@dataclass(slots=True)
class Page:
    """Jobs, and where the next page begins: None behind the last.

    `sizes` are the bytes of their originals where the listing has told them. `skipped` are those
    that have all their outputs, and `rejections` entries that are no jobs, with why.
    """

    drafts: list[Draft] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    rejections: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0
    cursor: str | None = None


class Origins:
    """Reads manifests and selections in the store of originals."""

    def __init__(self, *, originals: ObjectStore, database: Database, missing: Missing) -> None:
        self._originals = originals
        self._database = database
        self._missing = missing

    async def look_at(self, manifest: Manifest) -> Manifest:
        """The manifest with its version. Raises InvalidRequest, and what the store does."""
        try:
            stat = await self._originals.stat(manifest.key)
        except OriginalMissing:
            raise InvalidRequest(
                f"manifest: there is no {manifest.key!r}", param="manifest"
            ) from None
        manifest = replace(manifest, version=stat.version)
        if is_csv(manifest.key):
            await self._read_header(manifest, csv_lines())
        return manifest

    async def read_page(
        self, plan: Plan, read: JobsOfBatch, *, cursor: str | None, since: float
    ) -> Page:
        """The page that begins at a cursor. What jobs have written is no original.

        `since` is when the batch began. Raises what the store does.
        """
        if isinstance(plan.origin, Selection):
            return await self._select(plan.origin, read, cursor=cursor, since=since)
        assert plan.origin is not None  # noqa: S101 - the caller has looked
        if is_csv(plan.origin.key):
            return await self._read_csv(plan.origin, plan, read, cursor=cursor)
        return await self._read_ndjson(plan.origin, read, cursor=cursor)

    async def _select(
        self, selection: Selection, read: JobsOfBatch, *, cursor: str | None, since: float
    ) -> Page:
        after = "" if cursor is None else json.loads(cursor)["after"]
        listed = await self._originals.list_page(selection.prefix, after=after, limit=_OBJECTS)
        page = Page()
        if len(listed) == _OBJECTS:
            page.cursor = json.dumps({"after": listed[-1].key})
        wanted = [stat for stat in listed if _is_selected(stat, selection)]
        # Whatever jobs write is noted before it is there: what is not noted by now is no result.
        begin = since if selection.results else 0.0
        now = time.time()
        own = await self._database.read(lambda tx: own_among(tx, wanted, since=begin, now=now))
        wanted = [stat for stat in wanted if stat.key not in own]
        if selection.missing_only and wanted:
            wanted, page.skipped = await self._only_missing(wanted, read)
        page.drafts = [read.of_original(stat.key) for stat in wanted]
        page.sizes = [stat.size for stat in wanted]
        return page

    async def _only_missing(
        self, stats: Sequence[Stat], read: JobsOfBatch
    ) -> tuple[list[Stat], int]:
        outputs = json.loads(read.of_original(stats[0].key).outputs)
        missing = await self._missing.find(stats, [Output.from_json(one) for one in outputs])
        return [stat for stat in stats if stat.key in missing], len(stats) - len(missing)

    async def _read_ndjson(
        self, manifest: Manifest, read: JobsOfBatch, *, cursor: str | None
    ) -> Page:
        place = {"offset": 0, "number": 0} if cursor is None else json.loads(cursor)
        reader = LineReader(offset=place["offset"], number=place["number"])
        lines, ended = await self._read_lines(manifest, reader, place["offset"])
        page = await _read_all(lines, lambda line: read.read_line(line.data, line.number))
        if not ended:
            page.cursor = json.dumps({"offset": lines[-1].stop, "number": lines[-1].last})
        return page

    async def _read_csv(
        self, manifest: Manifest, plan: Plan, read: JobsOfBatch, *, cursor: str | None
    ) -> Page:
        if cursor is None:
            first, header = await self._read_header(manifest, csv_lines())
            place = {"offset": first.stop, "number": first.last}
        else:
            place = json.loads(cursor)
            header = Header(tuple(place["header"]))

        def read_row(line: Line) -> Draft | None:
            row = header.read_row(line)
            return None if row is None else read.read(row.as_body(plan.outputs), line.number)

        reader = csv_lines(offset=place["offset"], number=place["number"])
        lines, ended = await self._read_lines(manifest, reader, place["offset"])
        page = await _read_all(lines, read_row)
        if not ended:
            last = lines[-1]
            page.cursor = json.dumps(
                {"offset": last.stop, "number": last.last, "header": header.names}
            )
        return page

    async def _read_header(self, manifest: Manifest, reader: LineReader) -> tuple[Line, Header]:
        lines, _ = await self._read_lines(manifest, reader, 0)
        if not lines:
            raise InvalidRequest("manifest: it is empty", param="manifest")
        return lines[0], Header.read(lines[0])

    async def _read_lines(
        self, manifest: Manifest, reader: LineReader, offset: int
    ) -> tuple[list[Line], bool]:
        """The next lines, at least one where there is any, and whether they are the last."""
        lines: list[Line] = []
        while True:
            data = await self._read_window(manifest, offset)
            offset += len(data)
            lines += reader.feed(data)
            ended = len(data) < _WINDOW
            if ended:
                lines += reader.end()
            if lines or ended:
                return lines[:_ROWS], ended and len(lines) <= _ROWS

    async def _read_window(self, manifest: Manifest, offset: int) -> bytes:
        try:
            async with self._originals.read(
                manifest.key, version=manifest.version, start=offset, stop=offset + _WINDOW
            ) as reading:
                return b"".join([chunk async for chunk in reading.chunks])
        except (OriginalChanged, OriginalMissing):
            raise InvalidRequest(
                f"manifest: {manifest.key!r} was replaced or deleted before it was read to its end",
                param="manifest",
            ) from None


async def _read_all(lines: Sequence[Line], read: Callable[[Line], Draft | None]) -> Page:
    page = Page()
    numbered = ((line.number, line) for line in lines)
    async for number, found in read_each(numbered, lambda line, _: read(line)):
        if isinstance(found, Problem):
            page.rejections.append({"line": number, "problem": shown_problem(found)})
        else:
            page.drafts.append(found)
    return page


def _is_selected(stat: Stat, selection: Selection) -> bool:
    if not stat.key.endswith(selection.suffix):
        return False
    since = selection.modified_since
    return since is None or stat.modified is None or stat.modified.timestamp() >= since
