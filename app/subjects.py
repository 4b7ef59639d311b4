"""What can be purged: an original by its id or URL, ids that begin with a text, or a preset."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from app.sources import stored, web
from app.sources.base import Ref


class Kind(StrEnum):
    """What a purge names."""

    ID = stored.KIND
    URL = web.KIND
    PREFIX = "prefix"
    PRESET = "preset"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is purged."""

    kind: Kind
    name: str

    @property
    def ref(self) -> Ref | None:
        """The original, where it is about one."""
        return Ref(self.kind.value, self.name) if self.kind in (Kind.ID, Kind.URL) else None

    def covers(self, refs: Collection[Ref]) -> bool:
        """Whether it is about one of these originals."""
        if self.kind is Kind.PREFIX:
            return any(r.kind == stored.KIND and r.name.startswith(self.name) for r in refs)
        return self.ref in refs


@dataclass(frozen=True, slots=True)
class Purge:
    """One purge. After a soft one, results are used until they have been made anew.

    It is `lasting` where results may be left in the store that are not to be used, or are stale.
    """

    subject: Subject
    soft: bool
    lasting: bool = field(default=True, compare=False)


def purge_of(ref: Ref) -> Purge:
    """The purge of an original that is another now, or none: its old results have other keys."""
    return Purge(Subject(Kind(ref.kind), ref.name), soft=False, lasting=False)


@dataclass(frozen=True, slots=True)
class Coverage:
    """All that several purges are about."""

    refs: frozenset[Ref]
    prefixes: tuple[str, ...]
    presets: frozenset[str]

    @classmethod
    def of(cls, purges: Iterable[Purge]) -> Coverage:
        """What these are about."""
        subjects = [purge.subject for purge in purges]
        return cls(
            frozenset(subject.ref for subject in subjects if subject.ref is not None),
            tuple(subject.name for subject in subjects if subject.kind is Kind.PREFIX),
            frozenset(subject.name for subject in subjects if subject.kind is Kind.PRESET),
        )

    def __contains__(self, ref: Ref) -> bool:
        return ref in self.refs or (ref.kind == stored.KIND and ref.name.startswith(self.prefixes))

    def among(self, refs: Collection[Ref]) -> Iterator[Ref]:
        """Those of these originals that it is about: where it names each, without a search."""
        if self.prefixes:
            return (ref for ref in list(refs) if ref in self)
        return (ref for ref in self.refs if ref in refs)
