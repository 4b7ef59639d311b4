"""Tags: the names by which results are purged, here and in caches before this service.

    id-products%2Fshoe.jpg     results of an original, by its id
    prefix-products%2F         of every original below a folder of ids
    url-<digest>               of an original by URL
    preset-card                of requests that named a preset

They are printable ASCII without spaces, commas, quotes or wildcards, so that they fit into every
header that lists tags, and are never longer than what the narrowest of the CDNs takes (Bunny: 128).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from app.sources import stored
from app.sources.base import Ref
from app.subjects import Kind, Subject

_LONGEST: Final = 100
"""Characters of a name in a tag; of a longer one, its digest stands there."""
_FOLDERS: Final = 6
"""Folders of an id that are tags of their own, the outermost first."""


def tag_of(ref: Ref) -> str:
    """The tag of an original."""
    if ref.kind == stored.KIND:
        return _tag("id", ref.name)
    return f"{ref.kind}-{_digest(ref.name)}"


def tag_of_subject(subject: Subject) -> str:
    """The tag of what is purged. Of prefixes, caches know the folders of ids, six levels of them.

    What lies deeper has the tag of its sixth folder, which is purged with it.
    """
    if subject.ref is not None:
        return tag_of(subject.ref)
    if subject.kind is Kind.PREFIX and (folders := list(_folders(subject.name))):
        deep = subject.name.count("/") > _FOLDERS
        return _tag(subject.kind.value, folders[-1] if deep else subject.name)
    return _tag(subject.kind.value, subject.name)


@lru_cache(maxsize=1024)
def tags_of(refs: tuple[Ref, ...], preset: str | None) -> tuple[str, ...]:
    """Every tag of a result of these originals, for a request that named a preset."""
    tags: dict[str, None] = {}
    for ref in refs:
        tags[tag_of(ref)] = None
    if preset is not None:
        tags[_tag(Kind.PRESET.value, preset)] = None
    for ref in refs:
        if ref.kind == stored.KIND:
            for folder in _folders(ref.name):
                tags[_tag(Kind.PREFIX.value, folder)] = None
    return tuple(tags)


def _folders(name: str) -> Iterable[str]:
    end = -1
    for _ in range(_FOLDERS):
        end = name.find("/", end + 1)
        if end < 0:
            return
        yield name[: end + 1]


def _tag(kind: str, name: str) -> str:
    text = quote(name, safe="")
    return f"{kind}-{text if len(text) <= _LONGEST else _digest(name)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
