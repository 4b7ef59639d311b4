"""Originals drawn for the tests, and the shortest way to a result."""

from __future__ import annotations

import struct
import zlib
from typing import Any

from transforms import pipeline
from transforms.libvips import Image, MetadataType
from transforms.limits import Limits
from transforms.pipeline import Result
from transforms.transform import Transform

RED, GREEN, BLUE, YELLOW = [230, 20, 20], [20, 180, 20], [20, 20, 230], [240, 220, 10]
CORNERS = (RED, GREEN, BLUE, YELLOW)
"""The colours of `quadrants`: top left, top right, bottom left, bottom right."""

FORMATS = ("jpeg", "png", "webp", "avif", "gif", "tiff")

ARTIST, COPYRIGHT = "Ada Painter", "(c) 2024 Ada Painter, all rights"
SECRETS = (b"SECRET-THUMBNAIL", b"SECRET-PLACE", b"SECRET-XMP", b"SECRET-CAPTION")
"""What `with_metadata` hides in EXIF's thumbnail, EXIF's GPS directory, XMP and IPTC."""


def render(
    data: bytes, query: str = "", *, fm: str = "png", limits: Limits | None = None
) -> Result:
    """The result of a query, in this format where the query names none."""
    transform = Transform.from_query(query)
    if transform.fm is None:
        transform = transform.with_output(fm)
    return pipeline.run(data, pipeline.prepare(data, transform, limits or Limits()))


def seen(data: bytes, query: str = "", *, fm: str = "png") -> Image:
    """The pixels of the result of a query."""
    return opened(render(data, query, fm=fm).data)


def opened(data: bytes) -> Image:
    """The pixels of a file."""
    return Image.new_from_buffer(data, "").copy_memory()


def flat(
    *bands: float,
    width: int = 24,
    height: int = 16,
    interpretation: str = "srgb",
    number: str = "uchar",
) -> Image:
    """A picture of one colour."""
    image = (Image.black(width, height) + list(bands)).cast(number)
    return image.copy(interpretation=interpretation)


def quadrants(width: int = 80, height: int = 60) -> Image:
    """Four quarters of a colour each."""
    left, top = width // 2, height // 2
    tiles = [
        flat(*colour, width=w, height=h)
        for colour, w, h in (
            (RED, left, top),
            (GREEN, width - left, top),
            (BLUE, left, height - top),
            (YELLOW, width - left, height - top),
        )
    ]
    upper, lower = tiles[0].join(tiles[1], "horizontal"), tiles[2].join(tiles[3], "horizontal")
    return upper.join(lower, "vertical").copy_memory()


def numbered(width: int = 5, height: int = 3) -> Image:
    """A picture whose every pixel says where it is: red counts columns, green counts rows."""
    where = Image.xyz(width, height)
    return where.bandjoin(77).cast("uchar").copy(interpretation="srgb").copy_memory()


def noise(width: int, height: int, *, seed: int = 1) -> Image:
    """Three bands of grain, always the same: hard to decode and hard to encode."""
    tile = min(width, 1500), min(height, 1500)
    bands = [Image.gaussnoise(*tile, mean=128, sigma=40, seed=seed + band) for band in range(3)]
    image = bands[0].bandjoin(bands[1:]).cast("uchar").copy(interpretation="srgb").copy_memory()
    across, down = -(-width // tile[0]), -(-height // tile[1])
    return image.replicate(across, down).crop(0, 0, width, height).copy_memory()


def photo(width: int = 160, height: int = 120) -> Image:
    """Soft colours with a little grain, on which lossy encoders have something to lose."""
    at = Image.xyz(width, height)
    wave = (at[0] * 5).math("sin") * 90 + 128
    ramp = (at[0] * (255 / width)).bandjoin([at[1] * (255 / height), wave])
    grain = Image.gaussnoise(width, height, mean=0, sigma=9, seed=3)
    return (ramp + grain).cast("uchar").copy(interpretation="srgb").copy_memory()


def saved(image: Image, fm: str, **options: Any) -> bytes:
    """The picture as a file, as exactly as the format allows."""
    match fm:
        case "jpeg":
            data = image.jpegsave_buffer(**{"Q": 98, "subsample_mode": "off", **options})
        case "png":
            data = image.pngsave_buffer(**{"compression": 1, **options})
        case "webp":
            data = image.webpsave_buffer(**{"lossless": True, "effort": 0, **options})
        case "avif":
            exact = {"compression": "av1", "Q": 95, "effort": 0, "subsample_mode": "off"}
            data = image.heifsave_buffer(**{**exact, **options})
        case "gif":
            data = image.gifsave_buffer(**options)
        case "tiff":
            exact = {"compression": "deflate", "predictor": "none"}
            data = image.tiffsave_buffer(**{**exact, **options})
        case _:
            raise ValueError(fm)
    return bytes(data)


def oriented(image: Image, orientation: int) -> Image:
    """The picture with an EXIF orientation written on it; its pixels stay."""
    image = image.copy()
    image.set_type(MetadataType.INTEGER, "orientation", orientation)
    return image


def stored_as(image: Image, orientation: int) -> Image:
    """A picture that is this one when it is laid as its EXIF orientation says."""
    match orientation:
        case 2:
            image = image.fliphor()
        case 3:
            image = image.rot180()
        case 4:
            image = image.flipver()
        case 5:
            image = image.rot90().fliphor()
        case 6:
            image = image.rot270()
        case 7:
            image = image.rot90().flipver()
        case 8:
            image = image.rot90()
    return oriented(image, orientation)


def pages(images: list[Image], fm: str) -> bytes:
    """A TIFF of pages, or a GIF or WebP of frames, all of one size."""
    tall = Image.arrayjoin(images, across=1).copy()
    tall.set_type(MetadataType.INTEGER, "page-height", images[0].height)
    return saved(tall, fm)


def tiff_of_greys(*greys: tuple[int, int, int]) -> bytes:
    """A TIFF of uncompressed pages, each of its own width, height and shade of grey."""
    data = bytearray(struct.pack("<2sHI", b"II", 42, 8))
    for number, (width, height, shade) in enumerate(greys):
        start = len(data)
        entries = (
            (256, width),
            (257, height),
            (258, 8),
            (259, 1),
            (262, 1),
            (273, start + 2 + 12 * 9 + 4),
            (277, 1),
            (278, height),
            (279, width * height),
        )
        pixels = bytes([shade]) * (width * height)
        pixels += b"\0" * (len(pixels) % 2)
        data += struct.pack("<H", len(entries))
        for tag, value in entries:
            data += struct.pack("<HHII", tag, 4, 1, value)
        last = number == len(greys) - 1
        data += struct.pack("<I", 0 if last else start + 2 + 12 * 9 + 4 + len(pixels))
        data += pixels
    return bytes(data)


def png_that_claims(width: int, height: int) -> bytes:
    """A PNG whose header promises a size and whose pixels are missing."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    return start + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def with_metadata(image: Image, *, orientation: int = 6, rights: str = COPYRIGHT) -> Image:
    """The picture with an artist, a copyright, a place, a thumbnail, XMP and IPTC."""
    image = oriented(image, orientation)
    image.set_type(MetadataType.BYTES, "exif-data", _exif(orientation, rights))
    image.set_type(
        MetadataType.BYTES,
        "xmp-data",
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>SECRET-XMP</a></x:xmpmeta>',
    )
    # One IPTC data set (record 2, caption) in the resource block that Photoshop wraps it in.
    caption = b"\x1c\x02\x78" + struct.pack(">H", 14) + b"SECRET-CAPTION"
    block = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(caption)) + caption
    image.set_type(
        MetadataType.BYTES, "iptc-data", b"Photoshop 3.0\0" + block + b"\0" * (len(block) % 2)
    )
    return image


def jpeg_with_rights(rights: str) -> bytes:
    """A JPEG whose EXIF block is put in byte by byte, as a camera or an editor writes it."""
    plain = saved(quadrants(), "jpeg", keep="none")
    block = _exif(1, rights)
    return plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]


def _exif(orientation: int, rights: str) -> bytes:
    """An EXIF block: a main directory, one of places (GPS) and one with a thumbnail."""
    thumbnail = bytes(flat(9, 9, 9).jpegsave_buffer())
    thumbnail = thumbnail[:2] + b"\xff\xfe\0\x12SECRET-THUMBNAIL" + thumbnail[2:]
    place, artist, holder = (text.encode() + b"\0" for text in ("SECRET-PLACE", ARTIST, rights))
    latitude = struct.pack("<6I", 52, 1, 31, 1, 123456, 1000)
    main_at, gps_at, preview_at, free = 8, 62, 104, 146
    places: list[tuple[int, bytes]] = []

    def stored(value: bytes) -> bytes:
        at = free + sum(len(block) for _, block in places)
        places.append((at, value + b"\0" * (len(value) % 2)))
        return struct.pack("<I", at)

    def directory(entries: list[tuple[int, int, int, bytes]], following: int) -> bytes:
        body = b"".join(struct.pack("<HHI4s", *entry) for entry in entries)
        return struct.pack("<H", len(entries)) + body + struct.pack("<I", following)

    main = directory(
        [
            (0x0112, 3, 1, struct.pack("<HH", orientation, 0)),
            (0x013B, 2, len(artist), stored(artist)),
            (0x8298, 2, len(holder), stored(holder)),
            (0x8825, 4, 1, struct.pack("<I", gps_at)),
        ],
        preview_at,
    )
    gps = directory(
        [
            (0x0001, 2, 2, b"N\0\0\0"),
            (0x0002, 5, 3, stored(latitude)),
            (0x0012, 2, len(place), stored(place)),
        ],
        0,
    )
    preview = directory(
        [
            (0x0103, 3, 1, struct.pack("<HH", 6, 0)),
            (0x0201, 4, 1, stored(thumbnail)),
            (0x0202, 4, 1, struct.pack("<I", len(thumbnail))),
        ],
        0,
    )
    assert main_at + len(main) == gps_at
    assert gps_at + len(gps) == preview_at
    assert preview_at + len(preview) == free
    header = struct.pack("<2sHI", b"II", 42, main_at)
    return b"Exif\0\0" + header + main + gps + preview + b"".join(block for _, block in places)
