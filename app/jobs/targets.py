"""Where results of jobs go: among the originals, into another bucket, or to a presigned URL.

A target is a template: `out/{stem}-{w}.{ext}` and `s3://bucket/{id}` take the fields of `FIELDS`.
What is written among the originals is an original like any other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from string import Formatter
from typing import Final
from urllib.parse import unquote, urlsplit

from app.errors import InvalidRequest, TargetRefused
from app.jobs.records import shown_target
from app.sources import stored
from app.sources.base import Ref
from app.stores.base import check_key
from transforms.formats import FORMATS

FIELDS: Final = ("id", "stem", "w", "h", "ext", "digest", "column", "row")
_OF_ORIGINAL: Final = ("id", "stem", "digest")
"""Fields that differ from one original to the next."""
_LONGEST: Final = 2048
_LONGEST_URL: Final = 4096
"""Presigned URLs hold a session's token."""
_PORT: Final = re.compile(r":[0-9*?]+$")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9._-]{2,254}")
_ENDING: Final = re.compile(r"\.([a-z][a-z0-9]{0,4})$", re.ASCII)
FORMAT_OF_ENDING: Final[Mapping[str, str]] = {
    ending: name
    for name, image_format in FORMATS.items()
    for ending in (image_format.extension, name)
}
"""The names of formats by the endings of files, without the dot."""


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


def check_template(
    template: str, *, param: str, allowed: Sequence[str], originals: str = ""
) -> str:
    """Return a template that can be filled in, or raise InvalidRequest or TargetRefused.

    `allowed` are globs of buckets with keys (`s3://bucket/*`) and of URLs (`https://host/*`).
    Whether the place that a template comes to is among them, `check_place` tells, and
    `check_apart` whether that is within the store of `originals`.
    """
    check_apart(template, param=param, originals=originals)
    kind = kind_of(template)
    longest = _LONGEST_URL if kind is TargetKind.URL else _LONGEST
    if not template or len(template) > longest:
        raise InvalidRequest(f"{param} must have 1 to {longest} characters", param=param)
    if kind is TargetKind.URL:
        return check_place(template, param=param, allowed=allowed)
    sample = fill(template, _SAMPLE, param=param)
    if kind is TargetKind.BUCKET:
        bucket, _ = split_bucket(sample, param=param)
        literal = template.partition("{")[0].removeprefix("s3://")
        if not literal.startswith(f"{bucket}/"):
            raise InvalidRequest(f"{param}: a bucket takes no fields", param=param)
        if not any(_may_come_to(glob, bucket, template) for glob in _globs(allowed, "s3")):
            raise _refused(template, param=param)
    else:
        check_key(sample, param=param)
    return template


def check_place(place: str, *, param: str = "target", allowed: Sequence[str]) -> str:
    """Return a place that may be written to, or raise InvalidRequest or TargetRefused."""
    match kind_of(place):
        case TargetKind.ORIGINAL:
            return check_key(place, param=param)
        case TargetKind.BUCKET:
            bucket, key = split_bucket(place, param=param)
            allows = any(glob.allows(bucket, key) for glob in _globs(allowed, "s3"))
        case TargetKind.URL:
            scheme, host, path = _split_url(place, param=param)
            allows = any(glob.allows(host, path) for glob in _globs(allowed, scheme))
    if not allows:
        raise _refused(place, param=param)
    return place


def check_apart(place: str, *, param: str = "target", originals: str) -> str:
    """Return a place that does not name the store of originals as a bucket, or raise TargetRefused.

    `originals` is the setting, `s3://bucket/prefix`. What is written there by its bucket is not
    known to be a result of a job, and would set off rules, polls and selections as originals do.
    """
    inside = originals.rstrip("/") + "/"
    if kind_of(originals) is TargetKind.BUCKET and place.startswith(inside):
        raise TargetRefused(
            f"{param}: {place[:100]} is within the store of originals: give the key alone, without "
            "s3:// and the bucket",
            param=param,
        )
    return place


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
            if name not in texts:
                named = ", ".join(f"{{{field}}}" for field in FIELDS)
                raise InvalidRequest(f"{param} takes {named}, got {{{name[:64]}}}", param=param)
            if spec or conversion:
                raise InvalidRequest(
                    f"{param}: a field is its name alone, {{{name}}}, without "
                    f"{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}",
                    param=param,
                )
            filled.append(texts[name])
    except ValueError:
        raise InvalidRequest(f"{param} has a brace without its other", param=param) from None
    place = "".join(filled)
    if kind_of(place) is not kind_of(template):
        raise InvalidRequest(f"{param}: the source's name makes no key", param=param)
    return place


def split_bucket(place: str, *, param: str = "target") -> tuple[str, str]:
    """Bucket and key of `s3://bucket/key`. Raises InvalidRequest."""
    bucket, _, key = place.removeprefix("s3://").partition("/")
    if not bucket or not key:
        raise InvalidRequest(f"{param} must be s3://bucket/key, got {place[:100]!r}", param=param)
    if not _BUCKET.fullmatch(bucket):
        raise InvalidRequest(
            f"{param}: {bucket[:64]!r} is not the name of a bucket, which has at least 3 small "
            "letters, digits, dots and hyphens",
            param=param,
        )
    return bucket, check_key(key, param=param)


def ending_of(template: str) -> str | None:
    """The ending of a template without its dot, in small letters: `jpg`, `svg`.

    None where there is none of up to five letters and digits: `a`, `a.{ext}`, `v1.2`. A URL has one
    only where it names a format: `upload.php` is the receiver's affair.
    """
    is_url = kind_of(template) is TargetKind.URL
    path = urlsplit(template).path if is_url else template
    match = _ENDING.search(path.rpartition("/")[2].lower())
    if match is None or (is_url and match[1] not in FORMAT_OF_ENDING):
        return None
    return match[1]


def tells_originals_apart(template: str) -> bool:
    """Whether results of several originals go to several places."""
    if kind_of(template) is TargetKind.URL:
        return False
    return any(name in _OF_ORIGINAL for _, name, _, _ in Formatter().parse(template))


def place_before(template: str, *, fm: str, tile: tuple[int, int] | None) -> str | None:
    """What is known of a place before there is a result, or None where it cannot be compared.

    Outputs of one original with equal places are written to one place. `{id}` and `{stem}` stay:
    they are the same for all of them.
    """
    if kind_of(template) is TargetKind.URL:
        return template
    column, row = tile or (0, 0)
    known = {"column": str(column), "row": str(row), "id": "{id}", "stem": "{stem}"}
    if fm in FORMATS:
        known["ext"] = FORMATS[fm].extension
    place = ""
    for literal, name, _, _ in Formatter().parse(template):
        place += literal.replace("{", "{{").replace("}", "}}")
        if name is not None and name not in known:
            return None
        place += known.get(name or "", "")
    return place


@dataclass(frozen=True, slots=True)
class _Glob:
    """One of the allowed targets: a bucket and its keys, or a host and its paths.

    `*` and `?` of the one never reach into the other.
    """

    place: str
    beneath: str

    def allows(self, place: str, beneath: str) -> bool:
        return _matches(self.place, place) and _matches(self.beneath, beneath)


def _globs(allowed: Sequence[str], scheme: str) -> Iterator[_Glob]:
    """The globs of a scheme. One that names no keys or paths allows all of them."""
    for text in allowed:
        named, _, rest = text.partition("://")
        if named != scheme:
            continue
        place, slash, beneath = rest.partition("/")
        if scheme != "s3":
            place = place.lower()
            if not _PORT.search(place):
                place = f"{place}:{_DEFAULT_PORTS[scheme]}"
        yield _Glob(place, beneath if slash else "*")


def _may_come_to(glob: _Glob, bucket: str, template: str) -> bool:
    """Whether some place that the template comes to may be allowed, for all that is known now."""
    if not _matches(glob.place, bucket):
        return False
    literal = template.removeprefix(f"s3://{bucket}/")
    if "{" not in literal and "}" not in literal:
        return _matches(glob.beneath, literal)
    begins, wanted = literal.partition("{")[0], re.split(r"[*?]", glob.beneath)[0]
    return begins.startswith(wanted) or wanted.startswith(begins)


def _matches(pattern: str, text: str) -> bool:
    parts = {"*": ".*", "?": "."}
    return bool(
        re.fullmatch("".join(parts.get(c) or re.escape(c) for c in pattern), text, re.DOTALL)
    )


def _split_url(url: str, *, param: str) -> tuple[str, str, str]:
    """Scheme, host with port, and path without its first slash. Raises InvalidRequest.

    A path that servers read in different ways is refused: what was allowed must be what is asked.
    """
    problem = None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise InvalidRequest(f"{param} is not a valid URL", param=param) from None
    segments = re.split(r"[/\\]", unquote(parts.path))
    if not host or parts.netloc.endswith(":"):
        problem = "must be a URL with a host"
    elif "@" in parts.netloc:
        problem = "must not hold a user name or password"
    elif not url.isascii() or any(ord(char) <= 32 or ord(char) == 127 for char in url):
        problem = "holds a space, a control character or one that is not of ASCII"
    elif "#" in url:
        problem = "must not have a fragment"
    elif "\\" in url or "." in segments or ".." in segments:
        problem = "has a backslash, or a segment . or .."
    if problem or host is None:
        raise InvalidRequest(f"{param} {problem}", param=param)
    host = f"[{host}]" if ":" in host else host.rstrip(".")
    return (
        parts.scheme,
        f"{host}:{_DEFAULT_PORTS[parts.scheme] if port is None else port}",
        parts.path.removeprefix("/"),
    )


def _refused(place: str, *, param: str) -> TargetRefused:
    shown = shown_target(place)[:100]
    return TargetRefused(f"{param}: {shown} is not among PIXELMILL_TARGETS", param=param)


_SAMPLE: Final = Fields(
    ref=Ref(stored.KIND, "folder/name.jpg"), width=1, height=1, extension="jpg", digest="0" * 64
)
