"""Where results of jobs go: among the originals, into another bucket, or to a presigned URL.

A target is a template: `out/{stem}-{w}.{ext}` and `s3://bucket/{id}` take the fields of `FIELDS`.
What is written among the originals is an original like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from fnmatch import fnmatchcase
from string import Formatter
from typing import Final
from urllib.parse import urlsplit

from app.errors import InvalidRequest, TargetRefused
from app.sources import stored
from app.sources.base import Ref
from app.stores.base import check_key
from transforms.formats import FORMATS

FIELDS: Final = ("id", "stem", "w", "h", "ext", "digest", "column", "row")
_LONGEST: Final = 2048
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{1,254}")
_ENDINGS: Final[Mapping[str, str]] = {
    **{image_format.extension: name for name, image_format in FORMATS.items()},
    **{name: name for name in FORMATS},
}


class TargetKind(Enum):
    """Which way a result takes."""

    ORIGINAL = "original"
    BUCKET = "bucket"
    URL = "url"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What the fields of a template stand for: sizes in pixels, `digest` of the result's bytes."""

    ref: Ref
    width: int
    height: int
    extension: str
    digest: str
    tile: tuple[int, int] | None = None

    def as_mapping(self) -> dict[str, str]:
        """Texts by the names of `FIELDS`."""
        name = self.ref.name
        if self.ref.kind != stored.KIND:
            name = urlsplit(name).path.strip("/") or "image"
        last = name.rpartition("/")[2]
        column, row = self.tile or (0, 0)
        return {
            "id": name,
            "stem": last.rpartition(".")[0] or last,
            "w": str(self.width),
            "h": str(self.height),
            "ext": self.extension,
            "digest": self.digest[:32],
            "column": str(column),
            "row": str(row),
        }


def kind_of(template: str) -> TargetKind:
    """Which way the results of a template take."""
    if template.startswith("s3://"):
        return TargetKind.BUCKET
    if template.startswith(("https://", "http://")):
        return TargetKind.URL
    return TargetKind.ORIGINAL


def check_template(template: str, *, param: str, allowed: Sequence[str]) -> str:
    """Return a template that can be filled in, or raise InvalidRequest or TargetRefused.

    `allowed` are globs of buckets with keys (`s3://bucket/*`) and of URLs (`https://host/*`).
    """
    if not template or len(template) > _LONGEST:
        raise InvalidRequest(f"{param} must have 1 to {_LONGEST} characters", param=param)
    kind = kind_of(template)
    if kind is TargetKind.URL:
        if not any(fnmatchcase(template, glob) for glob in allowed):
            host = urlsplit(template).netloc
            raise TargetRefused(f"{param}: {host[:64]} is not among PIXELMILL_TARGETS", param=param)
        return template
    sample = fill(template, _SAMPLE, param=param)
    if kind is TargetKind.BUCKET:
        if not any(fnmatchcase(sample, glob) for glob in allowed):
            shown = template[:100]
            raise TargetRefused(f"{param}: {shown} is not among PIXELMILL_TARGETS", param=param)
        split_bucket(sample, param=param)
    else:
        check_key(sample, param=param)
    return template


def fill(template: str, fields: Fields, *, param: str = "target") -> str:
    """The place that a template names. Raises InvalidRequest where it is not one."""
    if "{" not in template and "}" not in template:
        return template
    texts = fields.as_mapping()
    filled = []
    try:
        for literal, name, spec, conversion in Formatter().parse(template):
            filled.append(literal)
            if name is None:
                continue
            if name not in texts or spec or conversion:
                named = ", ".join(f"{{{field}}}" for field in FIELDS)
                raise InvalidRequest(f"{param} takes {named}, got {{{name[:64]}}}", param=param)
            filled.append(texts[name])
    except ValueError:
        raise InvalidRequest(f"{param} has a brace without its other", param=param) from None
    return "".join(filled)


def split_bucket(place: str, *, param: str = "target") -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`. Raises InvalidRequest."""
    bucket, _, key = place.removeprefix("s3://").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise InvalidRequest(f"{param} must be s3://bucket/key", param=param)
    return bucket, check_key(key, param=param)


def format_of(template: str) -> str | None:
    """The format that the ending of a template names, if it does."""
    path = urlsplit(template).path if kind_of(template) is TargetKind.URL else template
    return _ENDINGS.get(path.rpartition("/")[2].rpartition(".")[2].lower())


_SAMPLE: Final = Fields(
    ref=Ref(stored.KIND, "folder/name.jpg"), width=1, height=1, extension="jpg", digest="0" * 64
)
