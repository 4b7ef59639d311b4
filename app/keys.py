"""Keys: what a request comes to once its originals are known, and the name of its result.

Equal requests have equal keys: the strong ETag, and the name in every tier.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from app.sources.base import Identity, Ref
from transforms import pipeline
from transforms.inspect import Header
from transforms.transform import Transform

UPLOAD: Final = "upload"
"""The kind of an original that comes with the request itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyed:
    """A request whose originals have been identified: steps 1 and 2 are done.

    `others` are those merged with the first and `marks` its watermarks, in the transform's order.
    `preset` is the one that the request named, if it did.
    """

    identity: Identity
    transform: Transform
    key: str
    others: tuple[Identity, ...] = ()
    marks: tuple[Identity, ...] = ()
    preset: str | None = None

    @property
    def identities(self) -> tuple[Identity, ...]:
        """Every original that is in the result, the first of them first."""
        return (self.identity, *self.others, *self.marks)

    @property
    def refs(self) -> tuple[Ref, ...]:
        """The same, by reference."""
        return tuple(identity.ref for identity in self.identities)

    @property
    def doubtful(self) -> bool:
        """Whether this is what an original was known to be last: it may be another by now."""
        return any(identity.doubt is not None for identity in self.identities)

    @property
    def fm(self) -> str:
        """The output that the transform was settled on."""
        return self.transform.fm or "auto"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """The originals of a request, the first of them and those merged with it.

    The header is the first's, as its first page has it.
    """

    keyed: Keyed
    data: bytes
    others: Sequence[bytes]
    header: Header


def key_of(transform: Transform, *identities: Identity) -> str:
    """The key of a result: what it is made of, and by which engine. 128 bits, hexadecimal."""
    parts = [_canonical(transform), pipeline.EPOCH]
    for identity in identities:
        parts += [identity.ref.kind, identity.ref.name, identity.version]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


@lru_cache(maxsize=256)
def _canonical(transform: Transform) -> str:
    """Equal requests for many originals are printed once."""
    return transform.canonical
