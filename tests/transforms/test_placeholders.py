"""Placeholders: codes that decoders elsewhere understand, and that are like the picture."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.pictures import CORNERS, flat, noise, opened, photo, quadrants, saved
from transforms.libvips import Image
from transforms.placeholders import blurhash, data_uri, perceptual_hash, thumbhash

BASE83 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~"


def drawn(width: int, height: int, *bands: Callable[[int, int], int]) -> Image:
    """A picture of which each band is a function of x and y."""
    pixels = bytes(band(x, y) for y in range(height) for x in range(width) for band in bands)
    image = Image.new_from_memory(pixels, width, height, len(bands), "uchar")
    return image.copy(interpretation="srgb" if len(bands) >= 3 else "b-w")


def pattern(width: int, height: int, *, transparent: bool = False) -> Image:
    """The picture that the reference encoders were given."""
    bands = [
        lambda x, y: (7 * x + y * y // 3) % 256,
        lambda x, y: (x * x // 5 + 11 * y) % 256,
        lambda x, y: x * y * 3 % 256,
    ]
    if transparent:
        bands.append(lambda x, y: 255 - (x * y + 5 * x) % 200)
    return drawn(width, height, *bands)


# From blurhash-python 1.2.2, which wraps the reference encoder in C.
@pytest.mark.parametrize(
    ("size", "components", "code"),
    [
        ((32, 24), (4, 3), "LQHLk[7CJzboMe05,Dt3IA,WyRIc"),
        ((24, 32), (3, 4), "TaF~geJOk5JOIpf58#ifxrv~-%R."),
        ((60, 20), (9, 2), "HSGu{?NZEe1I#8s*Ols9oZM{Zk9vv%=@TXNLmsty"),
        ((100, 100), (4, 4), "U0HV9ur,02Xvt=540^0V4V010K0MX]4{0f0Y"),
        ((32, 24), (1, 1), "00HLk["),
    ],
)
def test_blurhash_is_what_the_reference_encoder_gives(
    size: tuple[int, int], components: tuple[int, int], code: str
) -> None:
    assert blurhash(pattern(*size), across=components[0], down=components[1]) == code


@pytest.mark.parametrize(
    ("colour", "code"),
    [
        ((255, 255, 255), "LfTSUA~qfQ~q~qt7fQt7fQfQfQfQ"),
        ((255, 0, 0), "LfTI:j|cfQ|c|csUfQsUfQfQfQfQ"),
        ((1, 2, 3), "L009m+j]fQj]j]fkfQfkfQfQfQfQ"),
        ((0, 0, 0), "L00000fQfQfQfQfQfQfQfQfQfQfQ"),
    ],
)
def test_blurhash_of_one_colour_too(colour: tuple[int, int, int], code: str) -> None:
    assert blurhash(flat(*colour, width=8, height=8)) == code


def decoded(code: str, x: float, y: float) -> list[float]:
    """One point of a BlurHash, x and y 0..1: linear red, green and blue."""

    def number(digits: str) -> int:
        return sum(BASE83.index(digit) * 83**place for place, digit in enumerate(digits[::-1]))

    down, across = divmod(number(code[0]), 9)
    scale = (number(code[1]) + 1) / 166
    mean = number(code[2:6])
    colours = [[((mean >> shift & 255) / 255) ** 2.2 for shift in (16, 8, 0)]]
    for at in range(6, len(code), 2):
        value = number(code[at : at + 2])
        parts = [(part - 9) / 9 for part in (value // 361, value // 19 % 19, value % 19)]
        colours.append([math.copysign(part * part, part) * scale for part in parts])
    waves = [
        math.cos(math.pi * x * column) * math.cos(math.pi * y * row)
        for row in range(down + 1)
        for column in range(across + 1)
    ]
    assert len(waves) == len(colours)
    pairs = list(zip(waves, colours, strict=True))
    return [sum(wave * colour[band] for wave, colour in pairs) for band in range(3)]


def test_blurhash_shows_what_is_where() -> None:
    code = blurhash(quadrants(80, 60), across=5, down=5)
    linear = [[(value / 255) ** 2.2 for value in corner] for corner in CORNERS]
    points = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]
    for place, (x, y) in enumerate(points):
        seen = decoded(code, x, y)
        distances = [math.dist(seen, colour) for colour in linear]
        assert distances.index(min(distances)) == place


def test_blurhash_takes_what_is_transparent_for_white() -> None:
    assert blurhash(flat(200, 0, 0, 0)) == blurhash(flat(255, 255, 255))


@pytest.mark.parametrize(("across", "down"), [(0, 3), (10, 3), (4, 0), (4, 10)])
def test_blurhash_has_one_to_nine_components_each_way(across: int, down: int) -> None:
    with pytest.raises(ValueError, match="1 to 9"):
        blurhash(photo(20, 20), across=across, down=down)


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 100),
    height=st.integers(1, 100),
    across=st.integers(1, 9),
    down=st.integers(1, 9),
    seed=st.integers(0, 1000),
)
def test_blurhash_has_its_form_whatever_the_picture(
    width: int, height: int, across: int, down: int, seed: int
) -> None:
    code = blurhash(noise(width, height, seed=seed), across=across, down=down)
    assert len(code) == 4 + 2 * across * down
    assert BASE83.index(code[0]) == across - 1 + 9 * (down - 1)
    assert set(code) <= set(BASE83)


# From the npm package thumbhash 0.1.1, which is the reference encoder.
@pytest.mark.parametrize(
    ("size", "transparent", "code"),
    [
        ((32, 24), False, "XggKJYhDZncDh4eDa2hZdpgJCKOn"),
        ((24, 32), False, "HAgKHQZjdkV3B5VXe2lXh9hbEDb0"),
        ((60, 20), False, "XvgFEoZFYGdCY1uHqkhPhb8="),
        ((100, 100), False, "HwgCBwBCI0FkZgRERURmFjNl0PmXyhMP"),
        ((32, 24), True, "XQiGHIYaQmUChnNqmJqAMIn535yah3mYBw=="),
        ((20, 40), True, "XPiFEwQaUkInBYj8ZUVVUN+sqniZl5g="),
    ],
)
def test_thumbhash_is_what_the_reference_encoder_gives(
    size: tuple[int, int], transparent: bool, code: str
) -> None:
    made = thumbhash(pattern(*size, transparent=transparent))
    assert base64.b64encode(made).decode() == code


def mean_of(code: bytes) -> tuple[float, float, float, float]:
    """The mean colour in a ThumbHash: red, green, blue and alpha, each 0..1."""
    head = int.from_bytes(code[:3], "little")
    light, yellow_blue, red_green = (
        (head & 63) / 63,
        (head >> 6 & 63) / 31.5 - 1,
        (head >> 12 & 63) / 31.5 - 1,
    )
    blue = light - 2 / 3 * yellow_blue
    red = (3 * light - blue + red_green) / 2
    return red, red - red_green, blue, (code[5] & 15) / 15 if head >> 23 else 1.0


colours = st.tuples(*[st.integers(0, 255)] * 3)


@settings(max_examples=40, deadline=None)
@given(colour=colours, width=st.integers(1, 100), height=st.integers(1, 100))
def test_thumbhash_holds_the_mean_colour(
    colour: tuple[int, int, int], width: int, height: int
) -> None:
    code = thumbhash(flat(*colour, width=width, height=height))
    assert mean_of(code) == pytest.approx([*(value / 255 for value in colour), 1], abs=0.05)
    assert bool(code[4] >> 7) == (width > height)
    assert 5 <= len(code) <= 25


def test_thumbhash_holds_transparency() -> None:
    half = flat(200, 40, 40, 255, width=40, height=20).join(
        flat(0, 0, 255, 0, width=40, height=20), "vertical"
    )
    # The blue that nobody can see has no part in it.
    assert mean_of(thumbhash(half)) == pytest.approx([200 / 255, 40 / 255, 40 / 255, 0.5], abs=0.05)
    assert len(thumbhash(flat(9, 9, 9, 0))) > 5


def test_the_codes_are_of_small_pictures_alone() -> None:
    large = flat(1, 2, 3, width=101, height=20)
    for code in (blurhash, thumbhash):
        with pytest.raises(ValueError, match="at most 100x100, got 101x20"):
            code(large)


# From the Python package ImageHash 4.3.2.
@pytest.mark.parametrize(
    ("shade", "code"),
    [
        (lambda x, y: (x * x + 3 * x * y) % 256, "80070f2f2e7e5c7a"),
        (lambda x, y: (x * 5 + y * y // 5) % 256, "803b4e956ad5a75a"),
        (lambda x, y: ((x - 9) ** 2 + (y - 20) ** 2) % 256, "bac5c532191bd9c9"),
    ],
)
def test_perceptual_hash_is_that_of_imagehash(shade: Callable[[int, int], int], code: str) -> None:
    assert perceptual_hash(drawn(32, 32, shade)) == code


def differing(one: Image, other: Image) -> int:
    """The bits in which the hashes of two pictures differ."""
    bits = int(perceptual_hash(one), 16) ^ int(perceptual_hash(other), 16)
    return bits.bit_count()


def test_perceptual_hash_knows_a_picture_again() -> None:
    original, other = (Image.perlin(320, 240, cell_size=60, seed=seed) for seed in (1, 2))
    original = (original * [60, 90, 80] + 128).cast("uchar").copy(interpretation="srgb")
    copies = [
        opened(saved(original, "jpeg", Q=40)),
        original.resize(0.25),
        (original * 1.1 + 5).cast("uchar").copy(interpretation="srgb"),
        original.colourspace("b-w"),
    ]
    assert [differing(original, copy) <= 8 for copy in copies] == [True] * 4
    others = [original.fliphor(), original.rot90(), (other * 90 + 128).cast("uchar")]
    assert [differing(original, other) >= 16 for other in others] == [True] * 3


@pytest.mark.parametrize(
    "image",
    [
        flat(90),
        flat(90, 120),
        flat(90, 20, 200, 120),
        flat(9000, 2000, 60000, interpretation="rgb16", number="ushort"),
        photo(1, 1),
        photo(100, 1),
        photo(1, 100),
    ],
)
def test_every_kind_of_picture_has_its_codes(image: Image) -> None:
    assert len(blurhash(image)) == 28
    assert 5 <= len(thumbhash(image)) <= 25
    assert len(perceptual_hash(image)) == 16
    assert data_uri(image).startswith("data:image/webp;base64,")


@pytest.mark.parametrize(
    "image",
    [photo(100, 75), noise(60, 100), noise(100, 100).bandjoin(noise(100, 100, seed=7)[0])],
)
def test_data_uri_is_a_tiny_picture_of_few_bytes(image: Image) -> None:
    uri = data_uri(image)
    assert len(uri) <= 400
    tiny = opened(base64.b64decode(uri.removeprefix("data:image/webp;base64,")))
    assert max(tiny.width, tiny.height) <= 24
    assert tiny.width / tiny.height == pytest.approx(image.width / image.height, rel=0.15)
    assert tiny.hasalpha() == image.hasalpha()
    assert abs(tiny[1].avg() - image[1].avg()) < 25
