"""Previews: small copies of the whole picture that its metadata carry.

They show what a result has cut off or blurred, so no result keeps them.

Sources: EXIF 2.32, 4.5.8; ISO 16684-1 (XMP), `xmp:Thumbnails`; Adobe Photoshop File Formats, image
resources 1033 and 1036.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING, Final

from transforms.libvips import MetadataType

if TYPE_CHECKING:
    from transforms import libvips

_THUMBNAILS: Final = re.compile(rb"<(\w+):Thumbnails\b")
_IMAGE: Final = b"xmpGImg"
_PHOTOSHOP: Final = b"Photoshop 3.0\0"
_RESOURCE: Final = b"8BIM"
_PREVIEWS: Final = (1033, 1036)


def drop_previews(image: libvips.Image) -> libvips.Image:
    """The image with all its metadata but the previews in EXIF, XMP and Photoshop's resources."""
    image = image.copy()
    if image.get_typeof("jpeg-thumbnail-data"):
        image.remove("jpeg-thumbnail-data")  # libvips takes it out of the EXIF block as well
    for name, clean in (
        ("xmp-data", _clean_xmp),
        ("iptc-data", _clean_resources),
        ("photoshop-data", _clean_resources),
    ):
        if not image.get_typeof(name):
            continue
        block = bytes(image.get(name))
        cleaned = clean(block)
        if not cleaned:
            image.remove(name)
        elif cleaned != block:
            image.set_type(MetadataType.BYTES, name, cleaned)
    return image


def _clean_xmp(packet: bytes) -> bytes:
    """The packet without thumbnails, or nothing where some are in a place that is not theirs."""
    kept = bytearray()
    at = 0
    # Each byte is passed once: a packet may have been made to be passed over and over.
    while found := _THUMBNAILS.search(packet, at):
        kept += packet[at : found.start()]
        at = _after_element(packet, found)
        if not at:
            return b""
    kept += packet[at:]
    # What is left may declare the namespace, but has no element or attribute of it.
    return b"" if _IMAGE + b":image" in kept else bytes(kept)


def _after_element(packet: bytes, opening: re.Match[bytes]) -> int:
    """Where the element ends that begins here, or 0 where it does not end."""
    opened = packet.find(b">", opening.end())
    if packet[opened - 1 : opened] == b"/":
        return opened + 1
    closing = b"</" + opening[1] + b":Thumbnails"
    inner = packet.find(closing, opening.end())
    return 0 if inner < 0 else packet.find(b">", inner + len(closing)) + 1


def _clean_resources(block: bytes) -> bytes:
    """Photoshop's resources without previews; what else there is in such a block stays as it is."""
    start = len(_PHOTOSHOP) if block.startswith(_PHOTOSHOP) else 0
    if not block.startswith(_RESOURCE, start):
        return block
    kept = bytearray(block[:start])
    at = start
    while block.startswith(_RESOURCE, at):
        try:
            (number,) = struct.unpack_from(">H", block, at + 4)
            named = at + 6 + (block[at + 6] | 1) + 1
            (size,) = struct.unpack_from(">I", block, named)
        except (struct.error, IndexError):
            break
        end = named + 4 + size + size % 2
        if number not in _PREVIEWS:
            kept += block[at:end]
        at = end
    return bytes(kept)
