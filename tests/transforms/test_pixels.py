"""The pipeline on real pixels: what comes out is the right picture, in the right colours."""

from __future__ import annotations

import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms import pictures
from tests.transforms.pictures import (
    BLUE,
    CORNERS,
    FORMATS,
    GREEN,
    RED,
    YELLOW,
    flat,
    opened,
    quadrants,
    render,
    saved,
    seen,
    stored_as,
)
from transforms import libvips, pipeline
from transforms.errors import BrokenImage, InvalidOption, SourceTooLarge, TransformError
from transforms.inspect import look
from transforms.libvips import Image, MetadataType
from transforms.limits import Limits
from transforms.load import shrink_on_load
from transforms.shapes import Size
from transforms.transform import Transform

WHITE = [255, 255, 255]
ORIENTATIONS = range(1, 9)
every_format = pytest.mark.parametrize("fm", FORMATS)
every_orientation = pytest.mark.parametrize("orientation", ORIENTATIONS)


def near(pixel: list[float], colour: list[int], *, by: float = 1) -> bool:
    """Whether two colours differ by no more than this in any band."""
    assert len(pixel) == len(colour)
    return all(abs(one - other) <= by for one, other in zip(pixel, colour, strict=True))


def only(image: Image, colour: list[int], *, by: float = 1, margin: int = 0) -> bool:
    """Whether every pixel has this colour, but for a margin."""
    size = (image.width - 2 * margin, image.height - 2 * margin)
    inner = image.crop(margin, margin, *size)
    bands = [inner[band] for band in range(inner.bands)]
    assert len(bands) == len(colour)
    return all(
        value - by <= band.min() and band.max() <= value + by
        for band, value in zip(bands, colour, strict=True)
    )


def in_corners(image: Image) -> list[list[float]]:
    """The colours in the middle of the four quarters: top left, top right, bottom left, right."""
    across, down = (
        (image.width // 4, image.width * 3 // 4),
        (image.height // 4, image.height * 3 // 4),
    )
    return [image.getpoint(x, y)[:3] for y in down for x in across]


def are_corners(image: Image, colours: tuple[list[int], ...], *, by: float = 12) -> bool:
    pairs = zip(in_corners(image), colours, strict=True)
    return all(near(pixel, colour, by=by) for pixel, colour in pairs)


# Sizes, canvas and gravity.


def test_a_wide_picture_is_contained_in_the_middle_of_pure_white() -> None:
    image = seen(saved(flat(*RED, width=400, height=100), "png"), "w=200&h=200")
    assert (image.width, image.height, image.bands) == (200, 200, 3)
    assert only(image.crop(0, 0, 200, 75), WHITE, by=0)
    assert only(image.crop(0, 75, 200, 50), RED, by=0)
    assert only(image.crop(0, 125, 200, 75), WHITE, by=0)


def test_a_small_picture_is_framed_and_not_blown_up() -> None:
    image = seen(saved(flat(*RED, width=21, height=11), "png"), "w=100&h=100")
    assert image.find_trim(background=WHITE) == [40, 45, 21, 11]


@pytest.mark.parametrize(
    ("gravity", "left", "top"),
    [
        ("center", 40, 45),
        ("northwest", 0, 0),
        ("north", 40, 0),
        ("southeast", 80, 90),
        ("west", 0, 45),
        ("0.25,1", 20, 90),
    ],
)
def test_gravity_says_where_a_picture_sits_on_its_canvas(gravity: str, left: int, top: int) -> None:
    data = saved(flat(*RED, width=20, height=10), "png")
    for query in ("w=100&h=100", "extent=100x100"):
        image = seen(data, f"{query}&gravity={gravity}")
        assert image.find_trim(background=WHITE) == [left, top, 20, 10]


@pytest.mark.parametrize(
    ("gravity", "colour"),
    [("northwest", RED), ("northeast", GREEN), ("southwest", BLUE), ("0.8,0.9", YELLOW)],
)
def test_gravity_says_what_stays_in_sight_when_cropping(gravity: str, colour: list[int]) -> None:
    data = saved(quadrants(200, 200), "png")
    assert only(seen(data, f"extent=60x60&gravity={gravity}"), colour)
    wide = saved(quadrants(400, 100), "png")
    image = seen(wide, f"w=100&h=100&fit=cover&gravity={gravity}")
    assert near(image.getpoint(50, 25 if colour in (RED, GREEN) else 75), colour, by=3)


def test_padding_surrounds_the_picture_in_the_order_of_css() -> None:
    image = seen(saved(flat(*RED, width=20, height=10), "png"), "padding=1,2,3,4&bg=0000ff")
    assert (image.width, image.height) == (26, 14)
    assert image.find_trim(background=[0, 0, 255]) == [4, 1, 20, 10]


def test_fill_stretches_and_outside_does_not_crop() -> None:
    data = saved(quadrants(200, 100), "png")
    filled, outside = seen(data, "w=50&h=80&fit=fill"), seen(data, "w=50&h=50&fit=outside")
    assert (filled.width, filled.height) == (50, 80)
    assert (outside.width, outside.height) == (100, 50)
    assert are_corners(filled, CORNERS)
    assert are_corners(outside, CORNERS)


@pytest.mark.parametrize("interest", ["attention", "entropy"])
@pytest.mark.parametrize("corner", [0, 1, 2, 3])
def test_the_crop_finds_where_something_is_to_be_seen(interest: str, corner: int) -> None:
    left, top = 300 * (corner % 2), 300 * (corner // 2)
    grain = pictures.noise(100, 100) * [1.4, 0.6, 0.4]
    picture = flat(128, 128, 128, width=400, height=400).insert(grain.cast("uchar"), left, top)
    for query in ("extent=120x120", "w=400&extent=120x120&rotate=0"):
        image = seen(saved(picture, "png"), f"{query}&gravity={interest}")
        assert (image.width, image.height) == (120, 120)
        inside = image.crop(0 if left == 0 else 20, 0 if top == 0 else 20, 100, 100)
        assert inside.deviate() > 25


@pytest.mark.parametrize("interest", ["attention", "entropy"])
@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_a_crop_by_content_works_on_any_number_of_bands(interest: str, bands: int) -> None:
    picture = flat(100, width=300, height=100, interpretation="b-w")
    picture = picture.insert(pictures.noise(80, 80)[0], 215, 10)
    if bands >= 3:
        picture = picture.colourspace("srgb")
    if bands in (2, 4):
        picture = picture.addalpha()
    image = seen(saved(picture, "png"), f"w=100&h=100&fit=cover&gravity={interest}&rotate=180")
    assert (image.width, image.height, image.bands) == (100, 100, bands)
    assert image[0].deviate() > 15


# Orientation.


@every_orientation
@pytest.mark.parametrize("fm", ["jpeg", "png", "webp", "tiff"])
def test_every_orientation_ends_upright(fm: str, orientation: int) -> None:
    data = saved(stored_as(quadrants(80, 60), orientation), fm)
    assert look(data).orientation == orientation
    image = seen(data)
    assert (image.width, image.height) == (80, 60)
    assert are_corners(image, CORNERS)
    small = seen(data, "w=40&h=40")
    assert small.crop(0, 5, 40, 30).width == 40
    assert are_corners(small.crop(0, 5, 40, 30), CORNERS, by=20)


@every_orientation
def test_avif_is_upright_by_its_own_means(orientation: int) -> None:
    data = saved(stored_as(quadrants(80, 60), orientation), "avif")
    image = seen(data, "w=40")
    assert (image.width, image.height) == (40, 30)
    assert are_corners(image, CORNERS, by=25)


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_a_wrong_orientation_means_upright(orientation: int) -> None:
    tagged = pictures.with_metadata(quadrants(80, 60), orientation=orientation)
    tagged.remove("orientation")
    data = saved(tagged, "jpeg")
    image = seen(data)
    assert (image.width, image.height) == (80, 60)
    assert are_corners(image, CORNERS)


def test_the_orientation_can_be_ignored_or_replaced() -> None:
    data = saved(stored_as(quadrants(80, 60), 6), "jpeg")
    assert are_corners(seen(data, "orient=none"), (GREEN, YELLOW, RED, BLUE))
    assert are_corners(seen(data, "orient=8"), (YELLOW, BLUE, GREEN, RED))
    assert are_corners(seen(data, "orient=6"), CORNERS)


@pytest.mark.parametrize(
    ("query", "colours"),
    [
        ("flip=h", (GREEN, RED, YELLOW, BLUE)),
        ("flip=v", (BLUE, YELLOW, RED, GREEN)),
        ("flip=hv", (YELLOW, BLUE, GREEN, RED)),
        ("rotate=90", (BLUE, RED, YELLOW, GREEN)),
        ("rotate=180", (YELLOW, BLUE, GREEN, RED)),
        ("rotate=270", (GREEN, YELLOW, RED, BLUE)),
        ("flip=h&rotate=90", (YELLOW, GREEN, BLUE, RED)),
        ("flip=v&rotate=90", (RED, BLUE, GREEN, YELLOW)),
        ("flip=h&rotate=270", (RED, BLUE, GREEN, YELLOW)),
    ],
)
@pytest.mark.parametrize("orientation", [1, 3, 5, 6])
def test_the_picture_is_mirrored_before_it_is_turned(
    orientation: int, query: str, colours: tuple[list[int], ...]
) -> None:
    data = saved(stored_as(quadrants(80, 60), orientation), "jpeg")
    image = seen(data, query)
    turned = "rotate=90" in query or "rotate=270" in query
    assert (image.width, image.height) == ((60, 80) if turned else (80, 60))
    assert are_corners(image, colours)


# Crops, also out of a decoder that shrinks.

QUARTERS = [(0, 0, RED), (1, 0, GREEN), (0, 1, BLUE), (1, 1, YELLOW)]


@pytest.fixture(scope="module")
def large() -> dict[tuple[str, int], bytes]:
    """A large picture of four colours, as JPEG in each orientation and as WebP."""
    picture = quadrants(1600, 1200)
    made = {("jpeg", n): saved(stored_as(picture, n), "jpeg") for n in ORIENTATIONS}
    return made | {("webp", 1): saved(picture, "webp")}


@pytest.mark.parametrize(("fm", "orientation"), [*(("jpeg", n) for n in ORIENTATIONS), ("webp", 1)])
@pytest.mark.parametrize("width", [800, 200, 100, 50, 7])
def test_a_crop_takes_the_right_quarter_also_where_the_decoder_shrinks(
    large: dict[tuple[str, int], bytes], fm: str, orientation: int, width: int
) -> None:
    data = large[fm, orientation]
    for right, low, colour in QUARTERS:
        for crop in (
            f"{800 * right},{600 * low},800,600",
            f"{0.5 * right},{0.5 * low},0.5,0.5",
        ):
            image = seen(data, f"crop={crop}&w={width}")
            assert image.width == width
            assert only(image, colour, by=14)


def test_the_decoder_does_shrink_a_large_jpeg(large: dict[tuple[str, int], bytes]) -> None:
    data = large["jpeg", 6]
    shrinks = []
    for query in ("w=800", "w=300", "w=150", "w=50", "w=150&crop=0,0,700,700"):
        plan = pipeline.prepare(data, Transform.from_query(query), Limits()).plan
        shrinks.append(shrink_on_load("jpeg", plan))
    assert shrinks == [1, 2, 4, 8, 2]


@every_orientation
@pytest.mark.parametrize("width", [97, 33])
def test_a_crop_between_the_blocks_of_the_decoder_is_off_by_less_than_a_pixel(
    orientation: int, width: int
) -> None:
    data = saved(stored_as(quadrants(1203, 901), orientation), "jpeg")
    image = seen(data, f"crop=601,450,602,451&w={width}")
    assert image.width == width
    assert only(image, YELLOW, by=14, margin=1)
    image = seen(data, f"crop=0,0,601,450&w={width}")
    assert only(image, RED, by=14, margin=1)


def test_shrinking_in_the_decoder_gives_nearly_the_pixels_of_shrinking_after_it() -> None:
    picture = pictures.photo(1600, 1200).gaussblur(4)
    shrunk = seen(saved(picture, "jpeg"), "w=100")
    whole = seen(saved(picture, "png"), "w=100")
    assert (shrunk - whole).abs().avg() < 1.5


# Backgrounds and transparency.


def over(top: list[int], under: list[int]) -> list[int]:
    """One colour with straight alpha laid on another, as Porter and Duff define it."""
    high, low = top[3] / 255, under[3] / 255
    alpha = high + low * (1 - high)
    if alpha == 0:
        return [0, 0, 0, 0]
    mixed = [
        (a * high + b * low * (1 - high)) / alpha for a, b in zip(top[:3], under[:3], strict=True)
    ]
    return [round(value) for value in (*mixed, alpha * 255)]


HALF_RED = [200, 40, 20, 128]
BACKGROUNDS = {
    "white": [255, 255, 255, 255],
    "teal": [0, 128, 128, 255],
    "00f": [0, 0, 255, 255],
    "808080": [128, 128, 128, 255],
    "00ff0080": [0, 255, 0, 128],
    "40404040": [64, 64, 64, 64],
}


@pytest.mark.parametrize(("name", "colour"), BACKGROUNDS.items())
def test_a_background_shines_through_a_transparent_picture(name: str, colour: list[int]) -> None:
    image = seen(saved(flat(*HALF_RED), "png"), f"bg={name}")
    expected = over(HALF_RED, colour)
    if colour[3] == 255:
        expected = expected[:3]
    assert only(image, expected)


@pytest.mark.parametrize(("name", "colour"), BACKGROUNDS.items())
def test_a_frame_has_the_colour_of_the_background(name: str, colour: list[int]) -> None:
    data = saved(flat(*HALF_RED, width=20, height=20), "png")
    image = seen(data, f"padding=10&bg={name}")
    bands = 3 if colour[3] == 255 else 4
    assert image.bands == bands
    assert near(image.getpoint(2, 2), colour[:bands], by=0)
    assert near(image.getpoint(20, 20), over(HALF_RED, colour)[:bands])


@pytest.mark.parametrize(("name", "colour"), BACKGROUNDS.items())
def test_a_grey_picture_can_lie_on_a_colour(name: str, colour: list[int]) -> None:
    grey = flat(90, width=20, height=20, interpretation="b-w")
    image = seen(saved(grey, "png"), f"padding=10&bg={name}")
    is_grey, opaque = len(set(colour[:3])) == 1, colour[3] == 255
    expected = [90] if is_grey else [90, 90, 90]
    frame = colour[:1] if is_grey else colour[:3]
    if not opaque:
        expected, frame = [*expected, 255], [*frame, colour[3]]
    assert near(image.getpoint(20, 20), expected)
    assert near(image.getpoint(1, 1), frame, by=0)


@pytest.mark.parametrize(("name", "colour"), BACKGROUNDS.items())
def test_a_grey_picture_with_alpha_can_lie_on_a_colour(name: str, colour: list[int]) -> None:
    grey = flat(90, 128, width=20, height=20, interpretation="b-w")
    image = seen(saved(grey, "png"), f"padding=10&bg={name}").colourspace("srgb")
    expected = over([90, 90, 90, 128], colour)
    assert near(image.getpoint(20, 20), expected[: image.bands])
    assert near(image.getpoint(1, 1), colour[: image.bands], by=0)


def test_no_background_keeps_transparency_and_frames_with_nothing() -> None:
    data = saved(flat(*HALF_RED, width=20, height=10), "png")
    assert only(seen(data), HALF_RED)
    assert only(seen(data, "bg=none"), HALF_RED)
    image = seen(data, "w=40&h=40&bg=none")
    assert image.bands == 4
    assert image.getpoint(1, 1)[3] == 0
    assert near(image.getpoint(20, 20), HALF_RED)


def test_a_canvas_is_white_and_opaque_whatever_shape_the_original_has() -> None:
    for width, height in ((20, 10), (20, 20), (400, 400)):
        data = saved(flat(*HALF_RED, width=width, height=height), "png")
        image = seen(data, "w=20&h=20")
        assert image.bands == 3
        assert near(image.getpoint(10, 10), over(HALF_RED, [255] * 4)[:3])


def test_an_opaque_picture_gets_transparent_bars() -> None:
    image = seen(saved(flat(*RED, width=20, height=10), "png"), "w=20&h=20&bg=none")
    assert image.getpoint(10, 0) == [0, 0, 0, 0]
    assert near(image.getpoint(10, 10), [*RED, 255])


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", over(HALF_RED, [255] * 4)[:3]),
        ("bg=none", over(HALF_RED, [255] * 4)[:3]),
        ("bg=00f", over(HALF_RED, [0, 0, 255, 255])[:3]),
        ("bg=00ff0080", over(over(HALF_RED, [0, 255, 0, 128]), [255] * 4)[:3]),
    ],
)
def test_jpeg_has_no_transparency_so_it_lies_on_the_background_and_that_on_white(
    query: str, expected: list[int]
) -> None:
    image = seen(saved(flat(*HALF_RED, width=32, height=32), "png"), query, fm="jpeg")
    assert only(image, expected, by=4)


def test_a_resize_does_not_drag_the_colour_of_what_is_invisible_into_the_picture() -> None:
    clear = flat(0, 0, 0, 0, width=101, height=80)
    picture = flat(255, 40, 40, 255, width=99, height=80).join(clear, "horizontal")
    for query in ("w=37", "w=37&rotate=90", "w=37&h=20&fit=fill"):
        image = seen(saved(picture, "png"), query)
        visible = image[3] > 8
        red = visible.ifthenelse(image[0], 255)
        assert red.min() >= 247
        assert visible.ifthenelse(image[1], 40).max() <= 55
    on_red = seen(saved(picture, "png"), "w=37&bg=ff2828")
    assert only(on_red, [255, 40, 40], by=3)


# Kinds of pixels.


def test_a_palette_ends_as_colours() -> None:
    for data in (
        saved(quadrants(), "gif"),
        saved(quadrants(), "png", palette=True),
        saved(quadrants(), "png", palette=True, bitdepth=4),
    ):
        image = seen(data)
        assert (image.bands, image.format, image.interpretation) in (
            (3, "uchar", "srgb"),
            (4, "uchar", "srgb"),
        )
        assert are_corners(image, CORNERS, by=10)


def test_one_bit_ends_as_black_and_white() -> None:
    picture = flat(0, interpretation="b-w").join(flat(255, interpretation="b-w"), "horizontal")
    for data in (
        saved(picture, "png", bitdepth=1),
        saved(picture, "tiff", bitdepth=1),
    ):
        image = seen(data)
        assert (image.bands, image.format, image.interpretation) == (1, "uchar", "b-w")
        assert image.getpoint(3, 3) == [0]
        assert image.getpoint(40, 3) == [255]


@pytest.mark.parametrize("fm", ["png", "tiff"])
@pytest.mark.parametrize(
    ("bands", "interpretation", "expected"),
    [
        ([10_000, 20_000, 30_000], "rgb16", [39, 78, 117]),
        ([10_000, 20_000, 30_000, 32_768], "rgb16", [39, 78, 117, 128]),
        ([65_535, 0, 256], "rgb16", [255, 0, 1]),
        ([10_000], "grey16", [39]),
        ([10_000, 32_768], "grey16", [39, 128]),
    ],
)
def test_sixteen_bits_end_as_eight(
    fm: str, bands: list[int], interpretation: str, expected: list[int]
) -> None:
    data = saved(flat(*bands, interpretation=interpretation, number="ushort"), fm)
    assert look(data).bytes_per_band == 2
    for query in ("", "w=7", "rotate=90", "w=9&h=9&fit=cover"):
        image = seen(data, query)
        assert image.format == "uchar"
        assert image.interpretation == ("srgb" if len(bands) > 2 else "b-w")
        # Where it is resized, libvips multiplies colours by alpha in whole numbers.
        assert only(image, expected, by=2 if "w" in query and len(bands) in (2, 4) else 1)


@pytest.mark.parametrize("depth", [8, 10, 12])
def test_an_avif_of_any_depth_ends_as_eight_bits(depth: int) -> None:
    deep = flat(
        10_000, 20_000, 30_000, width=32, height=32, interpretation="rgb16", number="ushort"
    )
    data = saved(deep, "avif", bitdepth=depth)
    for query in ("", "w=8", "meta=keep"):
        image = seen(data, query)
        assert (image.format, image.interpretation) == ("uchar", "srgb")
        assert only(image, [39, 78, 117], by=2)


@pytest.mark.parametrize("bands", [[77], [77, 128]])
def test_grey_stays_grey(bands: list[int]) -> None:
    image = seen(saved(flat(*bands, interpretation="b-w"), "png"), "w=9&rotate=90&flip=h")
    assert image.interpretation == "b-w"
    assert only(image, bands, by=len(bands))


@every_format
def test_grey_can_be_written_in_every_format(fm: str) -> None:
    for bands in ([77], [77, 255]):
        data = saved(flat(*bands, interpretation="b-w"), "png")
        image = opened(render(data, "w=16", fm=fm).data)
        assert near(image.getpoint(5, 5)[:1], [77], by=3)


@pytest.mark.parametrize("fm", ["jpeg", "tiff"])
@pytest.mark.parametrize(
    ("ink", "expected", "by"),
    [
        ([0, 0, 0, 0], [255, 255, 255], 4),
        ([0, 0, 0, 255], [20, 20, 20], 40),
        ([255, 0, 0, 0], [0, 160, 230], 40),
        ([0, 255, 0, 0], [230, 0, 130], 50),
        ([0, 0, 255, 0], [255, 240, 0], 30),
    ],
)
def test_cmyk_without_a_profile_ends_as_the_colours_of_its_inks(
    fm: str, ink: list[int], expected: list[int], by: int
) -> None:
    data = saved(flat(*ink, width=32, height=32, interpretation="cmyk"), fm)
    assert look(data).interpretation == "cmyk"
    for query in ("", "w=8", "rotate=90&crop=8,8,16,16"):
        image = seen(data, query)
        assert image.interpretation == "srgb"
        assert near(image.getpoint(3, 3), expected, by=by)


@pytest.mark.parametrize("fm", ["jpeg", "tiff"])
@pytest.mark.parametrize("colour", [[150, 120, 100], [90, 110, 130], [200, 200, 190]])
def test_cmyk_with_a_profile_ends_as_the_colour_that_was_printed(
    fm: str, colour: list[int]
) -> None:
    inks = flat(*colour, width=32, height=32).icc_transform(
        "cmyk", input_profile="srgb", intent="relative"
    )
    assert inks.get_typeof("icc-profile-data")
    data = saved(inks, fm)
    for query in ("", "w=8"):
        image = seen(data, query)
        assert image.interpretation == "srgb"
        assert only(image, colour, by=8)


@pytest.mark.parametrize(
    ("lab", "expected"),
    [([50, 20, 30], [164, 105, 69]), ([100, 0, 0], [255, 255, 255]), ([0, 0, 0], [0, 0, 0])],
)
def test_lab_ends_as_srgb(lab: list[int], expected: list[int]) -> None:
    picture = flat(*lab, number="float", interpretation="lab")
    for data in (saved(picture, "tiff"), saved(picture.colourspace("labs"), "tiff")):
        assert only(seen(data), expected, by=2)
        assert only(seen(data, "w=7&rotate=180"), expected, by=2)


@every_format
def test_bands_beyond_colour_and_transparency_are_left_out(fm: str) -> None:
    data = saved(flat(10, 120, 230, 255, 99), "tiff")
    image = opened(render(data, "w=16", fm=fm).data)
    assert near(image.getpoint(5, 5)[:3], [10, 120, 230], by=6)


@pytest.mark.parametrize("number", ["short", "int", "uint", "float", "double", "complex"])
def test_a_tiff_of_other_numbers_is_a_picture_or_broken_and_nothing_else(number: str) -> None:
    for bands in ([10], [10, 20, 30], [10, 20, 30, 255]):
        interpretation = "b-w" if len(bands) == 1 else "srgb"
        data = saved(flat(*bands, number=number, interpretation=interpretation), "tiff")
        try:
            image = seen(data, "w=9")
        except BrokenImage:
            continue
        assert image.format == "uchar"


# Profiles.


@pytest.mark.parametrize("fm", ["jpeg", "png", "webp", "tiff", "avif"])
def test_a_wide_gamut_picture_ends_in_the_numbers_of_srgb(fm: str) -> None:
    colour = [200, 100, 50]
    wide = flat(*colour, width=32, height=32).icc_transform("p3", input_profile="srgb")
    data = saved(wide, fm)
    assert not near(opened(data).getpoint(5, 5)[:3], colour, by=6)
    for query in ("", "w=8", "w=50&h=50&rotate=90&bg=c86432"):
        assert only(seen(data, query), colour, by=4)


def test_a_display_p3_file_ends_in_srgb(real_images: Path) -> None:
    data = (real_images / "p3.png").read_bytes()
    assert opened(data).getpoint(2, 2)[:3] == [240, 0, 0]
    # (240, 0, 0) of Display P3 is redder than anything in sRGB.
    assert near(seen(data).getpoint(2, 2)[:3], [255, 0, 0], by=2)


def test_an_adobe_rgb_file_becomes_more_saturated_in_srgb(real_images: Path) -> None:
    data = (real_images / "jpg-24bit-icc-adobe-rgb.jpg").read_bytes()
    kept = opened(data).resize(200 / look(data).size.width)
    shown = seen(data, "w=200")

    def saturation(image: Image) -> float:
        return float(image.colourspace("hsv")[1].avg())

    assert saturation(shown) > saturation(kept) + 5
    assert not shown.get_typeof("icc-profile-data")


def test_a_profile_that_is_broken_or_of_another_kind_is_ignored() -> None:
    cmyk_profile = flat(1, 2, 3).icc_transform("cmyk", input_profile="srgb").get("icc-profile-data")
    srgb_profile = flat(1, 2, 3).icc_transform("srgb", input_profile="srgb").get("icc-profile-data")
    for picture, profile in (
        (flat(200, 100, 50), b"no profile at all"),
        (flat(200, 100, 50), cmyk_profile),
        (flat(200, 100, 50), srgb_profile[: len(srgb_profile) // 2]),
        (flat(90, interpretation="b-w"), srgb_profile),
        (flat(90, interpretation="b-w"), b"no profile at all"),
    ):
        tagged = picture.copy()
        tagged.set_type(MetadataType.BYTES, "icc-profile-data", profile)
        data = saved(tagged, "tiff")
        assert only(seen(data, "w=10"), [round(v) for v in picture.getpoint(0, 0)], by=1)


@pytest.mark.parametrize("profile", [b"no profile at all", "srgb", "half"])
def test_cmyk_with_a_broken_profile_is_a_picture_all_the_same(profile: bytes | str) -> None:
    if profile == "srgb":
        profile = flat(1, 2, 3).icc_transform("srgb", input_profile="srgb").get("icc-profile-data")
    elif profile == "half":
        whole = flat(1, 2, 3).icc_transform("cmyk", input_profile="srgb").get("icc-profile-data")
        profile = whole[: len(whole) // 2]
    tagged = flat(0, 0, 0, 0, interpretation="cmyk")
    tagged.set_type(MetadataType.BYTES, "icc-profile-data", profile)
    image = seen(saved(tagged, "tiff"), "w=10")
    assert only(image, WHITE, by=4)


# Every size, format and kind together.

ORIGINALS = {
    "rgb": lambda: saved(quadrants(37, 23), "png"),
    "rgba": lambda: saved(flat(*HALF_RED, width=23, height=37), "png"),
    "grey": lambda: saved(flat(90, width=31, height=9, interpretation="b-w"), "png"),
    "grey-alpha": lambda: saved(flat(90, 99, width=9, height=31, interpretation="b-w"), "png"),
    "sixteen": lambda: saved(flat(1, 2, 3, interpretation="rgb16", number="ushort"), "png"),
    "jpeg-6": lambda: saved(stored_as(quadrants(40, 30), 6), "jpeg"),
    "cmyk": lambda: saved(flat(9, 99, 9, 9, interpretation="cmyk"), "jpeg"),
    "webp": lambda: saved(quadrants(33, 44), "webp"),
    "avif": lambda: saved(quadrants(32, 18), "avif"),
    "gif": lambda: saved(quadrants(20, 20), "gif"),
    "frames": lambda: pictures.pages([quadrants(20, 12), quadrants(20, 12)], "gif"),
    "pages": lambda: pictures.pages([quadrants(20, 12), quadrants(20, 12)], "tiff"),
    "tiff-5": lambda: saved(stored_as(quadrants(20, 30), 5), "tiff"),
    "pixel": lambda: saved(flat(1, 2, 3, width=1, height=1), "png"),
}


@pytest.fixture(scope="module")
def originals() -> dict[str, bytes]:
    return {name: draw() for name, draw in ORIGINALS.items()}


small = st.integers(1, 64).map(str)
requests = st.fixed_dictionaries(
    {"fm": st.sampled_from(FORMATS)},
    optional={
        "w": small,
        "h": small,
        "fit": st.sampled_from(["contain", "cover", "inside", "outside", "fill"]),
        "enlarge": st.just("1"),
        "dpr": st.sampled_from(["0.5", "1.5"]),
        "min-w": small,
        "max-w": small,
        "max-h": small,
        "crop": st.sampled_from(["0.25,0.25,0.5,0.5", "0,0,7,5", "0.9,0.9,0.1,0.1"]),
        "gravity": st.sampled_from(["north", "0.2,0.9", "attention", "entropy"]),
        "extent": st.sampled_from(["20x30", "1x1", "64x8"]),
        "padding": st.sampled_from(["3", "1,2,3,4"]),
        "background": st.sampled_from(["none", "red", "808080", "00ff0080"]),
        "rotate": st.sampled_from(["90", "180", "270"]),
        "flip": st.sampled_from(["h", "v", "hv"]),
        "q": st.sampled_from(["10", "95"]),
        "effort": st.sampled_from(["0", "3"]),
        "lossless": st.just("1"),
        "progressive": st.just("1"),
        "meta": st.sampled_from(["none", "keep"]),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(list(ORIGINALS)), requests)
def test_the_result_is_exactly_as_large_as_was_planned(
    originals: dict[str, bytes], name: str, request: dict[str, str]
) -> None:
    data = originals[name]
    transform = Transform.from_query(request.items())
    work = pipeline.prepare(data, transform, Limits())
    result = pipeline.run(data, work)
    image = opened(result.data)
    assert Size(result.width, result.height) == work.plan.result
    assert Size(image.width, image.height) == work.plan.result
    assert result.format.name == transform.fm
    assert look(result.data).format == result.format
    assert image.format == "uchar"
    assert image.interpretation in ("srgb", "b-w")


@every_format
@pytest.mark.parametrize("name", ORIGINALS)
def test_every_kind_of_original_can_be_written_in_every_format(
    originals: dict[str, bytes], name: str, fm: str
) -> None:
    result = render(originals[name], "", fm=fm)
    upright = pipeline.prepare(originals[name], Transform.from_query(""), Limits()).plan.result
    assert look(result.data).format.name == fm
    assert look(result.data).size == upright
    assert result.decode_seconds >= 0
    assert result.encode_seconds >= 0


# Encoders.


@pytest.mark.parametrize(
    ("original", "query", "fm"),
    [
        (flat(1, 2, 3), "", "jpeg"),
        (flat(1, 2, 3, 255), "", "jpeg"),
        (flat(1, 2, 3, 254), "", "png"),
        (flat(1, 2, 3, 254), "w=9&h=9", "jpeg"),
        (flat(1, 2, 3, 254), "bg=red", "jpeg"),
        (flat(1, 2, 3), "w=9&h=9&bg=none", "png"),
        (flat(1, 2, 3, width=9, height=9), "w=9&h=9&bg=none", "jpeg"),
        (flat(1, 9, interpretation="b-w"), "", "png"),
    ],
)
def test_auto_is_jpeg_or_where_something_is_transparent_png(
    original: Image, query: str, fm: str
) -> None:
    assert render(saved(original, "png"), query, fm="auto").format.name == fm


@every_format
def test_same_keeps_the_format_of_the_original(fm: str) -> None:
    data = saved(quadrants(), fm)
    result = render(data, "w=20", fm="same")
    assert result.format.name == fm
    assert look(result.data).format.name == fm


@every_format
def test_the_same_request_gives_the_same_bytes(fm: str) -> None:
    data = saved(pictures.photo(), "png")
    first, second = (render(data, "w=90&h=90&fit=cover", fm=fm).data for _ in range(2))
    assert first == second


def test_renders_side_by_side_give_the_bytes_that_each_gives_alone() -> None:
    data = saved(pictures.photo(), "jpeg")

    def all_formats(_: int) -> list[bytes]:
        return [render(data, "w=70&h=70&fit=cover", fm=fm).data for fm in FORMATS]

    alone = all_formats(0)
    with ThreadPoolExecutor(4) as pool:
        assert all(together == alone for together in pool.map(all_formats, range(8)))


@pytest.mark.parametrize("fm", ["jpeg", "webp", "avif"])
def test_quality_costs_bytes_and_keeps_the_picture_closer(fm: str) -> None:
    picture = pictures.photo()
    data = saved(picture, "png")
    low, high = render(data, "q=20", fm=fm).data, render(data, "q=95", fm=fm).data
    assert len(low) < len(high)
    errors = [(opened(one)[:3] - picture).abs().avg() for one in (low, high)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize(("fm", "quality"), [("jpeg", 80), ("webp", 80), ("avif", 50)])
def test_quality_has_the_default_that_is_documented(fm: str, quality: int) -> None:
    data = saved(pictures.photo(), "png")
    assert render(data, "", fm=fm).data == render(data, f"q={quality}", fm=fm).data


@pytest.mark.parametrize("fm", ["png", "tiff"])
def test_png_and_tiff_are_exact(fm: str) -> None:
    picture = pictures.photo()
    assert (opened(render(saved(picture, "png"), fm=fm).data) - picture).abs().max() == 0


def test_lossless_webp_is_exact_and_lossless_avif_nearly() -> None:
    picture = pictures.photo()
    data = saved(picture, "png")
    webp, avif = (render(data, "lossless=1&effort=0", fm=fm).data for fm in ("webp", "avif"))
    assert (opened(webp) - picture).abs().max() == 0
    assert (opened(avif) - picture).abs().max() <= 3
    assert (opened(render(data, "effort=0", fm="webp").data) - picture).abs().max() > 3


@pytest.mark.parametrize(
    ("fm", "quick", "slow"),
    [
        ("jpeg", 0, 1),
        ("jpeg", 1, 7),
        ("png", 0, 2),
        ("png", 1, 9),
        ("webp", 0, 6),
        ("avif", 0, 3),
    ],
)
def test_effort_makes_files_smaller(fm: str, quick: int, slow: int) -> None:
    data = saved(pictures.photo(), "png")
    sizes = [len(render(data, f"effort={effort}", fm=fm).data) for effort in (quick, slow)]
    assert sizes[1] < sizes[0]


def test_effort_changes_a_gif() -> None:
    data = saved(pictures.photo(), "png")
    assert render(data, "effort=1", fm="gif").data != render(data, "effort=9", fm="gif").data


def test_every_effort_is_accepted_by_every_encoder() -> None:
    data = saved(quadrants(16, 12), "png")
    for fm in FORMATS:
        for effort in range(10):
            assert look(render(data, f"effort={effort}", fm=fm).data).size == Size(16, 12)


def test_progressive_jpeg_is_progressive_and_progressive_png_interlaced() -> None:
    data = saved(pictures.photo(), "png")
    for effort in (0, 2, 9):
        plain = render(data, f"effort={effort}", fm="jpeg").data
        progressive = render(data, f"progressive&effort={effort}", fm="jpeg").data
        assert b"\xff\xc0" in plain
        assert b"\xff\xc2" not in plain[:700]
        assert b"\xff\xc2" in progressive[:700]
        assert look(progressive).progressive
        assert not look(plain).progressive
    assert render(data, "progressive", fm="png").data[28] == 1
    assert render(data, "", fm="png").data[28] == 0


def test_progressive_originals_give_the_same_picture() -> None:
    picture = quadrants(320, 240)
    for data in (
        saved(picture, "jpeg", interlace=True),
        saved(picture, "png", interlace=True),
    ):
        assert look(data).progressive
        assert are_corners(seen(data, "w=40"), CORNERS)
        assert are_corners(seen(data, "w=40&rotate=90"), (BLUE, RED, YELLOW, GREEN))


# Damage and limits.

DAMAGED = ("jpeg", "png", "webp", "gif", "tiff", "avif")


@pytest.mark.parametrize("fm", DAMAGED)
@pytest.mark.parametrize("query", ["", "w=20", "rotate=90", "crop=0,0,10,10&w=5"])
def test_a_file_that_is_cut_short_is_broken(fm: str, query: str) -> None:
    data = saved(pictures.photo(), fm)
    cut = data[: len(data) * 6 // 10]
    if query.startswith("crop"):
        # A strip at the top may be whole; whether it is read further is the decoder's affair.
        with suppress(BrokenImage):
            render(cut, query)
        return
    with pytest.raises(BrokenImage) as caught:
        render(cut, query)
    assert caught.value.detail.startswith(f"The original cannot be decoded as {fm}: ")


@pytest.mark.parametrize("fm", DAMAGED)
def test_a_file_that_is_cut_anywhere_is_never_half_a_picture(fm: str) -> None:
    picture = quadrants(64, 48)
    data = saved(picture, fm)
    for at in range(1, len(data), max(1, len(data) // 40)):
        try:
            image = seen(data[:at])
        except TransformError:
            continue
        # A decoder may not need the last bytes, such as an end marker.
        assert are_corners(image, CORNERS, by=25)
        assert image.height == 48


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {fm: saved(pictures.photo(24, 18), fm) for fm in FORMATS}


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_damage_never_causes_any_other_error(
    files: dict[str, bytes], fm: str, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(files[fm])
    for at, value in changes:
        data[at % len(data)] = value
    try:
        result = render(bytes(data), "w=10&rotate=90", limits=Limits(source_pixels=1_000_000))
    except TransformError:
        return
    assert result.data


def test_too_many_pixels_are_refused_before_any_is_decoded() -> None:
    # The pixels are missing, so that decoding would find the file broken.
    data = pictures.png_that_claims(20_000, 20_000)
    with pytest.raises(SourceTooLarge) as caught:
        pipeline.prepare(data, Transform.from_query("w=9"), Limits())
    assert caught.value.detail == (
        "The original has 20000x20000 pixels; at most 100000000 are decoded"
    )
    work = pipeline.prepare(
        data, Transform.from_query("w=9&fm=png"), Limits(source_pixels=400_000_000)
    )
    with pytest.raises(BrokenImage):
        pipeline.run(data, work)


def test_preparing_a_render_decodes_nothing(files: dict[str, bytes]) -> None:
    before = libvips.tracked().memory_peak
    data = saved(flat(1, 2, 3, width=3000, height=3000), "jpeg")
    after_drawing = libvips.tracked().memory_peak
    for _ in range(3):
        pipeline.prepare(data, Transform.from_query("w=9"), Limits())
    assert libvips.tracked().memory_peak == max(before, after_drawing)


def test_the_limit_counts_the_frames_that_must_be_decoded() -> None:
    frames = [flat(40 * n, 0, 0, width=20, height=10) for n in range(5)]
    data = pictures.pages(frames, "gif")
    limits = Limits(source_pixels=700)
    assert render(data, "page=2", limits=limits).width == 20
    with pytest.raises(SourceTooLarge) as caught:
        render(data, "page=3", limits=limits)
    assert caught.value.detail == (
        "The original has 20x10 x 4 frames pixels; at most 700 are decoded"
    )
    with pytest.raises(SourceTooLarge, match=r"^Of this animation 4 frames would be decoded; at "):
        render(data, "page=3", limits=Limits(frames=3))


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("w=101&enlarge", "w"),
        ("h=101&enlarge", "h"),
        ("extent=101x10", "extent"),
        ("extent=10x101", "extent"),
        ("min-w=90&crop=0,0,1,9", "min-w"),
        ("w=100&h=100&fit=fill&enlarge", "w"),
    ],
)
def test_a_result_beyond_the_limit_is_refused(query: str, param: str) -> None:
    data = saved(quadrants(10, 20), "png")
    limits = Limits(result_side=100, result_pixels=8000)
    with pytest.raises(InvalidOption) as caught:
        pipeline.prepare(data, Transform.from_query(query), limits)
    assert caught.value.param == param
    assert "the picture would be" in caught.value.detail


# Pages.


def test_a_page_of_a_tiff_and_a_frame_of_an_animation_can_be_chosen() -> None:
    shades = [[200, 30, 30], [30, 200, 30], [30, 30, 200]]
    images = [flat(*shade, width=20, height=10) for shade in shades]
    for fm in ("tiff", "gif", "webp"):
        data = pictures.pages(images, fm)
        assert look(data).pages == 3
        assert look(data).size == Size(20, 10)
        for number, shade in enumerate(shades):
            image = seen(data, f"page={number}")
            assert (image.width, image.height) == (20, 10)
            assert near(image.getpoint(9, 5)[:3], shade, by=6)
        assert near(seen(data).getpoint(9, 5)[:3], shades[0], by=6)


@pytest.mark.parametrize("fm", ["jpeg", "png", "tiff", "gif", "webp", "avif"])
def test_a_page_that_does_not_exist_is_refused(fm: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        render(saved(quadrants(), fm), "page=1")
    assert caught.value.param == "page"
    assert caught.value.detail == "no page 1: the original has 1 page, counted from 0"


def test_a_page_has_a_size_of_its_own() -> None:
    data = pictures.tiff_of_greys((20, 10, 50), (10, 30, 90), (40, 40, 130))
    for number, (width, height, shade) in enumerate(((20, 10, 50), (10, 30, 90), (40, 40, 130))):
        image = seen(data, f"page={number}")
        assert (image.width, image.height) == (width, height)
        assert only(image, [shade], by=0)


def test_a_later_page_of_a_pyramid_is_not_enlarged() -> None:
    data = saved(quadrants(600, 400), "tiff", pyramid=True, tile=True)
    assert look(data).pages > 1
    image = seen(data, "page=1")
    assert (image.width, image.height) == (300, 200)


def test_the_limit_holds_for_the_page_that_is_decoded() -> None:
    data = pictures.tiff_of_greys((1, 1, 50), (40, 30, 90))
    with pytest.raises(SourceTooLarge):
        render(data, "page=1&w=5", limits=Limits(source_pixels=1000))
    assert render(data, "page=0", limits=Limits(source_pixels=1000)).width == 1


# Files of others.


@pytest.mark.parametrize("kind", ["Landscape", "Portrait"])
def test_real_photographs_of_every_orientation_look_alike(real_images: Path, kind: str) -> None:
    files = sorted(real_images.glob(f"{kind}_*.jpg"))
    upright = seen(files[0].read_bytes(), "w=60&h=60")
    for path in files[1:]:
        assert (seen(path.read_bytes(), "w=60&h=60") - upright).abs().avg() < 6


def test_real_files_give_a_picture_or_a_named_error(real_images: Path) -> None:
    for path in sorted(real_images.iterdir()):
        data = path.read_bytes()
        for query in ("w=50&h=50", "w=50&h=40&fit=cover&gravity=attention&rotate=90&bg=none"):
            try:
                result = render(data, query, fm="webp")
            except TransformError:
                continue
            assert result.data[:4] == b"RIFF", path.name
            assert struct.unpack("<I", result.data[4:8])[0] + 8 == len(result.data)
