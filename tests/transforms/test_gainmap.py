"""Gain maps of Ultra HDR files: found, carried over and attached to a new picture."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms.pictures import flat, photo, saved, with_metadata
from transforms import jpegfile, libvips
from transforms.gainmap import attach_gain_map, find_gain_map, gain_map_size
from transforms.jpegfile import APP1, APP2
from transforms.shapes import Size

XMP = b"http://ns.adobe.com/xap/1.0/\0"
ISO = b"urn:iso:std:iso:ts:21496:-1\0"
METADATA = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF'
    b' xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description'
    b' xmlns:hdrgm="http://ns.adobe.com/hdr-gain-map/1.0/" hdrgm:Version="1.0"'
    b' hdrgm:GainMapMax="2.5" hdrgm:HDRCapacityMax="2.5" note="SECRET"/></rdf:RDF></x:xmpmeta>'
)
LISTED = METADATA.replace(b' hdrgm:GainMapMax="2.5"', b"").replace(
    b"/></rdf:RDF>",
    b"><hdrgm:GainMapMax>\n<rdf:Seq>\n<rdf:li>1</rdf:li> <rdf:li>2.5</rdf:li><rdf:li>-3e-1</rdf:li>"
    b"</rdf:Seq></hdrgm:GainMapMax><hdrgm:Gamma>1.5</hdrgm:Gamma></rdf:Description></rdf:RDF>",
)
DIRECTORY = (
    b"<rdf:RDF><rdf:Description hdrgm:Version='1.0' mine='yes'><Container:Directory>"
    b'<Container:Item Item:Semantic="Primary"/>'
    b'<Container:Item Item:Semantic="GainMap" Item:Length="%d"/>'
    b"</Container:Directory></rdf:Description></rdf:RDF>"
)


def iso_block(flags=0x40):
    """Versions, flags, two headrooms (0 and 2.5) and a channel's five numbers, as fractions."""
    numbers = (0, 1, 5, 2, 0, 1, 5, 2, 1, 1, 0, 1, 0, 1)
    return struct.pack(">HHB14I", 0, 0, flags, *numbers)


def picture(width=96, height=64):
    return saved(photo(width, height), "jpeg", keep="none")


def described(jpeg, *segments):
    """A JPEG with further segments, given as marker and payload, right at its beginning."""
    return jpeg[:2] + b"".join(jpegfile.write_segment(*each) for each in segments) + jpeg[2:]


def bright_spots(width=24, height=16):
    return saved(photo(width, height).colourspace("b-w"), "jpeg", keep="none")


def map_with(*segments):
    return described(bright_spots(), *segments)


def multi_picture(primary, *others, order=">", shift=0):
    """A multi-picture file, its index first in it: the offsets are `shift` bytes wrong."""
    count = 1 + len(others)
    length = 2 + 2 + 4 + 8 + 2 + 12 + 4 + 16 * count
    at = len(primary) + length
    entries = struct.pack(order + "III4x", 0x030000, at, 0)
    for other in others:
        entries += struct.pack(order + "III4x", 0, len(other), at - 2 - 8 + shift)
        at += len(other)
    head = struct.pack(order + "HI", 42, 8) + struct.pack(order + "H", 1)
    head += struct.pack(order + "HHIII", 0xB002, 7, 16 * count, 26, 0)
    mark = b"MM" if order == ">" else b"II"
    first = described(primary, (APP2, b"MPF\0" + mark + head + entries))
    return first + b"".join(others)


ORDINARY = multi_picture(picture(), map_with((APP1, XMP + METADATA)))
FOUND = find_gain_map(ORDINARY)


def payloads(data, marker, name):
    head = jpegfile.read_head(data)
    return [data[each.start + len(name) : each.end] for each in head.find(data, marker, name)]


def in_another_process(code, *paths):
    """What a program prints that decodes Ultra HDR, which this process never does."""
    command = [sys.executable, "-c", "import math, pyvips, sys\n" + code, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    return [float(number) for number in done.stdout.split()]


BOOST = """
image = pyvips.Image.uhdrload(sys.argv[1])
print(len(image.get("gainmap-data")), image.get("gainmap-max-content-boost")[0])
"""

COMPARE = """
old, new = [pyvips.Image.uhdrload(path) for path in sys.argv[1:]]
print(new.get("gainmap-scale-factor"), new.get("gainmap-max-content-boost")[0])
old, new = old.uhdr2scRGB(), new.uhdr2scRGB()
old = old.resize(new.width / old.width, vscale=new.height / old.height, kernel="linear")
stops = ((old + 0.01).log() - (new + 0.01).log()).abs() / math.log(2)
print(stops.avg(), old.avg(), new.avg(), old.max(), new.max())
"""


def resized(data, found, target):
    """A real file's picture and map as a render makes them, in one Ultra HDR file."""
    image = libvips.Image.jpegload_buffer(data)
    size = gain_map_size(Size(image.width, image.height), found.size, target)
    parts = []
    for each, to, keep in ((data, target, "icc"), (found.data, size, "none")):
        part = libvips.Image.jpegload_buffer(each)
        part = part.thumbnail_image(to.width, height=to.height, size="force", no_rotate=True)
        parts.append(part.jpegsave_buffer(Q=85, keep=keep))
    return attach_gain_map(*parts, found)


def test_a_real_file_is_as_bright_after_it_was_resized(real_images, tmp_path):
    original = real_images / "gain-map.jpg"
    data = original.read_bytes()
    found = find_gain_map(data)
    assert found.size == Size(960, 540)
    assert found.data == data[-31738:]
    made = tmp_path / "made.jpg"
    made.write_bytes(resized(data, found, Size(960, 540)))
    proportion, boost, stops, old, new, old_peak, new_peak = in_another_process(
        COMPARE, original, made
    )
    assert proportion == 4
    assert boost == pytest.approx(100, rel=1e-4)
    assert stops < 0.1
    assert new == pytest.approx(old, rel=0.01)
    assert old_peak > 10
    assert new_peak > 10


@pytest.mark.parametrize(
    "target", [Size(333, 187), Size(100, 640), Size(7, 5), Size(1, 1)], ids=str
)
def test_any_size_can_be_decoded(real_images, tmp_path, target):
    data = (real_images / "gain-map.jpg").read_bytes()
    made = tmp_path / "made.jpg"
    made.write_bytes(resized(data, find_gain_map(data), target))
    assert in_another_process(BOOST, made)[1] == pytest.approx(100, rel=1e-4)


@pytest.mark.parametrize(
    "segments",
    [
        [(APP1, XMP + METADATA)],
        [(APP2, ISO + iso_block())],
        [(APP2, ISO + iso_block()), (APP1, XMP + METADATA)],
    ],
    ids=["xmp", "iso", "both"],
)
def test_either_kind_of_metadata_is_understood_and_carried_over(tmp_path, segments):
    found = find_gain_map(multi_picture(picture(), map_with(*segments)))
    made = attach_gain_map(picture(48, 32), bright_spots(12, 8), found)
    again = find_gain_map(made)
    assert again.size == Size(12, 8)
    assert (again.xmp, again.iso) == (found.xmp, found.iso)
    kinds = {marker for marker, _ in segments}
    assert len(payloads(made, APP1, XMP)) == (APP1 in kinds)
    assert payloads(made, APP2, ISO) == ([bytes(4)] if APP2 in kinds else [])
    file = tmp_path / "made.jpg"
    file.write_bytes(made)
    length, boost = in_another_process(BOOST, file)
    assert length == len(again.data)
    assert boost == pytest.approx(2**2.5, rel=1e-3)


@pytest.mark.parametrize("order", "<>")
def test_multi_picture_files_are_read_in_either_byte_order(order):
    gain_map = map_with((APP1, XMP + METADATA))
    found = find_gain_map(multi_picture(picture(), picture(24, 16), gain_map, order=order))
    assert found.data == gain_map


def test_where_the_index_is_wrong_the_directory_tells_the_place():
    gain_map = map_with((APP1, XMP + METADATA))
    primary = described(picture(), (APP1, XMP + DIRECTORY % len(gain_map)))
    assert find_gain_map(primary + gain_map).data == gain_map
    assert find_gain_map(multi_picture(primary, gain_map, shift=7)).data == gain_map
    assert find_gain_map(primary + gain_map + b"trailer") is None


def test_the_index_and_the_directory_of_a_new_file_are_right():
    made = attach_gain_map(picture(), bright_spots(), FOUND)
    (length,) = re.findall(rb'Item:Length="(\d+)"', payloads(made, APP1, XMP)[0])
    second = made[-int(length) :]
    assert second.startswith(b"\xff\xd8")
    assert made[: -int(length)].endswith(b"\xff\xd9")
    (index,) = jpegfile.read_head(made).find(made, APP2, b"MPF\0")
    first_length, first_at = struct.unpack_from(">II", made, index.start + 4 + 54)
    assert (first_length, first_at) == (len(made) - len(second), 0)
    assert jpegfile.read_multi_picture(made, index) == [(first_length, len(second))]


def test_pixels_of_both_pictures_stay_as_they_were_encoded():
    primary, gain_map = picture(), bright_spots()
    made = attach_gain_map(primary, gain_map, FOUND)
    for before, after in ((primary, made), (gain_map, find_gain_map(made).data)):
        pixels = [libvips.Image.jpegload_buffer(data).write_to_memory() for data in (before, after)]
        assert pixels[0] == pixels[1]


def test_nothing_but_the_numbers_of_a_map_travels_with_it():
    gain_map = map_with((APP1, XMP + METADATA), (APP1, b"Exif\0\0SECRET"))
    made = attach_gain_map(picture(), described(bright_spots(), (APP1, b"Exif\0\0SECRET")), FOUND)
    assert b"SECRET" in gain_map
    assert b"SECRET" not in made
    assert b'hdrgm:GainMapMax="2.5"' in made


def test_numbers_for_each_channel_are_kept_as_lists():
    found = find_gain_map(multi_picture(picture(), map_with((APP1, XMP + LISTED))))
    assert b"<rdf:li>1</rdf:li><rdf:li>2.5</rdf:li><rdf:li>-3e-1</rdf:li>" in found.xmp
    assert b'hdrgm:Gamma="1.5"' in found.xmp
    made = attach_gain_map(picture(), bright_spots(), found)
    assert find_gain_map(made).xmp == found.xmp


@pytest.mark.parametrize(("flags", "kept"), [(0x40, False), (0x00, True)])
def test_a_maps_profile_is_kept_where_it_is_applied_in_its_colours(flags, kept):
    profile = b"ICC_PROFILE\0\1\1" + b"profile"
    gain_map = map_with((APP2, ISO + iso_block(flags)), (APP2, profile))
    made = attach_gain_map(
        picture(), bright_spots(), find_gain_map(multi_picture(picture(), gain_map))
    )
    assert (profile in find_gain_map(made).data) is kept


def test_what_the_encoder_wrote_into_the_picture_is_kept():
    primary = saved(with_metadata(photo(96, 64)), "jpeg", profile="p3")
    made = attach_gain_map(primary, bright_spots(), FOUND)
    image = libvips.Image.jpegload_buffer(made)
    before = libvips.Image.jpegload_buffer(primary)
    for field in ("exif-data", "icc-profile-data", "iptc-data"):
        assert image.get(field) == before.get(field)
    # Its XMP has no place where a directory could stand.
    assert b"Container:Directory" in image.get("xmp-data")


def test_xmp_that_is_kept_gets_a_new_directory_instead_of_its_old_one():
    primary = described(picture(), (APP1, XMP + DIRECTORY % 12345), (APP2, ISO + bytes(4)))
    made = attach_gain_map(multi_picture(primary, b""), bright_spots(), FOUND)
    (packet,) = payloads(made, APP1, XMP)
    assert b"mine='yes'" in packet
    assert packet.count(b"<Container:Directory>") == packet.count(b"hdrgm:Version") == 1
    assert b"12345" not in packet
    assert payloads(made, APP2, ISO) == []
    assert len(payloads(made, APP2, b"MPF\0")) == 1


def test_xmp_without_room_gives_way_to_the_directory():
    crowded = b"<rdf:RDF>" + b" " * 65_400 + b"</rdf:RDF>"
    made = attach_gain_map(described(picture(), (APP1, XMP + crowded)), bright_spots(), FOUND)
    (packet,) = payloads(made, APP1, XMP)
    assert len(packet) < 2000
    assert find_gain_map(made) is not None


@pytest.mark.parametrize(
    "gain_map",
    [
        picture(24, 16),
        map_with((APP1, XMP + b"<x/>")),
        map_with((APP1, XMP + METADATA.replace(b"GainMapMax", b"GainMapTop"))),
        map_with((APP1, XMP + METADATA.replace(b"2.5", b"high"))),
        map_with((APP1, XMP + METADATA.replace(b'"1.0"', b'"2.0"'))),
        map_with((APP2, ISO + iso_block()[:-1])),
        map_with((APP2, ISO + b"\0\1" + iso_block()[2:])),
        map_with((APP2, ISO)),
        described(picture(97, 64), (APP1, XMP + METADATA)),
        described(picture(96, 65), (APP1, XMP + METADATA)),
        b"\xff\xd8\xff\xd9",
        b"no picture",
    ],
    ids=[
        *("ordinary", "other-xmp", "incomplete", "no-number", "version", "iso-short"),
        *("iso-version", "iso-empty", "wider", "higher", "empty", "text"),
    ],
)
def test_what_is_no_gain_map_is_not_taken_for_one(gain_map):
    assert find_gain_map(multi_picture(picture(), gain_map)) is None


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", picture(), saved(flat(1, 2, 3), "png"), multi_picture(picture())]
)
def test_ordinary_files_have_none(data):
    assert find_gain_map(data) is None


def test_real_files_without_one_have_none(real_images):
    for path in sorted(real_images.glob("*.jp*g")):
        assert (find_gain_map(path.read_bytes()) is not None) == (path.name == "gain-map.jpg")


def test_a_file_of_endless_segments_is_left_alone():
    assert find_gain_map(described(ORDINARY, *[(APP1, b"")] * 2000)) is None


def test_only_two_jpegs_make_an_ultra_hdr_file():
    with pytest.raises(ValueError, match="picture"):
        attach_gain_map(b"text", bright_spots(), FOUND)
    with pytest.raises(ValueError, match="gain map"):
        attach_gain_map(picture(), b"text", FOUND)


def check_survives(data):
    """Whatever is found in a damaged file can be attached and found again."""
    found = find_gain_map(data)
    if found is not None:
        again = find_gain_map(attach_gain_map(picture(), bright_spots(), found))
        assert again == replace(found, data=again.data, size=again.size)
    return found


def test_a_file_that_is_cut_has_none():
    for at in range(0, len(ORDINARY), 7):
        assert check_survives(ORDINARY[:at]) is None


def test_a_file_that_is_cut_at_a_marker_has_none(real_images):
    data = (real_images / "gain-map.jpg").read_bytes()
    cuts = [match.start() for match in re.finditer(rb"\xff[\xc0-\xfe]", data)]
    for cut in cuts:
        for at in (cut, cut + 1, cut + 2, cut + 4):
            if at < len(data):
                assert find_gain_map(data[:at]) is None


@given(st.lists(st.tuples(st.integers(0, 2500), st.binary(min_size=1, max_size=4)), max_size=8))
def test_a_damaged_file_never_raises(damages):
    # What matters lies at the beginning of the file and of the map.
    second = ORDINARY.index(FOUND.data)
    data = bytearray(ORDINARY)
    for number, (at, junk) in enumerate(damages):
        place = at % 600 + (second if number % 2 else 0)
        data[place : place + len(junk)] = junk
    check_survives(bytes(data))


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(max_size=120))
def test_strange_segments_never_raise(index, xmp, block):
    gain_map = map_with((APP1, XMP + xmp), (APP2, ISO + block))
    primary = described(picture(16, 16), (APP2, b"MPF\0" + index), (APP1, XMP + xmp))
    check_survives(primary + gain_map)
    check_survives(multi_picture(picture(), gain_map))


SIDE = st.integers(1, 20_000)
SIZE = st.builds(Size, SIDE, SIDE)


@given(SIZE, SIZE, SIZE)
def test_a_map_keeps_its_proportion_to_the_picture(stored, map_size, target):
    size = gain_map_size(stored, map_size, target)
    for got, part, whole, to in (
        (size.width, map_size.width, stored.width, target.width),
        (size.height, map_size.height, stored.height, target.height),
    ):
        assert got >= 1
        assert got == 1 or -whole <= 2 * (part * to - got * whole) < whole
    assert gain_map_size(stored, map_size, stored) == map_size
