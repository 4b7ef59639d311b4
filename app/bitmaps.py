"""Bitmaps of watermarks, kept decoded: the same few are laid on very many pictures."""

from __future__ import annotations

from collections import OrderedDict

from app.sources.base import Identity
from transforms.bitmap import Bitmap

_LIMIT = 32 << 20
"""Bytes of pixels that are kept."""


class BitmapTier:
    """Bitmaps by original and version; what was used longest ago goes first."""

    def __init__(self, limit: int = _LIMIT) -> None:
        self._limit = limit
        self._size = 0
        self._bitmaps: OrderedDict[Identity, Bitmap] = OrderedDict()

    def get(self, identity: Identity) -> Bitmap | None:
        """The bitmap of this version of an original, which counts as used."""
        found = self._bitmaps.get(identity)
        if found is not None:
            self._bitmaps.move_to_end(identity)
        return found

    def put(self, identity: Identity, bitmap: Bitmap) -> None:
        """Keep a bitmap."""
        size = bitmap.memory
        if size > self._limit or identity in self._bitmaps:
            return
        self._bitmaps[identity] = bitmap
        self._size += size
        while self._size > self._limit:
            _, dropped = self._bitmaps.popitem(last=False)
            self._size -= dropped.memory
