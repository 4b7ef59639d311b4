"""The memory tier: results that are asked for often, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime

from app.sources.base import Ref
from transforms.formats import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A finished result: its key, its bytes, their format, and when its original was changed.

    `others` are the originals that are in it too, merged or as watermarks.
    """

    key: str
    ref: Ref
    others: tuple[Ref, ...] = ()
    data: bytes
    format: Format
    modified: datetime | None


class MemoryTier:
    """Results by key; what was used longest ago goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self.hits = 0
        """How often a result was asked for that is here."""
        self.misses = 0
        self._results: OrderedDict[str, Rendered] = OrderedDict()
        self._keys_of: dict[Ref, set[str]] = {}

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    def __len__(self) -> int:
        return len(self._results)

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def get(self, key: str) -> Rendered | None:
        """The result of a key, which counts as used."""
        found = self._results.get(key)
        if found is None:
            self.misses += 1
            return None
        self.hits += 1
        self._results.move_to_end(key)
        return found

    def put(self, rendered: Rendered) -> None:
        """Keep a result, unless it would take more than a quarter of the tier by itself."""
        if len(rendered.data) * 4 > self._limit:
            return
        self._drop(rendered.key)
        self._results[rendered.key] = rendered
        for ref in {rendered.ref, *rendered.others}:
            self._keys_of.setdefault(ref, set()).add(rendered.key)
        self._size += len(rendered.data)
        while self._size > self._limit:
            self._drop(next(iter(self._results)))

    def purge(self, ref: Ref) -> int:
        """Forget every result that an original is in. Returns how many there were."""
        keys = list(self._keys_of.get(ref, ()))
        for key in keys:
            self._drop(key)
        return len(keys)

    def _drop(self, key: str) -> None:
        dropped = self._results.pop(key, None)
        if dropped is None:
            return
        self._size -= len(dropped.data)
        for ref in {dropped.ref, *dropped.others}:
            keys = self._keys_of[ref]
            keys.discard(key)
            if not keys:
                del self._keys_of[ref]
