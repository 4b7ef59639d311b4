"""Whether the outputs of an original are there already, without making them.

A result among the stored ones is found by its key. One with a target is found where its template
leads, if that can be known beforehand: `{w}`, `{h}` and `{digest}` are known only of a result, and
`{ext}` only where the output names its format. An output that is older than its original counts as
missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from string import Formatter
from typing import Final

from app.errors import InvalidRequest, OriginalMissing
from app.jobs import targets
from app.jobs.records import Output
from app.jobs.spec import settled
from app.jobs.targets import Fields, TargetKind
from app.render import Renderer
from app.settings import Settings
from app.sources import stored
from app.sources.base import Ref
from app.stores.base import ObjectStore, Stat, is_key
from transforms.formats import FORMATS

_AT_ONCE: Final = 16
"""Originals that are asked about at once."""
_OF_RESULTS: Final = ("w", "h", "digest")


def check_askable(output: Output) -> None:
    """Raise InvalidRequest where it cannot be known beforehand where an output goes."""
    if output.target is None:
        return
    if targets.kind_of(output.target) is TargetKind.URL:
        raise InvalidRequest(
            "select.missing_only: a URL cannot be asked what is there", param="select.missing_only"
        )
    for _, name, _, _ in Formatter().parse(output.target):
        if name in _OF_RESULTS or (name == "ext" and output.fm not in FORMATS):
            hint = "name a format with fm" if name == "ext" else "leave it out"
            raise InvalidRequest(
                f"select.missing_only: {{{name}}} in a target is known only of a result: {hint}",
                param="select.missing_only",
            )


class Missing:
    """Asks the stores. `open_bucket` gives the store of a bucket, which stays the caller's."""

    def __init__(
        self,
        *,
        originals: ObjectStore,
        renderer: Renderer,
        bucket_of: Callable[[str], ObjectStore],
        settings: Settings,
    ) -> None:
        self._originals = originals
        self._renderer = renderer
        self._bucket_of = bucket_of
        self._settings = settings

    async def find(self, stats: Sequence[Stat], outputs: Sequence[Output]) -> set[str]:
        """The keys of those originals of which an output is missing.

        Raises what the stores do. An original that has gone meanwhile has nothing missing.
        """
        gate = asyncio.Semaphore(_AT_ONCE)
        missing: set[str] = set()

        async def look(stat: Stat) -> None:
            async with gate:
                for output in outputs:
                    if not await self._has(stat, output):
                        missing.add(stat.key)
                        return

        looking = [asyncio.create_task(look(stat)) for stat in stats]
        try:
            await asyncio.gather(*looking)
        finally:
            for task in looking:
                task.cancel()
        return missing

    async def _has(self, stat: Stat, output: Output) -> bool:
        ref = Ref(stored.KIND, stat.key)
        try:
            if output.target is None:
                keyed = await self._renderer.identify(ref, settled(output, self._settings))
                return await self._renderer.is_kept(keyed)
        except OriginalMissing:
            return True
        image_format = FORMATS.get(output.fm)
        place = targets.fill(
            output.target,
            Fields(
                ref=ref,
                width=0,
                height=0,
                extension=image_format.extension if image_format else "",
                digest="",
                tile=output.tile,
            ),
        )
        store, key = self._originals, place
        if targets.kind_of(place) is TargetKind.BUCKET:
            bucket, key = targets.split_bucket(place)
            store = self._bucket_of(bucket)
        if not is_key(key):
            return False  # its job says so
        try:
            found = await store.stat(key)
        except OriginalMissing:
            return False
        if found.modified is None or stat.modified is None:
            return True
        return found.modified >= stat.modified
