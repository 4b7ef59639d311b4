"""Small originals, drawn for the tests of the service."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from pathlib import Path

from transforms.libvips import Image, MetadataType

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 160, 30), (30, 30, 220), (230, 210, 20)
WHITE = (255, 255, 255)


def flat(colour: tuple[int, ...], width: int = 60, height: int = 40) -> Image:
    """A picture of one colour."""
    image = (Image.black(width, height) + list(colour)).cast("uchar")
    return image.copy(interpretation="srgb")


def quarters(width: int = 400, height: int = 200) -> Image:
    """Red and green above, blue and yellow below: whichever way it lies, it shows."""
    w, h = width // 2, height // 2
    tiles = [flat(colour, w, h) for colour in (RED, GREEN, BLUE, YELLOW)]
    return Image.arrayjoin(tiles, across=2).copy_memory()


def ring(side: int = 120) -> Image:
    """A disc of colour in a corner that is transparent all round."""
    at = Image.xyz(side, side) - side // 2
    inside = (at[0] ** 2 + at[1] ** 2) < (side * 0.4) ** 2
    image = inside.ifthenelse([*RED, 255], [0, 0, 0, 0]).cast("uchar")
    return image.copy(interpretation="srgb")


def grain(width: int = 320, height: int = 240, *, seed: int = 5) -> Image:
    """Noise: no encoder makes it small, and each takes its time over it."""
    bands = [
        Image.gaussnoise(width, height, mean=128, sigma=50, seed=seed + band) for band in range(3)
    ]
    return bands[0].bandjoin(bands[1:]).cast("uchar").copy(interpretation="srgb").copy_memory()


def jpeg(image: Image | None = None, *, orientation: int = 1) -> bytes:
    """A JPEG; its pixels are laid down so that the orientation sets them upright."""
    image = quarters() if image is None else image
    if orientation != 1:
        image = _laid_down(image, orientation).copy()
        image.set_type(MetadataType.INTEGER, "orientation", orientation)
        return bytes(image.jpegsave_buffer(Q=95, keep="exif"))
    return bytes(image.jpegsave_buffer(Q=95, subsample_mode="off", keep="none"))


def png(image: Image | None = None) -> bytes:
    """A PNG."""
    image = quarters() if image is None else image
    return bytes(image.pngsave_buffer(compression=1, keep="none"))


@cache
def wide() -> bytes:
    """A JPEG of noise, 1000x500. Drawn once, as its noise takes longer than most tests."""
    return jpeg(grain(1000, 500))


def webp(image: Image | None = None) -> bytes:
    """A lossless WebP."""
    image = quarters() if image is None else image
    return bytes(image.webpsave_buffer(lossless=True, effort=0, keep="none"))


def tiff_of(*sizes: tuple[int, int]) -> bytes:
    """A TIFF of grey pages that differ in size (TIFF 6.0, section 4)."""
    data = bytearray(struct.pack("<2sHI", b"II", 42, 8))
    for number, (width, height) in enumerate(sizes):
        values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 277: 1, 278: height}
        length = 2 + 12 * (len(values) + 2) + 4
        values |= {273: len(data) + length, 279: width * height}
        end = len(data) + length + width * height
        data += struct.pack("<H", len(values))
        for tag, value in sorted(values.items()):
            data += struct.pack("<HHII", tag, 4, 1, value)
        data += struct.pack("<I", end if number < len(sizes) - 1 else 0)
        data += bytes([90]) * (width * height)
    return bytes(data)


def vast_png(width: int, height: int) -> bytes:
    """A black PNG of many pixels and few bytes, which takes a second and more to decode."""
    row = b"\0" * (1 + width * 3)
    squeeze = zlib.compressobj(1)
    body = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    return png_of(width, height, body)


def png_of(width: int, height: int, body: bytes) -> bytes:
    """A PNG whose header promises a size, whatever its body holds."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", body), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>x()</script></svg>'
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64)
PDF = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n" + bytes(64)
TEXT = b"This is a letter, and not a picture at all.\n"


def opened(data: bytes) -> Image:
    """The pixels of a file."""
    return Image.new_from_buffer(data, "").copy_memory()


def format_of(data: bytes) -> str:
    """What a file is, by its first bytes."""
    starts = {b"\xff\xd8\xff": "jpeg", b"\x89PNG": "png", b"GIF8": "gif", b"II*\0": "tiff"}
    for start, name in starts.items():
        if data.startswith(start):
            return name
    return {b"WEBP": "webp", b"avif": "avif"}.get(data[8:12], "unknown")


def looks_like(image: Image, x: int, y: int, colour: tuple[int, ...], *, within: int = 24) -> bool:
    """Whether a pixel has a colour, give or take what a lossy encoder does to it."""
    found = image.getpoint(x, y)[:3]
    return all(abs(a - b) <= within for a, b in zip(found, colour, strict=True))


def put(folder: Path, name: str, data: bytes) -> None:
    """Keep an original in a folder."""
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _laid_down(image: Image, orientation: int) -> Image:
    """Undo what EXIF 2.32 has a viewer do for each value of its orientation."""
    match orientation:
        case 2:
            return image.fliphor()
        case 3:
            return image.rot180()
        case 4:
            return image.flipver()
        case 5:
            return image.rot90().fliphor()
        case 6:
            return image.rot270()
        case 7:
            return image.rot270().fliphor()
        case 8:
            return image.rot90()
    return image
