"""The memory tier: results that are asked for often, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime

from app.sources.base import Ref
from app.subjects import Coverage
from transforms.formats import Format


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A finished result: its key, its bytes, their format, and when its original was changed.

    `others` are the originals that are in it too, merged or as watermarks. `stored_at` is when it
    was stored, by the clock of the store; None where it comes from no store. What is `reduced` was
    made under pressure: it is another than its request is for, has another key and is not kept.
    """

    key: str
    ref: Ref
    others: tuple[Ref, ...] = ()
    data: bytes
    format: Format
    modified: datetime | None
    stored_at: datetime | None = None
    reduced: bool = False

    @property
    def refs(self) -> tuple[Ref, ...]:
        """Every original that is in it."""
        return (self.ref, *self.others)


class MemoryTier:
    """Results by key; what was used longest ago goes first.

    One that has expired is kept for when it cannot be made anew.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self.hits = 0
        """How often a result was asked for that is here."""
        self.misses = 0
        self._results: OrderedDict[str, Rendered] = OrderedDict()
        self._keys_of: dict[Ref, set[str]] = {}
        self._presets: dict[str, set[str]] = {}
        """By key, the presets through which it was asked for."""
        self._expired: set[str] = set()

    @property
    def size(self) -> int:
        """Bytes held."""
        return self._size

    def __len__(self) -> int:
        return len(self._results)

    def __contains__(self, key: str) -> bool:
        return key in self._results

    def get(self, key: str) -> Rendered | None:
        """The result of a key, which counts as used. None where it has expired."""
        found = self._results.get(key)
        if found is None or key in self._expired:
            self.misses += 1
            return None
        self.hits += 1
        self._results.move_to_end(key)
        return found

    def get_expired(self, key: str) -> Rendered | None:
        """The result of a key, though it has expired."""
        return self._results.get(key)

    def put(self, rendered: Rendered) -> None:
        """Keep a result, unless it would take more than a quarter of the tier by itself."""
        if len(rendered.data) * 4 > self._limit:
            return
        presets = self._presets.get(rendered.key)
        self._drop(rendered.key)
        self._results[rendered.key] = rendered
        if presets:
            self._presets[rendered.key] = presets
        for ref in set(rendered.refs):
            self._keys_of.setdefault(ref, set()).add(rendered.key)
        self._size += len(rendered.data)
        while self._size > self._limit:
            self._drop(next(iter(self._results)))

    def clear(self) -> None:
        """Forget everything."""
        for key in list(self._results):
            self._drop(key)

    def label(self, key: str, preset: str) -> None:
        """Take note that a result that is kept was asked for through a preset."""
        if key in self._results:
            self._presets.setdefault(key, set()).add(preset)

    def purge(self, coverage: Coverage) -> int:
        """Forget every result that this is about. Returns how many there were."""
        keys = self._find(coverage)
        for key in keys:
            self._drop(key)
        return len(keys)

    def expire(self, coverage: Coverage) -> int:
        """Let every result expire that this is about. Returns how many there are."""
        keys = self._find(coverage)
        self._expired |= keys
        return len(keys)

    def _find(self, coverage: Coverage) -> set[str]:
        found = {key for ref in coverage.among(self._keys_of) for key in self._keys_of[ref]}
        for preset in coverage.presets:
            found |= {key for key, presets in self._presets.items() if preset in presets}
        return found

    def _drop(self, key: str) -> None:
        dropped = self._results.pop(key, None)
        if dropped is None:
            return
        self._presets.pop(key, None)
        self._expired.discard(key)
        self._size -= len(dropped.data)
        for ref in set(dropped.refs):
            keys = self._keys_of[ref]
            keys.discard(key)
            if not keys:
                del self._keys_of[ref]
