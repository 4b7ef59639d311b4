"""Reading metadata: what honest files say is told, and dishonest ones do no harm."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms.pictures import ARTIST, COPYRIGHT, flat, opened, saved, with_metadata
from transforms.libvips import Image, MetadataType
from transforms.metadata import (
    LONGEST_TEXT,
    MOST_KEYWORDS,
    Exif,
    Iptc,
    Metadata,
    Place,
    Xmp,
    profile_name,
    read_metadata,
)

CAMERA, GPS = 0x8769, 0x8825
Entry = tuple[int, int, int, bytes]
"""Tag, kind, count and value."""


def text(tag: int, value: str | bytes) -> Entry:
    raw = value if isinstance(value, bytes) else value.encode() + b"\0"
    return tag, 2, len(raw), raw


def fractions(tag: int, *pairs: tuple[int, int], order: str = "<") -> Entry:
    return tag, 5, len(pairs), b"".join(struct.pack(order + "II", *pair) for pair in pairs)


def short(tag: int, value: int, *, order: str = "<") -> Entry:
    return tag, 3, 1, struct.pack(order + "H", value)


def exif(
    *main: Entry, camera: tuple[Entry, ...] = (), gps: tuple[Entry, ...] = (), order: str = "<"
) -> bytes:
    """An EXIF block of up to three directories, one after the other."""
    mark = {"<": b"II*\0", ">": b"MM\0*"}[order]
    block = bytearray(mark + struct.pack(order + "I", 0))
    pointers = []
    for tag, entries in ((CAMERA, camera), (GPS, gps)):
        if entries:
            at = directory(block, entries, order)
            pointers.append((tag, 4, 1, struct.pack(order + "I", at)))
    struct.pack_into(order + "I", block, 4, directory(block, (*main, *pointers), order))
    return b"Exif\0\0" + bytes(block)


def directory(block: bytearray, entries: tuple[Entry, ...], order: str) -> int:
    """Append the values of the entries, then the entries; where these begin."""
    body = struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        if len(value) <= 4:
            field = value.ljust(4, b"\0")
        else:
            field = struct.pack(order + "I", len(block))
            block += value
        body += struct.pack(order + "HHI", tag, kind, count) + field
    start = len(block)
    block += body + bytes(4)
    return start


def iptc(*sets: tuple[int, int, bytes]) -> bytes:
    """IPTC data sets in Photoshop's resource block, behind another resource."""
    body = b"".join(struct.pack(">BBBH", 0x1C, *kind, len(value)) + value for *kind, value in sets)
    other = b"8BIM\x04\x25\x03abc" + struct.pack(">I", 3) + b"xyz\0"
    return b"Photoshop 3.0\0" + other + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(body)) + body


def xmp(body: str, *, before: str = "") -> bytes:
    return f"""{before}<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
    <x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF
     xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
     xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"
     xmlns:r="http://ns.adobe.com/xap/1.0/rights/"
     xmlns:i="http://iptc.org/std/Iptc4xmpExt/2008-02-29/">{body}</rdf:RDF></x:xmpmeta>
    <?xpacket end="w"?>""".encode()


def tagged(**blobs: bytes) -> Image:
    """A picture with these blocks: exif, iptc, xmp or profile."""
    names = {"profile": "icc-profile-data"}
    image = flat(1, 2, 3).copy()
    for name, blob in blobs.items():
        image.set_type(MetadataType.BYTES, names.get(name, f"{name}-data"), blob)
    return image


def read(**blobs: bytes) -> Metadata:
    return read_metadata(tagged(**blobs))


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_of_a_camera(order: str) -> None:
    block = exif(
        text(0x010F, "Nikon"),
        text(0x0110, "D5200 "),
        text(0x0131, "Ver. 1"),
        text(0x013B, "Zoë"),
        text(0x8298, "(c) Zoë"),
        text(0x010E, "A pier"),
        camera=(
            fractions(0x829A, (10, 8000), order=order),
            fractions(0x829D, (28, 10), order=order),
            short(0x8827, 400, order=order),
            text(0x9003, "2014:07:14 22:37:50"),
            text(0x9011, "+02:00"),
            fractions(0x920A, (85, 1), order=order),
            text(0xA434, "85mm f/1.8"),
        ),
        order=order,
    )
    assert read(exif=block).exif == Exif(
        make="Nikon",
        model="D5200",
        lens="85mm f/1.8",
        exposure_time=0.00125,
        f_number=2.8,
        iso=400,
        focal_length=85.0,
        taken_at="2014-07-14T22:37:50+02:00",
        software="Ver. 1",
        artist="Zoë",
        copyright="(c) Zoë",
        description="A pier",
    )


@pytest.mark.parametrize(
    ("written", "zone", "told"),
    [
        ("2014:07:14 22:37:50", "", "2014-07-14T22:37:50"),
        ("2014:07:14 22:37:50", "-03:30", "2014-07-14T22:37:50-03:30"),
        ("2014:07:14 22:37:50", "   :  ", "2014-07-14T22:37:50"),
        ("    :  :     :  :  ", "", None),
        ("0000:00:00 00:00:00", "+02:00", None),
        ("yesterday", "", None),
    ],
)
def test_when_a_picture_was_taken(written: str, zone: str, told: str | None) -> None:
    block = exif(camera=(text(0x9003, written), text(0x9011, zone)))
    assert read(exif=block).exif.taken_at == told


@pytest.mark.parametrize("pair", [(1, 0), (0, 0)])
def test_a_fraction_of_nothing_is_no_number(pair: tuple[int, int]) -> None:
    block = exif(camera=(fractions(0x829D, pair), short(0x8827, 100)))
    assert read(exif=block).exif == Exif(iso=100)


@pytest.mark.parametrize(
    ("north", "east", "below", "place"),
    [
        (b"N\0", b"E\0", 0, Place(latitude=52.5243056, longitude=13.4105, altitude=34.5)),
        (b"S\0", b"W\0", 1, Place(latitude=-52.5243056, longitude=-13.4105, altitude=-34.5)),
    ],
)
def test_where_a_picture_was_taken(north: bytes, east: bytes, below: int, place: Place) -> None:
    block = exif(
        gps=(
            text(1, north),
            fractions(2, (52, 1), (31, 1), (2750, 100)),
            text(3, east),
            fractions(4, (13, 1), (24, 1), (378, 10)),
            (5, 1, 1, bytes([below])),
            fractions(6, (69, 2)),
        )
    )
    assert read(exif=block).place == place


@pytest.mark.parametrize(
    "gps",
    [
        (fractions(2, (52, 1), (31, 1), (0, 1)),),
        (fractions(2, (52, 1), (31, 1)), fractions(4, (13, 1), (24, 1))),
        (fractions(2, (52, 1), (31, 1), (0, 0)), fractions(4, (13, 1), (24, 1), (0, 1))),
        (fractions(2, (91, 1), (0, 1), (0, 1)), fractions(4, (13, 1), (24, 1), (0, 1))),
        (fractions(2, (52, 1), (0, 1), (0, 1)), fractions(4, (181, 1), (0, 1), (0, 1))),
        (text(2, "52 31 0"), text(4, "13 24 0")),
    ],
)
def test_half_a_place_is_none(gps: tuple[Entry, ...]) -> None:
    assert read(exif=exif(gps=gps)).place is None


@pytest.mark.parametrize(
    ("raw", "told"),
    [
        (b"caf\xe9\0", "café"),  # Latin-1
        ("café".encode() + b"\0", "café"),
        (b"  \0\0", None),
        (b"one\0two\0", "one"),
        (b" \0editor\0", "editor"),
        (b"a\x1b[31mred\x07\r\nb\0", "a[31mred\nb"),
        ("\u202egpj.exe\0".encode(), "gpj.exe"),
        (b"x" * 5000 + b"\0", "x" * LONGEST_TEXT),
        ("é".encode() * 5000 + b"\0", "é" * LONGEST_TEXT),
        (b"y" + "é".encode() * 5000 + b"\0", "y" + "é" * (LONGEST_TEXT - 1)),
    ],
)
def test_texts_are_short_and_harmless(raw: bytes, told: str | None) -> None:
    assert read(exif=exif(text(0x010E, raw))).exif.description == told


def test_iptc_of_an_agency() -> None:
    block = iptc(
        (1, 90, b"\x1b%G"),
        (2, 5, "Brücke".encode()),
        (2, 105, b"A bridge"),
        (2, 120, b"Built in 1900.\rStill there."),
        (2, 25, b"bridge"),
        (2, 25, b"river"),
        (2, 80, b"Ada"),
        (2, 110, b"Agency"),
        (2, 116, b"(c) Agency"),
        (3, 5, b"another record"),
    )
    assert read(iptc=block).iptc == Iptc(
        title="Brücke",
        headline="A bridge",
        caption="Built in 1900.\nStill there.",
        keywords=("bridge", "river"),
        byline="Ada",
        credit="Agency",
        copyright="(c) Agency",
    )


def test_iptc_without_a_wrapping() -> None:
    bare = struct.pack(">BBBH", 0x1C, 2, 5, 4) + b"Pier"
    assert read(iptc=bare).iptc == Iptc(title="Pier")


def test_keywords_are_not_without_end() -> None:
    keywords = iptc(*[(2, 25, b"word %d" % number) for number in range(500)])
    assert len(read(iptc=keywords).iptc.keywords) == MOST_KEYWORDS
    items = "".join(f"<rdf:li>word {number}</rdf:li>" for number in range(500))
    body = f"<rdf:Description><dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject></rdf:Description>"
    assert len(read(xmp=xmp(body)).xmp.keywords) == MOST_KEYWORDS


def test_xmp_of_an_editor() -> None:
    body = """
    <rdf:Description rdf:about="" xmp:Rating="4">
      <dc:title><rdf:Alt><rdf:li xml:lang="de">Brücke</rdf:li>
        <rdf:li xml:lang="x-default">Bridge</rdf:li></rdf:Alt></dc:title>
      <dc:creator><rdf:Seq><rdf:li>Ada</rdf:li><rdf:li>Bob</rdf:li></rdf:Seq></dc:creator>
      <dc:subject><rdf:Bag><rdf:li>bridge</rdf:li></rdf:Bag></dc:subject>
      <r:UsageTerms><rdf:Alt><rdf:li xml:lang="x-default">Ask</rdf:li></rdf:Alt></r:UsageTerms>
    </rdf:Description>
    <rdf:Description rdf:about="" dc:rights="(c) Ada">
      <dc:description>A bridge &amp; a river</dc:description>
      <i:DigitalSourceType>trainedAlgorithmicMedia</i:DigitalSourceType>
    </rdf:Description>"""
    assert read(xmp=xmp(body)).xmp == Xmp(
        title="Bridge",
        creators=("Ada", "Bob"),
        rights="(c) Ada",
        description="A bridge & a river",
        keywords=("bridge",),
        rating=4.0,
        usage_terms="Ask",
        digital_source_type="trainedAlgorithmicMedia",
    )


@pytest.mark.parametrize(
    ("written", "told"),
    [("5", 5), ("-1", -1), ("2.5", 2.5), ("6", None), ("nan", None), ("", None)],
)
def test_ratings_are_within_their_range(written: str, told: float | None) -> None:
    body = f'<rdf:Description xmp:Rating="{written}"/>'
    assert read(xmp=xmp(body)).xmp.rating == told


TITLE = "<rdf:Description><dc:title>Told</dc:title></rdf:Description>"
LEAK = "<rdf:Description><dc:title>&e;</dc:title></rdf:Description>"


@pytest.mark.parametrize(
    "packet",
    [
        xmp(TITLE, before="<!DOCTYPE x>"),
        xmp(LEAK, before='<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'),
        xmp(LEAK, before='<!DOCTYPE x [<!ENTITY e "ha">]>'),
        xmp(LEAK),
        xmp(TITLE)[:-60],
        xmp(TITLE).decode().encode("utf-16"),
        xmp(TITLE) + b" " * 600_000,
        xmp("<a>" * 100_000),
        b"\xff\xfe\0\0",
        b"",
    ],
)
def test_xmp_that_is_not_to_be_trusted_is_not_read(packet: bytes) -> None:
    assert read(xmp=packet).xmp == Xmp()


def test_xmp_may_be_padded_with_zeros() -> None:
    assert read(xmp=xmp(TITLE) + bytes(20)).xmp.title == "Told"


def profile(tag: bytes, *, signature: bytes = b"desc") -> bytes:
    entries = struct.pack(">I4sII4sII", 2, b"cprt", 156, 0, signature, 156, len(tag))
    return bytes(128) + entries + tag


def multilingual(*names: tuple[bytes, str]) -> bytes:
    head, texts = struct.pack(">4s4xII", b"mluc", len(names), 12), b""
    for language, name in names:
        raw = name.encode("utf-16-be")
        head += struct.pack(">2s2sII", language, b"XX", len(raw), 16 + 12 * len(names) + len(texts))
        texts += raw
    return head + texts


def test_names_of_profiles() -> None:
    old = b"desc" + bytes(4) + struct.pack(">I", 17) + b"Adobe RGB (1998)\0" + bytes(70)
    assert profile_name(profile(old)) == "Adobe RGB (1998)"
    new = multilingual((b"de", "Farbraum"), (b"en", "Display P3"))
    assert profile_name(profile(new)) == "Display P3"
    assert profile_name(profile(multilingual((b"de", "Farbraum")))) == "Farbraum"
    assert read(profile=profile(new)).profile == "Display P3"


@pytest.mark.parametrize(
    "blob",
    [
        b"",
        bytes(200),
        profile(b"text" + bytes(40)),
        profile(b"desc"),
        profile(b"mluc" + bytes(4)),
        profile(b"mluc" + struct.pack(">4xII", 0xFFFFFFFF, 0)),
        profile(multilingual()),
        profile(multilingual((b"en", "")), signature=b"desc"),
        profile(multilingual((b"en", "P3")), signature=b"dmdd"),
    ],
)
def test_profiles_without_a_name(blob: bytes) -> None:
    assert profile_name(blob) is None


@pytest.mark.parametrize("fm", ["jpeg", "png", "tiff"])
def test_density_is_told_where_the_file_has_one(fm: str) -> None:
    image = flat(1, 2, 3).copy(xres=300 / 25.4, yres=300 / 25.4)
    assert read_metadata(opened(saved(image, fm))).density == pytest.approx(300, abs=0.1)


@pytest.mark.parametrize("fm", ["webp", "gif", "avif"])
def test_density_is_not_made_up(fm: str) -> None:
    assert read_metadata(opened(saved(flat(1, 2, 3), fm))).density is None


@pytest.mark.parametrize("fm", ["jpeg", "png", "webp", "avif"])
def test_metadata_is_read_from_every_format_that_has_it(fm: str) -> None:
    told = read_metadata(opened(saved(with_metadata(flat(1, 2, 3, width=64, height=48)), fm)))
    assert (told.exif.artist, told.exif.copyright) == (ARTIST, COPYRIGHT)
    assert told.place is None  # a latitude alone
    if fm == "jpeg":
        assert told.iptc.caption == "SECRET-CAPTION"


def test_a_tiff_is_its_own_exif_block() -> None:
    data = exif(text(0x010F, "Nikon"), camera=(short(0x8827, 200),)).removeprefix(b"Exif\0\0")
    assert read_metadata(flat(1), tiff=data).exif == Exif(make="Nikon", iso=200)


def test_nothing_is_told_of_a_plain_picture() -> None:
    assert read_metadata(flat(1, 2, 3)) == Metadata(
        exif=Exif(), iptc=Iptc(), xmp=Xmp(), place=None, density=None, profile=None
    )


FULL = exif(
    text(0x010F, "Nikon"),
    camera=(fractions(0x829A, (1, 800)), short(0x8827, 400)),
    gps=(text(1, b"N\0"), fractions(2, (52, 1), (31, 1), (0, 1))),
)
BLOCKS = {
    "exif": FULL,
    "iptc": iptc((1, 90, b"\x1b%G"), (2, 5, b"Pier"), (2, 25, b"word")),
    "xmp": xmp(TITLE),
    "profile": profile(multilingual((b"en", "Display P3"))),
}


@given(
    name=st.sampled_from(sorted(BLOCKS)),
    cut=st.integers(0, 400),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6),
)
def test_broken_blocks_raise_nothing(name: str, cut: int, changes: list[tuple[int, int]]) -> None:
    block = bytearray(BLOCKS[name])
    for at, value in changes:
        block[at % len(block)] = value
    told = read(**{name: bytes(block[: len(block) - cut % len(block)])})
    texts = [told.exif.make, told.iptc.title, told.xmp.title, told.profile]
    assert all(text is None or 0 < len(text) <= LONGEST_TEXT for text in texts)


def test_entries_that_claim_the_whole_file_are_not_copied() -> None:
    entries = [(0x010E, 2, 0xFFFFFFFF, struct.pack("<I", 8)) for _ in range(60_000)]
    block = exif(*entries) + b"z" * 100_000
    assert len(read(exif=block).exif.description or "") <= LONGEST_TEXT


@pytest.mark.parametrize(
    ("name", "make", "profile"),
    [
        ("broken-exif-tag.jpg", "samsung", None),
        ("jpg-exif-orientation-illegal.jpg", "Apple", None),
        ("cielab-dagams.tiff", "NIKON CORPORATION", None),
        ("jpg-24bit-icc-adobe-rgb.jpg", "Canon", "Adobe RGB (1998)"),
        ("avif-orientation-6.avif", "Apple", "Display P3"),
        ("jpg-icc-chunked.jpg", None, "ISO Coated v2 (basICColor)"),
    ],
)
def test_real_files(real_images: Path, name: str, make: str | None, profile: str | None) -> None:
    data = (real_images / name).read_bytes()
    told = read_metadata(opened_lazily(data), tiff=data if name.endswith(".tiff") else b"")
    assert (told.exif.make, told.profile) == (make, profile)
    assert (told.place is not None) == name.startswith("avif")


def opened_lazily(data: bytes) -> Image:
    return Image.new_from_buffer(data, "", access="sequential")
