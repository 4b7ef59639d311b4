"""Tone: every value by the formula that defines it, and what must never change."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.pictures import flat, photo
from transforms import tone
from transforms.libvips import Image
from transforms.values import Colour

TEAL, NAVY, GOLD = Colour(0, 128, 128), Colour(25, 37, 80), Colour(255, 213, 0)
LUMA = (0.2126, 0.7152, 0.0722)

COLOURFUL: dict[str, Callable[[Image], Image]] = {
    "level": partial(tone.level, black=10, white=90, gamma=1.2),
    "normalize": tone.normalize,
    "gamma": partial(tone.gamma, exponent=1.5),
    "brightness": partial(tone.brightness, amount=20),
    "contrast": partial(tone.contrast, amount=-30),
    "saturation": partial(tone.saturation, amount=40),
    "hue": partial(tone.hue, degrees=75),
    "invert": tone.invert,
}
"""What leaves grey pictures grey."""
DYES: dict[str, Callable[[Image], Image]] = {
    "sepia": partial(tone.sepia, amount=80),
    "tint": partial(tone.tint, colour=TEAL),
    "duotone": partial(tone.duotone, dark=NAVY, light=GOLD),
}
"""What gives grey pictures a colour."""
ALL = {**COLOURFUL, **DYES, "grayscale": tone.grayscale}

IDENTITIES: dict[str, Callable[[Image], Image]] = {
    "level": partial(tone.level, black=0, white=100, gamma=1),
    "gamma": partial(tone.gamma, exponent=1),
    "brightness": partial(tone.brightness, amount=0),
    "contrast": partial(tone.contrast, amount=0),
    "saturation": partial(tone.saturation, amount=0),
    "hue": partial(tone.hue, degrees=-360),
    "sepia": partial(tone.sepia, amount=0),
    "opacity": partial(tone.opacity, amount=1),
}

quick = settings(max_examples=50, deadline=None)
values = st.integers(0, 255)
colours = st.tuples(values, values, values)
amounts = st.integers(-100, 100)


def ramp() -> Image:
    """Every grey from 0 to 255, from left to right."""
    return Image.identity().copy(interpretation="b-w")


def translucent(image: Image) -> Image:
    """With alpha that goes from 0 to 255, from left to right."""
    alpha = Image.xyz(image.width, image.height)[0] * (255 / (image.width - 1))
    return image.bandjoin(alpha.cast("uchar")).copy_memory()


def shades(image: Image) -> list[int]:
    """The first row of a picture of one band."""
    assert image.bands == 1
    return [int(value) for value in image.tolist()[0]]


def pixel(image: Image) -> list[int]:
    return [int(value) for value in image(0, 0)]


def one(*bands: float) -> Image:
    return flat(*bands, width=1, height=1)


def byte(share: float) -> int:
    return math.floor(255 * min(1, max(0, share)) + 0.5)


def same(one: Image, other: Image) -> bool:
    return one.bands == other.bands and float((one - other).abs().max()) == 0


def mixed(matrix: list[list[float]], colour: tuple[int, int, int]) -> list[float]:
    sums = (sum(a * b for a, b in zip(row, colour, strict=True)) for row in matrix)
    return [min(255.0, max(0.0, value)) for value in sums]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
def test_the_result_is_of_the_same_kind_and_alpha_stays(name, grey, alpha):
    image = tone.grayscale(photo()) if grey else photo()
    image = translucent(image) if alpha else image
    result = ALL[name](image)
    dyed = name in DYES or (not grey and name != "grayscale")
    assert (result.width, result.height, result.format) == (160, 120, "uchar")
    assert (result.bands, result.interpretation) == (
        (3 if dyed else 1) + alpha,
        "srgb" if dyed else "b-w",
    )
    assert result.hasalpha() == alpha
    if alpha:
        assert same(result[result.bands - 1], image[image.bands - 1])


@pytest.mark.parametrize("name", ALL)
def test_alpha_does_not_change_the_colours(name):
    image = photo()
    with_alpha = ALL[name](image.bandjoin(255))
    assert same(with_alpha.extract_band(0, n=with_alpha.bands - 1), ALL[name](image))


@pytest.mark.parametrize("name", COLOURFUL)
def test_grey_is_treated_as_the_same_grey_in_colour(name):
    grey = tone.grayscale(photo())
    wide = grey.bandjoin([grey, grey]).copy(interpretation="srgb")
    difference = (COLOURFUL[name](wide) - COLOURFUL[name](grey)).abs()
    assert difference.max() <= (1 if name == "hue" else 0)  # CSS's factors sum to 1 but for 1/1000


@pytest.mark.parametrize("name", IDENTITIES)
def test_what_changes_nothing_gives_the_picture_itself(name):
    image = photo()
    assert IDENTITIES[name](image) is image


def test_level_stretches_between_its_points():
    result = shades(tone.level(ramp(), black=20, white=80, gamma=1.5))
    shares = [(value / 255 - 0.2) / 0.6 for value in range(256)]
    assert result == [byte(max(0, min(1, share)) ** (1 / 1.5)) for share in shares]


def test_level_turns_round_when_black_is_above_white():
    assert shades(tone.level(ramp(), black=100, white=0, gamma=1)) == list(range(255, -1, -1))


@pytest.mark.parametrize(("point", "first"), [(0, 1), (50, 128), (100, 256)])
def test_level_without_a_span_is_a_threshold(point, first):
    result = shades(tone.level(ramp(), black=point, white=point, gamma=1))
    assert result == [0] * first + [255] * (256 - first)


@pytest.mark.parametrize("exponent", [0.1, 0.5, 1.8, 10])
def test_gamma_is_a_power(exponent):
    result = shades(tone.gamma(ramp(), exponent=exponent))
    assert result == [byte((value / 255) ** (1 / exponent)) for value in range(256)]


@quick
@given(amounts)
def test_brightness_adds_and_contrast_turns_about_middle_grey(amount):
    shares = [value / 255 for value in range(256)]
    share = amount / 100
    assert shades(tone.brightness(ramp(), amount=amount)) == [byte(v + share) for v in shares]
    turned = [byte((v - 0.5) * (1 + share) + 0.5) for v in shares]
    assert shades(tone.contrast(ramp(), amount=amount)) == turned


def test_brightness_and_contrast_reach_their_ends():
    assert set(shades(tone.brightness(ramp(), amount=-100))) == {0}
    assert set(shades(tone.brightness(ramp(), amount=100))) == {255}
    assert set(shades(tone.contrast(ramp(), amount=-100))) == {128}


@quick
@given(colours, amounts)
def test_saturation_moves_away_from_grey(colour, amount):
    grey = sum(a * b for a, b in zip(LUMA, colour, strict=True))
    expected = [min(255, max(0, grey + (v - grey) * (1 + amount / 100))) for v in colour]
    result = pixel(tone.saturation(one(*colour), amount=amount))
    assert result == pytest.approx(expected, abs=0.51)


def test_no_saturation_is_grey():
    grey = tone.grayscale(photo())
    assert (tone.saturation(photo(), amount=-100) - grey).abs().max() == 0


@pytest.mark.parametrize(
    ("degrees", "colour", "expected"),
    [
        # By hand from the matrix of W3C Filter Effects 1 at the angles of whole quarter turns.
        (90, (255, 0, 0), [0, 90.78, 0]),
        (90, (100, 100, 100), [100, 100, 100]),
        (180, (200, 100, 50), [35.4, 135.4, 185.4]),
        (270, (10, 60, 250), [0, 123.95, 10]),
    ],
)
def test_hue_turns_by_the_matrix_of_css(degrees, colour, expected):
    assert pixel(tone.hue(one(*colour), degrees=degrees)) == pytest.approx(expected, abs=0.6)


@quick
@given(st.tuples(*[st.integers(90, 160)] * 3), st.integers(-360, 360))
def test_hue_there_and_back_is_the_same_colour(colour, degrees):
    there = tone.hue(one(*colour), degrees=degrees)
    assert pixel(tone.hue(there, degrees=-degrees)) == pytest.approx(colour, abs=2)


@quick
@given(colours)
def test_grayscale_is_luma(colour):
    expected = sum(a * b for a, b in zip(LUMA, colour, strict=True))
    assert pixel(tone.grayscale(one(*colour))) == pytest.approx([expected], abs=0.51)


@quick
@given(colours, st.integers(0, 100))
def test_sepia_is_the_matrix_of_css(colour, amount):
    rest = 1 - amount / 100
    matrix = [
        [0.393 + 0.607 * rest, 0.769 - 0.769 * rest, 0.189 - 0.189 * rest],
        [0.349 - 0.349 * rest, 0.686 + 0.314 * rest, 0.168 - 0.168 * rest],
        [0.272 - 0.272 * rest, 0.534 - 0.534 * rest, 0.131 + 0.869 * rest],
    ]
    result = pixel(tone.sepia(one(*colour), amount=amount))
    assert result == pytest.approx(mixed(matrix, colour), abs=0.51)


@quick
@given(colours, colours)
def test_tint_keeps_lightness_and_takes_the_hue(colour, chosen):
    result = pixel(tone.tint(one(*colour), colour=Colour(*chosen)))
    luma = sum(a * b for a, b in zip(LUMA, colour, strict=True))
    assert sum(a * b for a, b in zip(LUMA, result, strict=True)) == pytest.approx(luma, abs=1.01)
    for first in range(3):
        for second in range(3):
            if chosen[first] > chosen[second]:
                assert result[first] >= result[second]


def test_tint_gives_its_own_colour_to_what_is_as_light():
    luma = sum(a * b for a, b in zip(LUMA, (0, 128, 128), strict=True))
    grey = flat(round(luma), width=1, height=1, interpretation="b-w")
    assert pixel(tone.tint(grey, colour=TEAL)) == pytest.approx([0, 128, 128], abs=1)


def test_tint_with_a_grey_is_grayscale():
    tinted = tone.tint(photo(), colour=Colour(90, 90, 90))
    assert (tinted - tone.grayscale(photo())).abs().max() == 0


def test_duotone_goes_from_dark_to_light():
    result = tone.duotone(ramp(), dark=NAVY, light=GOLD)
    assert result(0, 0) == [25, 37, 80]
    assert result(255, 0) == [255, 213, 0]
    assert result(51, 0) == pytest.approx([71, 72.2, 64], abs=0.51)


def test_invert_twice_is_the_picture():
    image = translucent(photo())
    assert shades(tone.invert(ramp())) == list(range(255, -1, -1))
    assert same(tone.invert(tone.invert(image)), image)


@quick
@given(st.floats(0, 1))
def test_opacity_multiplies_alpha(amount):
    image = translucent(flat(10, 20, 30, width=256, height=1))
    result = tone.opacity(image, amount=amount)
    assert shades(result[3]) == [byte(amount * value / 255) for value in range(256)]
    assert same(result.extract_band(0, n=3), image.extract_band(0, n=3))


@pytest.mark.parametrize(("bands", "kind"), [((9,), "b-w"), ((9, 8, 7), "srgb")])
def test_opacity_gives_alpha_to_what_has_none(bands, kind):
    image = flat(*bands, interpretation=kind)
    result = tone.opacity(image, amount=0.5)
    assert pixel(result) == [*bands, 128]
    assert (result.hasalpha(), result.interpretation, result.format) == (True, kind, "uchar")


def test_normalize_uses_the_whole_scale_and_clips_few_pixels():
    # 10,000 greys from 60 to 159: 15 may become black, and 5 white, besides the ends themselves.
    image = (Image.xyz(100, 100)[0] + 60).cast("uchar").copy(interpretation="b-w").copy_memory()
    result = tone.normalize(image)
    assert shades(result)[:100] == [byte(at / 99) for at in range(100)]


def test_normalize_ignores_a_few_stray_pixels():
    image = (Image.xyz(100, 100)[0] + 60).cast("uchar").copy(interpretation="b-w")
    strays = image.draw_rect([0], 0, 0, 1, 10).draw_rect([255], 50, 0, 1, 4)
    result = tone.normalize(strays.copy_memory())
    assert same(result.crop(60, 0, 40, 100), tone.normalize(image).crop(60, 0, 40, 100))


def test_normalize_treats_all_channels_alike():
    left, right = flat(60, 70, 80), flat(140, 150, 160)
    result = tone.normalize(left.join(right, "horizontal").copy_memory())
    dark, light = result(0, 0), result(result.width - 1, 0)
    assert dark[0] == 0
    assert light[2] == 255
    assert 0 < dark[2] < light[0] < 255


def test_normalize_does_not_count_what_is_transparent():
    picture = flat(100, 110, 120).join(flat(140, 150, 160), "horizontal").bandjoin(255)
    hidden = flat(0, 0, 0, 0).join(flat(255, 255, 255, 0), "horizontal")
    both = picture.join(hidden, "horizontal").copy_memory()
    assert same(
        tone.normalize(both).crop(0, 0, picture.width, picture.height),
        tone.normalize(picture.copy_memory()),
    )


@pytest.mark.parametrize("bands", [(7,), (7, 7, 7), (0, 0, 0), (255, 255, 255), (1, 2, 3, 0)])
def test_normalize_leaves_one_shade_as_it_is(bands):
    image = flat(*bands, interpretation="b-w" if len(bands) == 1 else "srgb").copy_memory()
    assert same(tone.normalize(image), image)
