"""Effects: against their definition at full precision, at rims, and at the extremes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.pictures import flat, photo, saved
from transforms import effects, tone
from transforms.libvips import Image

EFFECTS: dict[str, Callable[[Image], Image]] = {
    "blur": partial(effects.blur, sigma=2),
    "large blur": partial(effects.blur, sigma=40),
    "sharpen": partial(effects.sharpen, sigma=1, amount=1, threshold=0.02),
    "pixelate": partial(effects.pixelate, block=7),
    "sketch": effects.sketch,
    "charcoal": partial(effects.charcoal, sigma=1),
    "broad charcoal": partial(effects.charcoal, sigma=5),
}
DRAWINGS = ("sketch", "charcoal", "broad charcoal")
LAZY = ("blur", "large blur", "sharpen", "pixelate")
"""What reads a picture once, from top to bottom."""

EXTREMES: dict[str, Callable[[Image], Image]] = {
    "least blur": partial(effects.blur, sigma=0.01),
    "most blur": partial(effects.blur, sigma=250),
    "most sharpening": partial(effects.sharpen, sigma=160, amount=10, threshold=0),
    "no sharpening": partial(effects.sharpen, sigma=5, amount=5, threshold=1),
    "smallest blocks": partial(effects.pixelate, block=1),
    "largest blocks": partial(effects.pixelate, block=8192),
    "sketch": effects.sketch,
    "least charcoal": partial(effects.charcoal, sigma=0.01),
    "most charcoal": partial(effects.charcoal, sigma=160),
}


def exact_blur(image: Image, sigma: float) -> Image:
    """A Gaussian as it is defined, integrated over each pixel, in floating point."""
    radius = math.ceil(5 * sigma)
    scale = sigma * math.sqrt(2)
    row = [
        math.erf((at + 0.5) / scale) - math.erf((at - 0.5) / scale)
        for at in range(-radius, radius + 1)
    ]
    mask = Image.new_from_array([row], scale=sum(row))
    return image.cast("float").convsep(mask, precision="float")


def grained(width: int = 160, height: int = 120) -> Image:
    """A bright half, a dark half, and grain on both."""
    image = photo(width, height)
    return (image * (Image.xyz(width, height)[0] > width // 3).ifthenelse(1, 0.2)).cast("uchar")


def on_black(image: Image) -> Image:
    return image.flatten(background=0)


def on_paper(image: Image) -> Image:
    return image.flatten(background=255)


def disc(*colour: float, hidden: tuple[float, ...] = (0, 0, 0)) -> Image:
    """An opaque disc on transparent pixels, under which another colour lies hidden."""
    at = Image.xyz(60, 60)
    inside = ((at[0] - 30) ** 2 + (at[1] - 30) ** 2) < 15**2
    seen = flat(*colour, 255, width=60, height=60)
    return inside.ifthenelse(seen, flat(*hidden, 0, width=60, height=60)).copy(
        interpretation="srgb"
    )


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("grey", [False, True], ids=["colour", "grey"])
@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
def test_the_result_is_of_the_same_kind_and_size(name, grey, alpha):
    image = tone.grayscale(photo()) if grey else photo()
    if alpha:
        image = image.bandjoin((Image.xyz(160, 120)[0] * 1.6).cast("uchar")).copy_memory()
    result = EFFECTS[name](image)
    grey = grey or name in DRAWINGS
    assert (result.width, result.height, result.format) == (160, 120, "uchar")
    assert (result.bands, result.hasalpha()) == ((1 if grey else 3) + alpha, alpha)
    assert result.interpretation == ("b-w" if grey else "srgb")
    if alpha and name in ("sharpen", *DRAWINGS):
        assert (result[result.bands - 1] - image[image.bands - 1]).abs().max() == 0


@pytest.mark.parametrize("name", EFFECTS)
@pytest.mark.parametrize("shade", [0, 77, 255])
def test_one_shade_stays_one_shade(name, shade):
    result = EFFECTS[name](flat(shade, shade, shade))
    assert result.min() == result.max()
    if name not in DRAWINGS:
        assert result.min() == shade


@pytest.mark.parametrize("name", EFFECTS)
def test_full_alpha_changes_nothing(name):
    image = photo()
    result = EFFECTS[name](image.bandjoin(255).copy_memory())
    assert result[result.bands - 1].min() == 255
    colours = result.extract_band(0, n=result.bands - 1)
    assert (colours - EFFECTS[name](image)).abs().max() <= 1


@pytest.mark.parametrize("name", LAZY)
def test_a_picture_is_read_once_from_top_to_bottom(name, tmp_path: Path):
    path = tmp_path / "photo.png"
    path.write_bytes(saved(photo(300, 700), "png"))
    streamed = EFFECTS[name](Image.new_from_file(str(path), access="sequential")).copy_memory()
    assert (streamed - EFFECTS[name](photo(300, 700))).abs().max() == 0


@pytest.mark.parametrize("name", EXTREMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (640, 480)])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_extremes_are_borne(name, size, bands):
    interpretation = "srgb" if bands > 2 else "b-w"
    image = flat(*[40, 90, 200, 130][:bands], width=size[0], height=size[1])
    image = image.copy(interpretation=interpretation).copy_memory()
    result = EXTREMES[name](image).copy_memory()
    assert (result.width, result.height, result.format) == (*size, "uchar")


@pytest.mark.parametrize("sigma", [0.3, 0.5, 0.8, 1, 1.7, 3, 6, 11.9])
def test_a_small_blur_is_a_gaussian(sigma):
    image = grained()
    difference = effects.blur(image, sigma=sigma) - exact_blur(image, sigma)
    assert abs(difference.avg()) < 0.1
    assert difference.abs().max() < 3


@pytest.mark.parametrize("sigma", [12.1, 25, 50, 120])
def test_a_large_blur_is_a_gaussian_too(sigma):
    image = grained(240, 180)
    difference = effects.blur(image, sigma=sigma) - exact_blur(image, sigma)
    assert abs(difference.avg()) < 0.3
    assert difference.abs().max() < 2.5


@settings(max_examples=30, deadline=None)
@given(st.floats(0.3, 250))
def test_blur_stays_between_the_darkest_and_the_lightest(sigma):
    image = flat(40, width=50, height=30).join(flat(200, width=50, height=30), "horizontal")
    image = image.copy(interpretation="b-w")
    result = effects.blur(image, sigma=sigma).copy_memory()
    assert 40 <= result.min() <= result.max() <= 200
    assert result.avg() == pytest.approx(120, abs=1)
    assert result(0, 0)[0] <= result(99, 0)[0]


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (0, 255, 0)])
@pytest.mark.parametrize("name", ["blur", "large blur", "pixelate", "sharpen"])
def test_what_is_transparent_has_no_colour(name, hidden):
    result = EFFECTS[name](disc(230, 40, 90, hidden=hidden).copy_memory())
    visible = result[3] > 40
    for band, value in enumerate((230, 40, 90)):
        off = (result[band].cast("int") - value).abs()
        assert visible.ifthenelse(off, 0).max() <= 4
    other = EFFECTS[name](disc(230, 40, 90).copy_memory())
    assert (on_black(result) - on_black(other)).abs().max() <= 1


@settings(max_examples=100, deadline=None)
@given(st.floats(0.1, 250))
def test_blur_makes_nothing_lighter_or_darker(sigma):
    result = effects.blur(flat(255, 200, 1), sigma=sigma)
    assert result.stats().crop(0, 1, 2, 3).tolist() == [[255, 255], [200, 200], [1, 1]]


def test_blur_blurs_alpha():
    image = disc(230, 40, 90)
    blurred = effects.blur(image, sigma=3)
    assert (blurred[3] - exact_blur(image[3], 3)).abs().max() < 2


def test_sharpen_adds_what_a_blur_takes_away():
    image = tone.grayscale(photo())
    result = effects.sharpen(image, sigma=1.5, amount=0.8, threshold=0)
    expected = image + (image - exact_blur(image, 1.5)) * 0.8
    clipped = (expected > 255).ifthenelse(255, (expected < 0).ifthenelse(0, expected))
    assert (result - clipped).abs().max() < 1


@pytest.mark.parametrize(("threshold", "acts"), [(0, True), (0.09, True), (0.11, False)])
def test_sharpen_spares_what_differs_by_less_than_half_the_threshold(threshold, acts):
    # A step of 26 of 255 differs by almost half of that from its blur, on either side.
    step = flat(100, width=30, height=20).join(flat(126, width=30, height=20), "horizontal")
    image = step.copy(interpretation="b-w").copy_memory()
    result = effects.sharpen(image, sigma=5, amount=1, threshold=threshold)
    assert (result(30, 10)[0] > 126) == acts
    assert (result(29, 10)[0] < 100) == acts
    assert result(0, 10) == [100]


def test_sharpen_makes_no_coloured_fringes():
    step = flat(200, 80, 80).join(flat(60, 110, 90), "horizontal").copy_memory()
    result = effects.sharpen(step, sigma=2, amount=1.5, threshold=0)
    assert (result - step).abs().max() > 0
    for first, second in ((0, 1), (1, 2)):
        before = step[first].cast("int") - step[second]
        after = result[first].cast("int") - result[second]
        assert (before - after).abs().max() == 0


def test_sharpen_by_nothing_gives_the_picture_itself():
    image = photo()
    assert effects.sharpen(image, sigma=2, amount=0, threshold=0) is image
    assert (effects.sharpen(image, sigma=2, amount=3, threshold=1) - image).abs().max() == 0


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.integers(1, 30), st.integers(1, 30))
def test_every_block_has_its_mean(block, width, height):
    image = photo(width, height)[0]
    before, after = image.tolist(), effects.pixelate(image, block=block).tolist()
    for left in range(0, width, block):
        for top in range(0, height, block):
            area = [
                (row, column)
                for row in range(top, min(top + block, height))
                for column in range(left, min(left + block, width))
            ]
            [shade] = {after[row][column] for row, column in area}
            mean = sum(before[row][column] for row, column in area) / len(area)
            assert shade == pytest.approx(mean, abs=0.51)


def test_sketch_draws_where_the_steps_are():
    step = flat(80, 80, 80, width=20).join(flat(160, 160, 160, width=20), "horizontal")
    result = effects.sketch(step.copy_memory()).copy_memory()
    assert result(20, 8)[0] < 128
    assert [result(x, 8)[0] for x in (0, 10, 16, 24, 39)] == [255] * 5


@pytest.mark.parametrize(("sigma", "reach"), [(1, 2), (3, 6), (5, 8)])
def test_charcoal_strokes_are_as_broad_as_asked(sigma, reach):
    step = flat(80, 80, 80, width=30).join(flat(160, 160, 160, width=30), "horizontal")
    result = effects.charcoal(step.copy_memory(), sigma=sigma).copy_memory()
    row = [value for [value] in (result(x, 8) for x in range(60))]
    assert min(row) == min(row[30:]) == 0
    assert max(at for at, value in enumerate(row) if value < 250) - 29 == pytest.approx(
        reach, abs=1
    )
    assert row[0] == row[59] == 255


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_drawing_does_not_show_what_is_hidden(name):
    drawings = [
        EFFECTS[name](disc(90, 90, 90, hidden=hidden).copy_memory())
        for hidden in ((0, 0, 0), (255, 0, 0))
    ]
    assert (drawings[0] - drawings[1]).abs().max() == 0
    assert on_paper(drawings[0]).min() < 128
