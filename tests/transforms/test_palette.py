"""Palettes: the colours that a person would name."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.pictures import BLUE, CORNERS, GREEN, RED, flat, noise, photo, quadrants
from transforms.libvips import Image
from transforms.palette import Swatch, average, dominant, palette
from transforms.values import TRANSPARENT, Colour

WHITE = [255, 255, 255]
components = st.integers(0, 255)


def colour(bands: list[int]) -> Colour:
    return Colour(*bands)


def on(ground: list[int], *, size: int, of: list[int]) -> Image:
    """A square of one colour in the middle of 100x100 pixels of another."""
    at = (100 - size) // 2
    whole = flat(*ground, width=100, height=100)
    return whole.insert(flat(*of, width=size, height=size), at, at).copy_memory()


def ring(*, ground: list[float], ink: list[float]) -> Image:
    """A logo of two colours with soft edges."""
    where = Image.xyz(100, 100) - [50, 50]
    radius = (where[0] ** 2 + where[1] ** 2) ** 0.5
    mask = ((radius - 30).abs() * -64 + 640).cast("uchar")
    return mask.ifthenelse(ink, ground, blend=True).cast("uchar").copy(interpretation="srgb")


def shares(image: Image, **options: int) -> dict[Colour, float]:
    return {swatch.colour: round(swatch.share, 3) for swatch in palette(image, **options)}


@settings(max_examples=60, deadline=None)
@given(red=components, green=components, blue=components)
def test_one_colour_is_told_exactly(red: int, green: int, blue: int) -> None:
    image, told = flat(red, green, blue), Colour(red, green, blue)
    assert average(image) == dominant(image) == told
    assert palette(image) == (Swatch(told, 1.0),)


def test_four_colours_are_four_swatches() -> None:
    assert shares(quadrants(100, 100)) == {colour(corner): 0.25 for corner in CORNERS}


def test_a_logo_of_two_colours_has_them_first() -> None:
    first, second, *edges = palette(ring(ground=WHITE, ink=RED))
    assert first.colour == colour(WHITE)
    assert second.colour.red > 200
    assert second.colour.green < 60
    assert sum(edge.share for edge in edges) < 0.15


def test_shades_of_one_name_are_one_swatch() -> None:
    image = flat(200, 60, 60, width=50, height=100).join(
        flat(205, 64, 60, width=50, height=100), "horizontal"
    )
    ((told, share),) = shares(image).items()
    assert share == 1
    assert (told.red, told.green, told.blue) == pytest.approx((202, 62, 60), abs=2)


def test_a_small_mark_of_another_colour_is_not_lost() -> None:
    assert colour(RED) in shares(on(GREEN, size=10, of=RED))


def test_what_is_transparent_has_no_colour() -> None:
    image = flat(*BLUE, 0, width=80, height=100).join(
        flat(*RED, 255, width=20, height=100), "horizontal"
    )
    assert average(image) == dominant(image) == colour(RED)
    assert shares(image) == {colour(RED): 1.0}


def test_a_picture_of_nothing_has_no_colours() -> None:
    image = flat(*RED, 0)
    assert average(image) == dominant(image) == TRANSPARENT
    assert palette(image) == ()


def test_what_shines_through_counts_by_its_opacity() -> None:
    image = flat(*BLUE, 51, width=50, height=100).join(
        flat(*RED, 255, width=50, height=100), "horizontal"
    )
    assert shares(image) == {colour(RED): 0.833, colour(BLUE): 0.167}


def test_average_is_of_light() -> None:
    # Half black, half white is 50 % of the light, which sRGB writes as 188.
    image = flat(0, 0, 0).join(flat(255, 255, 255), "horizontal")
    assert average(image) == Colour(188, 188, 188)


def test_the_ground_is_at_the_edges() -> None:
    assert dominant(on(WHITE, size=70, of=RED)) == colour(WHITE)
    assert dominant(on(WHITE, size=92, of=RED)) == colour(RED)


def test_a_ground_that_varies_is_still_the_ground() -> None:
    sky = Image.xyz(100, 100)[1] * 0.5
    sky = (sky + 90).bandjoin([sky + 140, sky * 0.2 + 230]).cast("uchar")
    picture = sky.copy(interpretation="srgb").insert(flat(20, 20, 20, width=55, height=55), 30, 45)
    told = dominant(picture)
    assert told.blue > told.green > told.red > 90


@pytest.mark.parametrize("count", [1, 2, 3, 8, 40])
def test_count_bounds_the_swatches(count: int) -> None:
    assert min(count, 8) <= len(palette(photo(100, 75), count=count)) <= count
    assert len(palette(quadrants(), count=count)) == min(count, 4)


def test_count_is_at_least_one() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        palette(photo(), count=0)


@settings(max_examples=30, deadline=None)
@given(width=st.integers(1, 60), height=st.integers(1, 60), seed=st.integers(0, 999))
def test_swatches_are_in_order_and_shares_add_up(width: int, height: int, seed: int) -> None:
    image = noise(width, height, seed=seed)
    swatches = palette(image)
    told = [swatch.share for swatch in swatches]
    assert told == sorted(told, reverse=True)
    assert sum(told) == pytest.approx(1)
    assert len({swatch.colour for swatch in swatches}) == len(swatches)
    assert palette(image) == swatches


def test_grey_and_deep_pictures_have_colours_too() -> None:
    assert dominant(flat(77)) == Colour(77, 77, 77)
    assert average(flat(77, 255)) == Colour(77, 77, 77)
    deep = flat(0xFFFF, 0, 0x8080, interpretation="rgb16", number="ushort")
    assert dominant(deep) == Colour(255, 0, 128)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("320x240.jpg", Colour(253, 253, 253)),  # a test chart on paper
        ("4.webp", Colour(58, 139, 202)),  # a tree before the sky
        ("gopher-exif-orientation-cw90.png", Colour(108, 215, 229)),  # light blue on nothing
        ("imaginary.jpg", Colour(0, 0, 0)),  # a galaxy in the dark
    ],
)
def test_the_ground_of_real_pictures(real_images: Path, name: str, told: Colour) -> None:
    data = (real_images / name).read_bytes()
    seen = dominant(Image.thumbnail_buffer(data, 100, height=100, size="down").copy_memory())
    assert (seen.red, seen.green, seen.blue) == pytest.approx(
        (told.red, told.green, told.blue), abs=12
    )
