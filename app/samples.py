"""A few originals to try the service with, drawn by libvips: no picture of anybody's is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from transforms.libvips import Image, MetadataType

_SKY_TOP, _SKY_LOW = (38, 74, 140), (246, 190, 140)
_RIDGES: Final = (
    ((108, 112, 148), 0.50, 0.16, 3),
    ((70, 84, 112), 0.62, 0.14, 5),
    ((38, 58, 66), 0.76, 0.12, 8),
)


def landscape(width: int = 3000, height: int = 2000) -> Image:
    """Hills before an evening sky, with the grain of a camera."""
    across = Image.xyz(width, height)[0] / width
    down = Image.xyz(width, height)[1] / height
    picture = _blend(down, _SKY_TOP, _SKY_LOW)
    sun = (((across - 0.68) ** 2) * (width / height) ** 2 + (down - 0.42) ** 2) ** 0.5
    picture = _mix(picture, [255, 236, 190], (sun * (-1 / 0.22) + 1) * (sun < 0.22) / 255)
    picture = (sun < 0.06).ifthenelse([255, 248, 226], picture)
    for number, (colour, level, height_of, waves) in enumerate(_RIDGES):
        ridge = (
            (across * 360 * waves + 70 * number).math("sin")
            + (across * 360 * (waves * 2.7) + 31).math("sin") * 0.35
            + (across * 360 * (waves * 7.1) + 11).math("sin") * 0.10
        ) * height_of / 3 + level
        shade = _blend((down - ridge) * 2, colour, [c * 0.55 for c in colour])
        picture = (down > ridge).ifthenelse(shade, picture)
    return _finish(picture + Image.gaussnoise(width, height, sigma=6, mean=0, seed=1))


def portrait(width: int = 1200, height: int = 1800) -> Image:
    """A face of discs and an arrow, so that it shows which way is up."""
    across = Image.xyz(width, height)[0] / width
    down = Image.xyz(width, height)[1] / height
    picture = _blend(down, (244, 208, 120), (206, 92, 84))
    aspect = height / width

    def disc(x: float, y: float, radius: float) -> Image:
        return (((across - x) ** 2) + ((down - y) * aspect) ** 2) < radius**2

    for x, y, radius, colour in (
        (0.5, 0.46, 0.34, (250, 232, 206)),
        (0.38, 0.42, 0.045, (52, 44, 58)),
        (0.62, 0.42, 0.045, (52, 44, 58)),
        (0.5, 0.54, 0.15, (168, 60, 66)),
        (0.5, 0.515, 0.15, (250, 232, 206)),
    ):
        picture = disc(x, y, radius).ifthenelse(list(colour), picture)
    arrow = ((across - 0.5).abs() < (down - 0.04) * 0.9) & (down > 0.04) & (down < 0.12)
    return _finish(
        arrow.ifthenelse([40, 40, 60], picture)
        + Image.gaussnoise(width, height, sigma=4, mean=0, seed=2)
    )


def emblem(side: int = 800) -> Image:
    """Line art with transparency: a mill of rings and spokes."""
    centre, stroke = side // 2, side // 40
    blue, orange = [34, 86, 140, 255], [210, 96, 60, 255]
    across, down = Image.xyz(side, side)[0] - centre, Image.xyz(side, side)[1] - centre
    distance = (across**2 + down**2) ** 0.5
    angle = across.math2(down, "atan2")
    spoke = (
        ((angle * 8 / 360 - (angle * 8 / 360).floor() - 0.5).abs() < 0.12)
        & (distance > side * 3 / 20)
        & (distance <= side * 17 / 40)
    )

    def ring(radius: int) -> Image:
        return (distance <= radius) & (distance > radius - stroke)

    image = Image.black(side, side, bands=4)
    for shape, colour in ((ring(side * 9 // 20), blue), (ring(side * 3 // 20), orange)):
        image = shape.ifthenelse(colour, image)
    return _finish(spoke.ifthenelse(blue, image))


def spinner(side: int = 240, frames: int = 12) -> Image:
    """An animation: a dot that goes round. One frame above the other, as libvips has them."""
    pages = []
    for frame in range(frames):
        base = (Image.black(side, side) + 1) * [250, 250, 245]
        x = Image.xyz(side, side)
        turn = Image.black(1, 1) + 360 * frame / frames
        left = float(turn.math("cos")(0, 0)[0]) * side * 0.32 + side / 2
        top = float(turn.math("sin")(0, 0)[0]) * side * 0.32 + side / 2
        distance = ((x[0] - left) ** 2 + (x[1] - top) ** 2) ** 0.5
        pages.append((distance < side * 0.12).ifthenelse([210, 96, 60], base).cast("uchar"))
    strip = Image.arrayjoin(pages, across=1).copy(interpretation="srgb")
    strip = strip.copy()
    strip.set_type(MetadataType.INTEGER, "page-height", side)
    strip.set_type(MetadataType.INTEGERS, "delay", [80] * frames)
    strip.set_type(MetadataType.INTEGER, "loop", 0)
    return strip


def _rotated_portrait() -> bytes:
    """As a phone held upright writes it: lying pixels, and a tag that says how to turn them."""
    image = portrait().rot("d270").copy()
    image.set_type(MetadataType.INTEGER, "orientation", 6)
    image.set_type(MetadataType.TEXT, "exif-ifd0-Copyright", "Pixelmill samples, free for any use")
    data: bytes = image.jpegsave_buffer(Q=88, keep="exif")
    return data


SAMPLES: Final[dict[str, Callable[[], bytes]]] = {
    "samples/landscape.jpg": lambda: landscape().jpegsave_buffer(Q=90),
    "samples/portrait-rotated.jpg": _rotated_portrait,
    "samples/emblem.png": lambda: emblem().pngsave_buffer(),
    "samples/spinner.gif": lambda: spinner().gifsave_buffer(),
}


def draw_samples(folder: Path) -> list[str]:
    """Draw those that are missing beneath a folder of originals. Returns the ids of all."""
    for name, draw in SAMPLES.items():
        target = folder / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(draw())
    return list(SAMPLES)


def _blend(amount: Image, start: Sequence[float], end: Sequence[float]) -> Image:
    """From one colour to another, by an amount of 0..1."""
    amount = (amount < 0).ifthenelse(0, (amount > 1).ifthenelse(1, amount))
    return amount * list(end) + (amount * -1 + 1) * list(start)


def _mix(picture: Image, colour: list[int], amount: Image) -> Image:
    return picture * (amount * -1 + 1) + amount * colour


def _finish(picture: Image) -> Image:
    return picture.cast("uchar").copy(interpretation="srgb")
