"""Metadata: rights survive, secrets do not, and nothing says that the picture is still askew."""

from __future__ import annotations

import struct

import pytest

from tests.transforms import pictures
from tests.transforms.pictures import (
    ARTIST,
    COPYRIGHT,
    FORMATS,
    SECRETS,
    opened,
    quadrants,
    render,
    saved,
    with_metadata,
)
from transforms.inspect import look
from transforms.libvips import Image, MetadataType

SOURCES = ("jpeg", "png", "webp", "avif", "tiff")
WITH_EXIF = ("jpeg", "png", "webp", "avif")
"""The formats in which libvips writes EXIF. Its TIFF and GIF savers write none."""

SECRET_FIELDS = ("xmp-data", "iptc-data", "jpeg-thumbnail-data", "photoshop-data")

every_source = pytest.mark.parametrize("source", SOURCES)
every_format = pytest.mark.parametrize("fm", FORMATS)


@pytest.fixture(scope="module")
def originals() -> dict[str, bytes]:
    """A picture with everything in its metadata, lying on its side, in each format."""
    lying = pictures.stored_as(quadrants(80, 60), 6)
    return {fm: saved(with_metadata(lying, orientation=6), fm) for fm in SOURCES}


def text(image: Image, name: str) -> str:
    # libvips adds the type and the size in brackets.
    return str(image.get(name)).split(" (")[0] if image.get_typeof(name) else ""


def places(image: Image) -> list[str]:
    return [name for name in image.get_fields() if name.startswith("exif-ifd3-")]


def test_the_originals_do_hold_what_must_not_leak(originals: dict[str, bytes]) -> None:
    assert all(secret in originals["jpeg"] for secret in SECRETS)
    for source in WITH_EXIF:
        image = opened(originals[source])
        assert len(places(image)) >= 3
        assert b"SECRET-PLACE" in originals[source]
        assert b"SECRET-THUMBNAIL" in image.get("jpeg-thumbnail-data")
        assert text(image, "exif-ifd0-Artist") == ARTIST
        assert b"SECRET-XMP" in image.get("xmp-data")


@every_source
@every_format
@pytest.mark.parametrize("meta", ["", "&meta=copyright", "&meta=none"])
def test_no_place_thumbnail_or_caption_survives_unless_asked_for(
    originals: dict[str, bytes], source: str, fm: str, meta: str
) -> None:
    data = render(originals[source], f"w=40{meta}", fm=fm).data
    assert [secret for secret in SECRETS if secret in data] == []
    image = opened(data)
    assert places(image) == []
    assert [name for name in SECRET_FIELDS if image.get_typeof(name)] == []
    assert not any(name.startswith("exif-ifd1-") and "Thumb" in name for name in image.get_fields())


@pytest.mark.parametrize("source", WITH_EXIF)
@pytest.mark.parametrize("fm", WITH_EXIF)
def test_the_copyright_and_the_artist_survive(
    originals: dict[str, bytes], source: str, fm: str
) -> None:
    for query in ("w=40", "rotate=90&flip=h&bg=red&padding=2", "meta=copyright"):
        image = opened(render(originals[source], query, fm=fm).data)
        assert text(image, "exif-ifd0-Artist") == ARTIST
        assert str(image.get("exif-ifd0-Copyright")).startswith(COPYRIGHT)


@pytest.mark.parametrize(
    "rights", ["Ada Painter", "© 2024 Zoë Ångström", "Ada (Studio)", "A (B, C) (D), E", "x" * 3000]
)
@pytest.mark.parametrize("fm", ["jpeg", "png", "webp"])
def test_the_copyright_survives_letter_by_letter(rights: str, fm: str) -> None:
    data = pictures.jpeg_with_rights(rights)
    written = opened(data).get("exif-ifd0-Copyright")
    assert written.startswith(rights)
    for _ in range(2):
        data = render(data, "w=40", fm=fm).data
        assert opened(data).get("exif-ifd0-Copyright") == written
        assert rights.encode() + b"\0" in data


def test_an_original_without_rights_gives_a_result_without_exif() -> None:
    for fm in WITH_EXIF:
        image = opened(render(saved(quadrants(), "jpeg"), "w=40", fm=fm).data)
        # The saver of libvips adds an EXIF block to every JPEG; here there is none to be kept.
        assert not image.get_typeof("exif-data")


@every_source
@every_format
def test_meta_none_removes_all_of_it(originals: dict[str, bytes], source: str, fm: str) -> None:
    data = render(originals[source], "w=40&meta=none", fm=fm).data
    assert ARTIST.encode() not in data
    assert COPYRIGHT.encode() not in data
    image = opened(data)
    assert [name for name in image.get_fields() if name.startswith("exif-")] == []
    assert not image.get_typeof("icc-profile-data")


@pytest.mark.parametrize("source", WITH_EXIF)
@pytest.mark.parametrize("fm", WITH_EXIF)
def test_meta_keep_keeps_places_and_xmp(originals: dict[str, bytes], source: str, fm: str) -> None:
    data = render(originals[source], "w=40&meta=keep", fm=fm).data
    image = opened(data)
    assert len(places(image)) >= 3
    assert text(image, "exif-ifd3-GPSLatitudeRef") == "N"
    assert b"SECRET-XMP" in image.get("xmp-data")
    assert text(image, "exif-ifd0-Artist") == ARTIST


@every_source
@every_format
@pytest.mark.parametrize("query", ["w=40", "crop=0,0,20,20", "blur=9"])
def test_no_preview_of_the_whole_picture_is_kept(
    originals: dict[str, bytes], source: str, fm: str, query: str
) -> None:
    data = render(originals[source], f"{query}&meta=keep", fm=fm).data
    assert b"SECRET-THUMBNAIL" not in data
    assert not opened(data).get_typeof("jpeg-thumbnail-data")


def test_neither_xmp_nor_photoshop_keeps_a_preview() -> None:
    def resource(number: int, payload: bytes) -> bytes:
        head = b"8BIM" + struct.pack(">HHI", number, 0, len(payload))
        return head + payload + b"\0" * (len(payload) % 2)

    image = quadrants().copy()
    thumbnails = b"<xmp:Thumbnails><a xmpGImg:image='SECRET-XMP'/></xmp:Thumbnails>"
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>kept</a>' + thumbnails + b"</x:xmpmeta>"
    image.set_type(MetadataType.BYTES, "xmp-data", packet)
    block = resource(1036, b"SECRET-PREVIEW") + resource(1028, b"\x1c\2\x78\0\4kept")
    image.set_type(MetadataType.BYTES, "iptc-data", b"Photoshop 3.0\0" + block)
    original = saved(image, "jpeg")
    assert original.count(b"SECRET") == 2
    data = render(original, "crop=0,0,20,20&meta=keep", fm="jpeg").data
    assert b"SECRET" not in data
    assert data.count(b"kept") == 2


@pytest.mark.parametrize(
    ("thumbnails", "kept"),
    [
        (b"<xmp:Thumbnails/>", True),
        (b"<xmp:Thumbnails a='1' />", True),
        (b"<xmp:Thumbnails>SECRET-XMP</xmp:Thumbnails >" * 3, True),
        (b"<xmp:Thumbnails>SECRET-XMP", False),
        (b"<xmp:Thumbnails>SECRET-XMP</xmp:Thumbnails", False),
        (b"<xmp:Thumbnails>" * 1_000 + b"SECRET-XMP", False),
    ],
)
def test_an_xmp_packet_whose_preview_does_not_end_is_dropped(thumbnails: bytes, kept: bool) -> None:
    image = quadrants().copy()
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>kept</a>' + thumbnails + b"</x:xmpmeta"
    packet += b">" if kept else b""
    image.set_type(MetadataType.BYTES, "xmp-data", packet)
    data = render(saved(image, "jpeg"), "crop=0,0,20,20&meta=keep", fm="jpeg").data
    assert b"SECRET" not in data
    assert (b"<a>kept</a>" in data) == kept


def test_meta_keep_keeps_the_caption_of_a_jpeg(originals: dict[str, bytes]) -> None:
    data = render(originals["jpeg"], "w=40&meta=keep", fm="jpeg").data
    assert b"SECRET-CAPTION" in data


@every_source
@every_format
@pytest.mark.parametrize("meta", ["none", "copyright", "keep"])
@pytest.mark.parametrize("query", ["w=40", "w=40&orient=6", "rotate=90"])
def test_the_orientation_is_gone_once_it_has_been_applied(
    originals: dict[str, bytes], source: str, fm: str, meta: str, query: str
) -> None:
    result = render(originals[source], f"{query}&meta={meta}", fm=fm)
    header = look(result.data)
    image = opened(result.data)
    assert header.orientation == 1
    assert text(image, "exif-ifd0-Orientation") in ("", "1")
    # AVIF turns the picture in its decoder: a tag that was left would turn it once more.
    assert (image.width, image.height) == (result.width, result.height)


@every_format
@pytest.mark.parametrize("meta", ["none", "copyright", "keep"])
def test_a_result_can_be_an_original_again(originals: dict[str, bytes], fm: str, meta: str) -> None:
    first = render(originals["jpeg"], f"w=40&meta={meta}", fm=fm)
    again = render(first.data, f"meta={meta}", fm="png")
    assert (again.width, again.height) == (40, 30)
    red = opened(again.data).getpoint(10, 7)
    assert red[0] > 180
    assert red[1] < 80


@every_format
def test_a_profile_is_not_carried_where_the_pixels_are_plain_srgb(fm: str) -> None:
    wide = quadrants().icc_transform("p3", input_profile="srgb")
    image = opened(render(saved(wide, "png"), "w=40", fm=fm).data)
    assert not image.get_typeof("icc-profile-data")


@pytest.mark.parametrize("fm", ["jpeg", "png", "webp", "tiff", "avif"])
@pytest.mark.parametrize("profile", ["p3", "cmyk"])
def test_a_profile_that_is_kept_is_that_of_the_pixels(fm: str, profile: str) -> None:
    colour = [150, 120, 100]
    picture = pictures.flat(*colour, width=32, height=32)
    data = saved(picture.icc_transform(profile, input_profile="srgb"), "tiff")
    result = render(data, "meta=keep", fm=fm).data
    shown = opened(render(result, fm="png").data).getpoint(9, 9)
    assert all(abs(a - b) <= 10 for a, b in zip(shown[:3], colour, strict=True))
