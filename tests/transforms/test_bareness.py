"""Bareness: an original is handed on only where it tells nothing that a result would not."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.pictures import (
    COPYRIGHT,
    flat,
    jpeg_with_rights,
    oriented,
    pages,
    photo,
    quadrants,
    render,
    saved,
    with_metadata,
)
from transforms.bareness import is_bare
from transforms.libvips import Image, MetadataType

PLAIN = {fm: saved(photo(40, 30), fm) for fm in ("png", "webp", "gif")}
PLAIN["jpeg"] = saved(photo(40, 30), "jpeg", Q=20)


def after_start(data: bytes, marker: int, payload: bytes) -> bytes:
    """A JPEG with one more segment."""
    return data[:2] + struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload + data[2:]


def before_end(data: bytes, name: bytes, payload: bytes) -> bytes:
    """A PNG with one more chunk."""
    chunk = struct.pack(">I", len(payload)) + name + payload
    chunk += struct.pack(">I", zlib.crc32(name + payload))
    return data[:-12] + chunk + data[-12:]


def with_chunk(data: bytes, name: bytes, payload: bytes) -> bytes:
    """A WebP with one more chunk."""
    body = data[8:] + name + struct.pack("<I", len(payload)) + payload + b"\0" * (len(payload) % 2)
    return b"RIFF" + struct.pack("<I", len(body)) + body


TELLING = {
    "a comment": ("jpeg", after_start(PLAIN["jpeg"], 0xFE, b"taken at home")),
    "a thumbnail in JFIF": (
        "jpeg",
        after_start(PLAIN["jpeg"], 0xE0, b"JFIF\0\1\1\0\0\1\0\1\1\1abc"),
    ),
    "an unknown segment": ("jpeg", after_start(PLAIN["jpeg"], 0xEC, b"Ducky")),
    "several pictures": ("jpeg", after_start(PLAIN["jpeg"], 0xE2, b"MPF\0II*\0")),
    "a film behind it": ("jpeg", PLAIN["jpeg"] + b"\0\0\0\x18ftypmp42"),
    "a second picture": ("jpeg", PLAIN["jpeg"] * 2),
    "a text": ("png", before_end(PLAIN["png"], b"tEXt", b"Comment\0at home")),
    "a packed text": (
        "png",
        before_end(PLAIN["png"], b"zTXt", b"Comment\0\0" + zlib.compress(b"a")),
    ),
    "a time": ("png", before_end(PLAIN["png"], b"tIME", bytes(7))),
    "a private chunk": ("png", before_end(PLAIN["png"], b"prVt", b"at home")),
    "bytes behind the end": ("png", PLAIN["png"] + b"at home"),
    "a packet of XMP": ("webp", with_chunk(PLAIN["webp"], b"XMP ", b"<x/>")),
    "a chunk of nobody's": ("webp", with_chunk(PLAIN["webp"], b"mine", b"at home")),
    "bytes behind RIFF": ("webp", PLAIN["webp"] + b"at home"),
    "a comment of a GIF": ("gif", PLAIN["gif"][:-1] + b"\x21\xfe\x07at home\0;"),
    "bytes behind a GIF": ("gif", PLAIN["gif"] + b"at home"),
    "any TIFF": ("tiff", saved(photo(40, 30), "tiff")),
}


@pytest.mark.parametrize("fm", PLAIN)
def test_a_file_of_pixels_is_bare(fm: str) -> None:
    assert is_bare(PLAIN[fm], fm, rights=False)


@pytest.mark.parametrize("fm", ["gif", "webp"])
def test_an_animation_is_bare(fm: str) -> None:
    data = pages([flat(n, 90, 9) for n in (10, 120, 240)], fm)
    assert is_bare(data, fm, rights=False)


def test_a_jpeg_of_several_scans_is_bare() -> None:
    data = saved(photo(), "jpeg", interlace=True, restart_interval=2)
    assert is_bare(data, "jpeg", rights=False)


@pytest.mark.parametrize("what", TELLING)
def test_a_file_with_anything_else_is_not(what: str) -> None:
    fm, data = TELLING[what]
    assert not is_bare(data, fm, rights=True)


@pytest.mark.parametrize("fm", ["jpeg", "png", "webp"])
def test_of_exif_only_layout_and_rights_are_bare(fm: str) -> None:
    layout = saved(oriented(quadrants(), 1), fm)
    assert is_bare(layout, fm, rights=False)
    owned = quadrants().copy()
    owned.set_type(MetadataType.TEXT, "exif-ifd0-Copyright", COPYRIGHT)
    owned = saved(owned, fm)
    assert is_bare(owned, fm, rights=True)
    assert not is_bare(owned, fm, rights=False)
    made = quadrants().copy()
    made.set_type(MetadataType.TEXT, "exif-ifd0-Make", "A camera")
    assert not is_bare(saved(made, fm), fm, rights=True)
    assert not is_bare(saved(with_metadata(quadrants()), fm), fm, rights=True)


def test_what_hides_between_the_values_of_exif_is_found() -> None:
    assert not is_bare(jpeg_with_rights(COPYRIGHT), "jpeg", rights=True)  # a place, a thumbnail
    directory = struct.pack("<H", 0) + bytes(4)
    block = b"Exif\0\0" + struct.pack("<2sHI", b"II", 42, 8) + directory
    assert is_bare(after_start(PLAIN["jpeg"], 0xE1, block + bytes(9)), "jpeg", rights=True)
    assert not is_bare(after_start(PLAIN["jpeg"], 0xE1, block + b"at home"), "jpeg", rights=True)


@pytest.mark.parametrize("count", [1, 2])
def test_a_tag_of_exif_that_is_there_twice_is_not_bare(count: int) -> None:
    name = b"An artist\0"
    entry = struct.pack("<HHII", 0x013B, 2, len(name), 8 + 2 + 12 * count + 4)
    block = struct.pack("<2sHIH", b"II", 42, 8, count) + entry * count + bytes(4) + name
    original = after_start(PLAIN["jpeg"], 0xE1, b"Exif\0\0" + block)
    assert is_bare(original, "jpeg", rights=True) == (count == 1)


@settings(max_examples=200, deadline=None)
@given(data=st.data(), fm=st.sampled_from([*PLAIN]))
def test_what_is_cut_or_damaged_never_fails_and_what_is_cut_is_never_bare(data, fm) -> None:
    whole = PLAIN[fm]
    at = data.draw(st.integers(0, len(whole) - 1))
    assert not is_bare(whole[:at], fm, rights=True)
    damaged = bytearray(whole)
    damaged[at] ^= data.draw(st.integers(1, 255))
    is_bare(bytes(damaged), fm, rights=True)


@pytest.mark.parametrize("what", [what for what in TELLING if TELLING[what][0] == "jpeg"])
def test_smaller_does_not_hand_on_what_tells(what: str) -> None:
    _, data = TELLING[what]
    for meta in ("none", "copyright"):
        answered = render(data, f"auto=smaller&q=100&meta={meta}", fm="jpeg").data
        assert answered != data
    assert render(PLAIN["jpeg"], "auto=smaller&q=100&meta=none", fm="jpeg").data == PLAIN["jpeg"]


@pytest.mark.parametrize("query", ["w=200&h=200", "extent=200x200", "fit=contain&w=200&h=200"])
def test_smaller_does_not_hand_on_what_a_canvas_would_fill(query: str) -> None:
    clear = flat(200, 30, 60, 0, width=200, height=200)
    data = saved(clear, "png", palette=True, compression=9)
    made = render(data, f"{query}&auto=smaller&fm=png").data
    image = Image.new_from_buffer(made, "")
    assert image(9, 9)[:3] == [255, 255, 255]
    assert not image.hasalpha() or image(9, 9)[3] == 255
