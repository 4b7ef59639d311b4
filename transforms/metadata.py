"""Metadata: what cameras, editors and agencies have written into a file.

All of it comes from strangers. Nothing here raises on what is broken: it is left out. Texts are
capped, and rid of characters that control a terminal or the direction of writing.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from xml.etree import ElementTree as ET

from transforms import libvips

LONGEST_TEXT: Final = 1000
"""Characters of one text that are kept."""

MOST_KEYWORDS: Final = 100
"""Keywords, or creators, that are kept."""

# Bounds on the work: the blocks themselves may be as large as the file.
_LONGEST_BYTES: Final = 4 * LONGEST_TEXT
_LARGEST_XMP: Final = 512 * 1024
_LARGEST_IIM: Final = 128 * 1024
_MOST_PARTS: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Exif:
    """What the camera wrote (CIPA DC-008, Exif 3.0).

    Exposure is in seconds, focal length in millimetres. `taken_at` is ISO 8601, local time where
    the camera did not write its zone.
    """

    make: str | None = None
    model: str | None = None
    lens: str | None = None
    exposure_time: float | None = None
    f_number: float | None = None
    iso: int | None = None
    focal_length: float | None = None
    taken_at: str | None = None
    software: str | None = None
    artist: str | None = None
    copyright: str | None = None
    description: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Iptc:
    """What an agency wrote (IPTC-IIM 4.2, record 2)."""

    title: str | None = None
    headline: str | None = None
    caption: str | None = None
    keywords: tuple[str, ...] = ()
    byline: str | None = None
    credit: str | None = None
    copyright: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Xmp:
    """What an editor wrote (ISO 16684-1). The rating is 0 to 5, or -1 for rejected.

    `digital_source_type` is IPTC's word for how the picture came to be: photographed, composed, or
    made by a trained algorithm.
    """

    title: str | None = None
    creators: tuple[str, ...] = ()
    rights: str | None = None
    description: str | None = None
    keywords: tuple[str, ...] = ()
    rating: float | None = None
    usage_terms: str | None = None
    digital_source_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the picture was taken: degrees (north and east positive), metres above sea level."""

    latitude: float
    longitude: float
    altitude: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """Everything that is read. `density` is in dots per inch, `profile` the ICC profile's name.

    `place` is the one thing in it that a person may not want told.
    """

    exif: Exif = Exif()
    iptc: Iptc = Iptc()
    xmp: Xmp = Xmp()
    place: Place | None = None
    density: float | None = None
    profile: str | None = None


def read_metadata(image: libvips.Image, *, tiff: bytes = b"") -> Metadata:
    """The metadata of a picture as libvips opened it.

    libvips keeps no EXIF block of a TIFF, which is one itself: give its bytes in `tiff`.
    """
    tags = _read_exif(tiff or _blob(image, "exif-data"))
    profile = _blob(image, "icc-profile-data")
    return Metadata(
        exif=_exif(tags),
        iptc=_iptc(_blob(image, "iptc-data")),
        xmp=_xmp(_blob(image, "xmp-data")),
        place=_place(tags),
        density=_density(image),
        profile=profile_name(profile) if profile else None,
    )


def profile_name(profile: bytes) -> str | None:
    """The name that an ICC profile gives itself: ICC.1:2001-04, 6.5.17 and ICC.1:2022, 10.15."""
    try:
        (count,) = struct.unpack_from(">I", profile, 128)
        for entry in range(132, 132 + 12 * min(count, _MOST_PARTS), 12):
            signature, start, length = struct.unpack_from(">4sII", profile, entry)
            if signature == b"desc":
                return _profile_text(profile[start : start + length])
    except struct.error:
        pass
    return None


def _profile_text(tag: bytes) -> str | None:
    if tag[:4] == b"desc":  # version 2
        (length,) = struct.unpack_from(">I", tag, 8)
        return _text(tag[12 : 12 + length])
    if tag[:4] != b"mluc":  # version 4: one text for each language
        return None
    count, size = struct.unpack_from(">II", tag, 8)
    names: dict[bytes, bytes] = {}
    for record in range(16, 16 + size * min(count, _MOST_PARTS), max(size, 12)):
        language, length, start = struct.unpack_from(">2s2xII", tag, record)
        names.setdefault(language, tag[start : start + min(length, _LONGEST_BYTES)])
    name = names.get(b"en") or next(iter(names.values()), b"")
    return _clean(name.decode("utf-16-be", "replace"))


def _blob(image: libvips.Image, name: str) -> bytes:
    if not image.get_typeof(name):
        return b""
    try:
        return bytes(image.get(name))
    except RuntimeError:
        return b""  # pyvips cannot read a block of no bytes


def _density(image: libvips.Image) -> float | None:
    """Dots per inch, where the file says so: libvips fills in 1 a millimetre, or 72 an inch."""
    dots: float = image.xres
    known = bool(image.get_typeof("resolution-unit")) or round(dots, 3) not in (2.834, 2.835)
    if not known or dots == 1 or not math.isfinite(dots) or dots <= 0:
        return None
    return round(dots * 25.4, 2)


# EXIF: a TIFF structure (Exif 3.0, 4.6). The directories that matter, and the tags in them.

_MAIN, _CAMERA, _GPS = 0, 0x8769, 0x8825
_KINDS: Final[Mapping[int, str]] = {1: "B", 3: "H", 4: "I", 5: "II", 9: "i", 10: "ii"}
_ASCII: Final = (2, 129)  # and UTF-8, since Exif 3.0
_MOST_VALUES: Final = 16

_Tags = Mapping[tuple[int, int], Any]
"""By directory and tag: bytes of a text, or a tuple of numbers, rationals as quotients."""


def _read_exif(block: bytes) -> _Tags:
    block = block.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    tags: dict[tuple[int, int], Any] = {}
    if order is None:
        return tags
    try:
        (start,) = struct.unpack_from(order + "I", block, 4)
    except struct.error:
        return tags
    tags |= _read_directory(block, order, start, _MAIN)
    for directory in (_CAMERA, _GPS):
        pointer = _tag_number(tags, _MAIN, directory)
        if pointer is not None:
            tags |= _read_directory(block, order, int(pointer), directory)
    return tags


def _read_directory(block: bytes, order: str, start: int, directory: int) -> _Tags:
    tags: dict[tuple[int, int], Any] = {}
    try:
        (count,) = struct.unpack_from(order + "H", block, start)
        for entry in range(start + 2, start + 2 + 12 * min(count, _MOST_PARTS), 12):
            tag, kind, length = struct.unpack_from(order + "HHI", block, entry)
            value = _read_value(block, order, kind, length, entry + 8)
            if value:
                tags[directory, tag] = value
    except struct.error:
        pass  # what was read before the end is as good as ever
    return tags


def _read_value(block: bytes, order: str, kind: int, length: int, at: int) -> Any:
    """The text or the numbers of one entry, whose value or its offset is `at`. None: neither."""
    if kind in _ASCII:
        size = length
    elif kind in _KINDS:
        length = min(length, _MOST_VALUES)
        size = length * struct.calcsize("=" + _KINDS[kind])
    else:
        return None
    if size > 4:
        (at,) = struct.unpack_from(order + "I", block, at)
    if kind in _ASCII:
        return block[at : at + min(size, _LONGEST_BYTES)]
    try:
        numbers = struct.unpack_from(order + _KINDS[kind] * length, block, at)
    except struct.error:
        return None
    if len(_KINDS[kind]) == 1:
        return numbers
    pairs = zip(numbers[::2], numbers[1::2], strict=True)
    return tuple(above / below if below else None for above, below in pairs)


def _exif(tags: _Tags) -> Exif:
    return Exif(
        make=_tag_text(tags, _MAIN, 0x010F),
        model=_tag_text(tags, _MAIN, 0x0110),
        lens=_tag_text(tags, _CAMERA, 0xA434),
        exposure_time=_measure(tags, 0x829A),
        f_number=_measure(tags, 0x829D),
        iso=_whole(_tag_number(tags, _CAMERA, 0x8827)),
        focal_length=_measure(tags, 0x920A),
        taken_at=_moment(
            _tag_text(tags, _CAMERA, 0x9003) or _tag_text(tags, _CAMERA, 0x9004),
            _tag_text(tags, _CAMERA, 0x9011) or "",
        ),
        software=_tag_text(tags, _MAIN, 0x0131),
        artist=_tag_text(tags, _MAIN, 0x013B),
        copyright=_tag_text(tags, _MAIN, 0x8298),
        description=_tag_text(tags, _MAIN, 0x010E),
    )


def _tag_text(tags: _Tags, directory: int, tag: int) -> str | None:
    value = tags.get((directory, tag))
    return _text(value) if isinstance(value, bytes) else None


def _tag_number(tags: _Tags, directory: int, tag: int) -> float | None:
    """The first number, where it is one that a camera can have: not negative."""
    value = tags.get((directory, tag))
    if not isinstance(value, tuple) or value[0] is None or value[0] < 0:
        return None
    return float(value[0])


def _measure(tags: _Tags, tag: int) -> float | None:
    """A number of the camera's in six digits: what is more comes of writing it as a fraction."""
    number = _tag_number(tags, _CAMERA, tag)
    return None if number is None else float(f"{number:.6g}")


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)


def _moment(text: str | None, zone: str) -> str | None:
    """`2014:07:14 22:37:50` and `+02:00` as ISO 8601."""
    if text is None:
        return None
    for written in (text + zone, text):
        try:
            return datetime.fromisoformat(written.replace(":", "-", 2)).isoformat()
        except ValueError:
            pass  # all blank where the camera knows no time, or a zone of no meaning
    return None


def _place(tags: _Tags) -> Place | None:
    latitude = _degrees(tags, 0x0002, 90, "S")
    longitude = _degrees(tags, 0x0004, 180, "W")
    if latitude is None or longitude is None:
        return None
    altitude = _tag_number(tags, _GPS, 0x0006)
    if altitude is not None and tags.get((_GPS, 0x0005)) in ((1,), (3,)):
        altitude = -altitude
    return Place(
        latitude=latitude,
        longitude=longitude,
        altitude=None if altitude is None else round(altitude, 2),
    )


def _degrees(tags: _Tags, tag: int, most: int, negative: str) -> float | None:
    value = tags.get((_GPS, tag))
    if not isinstance(value, tuple) or len(value) != 3 or None in value:
        return None
    degrees = value[0] + value[1] / 60 + value[2] / 3600
    if not 0 <= degrees <= most:
        return None
    reference = _tag_text(tags, _GPS, tag - 1) or ""
    # Seven digits are a centimetre.
    return round(float(-degrees if reference.upper() == negative else degrees), 7)


# IPTC: data sets of a marker, record, number, length and value (IIM 4.2, 1.6), mostly within
# Photoshop's resource blocks.

_UTF8: Final = b"\x1b%G"


def _iptc(block: bytes) -> Iptc:
    texts: dict[int, list[str]] = {}
    utf8 = False
    for record, number, value in _data_sets(_iim(block)):
        if (record, number) == (1, 90):
            utf8 = value == _UTF8
        elif record == 2 and (text := _text(value, utf8=utf8)):
            values = texts.setdefault(number, [])
            if len(values) < MOST_KEYWORDS:
                values.append(text)
    first = {number: values[0] for number, values in texts.items()}
    return Iptc(
        title=first.get(5),
        headline=first.get(105),
        caption=first.get(120),
        keywords=tuple(texts.get(25, ())),
        byline=first.get(80),
        credit=first.get(110),
        copyright=first.get(116),
    )


def _iim(block: bytes) -> bytes:
    """The data sets themselves: resource 0x0404 of Photoshop's."""
    at = len(b"Photoshop 3.0\0") if block.startswith(b"Photoshop 3.0\0") else 0
    for _ in range(_MOST_PARTS):
        if block[at : at + 4] != b"8BIM" or at + 12 > len(block):
            break
        (kind,) = struct.unpack_from(">H", block, at + 4)
        at += 6 + (block[at + 6] + 2) // 2 * 2  # a name of odd length, its length byte included
        size = int.from_bytes(block[at : at + 4], "big")
        if kind == 0x0404:
            return block[at + 4 : at + 4 + min(size, _LARGEST_IIM)]
        at += 4 + (size + 1) // 2 * 2
    return block[:_LARGEST_IIM]


def _data_sets(block: bytes) -> Iterator[tuple[int, int, bytes]]:
    at = 0
    while at + 5 <= len(block) and block[at] == 0x1C:
        record, number, length = struct.unpack_from(">BBH", block, at + 1)
        if length & 0x8000:
            return  # an extended data set: pictures within the metadata
        yield record, number, block[at + 5 : at + 5 + length]
        at += 5 + length


# XMP: RDF in XML (ISO 16684-1).

_RDF: Final = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_DC: Final = "{http://purl.org/dc/elements/1.1/}"
_XAP: Final = "{http://ns.adobe.com/xap/1.0/}"
_RIGHTS: Final = "{http://ns.adobe.com/xap/1.0/rights/}"
_IPTC_EXTENSION: Final = "{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}"


def _xmp(packet: bytes) -> Xmp:
    found = _properties(packet)
    first = {name: values[0] for name, values in found.items()}
    return Xmp(
        title=first.get(_DC + "title"),
        creators=found.get(_DC + "creator", ()),
        rights=first.get(_DC + "rights"),
        description=first.get(_DC + "description"),
        keywords=found.get(_DC + "subject", ()),
        rating=_rating(first.get(_XAP + "Rating")),
        usage_terms=first.get(_RIGHTS + "UsageTerms"),
        digital_source_type=first.get(_IPTC_EXTENSION + "DigitalSourceType"),
    )


def _properties(packet: bytes) -> Mapping[str, tuple[str, ...]]:
    """The texts of every simple property and every list."""
    if len(packet) > _LARGEST_XMP:
        return {}
    found: dict[str, tuple[str, ...]] = {}
    try:
        text = packet.decode("utf-8-sig").strip("\0")
        # No document type, hence no entities: they can name files, and grow beyond all bounds.
        if "<!doctype" in text.lower():
            return {}
        root = ET.fromstring(text)  # noqa: S314 - what makes it unsafe is refused above
    except (UnicodeDecodeError, ET.ParseError, ValueError):
        return {}
    rdf = root if root.tag == _RDF + "RDF" else root.find(_RDF + "RDF")
    for description in () if rdf is None else rdf.findall(_RDF + "Description"):
        properties = [(name, [value]) for name, value in description.items()]
        properties += [(element.tag, _texts(element)) for element in description]
        for name, texts in properties:
            cleaned = tuple(text for text in map(_clean, texts) if text)
            if cleaned:
                found.setdefault(name, cleaned)
    return found


def _texts(element: ET.Element) -> list[str]:
    """The items of a list, the default language first, or the text itself."""
    items = [item for item in element.findall(f"*/{_RDF}li") if item.text][:MOST_KEYWORDS]
    if not items:
        return [element.get(_RDF + "resource") or element.text or ""]
    language = "{http://www.w3.org/XML/1998/namespace}lang"
    items.sort(key=lambda item: item.get(language, "x-default") != "x-default")
    return [item.text or "" for item in items]


def _rating(text: str | None) -> float | None:
    if text is None or not re.fullmatch(r"-?[0-9](\.[0-9]{1,4})?", text):
        return None
    return float(text) if -1 <= float(text) <= 5 else None


# Texts.

# Control characters but for the line feed, marks that turn the direction of writing (Unicode
# Technical Report 36, 2.1), halves of surrogate pairs, and what cannot be decoded.
_UNWANTED: Final = re.compile(
    "[\0-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffd\ufffe]"
)


def _text(value: bytes, *, utf8: bool = False) -> str | None:
    """A text in UTF-8 or, where it is none, in Latin-1: the encodings that are met in practice.

    It ends at a zero byte, and begins after one where it would else be blank.
    """
    parts = value[:_LONGEST_BYTES].split(b"\0")
    text = next((part for part in parts if part.strip()), b"")
    try:
        return _clean(text.decode())
    except UnicodeDecodeError as error:
        # The cap may have cut a character in two.
        torn = error.start > _LONGEST_BYTES - 4
        return _clean(text.decode("utf-8" if utf8 or torn else "latin-1", "replace"))


def _clean(text: str) -> str | None:
    """The text without what is unwanted, as long as is allowed. None where nothing is left."""
    lines = text[:_LONGEST_BYTES].replace("\r\n", "\n").replace("\r", "\n")
    return _UNWANTED.sub("", lines).strip()[:LONGEST_TEXT].strip() or None
