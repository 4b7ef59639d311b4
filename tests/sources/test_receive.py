"""A body is what its chunks are, however they are cut; and no more is taken than tells its fate."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import cache
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.errors import OriginalTooLarge
from app.sources.base import receive
from tests.sources.origin import picture, png_head
from transforms.errors import BrokenImage, SourceTooLarge, UnsupportedFormat
from transforms.formats import SNIFFED_BYTES
from transforms.libvips import Image
from transforms.limits import Limits

CAP = 1 << 20
PLENTY = 200_000

ENCODERS: dict[str, Callable[[Image], bytes]] = {
    "jpeg": lambda image: image.jpegsave_buffer(),
    "progressive jpeg": lambda image: image.jpegsave_buffer(interlace=True),
    "png": lambda image: image.pngsave_buffer(),
    "interlaced png": lambda image: image.pngsave_buffer(interlace=True),
    "webp": lambda image: image.webpsave_buffer(),
    "lossless webp": lambda image: image.webpsave_buffer(lossless=True),
    "webp with alpha": lambda image: image.bandjoin(image[0]).webpsave_buffer(),
    "gif": lambda image: image.gifsave_buffer(),
    "tiff": lambda image: image.tiffsave_buffer(),
    "avif": lambda image: image.heifsave_buffer(compression="av1", effort=0),
    # its header ends beyond the bytes that are looked at
    "jpeg with a long profile": lambda image: _with_comments(image.jpegsave_buffer(), 2),
}


def _with_comments(data: bytes, count: int) -> bytes:
    comment = b"\xff\xfe" + struct.pack(">H", 65_000) + bytes(64_998)
    return data[:2] + comment * count + data[2:]


@cache
def encoded(name: str) -> bytes:
    grey = picture(120, 90)
    colour = grey.bandjoin([grey.rot180(), grey.fliphor()]).copy(interpretation="srgb")
    return ENCODERS[name](colour)


def huge(name: str) -> bytes:
    """The header of a picture with more pixels than are decoded."""
    match name:
        case "png":
            return png_head(65_536, 65_536)
        case "gif":
            return b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(30)
        case "jpeg":
            frame = b"\xff\xc0" + struct.pack(">HBHHB", 17, 8, 65_000, 65_000, 3) + bytes(9)
            return b"\xff\xd8\xff\xe0" + struct.pack(">H", 16) + b"JFIF" + bytes(10) + frame
        case "webp":
            size = (16_383).to_bytes(3, "little") * 2
            return b"RIFF" + struct.pack("<I", 1000) + b"WEBPVP8X" + b"\x0a\0\0\0\0\0\0\0" + size
        case "lossless webp":
            bits = struct.pack("<I", 16_383 | 16_383 << 14)
            return b"RIFF\0\0\1\0WEBPVP8L\0\1\0\0\x2f" + bits + bytes(16)
    raise AssertionError(name)


class Chunks:
    """Gives chunks, and counts those that were taken."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks: Iterator[bytes] = iter(chunks)
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            self.taken += 1
            yield chunk


def received(chunks: Iterable[bytes], *, cap: int = CAP, limits: Limits | None = None) -> bytes:
    given_chunks = chunks if isinstance(chunks, Chunks) else Chunks(chunks)
    return asyncio.run(receive(aiter(given_chunks), cap=cap, limits=limits or Limits()))


def cut_at(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


CUTS = st.lists(
    # where headers are, the cuts are close
    st.one_of(st.integers(1, 40), st.integers(1, 700), st.integers(1, PLENTY)),
    max_size=40,
)


# --- whole ------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.sampled_from(sorted(ENCODERS)), CUTS)
@example("jpeg", [])
@example("webp", list(range(1, 40)))
@example("avif", list(range(1, 200)))
def test_a_picture_is_received_as_it_is_whatever_its_chunks(name: str, cuts: list[int]) -> None:
    data = encoded(name)
    assert received(cut_at(data, cuts)) == data


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_a_picture_is_received_as_it_is_byte_by_byte(name: str) -> None:
    data = encoded(name)[:3000]
    assert received(data[at : at + 1] for at in range(len(data))) == data


@pytest.mark.parametrize("name", sorted(ENCODERS))
def test_empty_chunks_between_others_change_nothing(name: str) -> None:
    data = encoded(name)
    assert received([data[:10], b"", data[10:20], b"", data[20:], b""]) == data


def test_an_empty_chunk_at_the_start_changes_nothing() -> None:
    data = encoded("jpeg")
    assert received([b"", data]) == data


def test_a_body_of_exactly_the_cap_is_received() -> None:
    data = encoded("png")
    assert received([data[:100], data[100:]], cap=len(data)) == data


@settings(deadline=None)
@given(st.binary(max_size=200), st.lists(st.integers(1, 200), max_size=10))
def test_bytes_that_are_no_picture_meet_the_same_fate_whatever_their_chunks(
    data: bytes, cuts: list[int]
) -> None:
    def fate(chunks: list[bytes]) -> object:
        try:
            return received(chunks)
        except (BrokenImage, UnsupportedFormat, SourceTooLarge) as error:
            return type(error)

    assert fate(cut_at(data, cuts) if data else []) == fate([data] if data else [])


# --- refused ----------------------------------------------------------------------------------


def test_a_body_without_bytes_is_broken() -> None:
    with pytest.raises(BrokenImage):
        received([])


@pytest.mark.parametrize(
    "data",
    [b"<", b"hello", b"BM\x36", b"\xff\xd8", bytes(31), b"<!doctype html><title>x</title>"],
)
def test_a_body_shorter_than_what_is_looked_at_is_refused_all_the_same(data: bytes) -> None:
    assert len(data) < SNIFFED_BYTES
    with pytest.raises(UnsupportedFormat):
        received([data])


def test_one_byte_more_than_the_cap_is_too_large() -> None:
    data = encoded("png")
    with pytest.raises(OriginalTooLarge):
        received([data[:100], data[100:]], cap=len(data) - 1)


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_nothing_is_taken_beyond_the_chunk_that_passes_the_cap(cap: int, step: int) -> None:
    data = encoded("png") + bytes(20_000)
    chunks = Chunks(data[at : at + step] for at in range(0, len(data), step))
    with pytest.raises(OriginalTooLarge):
        received(chunks, cap=cap)
    assert chunks.taken == cap // step + 1


@settings(deadline=None)
@given(
    st.sampled_from(
        [
            b"<!doctype html><html><head><title>Not found</title></head>",
            b"8BPS\0\1" + bytes(60),
            b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(40),
            b"\x1f\x8b\x08" + bytes(60),
            bytes(64),
        ]
    ),
    st.integers(1, 64),
)
def test_what_is_no_picture_is_refused_by_its_first_bytes(first: bytes, step: int) -> None:
    data = first[:SNIFFED_BYTES] + bytes(1000)
    chunks = Chunks(data[at : at + step] for at in range(0, len(data), step))
    with pytest.raises(UnsupportedFormat):
        received(chunks)
    assert chunks.taken == -(-SNIFFED_BYTES // step)


@settings(deadline=None)
@given(
    st.sampled_from(["png", "gif", "jpeg", "webp", "lossless webp"]),
    st.integers(1, 100),
)
def test_a_pixel_bomb_is_refused_with_the_chunk_that_tells_its_size(name: str, step: int) -> None:
    bomb = huge(name)
    data = bomb + bytes(5000)
    chunks = Chunks(data[at : at + step] for at in range(0, len(data), step))
    with pytest.raises(SourceTooLarge):
        received(chunks)
    assert chunks.taken <= -(-max(len(bomb), SNIFFED_BYTES) // step)


@pytest.mark.parametrize("name", ["png", "gif", "jpeg", "webp", "lossless webp"])
def test_a_pixel_bomb_is_refused_from_its_first_chunk(name: str) -> None:
    chunks = Chunks([huge(name) + bytes(100), *[bytes(1000)] * 100])
    with pytest.raises(SourceTooLarge):
        received(chunks)
    assert chunks.taken == 1


def test_a_picture_of_exactly_as_many_pixels_as_are_decoded_is_received() -> None:
    data = encoded("png")
    assert received([data], limits=Limits(source_pixels=120 * 90)) == data
    with pytest.raises(SourceTooLarge):
        received([data], limits=Limits(source_pixels=120 * 90 - 1))


def test_a_header_that_tells_no_size_does_not_stop_the_download() -> None:
    # Whether it can be decoded is for libvips to say.
    data = b"\xff\xd8\xff\xe0" + bytes(100_000)
    assert received(cut_at(data, range(0, 100_000, 1000))) == data
