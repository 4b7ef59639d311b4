"""Gain maps: the second, small JPEG in an Ultra HDR file that tells how much brighter to show it.

An Ultra HDR file is an ordinary JPEG with the gain map's JPEG behind it. MPF points to it, and so
does a directory in the picture's XMP. How to apply it is said in the map's own XMP or ISO segment.

Sources: Ultra HDR Image Format v1.1 (Google), ISO 21496-1:2025, CIPA DC-007-2009.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from transforms import jpegfile
from transforms.jpegfile import APP0, APP1, APP2, APP14, Head
from transforms.shapes import Size

_XMP: Final = b"http://ns.adobe.com/xap/1.0/\0"
_ISO: Final = b"urn:iso:std:iso:ts:21496:-1\0"
_ICC: Final = b"ICC_PROFILE\0"

_NUMBER: Final = re.compile(rb"[-+]?\d{0,20}\.?\d{1,40}([eE][-+]?\d{1,3})?")
_NUMBERS: Final = b"GainMapMin GainMapMax Gamma OffsetSDR OffsetHDR HDRCapacityMin HDRCapacityMax"
_PROPERTIES: Final = {
    b"Version": re.compile(rb"1\.\d{1,3}"),
    b"BaseRenditionIsHDR": re.compile(rb"True|False"),
    **dict.fromkeys(_NUMBERS.split(), _NUMBER),
}
_REQUIRED: Final = {b"Version", b"GainMapMax", b"HDRCapacityMax"}

# XMP allows a property as attribute or element, and in an element a list: a number for each of red,
# green and blue. Repetitions are bounded and share no signs with the next, so no text is slow.
_ATTRIBUTE: Final = re.compile(
    rb"""\shdrgm:([A-Za-z]{1,24})\s{0,9}=\s{0,9}(?:"([^"<]{0,80})"|'([^'<]{0,80})')"""
)
_ELEMENT: Final = re.compile(
    rb"<hdrgm:([A-Za-z]{1,24})>([^<]{0,80}"
    rb"(?:<rdf:Seq>(?:[^<]{0,80}<rdf:li>[^<]{0,80}</rdf:li>){3})?)"
)
_LIST_ITEM: Final = re.compile(rb"<rdf:li>([^<]{0,80})</rdf:li>")
_DIRECTORY_ITEM: Final = re.compile(rb"<Container:Item\s([^>]{0,500})>")
_DIRECTORY_FIELD: Final = re.compile(rb"""Item:(Semantic|Length)\s{0,9}=\s{0,9}["']([^"']{0,20})""")
_STALE_VERSION: Final = re.compile(
    rb"""\s{1,9}hdrgm:Version\s{0,9}=\s{0,9}["'][^"'<]{0,80}["']"""
    rb"""|<hdrgm:Version>[^<]{0,80}</hdrgm:Version>"""
)

_PACKET: Final = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/">'
    b'<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">%s</rdf:RDF></x:xmpmeta>'
)
_METADATA: Final = (
    b'<rdf:Description rdf:about="" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"%s>%s'
    b"</rdf:Description>"
)
_DIRECTORY: Final = (
    b'<rdf:Description rdf:about="" xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/"'
    b' xmlns:Container="http://ns.google.com/photos/1.0/container/"'
    b' xmlns:Item="http://ns.google.com/photos/1.0/container/item/" hdrgm:Version="1.0">'
    b"<Container:Directory><rdf:Seq>"
    b'<rdf:li rdf:parseType="Resource">'
    b'<Container:Item Item:Semantic="Primary" Item:Mime="image/jpeg"/></rdf:li>'
    b'<rdf:li rdf:parseType="Resource">'
    b'<Container:Item Item:Semantic="GainMap" Item:Mime="image/jpeg" Item:Length="%d"/></rdf:li>'
    b"</rdf:Seq></Container:Directory></rdf:Description>"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GainMap:
    """A gain map as it was found: its JPEG, its size in pixels, and what must stay with it.

    `xmp` is a packet of nothing but the map's own numbers, so that no other metadata travels with
    it. `iso` is the payload of the ISO 21496-1 segment after its name, and `profile` are those of
    the map's ICC profile, where that block says to apply the map in its colours.
    """

    data: bytes
    size: Size
    xmp: bytes | None
    iso: bytes | None
    profile: tuple[bytes, ...]


def find_gain_map(data: bytes) -> GainMap | None:
    """The gain map of a JPEG, or None where there is none, or anything about it is odd.

    Decodes nothing, and never looks at more than a few thousand segments.
    """
    head = jpegfile.read_head(data)
    if head is None:
        return None
    for start, length in _places(data, head):
        found = _read_gain_map(data, start, length)
        # A map is a quarter of the picture or less, as a rule. Larger ones would cost more to
        # decode than the picture whose size the limits have passed.
        if found and found.size.width <= head.size.width and found.size.height <= head.size.height:
            return found
    return None


def gain_map_size(stored: Size, map_size: Size, target: Size) -> Size:
    """The size of the map for a picture of size `stored` that is resized to `target`, in pixels.

    The proportion of picture and map stays. A half is rounded up, and no side is less than 1.
    """
    return Size(
        _scale(target.width, map_size.width, stored.width),
        _scale(target.height, map_size.height, stored.height),
    )


def attach_gain_map(primary: bytes, gain_map: bytes, found: GainMap) -> bytes:
    """An Ultra HDR file of a picture's JPEG and its gain map's, both as their encoder wrote them.

    The picture's metadata stay; of the map's only those of `found` are written. XMP that leaves no
    room for the directory gives way to it. Raises ValueError where one of the two is no JPEG.
    """
    second = _write_gain_map(gain_map, found)
    head = jpegfile.read_head(primary)
    if head is None:
        raise ValueError("the picture is not a JPEG")
    packets = head.find(primary, APP1, _XMP)
    dropped = [*head.find(primary, APP2, jpegfile.MPF), *head.find(primary, APP2, _ISO)]
    added = b""
    if found.xmp:
        dropped += packets
        kept = primary[packets[0].start + len(_XMP) : packets[0].end] if packets else b""
        added += jpegfile.write_segment(APP1, _XMP + _with_directory(kept, len(second)))
    if found.iso:
        # The picture's own segment has the two version numbers alone.
        added += jpegfile.write_segment(APP2, _ISO + found.iso[:4])
    front, rest = jpegfile.split(primary, head, set(head.segments) - set(dropped))
    front += added
    index = jpegfile.write_multi_picture(
        at=len(front),
        first=len(front) + jpegfile.MULTI_PICTURE_BYTES + len(rest),
        second=len(second),
    )
    return front + index + rest + second


def _places(data: bytes, head: Head) -> list[tuple[int, int]]:
    """Where gain maps may be, as start and length in bytes: by MPF, then by XMP."""
    places: list[tuple[int, int]] = []
    for segment in head.find(data, APP2, jpegfile.MPF)[:1]:
        places += jpegfile.read_multi_picture(data, segment)
    for segment in head.find(data, APP1, _XMP)[:1]:
        # The items follow each other to the end of the file.
        end = len(data)
        for item in reversed(_DIRECTORY_ITEM.findall(data, segment.start, segment.end)):
            fields = dict(_DIRECTORY_FIELD.findall(item))
            length = fields.get(b"Length", b"")
            if not length.isdigit() or int(length) > end:
                break
            end -= int(length)
            if fields.get(b"Semantic") == b"GainMap":
                places.append((end, int(length)))
                break
    return places


def _read_gain_map(data: bytes, start: int, length: int) -> GainMap | None:
    head = jpegfile.read_head(data, start)
    if head is None or head.scan >= start + length:
        return None
    packets = [data[each.start : each.end] for each in head.find(data, APP1, _XMP)]
    blocks = [data[each.start + len(_ISO) : each.end] for each in head.find(data, APP2, _ISO)]
    xmp = _read_metadata(packets[0]) if packets else None
    iso = next((block for block in blocks if _is_metadata(block)), None)
    if xmp is None and iso is None:
        return None
    profile = () if iso is None or iso[4] & 0x40 else head.find(data, APP2, _ICC)
    return GainMap(
        data=data[start : start + length],
        size=head.size,
        xmp=xmp,
        iso=iso,
        profile=tuple(data[each.start : each.end] for each in profile),
    )


def _read_metadata(packet: bytes) -> bytes | None:
    """A packet with the properties of the namespace hdrgm in another, or None where some lack."""
    values: dict[bytes, list[bytes]] = {}
    for name, double, single in _ATTRIBUTE.findall(packet):
        values.setdefault(name, [double or single])
    for name, content in _ELEMENT.findall(packet):
        values.setdefault(name, _LIST_ITEM.findall(content) or [content])
    if not values.keys() >= _REQUIRED:
        return None
    attributes = elements = b""
    for name, form in _PROPERTIES.items():
        texts = [text.strip() for text in values.get(name, [])]
        if not all(form.fullmatch(text) for text in texts):
            return None
        if len(texts) == 1:
            attributes += b' hdrgm:%s="%s"' % (name, texts[0])
        elif texts:
            items = b"".join(b"<rdf:li>%s</rdf:li>" % text for text in texts)
            elements += b"<hdrgm:%s><rdf:Seq>%s</rdf:Seq></hdrgm:%s>" % (name, items, name)
    return _PACKET % (_METADATA % (attributes, elements))


def _is_metadata(block: bytes) -> bool:
    """Whether an ISO 21496-1 block is of a version that is known and as long as it must be."""
    if len(block) < 5 or block[:2] != b"\0\0":
        return False
    flags = block[4]
    channels = 3 if flags & 0x80 else 1
    # With one denominator for all, two headrooms and five numerators a channel; else fractions.
    length = 4 * (1 + 2 + 5 * channels) if flags & 0x08 else 8 * (2 + 5 * channels)
    return len(block) == 5 + length


def _write_gain_map(data: bytes, found: GainMap) -> bytes:
    head = jpegfile.read_head(data)
    if head is None:
        raise ValueError("the gain map is not a JPEG")
    # A decoder takes the colour model from JFIF and Adobe's segment: YCbCr or not.
    coding = [each for each in head.segments if each.marker in (APP0, APP14)]
    front, rest = jpegfile.split(data, head, coding)
    if found.xmp:
        front += jpegfile.write_segment(APP1, _XMP + found.xmp)
    if found.iso:
        front += jpegfile.write_segment(APP2, _ISO + found.iso)
    return front + b"".join(jpegfile.write_segment(APP2, each) for each in found.profile) + rest


def _with_directory(packet: bytes, length: int) -> bytes:
    """An XMP packet with a directory of picture and gain map, in bytes, instead of its own."""
    directory = _DIRECTORY % length
    start = packet.find(b"<Container:Directory")
    end = packet.find(b"</Container:Directory>", start)
    if 0 <= start < end:
        packet = packet[:start] + packet[end + len(b"</Container:Directory>") :]
    packet = _STALE_VERSION.sub(b"", packet)
    root = packet.find(b"<rdf:RDF")
    at = packet.find(b">", root) + 1
    usable = 0 <= root < at and not packet.endswith(b"/>", root, at)
    # First, because readers take the first description that knows all three namespaces.
    merged = packet[:at] + directory + packet[at:]
    fits = len(_XMP) + len(merged) <= jpegfile.LARGEST_PAYLOAD
    return merged if usable and fits else _PACKET % directory


def _scale(length: int, part: int, whole: int) -> int:
    return max(1, (2 * length * part + whole) // (2 * whole))
