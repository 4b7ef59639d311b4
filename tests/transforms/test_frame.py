"""Frame: border, round corners and shadow, as CSS draws them."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.pictures import BLUE, RED, flat, opened, quadrants, render, saved, seen
from transforms import pipeline
from transforms.errors import InvalidOption
from transforms.limits import Limits
from transforms.transform import Transform

WHITE = [255, 255, 255]
GOLD = [255, 215, 0]
RED_PNG = saved(flat(*RED, width=40, height=30), "png")
SQUARE = saved(flat(*RED, width=41, height=41), "png")


def size_of(image):
    return image.width, image.height


def only(image, colour):
    return all(image[band].min() == image[band].max() == v for band, v in enumerate(colour))


def column(image, x, band=3):
    return [image(x, y)[band] for y in range(image.height)]


def near(one, other, by=1):
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


# Border.


def test_a_border_goes_round_the_picture():
    image = seen(RED_PNG, "border=5,gold")
    assert (size_of(image), image.bands) == ((50, 40), 3)
    assert only(image.crop(5, 5, 40, 30), RED)
    for box in ((0, 0, 50, 5), (0, 35, 50, 5), (0, 0, 5, 40), (45, 0, 5, 40)):
        assert only(image.crop(*box), GOLD)
    assert seen(RED_PNG, "border=1")(0, 0) == [0, 0, 0]


def test_a_border_goes_round_canvas_and_padding():
    image = seen(RED_PNG, "w=40&h=40&padding=3&background=blue&border=2,gold")
    assert size_of(image) == (50, 50)
    assert image(1, 1) == GOLD
    assert only(image.crop(2, 2, 46, 8), [0, 0, 255])
    assert only(image.crop(5, 10, 40, 30), RED)


def test_a_border_may_shine_through():
    image = seen(RED_PNG, "border=4,0000ff80")
    assert image(1, 1) == [0, 0, 255, 128]
    assert image(20, 20) == [*RED, 255]
    clear = seen(RED_PNG, "border=4,none")
    assert clear(1, 1)[3] == 0
    assert clear(20, 20) == [*RED, 255]


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_a_picture_of_any_kind_gets_a_border_of_any_colour(bands):
    ink = [90] * (1 if bands < 3 else 3) + [200] * (bands in (2, 4))
    picture = flat(*ink, interpretation="b-w" if bands < 3 else "srgb")
    image = seen(saved(picture, "png"), "border=3,gold")
    assert image(0, 0)[:3] == GOLD
    assert image(12, 8)[:3] == [90, 90, 90]
    if bands in (2, 4):
        assert (image(0, 0)[3], image(12, 8)[3]) == (255, 200)


def test_dpr_and_bounds_scale_a_frame():
    assert size_of(seen(RED_PNG, "w=20&h=20&dpr=2&border=3")) == (52, 52)
    assert size_of(seen(RED_PNG, "dpr=2&border=3&enlarge=1")) == (92, 72)
    bounded = seen(RED_PNG, "border=20,gold&max-w=40&shadow=0,0,10,000&round=8")
    assert bounded.width <= 40
    assert bounded.height < bounded.width
    assert bounded(bounded.width // 2, bounded.height // 2) == [*RED, 255]


# Round corners.


def test_corners_are_cut_and_the_rest_stays():
    image = seen(RED_PNG, "round=10")
    alpha = image[3]
    assert [alpha(x, y) for x, y in ((0, 0), (39, 0), (0, 29), (39, 29))] == [[0]] * 4
    assert alpha.crop(10, 0, 20, 30).min() == 255
    assert alpha.crop(0, 10, 40, 10).min() == 255
    assert only(image[:3], RED)


@pytest.mark.parametrize("radius", [1, 2, 5, 12, 15])
def test_a_corner_covers_what_a_quarter_of_a_disc_does(radius):
    alpha = seen(RED_PNG, f"round={radius}")[3].crop(0, 0, radius, radius)
    assert alpha.avg() / 255 == pytest.approx(math.pi / 4, abs=0.04)
    assert (alpha - alpha.rot90().fliphor()).abs().max() == 0


@pytest.mark.parametrize("side", [7, 40, 41])
def test_full_makes_a_disc_of_a_square(side):
    image = seen(saved(flat(*RED, width=side, height=side), "png"), "round=full")
    alpha = image[3]
    assert size_of(alpha) == (side, side)
    assert alpha.avg() / 255 == pytest.approx(math.pi / 4, abs=0.02)
    for turned in (alpha.fliphor(), alpha.flipver(), alpha.rot90()):
        assert (alpha - turned).abs().max() <= 1
    middle = side // 2
    # The disc touches the middle of each side, and nowhere is there a notch.
    assert alpha(middle, 0)[0] >= 240
    assert alpha(middle, 0)[0] >= alpha(middle - 2, 0)[0]
    assert alpha(0, 0)[0] == 0


@pytest.mark.parametrize("radius", ["round=500", "round=full", "round=15"])
def test_a_radius_is_at_most_half_the_shorter_side(radius):
    alpha = seen(RED_PNG, radius)[3]
    assert (alpha - seen(RED_PNG, "round=15")[3]).abs().max() == 0
    assert only(alpha.crop(15, 0, 10, 30), [255])


def test_a_round_border_is_as_wide_everywhere():
    image = seen(SQUARE, "border=6,gold&round=full")
    assert size_of(image) == (53, 53)
    assert image(0, 0)[3] == 0
    colours = [image(26 + round(r * 0.7071), 26 + round(r * 0.7071)) for r in range(27)]
    gold = [r for r, pixel in enumerate(colours) if near(pixel, [*GOLD, 255], 3)]
    assert gold[0] in range(20, 23)
    assert gold[-1] in range(24, 27)
    assert colours[10] == [*RED, 255]
    assert [image(26, y)[:3] == GOLD for y in range(8)] == [True] * 6 + [False] * 2


def test_what_was_transparent_stays_so():
    picture = flat(*BLUE, 100, width=40, height=40)
    image = seen(saved(picture, "png"), "round=10")
    assert (image(0, 0)[3], image(20, 20)) == (0, [*BLUE, 100])


@pytest.mark.parametrize(
    ("query", "corner"),
    [("", WHITE), ("&background=lime", [0, 255, 0]), ("&background=none", WHITE)],
)
def test_a_format_without_transparency_shows_the_background(query, corner):
    image = seen(RED_PNG, f"round=10&fm=jpeg&q=95{query}")
    assert image.bands == 3
    assert near(image(0, 0), corner, 12)
    assert near(image(20, 15), RED, 12)


# Shadow.


def test_a_hard_shadow_is_the_picture_moved():
    image = seen(RED_PNG, "shadow=6,4,0,00f")
    assert size_of(image) == (46, 34)
    assert only(image.crop(0, 0, 40, 30), [*RED, 255])
    assert only(image.crop(40, 4, 6, 30), [0, 0, 255, 255])
    assert only(image.crop(6, 30, 40, 4), [0, 0, 255, 255])
    assert image(42, 1)[3] == 0
    assert image(2, 32)[3] == 0


def test_a_shadow_to_the_left_and_up_moves_the_picture():
    image = seen(RED_PNG, "shadow=-6,-4,0,0000ff80")
    assert size_of(image) == (46, 34)
    assert only(image.crop(6, 4, 40, 30), [*RED, 255])
    assert image(1, 1) == [0, 0, 255, 128]
    assert image(45, 1)[3] == 0


@pytest.mark.parametrize("blur", [1, 3, 6, 12, 40])
def test_a_blurred_shadow_falls_off_evenly(blur):
    data = saved(flat(*RED, width=120, height=120), "png")
    image = seen(data, f"shadow=0,0,{blur},000")
    assert size_of(image) == (120 + 2 * blur, 120 + 2 * blur)
    fall = column(image, image.width // 2)[: blur + 1]
    edge = NormalDist(blur, blur / 2)  # CSS Backgrounds 3, 6.1.2
    expected = [edge.cdf(row + 0.5) * 255 for row in range(blur)] + [255]
    assert near(fall, expected, 4)
    for turned in (image.fliphor(), image.flipver(), image.rot90()):
        assert (image[3] - turned[3]).abs().max() <= 3


def test_a_shadow_is_cast_by_round_corners_and_border():
    image = seen(SQUARE, "border=2,gold&round=full&shadow=10,10,0,00f")
    assert size_of(image) == (55, 55)
    assert image(54, 54)[3] == 0
    assert image(50, 50)[3] == 0
    assert near(image(32, 53), [0, 0, 255, 255], 3)
    assert image(22, 22) == [*RED, 255]


def test_a_shadow_scales_with_dpr_and_bounds():
    twice = seen(RED_PNG, "dpr=2&enlarge=1&w=40&shadow=6,4,0,00f")
    assert size_of(twice) == (92, 68)
    half = seen(saved(flat(*RED, width=400, height=300), "png"), "max-w=230&shadow=60,40,0,00f")
    assert half.width <= 230
    assert half(half.width - 2, half.height - 2) == [0, 0, 255, 255]
    assert half(half.width - 2, 2)[3] == 0


def test_a_shadow_falls_on_white_or_on_the_background_of_a_jpeg():
    image = seen(RED_PNG, "shadow=0,0,10,000&fm=jpeg&q=95")
    assert near(image(1, 1), WHITE, 20)
    assert near(image(30, 25), RED, 12)
    assert near(seen(RED_PNG, "shadow=0,0,10,000&fm=jpeg&q=95&bg=lime")(1, 1), [0, 255, 0], 20)


# Sizes.

NUMBER = {
    "w": st.integers(1, 60),
    "h": st.integers(1, 60),
    "fit": st.sampled_from(["contain", "cover", "inside", "outside", "fill"]),
    "enlarge": st.just("1"),
    "border": st.sampled_from(["1", "3,f00", "7,0000ff80", "2,none"]),
    "round": st.sampled_from(["1", "6", "500", "full"]),
    "shadow": st.sampled_from(["", "5,-3,0,f00", "-9,2,7", "0,0,1,fff", "30,30,4"]),
    "padding": st.sampled_from(["0", "3", "1,2,3,4"]),
    "extent": st.sampled_from(["9x40", "50x5", "1x1"]),
    "background": st.sampled_from(["none", "gold", "12345680", "auto", "blur"]),
    "tile": st.sampled_from(["2x2,1,1", "3x1,2,0", "5x7,0,6"]),
    "dpr": st.sampled_from(["0.5", "1.3", "2"]),
    "max-w": st.integers(5, 80),
    "max-h": st.integers(5, 80),
    "opacity": st.just("0.5"),
    "gravity": st.sampled_from(["north", "0.2,0.9", "attention", "entropy"]),
}
OPTIONS = st.fixed_dictionaries({}, optional=NUMBER)


@settings(max_examples=150, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    bands=st.integers(1, 4),
    options=OPTIONS,
    fm=st.sampled_from(["png", "jpeg"]),
)
def test_the_result_has_the_size_that_is_planned(size, bands, options, fm):
    picture = quadrants(max(2, size[0]), max(2, size[1])).crop(0, 0, *size)
    picture = picture if bands >= 3 else picture.colourspace("b-w")
    data = saved(picture.addalpha() if bands in (2, 4) else picture, "png")
    query = "&".join(f"{name}={value}" for name, value in options.items())
    try:
        transform = Transform.from_query(query).with_output(fm)
        planned = pipeline.prepare(data, transform, Limits()).plan.result
    except InvalidOption as error:
        assert error.param == "tile"  # noqa: PT017 - it is the only one that may be refused
        return
    made = render(data, query, fm=fm)
    assert (made.width, made.height) == (planned.width, planned.height)
    assert size_of(opened(made.data)) == (planned.width, planned.height)
