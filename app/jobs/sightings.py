"""What each rule has seen of each original, so that it acts once on one version of it.

Of two messages about one original the later is told by its sequencer; where there is none, another
version than the last is news. What was seen is forgotten after `KEPT` seconds without a new look.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa

from app.jobs.database import Connection, insert_once
from app.jobs.schema import seen

KEPT: Final = 30 * 86_400.0
_DAY: Final = 86_400.0
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """An original as it was seen: `version` is None where it had been removed."""

    version: str | None
    sequencer: str | None = None

    def follows(self, last: Sighting | None) -> bool:
        """Whether this tells something new after the last."""
        if last is None:
            return True
        if self.sequencer is not None and last.sequencer is not None:
            if (mine := int(self.sequencer, 16)) < (other := int(last.sequencer, 16)):
                return False
            if mine == other and last.version is None:
                return False
        return self.version != last.version

    def after(self, last: Sighting | None) -> Sighting:
        """This, with the sequencer of the last where it has none of its own."""
        if self.sequencer is not None or last is None:
            return self
        return Sighting(version=self.version, sequencer=last.sequencer)


def find(tx: Connection, digests: Sequence[str]) -> dict[str, Sighting]:
    """What was seen last of originals, by their digests."""
    found: dict[str, Sighting] = {}
    for start in range(0, len(digests), _CHUNK):
        chunk = digests[start : start + _CHUNK]
        rows = tx.execute(sa.select(seen.c.key, seen.c.value).where(seen.c.key.in_(chunk)))
        found |= {row.key: _sighting(row.value) for row in rows}
    return found


def renew(tx: Connection, digests: Sequence[str], *, now: float) -> None:
    """Keep what is known of originals that are still there: once a day is written down."""
    for start in range(0, len(digests), _CHUNK):
        old = seen.c.key.in_(digests[start : start + _CHUNK]) & (seen.c.until < now + KEPT - _DAY)
        tx.execute(seen.update().where(old).values(until=now + KEPT))


def note(tx: Connection, digest: str, sighting: Sighting, *, now: float) -> bool:
    """Note what was seen. Whether it is news: once for all who see the same at the same time."""
    fresh: dict[str, Any] = {"value": _packed(sighting), "until": now + KEPT}
    if insert_once(tx, seen, key=digest, **fresh):
        return True
    row = tx.execute(sa.select(seen).where(seen.c.key == digest).with_for_update()).one_or_none()
    if row is None:  # it has just been swept
        return note(tx, digest, sighting, now=now)
    last = _sighting(row.value)
    if not sighting.follows(last):
        return False
    fresh["value"] = _packed(sighting.after(last))
    tx.execute(seen.update().where(seen.c.key == digest).values(**fresh))
    return True


def digest_of(rule: str, since: float, key: str) -> str:
    """The digest of an original, as seen by a rule that is as it is since then."""
    return hashlib.sha256(f"rule\n{rule}\n{since!r}\n{key}".encode()).hexdigest()


def _packed(sighting: Sighting) -> str:
    return json.dumps([sighting.version, sighting.sequencer])


def _sighting(value: str | None) -> Sighting:
    version, sequencer = json.loads(value) if value else (None, None)
    return Sighting(version=version, sequencer=sequencer)
