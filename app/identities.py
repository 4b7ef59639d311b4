"""Identities in the store of results: what was known of originals, for processes that come later.

Whoever meets a URL for the first time would have to download it to know its version. With what
another replica knew, the origin is asked for changes only; and where it does not answer at all,
there are results to fall back upon.
"""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Collection, Coroutine
from contextlib import suppress
from datetime import datetime
from typing import Any, Final

import structlog

from app.errors import OriginalMissing, ServiceError
from app.results import prefix_of
from app.sources.base import Identity, Ref
from app.stores.base import ObjectStore
from app.subjects import Coverage

log = structlog.get_logger(__name__)

_NAME: Final = "original.json"
_KNOWN: Final = 20_000
_TIMEOUT: Final = 2.0
_AT_ONCE: Final = 64
"""Identities that may wait to be written; what comes beyond is left to the next who asks."""
_CLOSE_TIMEOUT: Final = 5.0


class Identities:
    """What is known of originals of these kinds of sources, beside their results."""

    def __init__(self, store: ObjectStore, *, kinds: Collection[str]) -> None:
        self._store = store
        self._kinds = kinds
        self._written: OrderedDict[Ref, str] = OrderedDict()
        self._writing: set[asyncio.Task[None]] = set()

    async def recall(self, ref: Ref) -> Identity | None:
        """What was known last, or None. Never raises, never waits long."""
        if ref.kind not in self._kinds:
            return None
        try:
            async with (
                asyncio.timeout(_TIMEOUT),
                self._store.read(_key(ref)) as reading,
            ):
                data = b"".join([chunk async for chunk in reading.chunks])
            found = _read(ref, data)
        except OriginalMissing:
            return None
        except (ServiceError, TimeoutError, ValueError, KeyError, TypeError) as error:
            log.warning("identity_unreadable", error=f"{type(error).__name__}: {error}")
            return None
        self._note(ref, found.version)
        return found

    def remember(self, identity: Identity) -> None:
        """Write down what is known now, in the background, where it is new."""
        ref = identity.ref
        if ref.kind not in self._kinds or self._written.get(ref) == identity.version:
            return
        if len(self._writing) >= _AT_ONCE:
            return
        self._note(ref, identity.version)
        self._begin(self._write(identity))

    def forget_all(self, coverage: Coverage) -> None:
        """Write these again the next time: what is stored of them is being removed."""
        for ref in list(coverage.among(self._written)):
            del self._written[ref]

    def erase(self, ref: Ref) -> None:
        """Remove what is known, in the background: the original is no more."""
        self._written.pop(ref, None)
        if ref.kind in self._kinds and len(self._writing) < _AT_ONCE:
            self._begin(self._remove(ref))

    async def close(self) -> None:
        """Finish writing, within a bound."""
        if self._writing:
            await asyncio.wait(self._writing, timeout=_CLOSE_TIMEOUT)

    async def _write(self, identity: Identity) -> None:
        try:
            await self._store.write(
                _key(identity.ref), _show(identity), content_type="application/json"
            )
        except ServiceError:
            self._written.pop(identity.ref, None)  # it is written when it is next asked for

    async def _remove(self, ref: Ref) -> None:
        with suppress(ServiceError):
            await self._store.delete(_key(ref))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def _note(self, ref: Ref, version: str) -> None:
        self._written[ref] = version
        self._written.move_to_end(ref)
        while len(self._written) > _KNOWN:
            self._written.popitem(last=False)


def _key(ref: Ref) -> str:
    return f"{prefix_of(ref)}/{_NAME}"


def _show(identity: Identity) -> bytes:
    modified = identity.modified
    return json.dumps(
        {
            "version": identity.version,
            "size": identity.size,
            "modified": modified.isoformat() if modified else None,
            "validators": identity.validators,
            "validators_of": identity.validators_of,
        }
    ).encode()


def _read(ref: Ref, data: bytes) -> Identity:
    told: dict[str, Any] = json.loads(data)
    return Identity(
        ref=ref,
        version=str(told["version"]),
        size=int(told["size"]),
        modified=datetime.fromisoformat(told["modified"]) if told["modified"] else None,
        validators=tuple((str(name), str(value)) for name, value in told["validators"]),
        validators_of=str(told["validators_of"]),
    )
