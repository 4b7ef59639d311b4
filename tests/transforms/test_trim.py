"""Trim: what is border is cut off, whatever kind of picture it surrounds."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.pictures import (
    BLUE,
    RED,
    flat,
    numbered,
    opened,
    pages,
    quadrants,
    render,
    saved,
    seen,
    stored_as,
)
from transforms import geometry
from transforms.errors import InvalidOption
from transforms.libvips import Image
from transforms.shapes import Box, Size
from transforms.transform import Transform

WHITE = [255, 255, 255]


def bordered(image, left, top, right, bottom, *, colour=None):
    """The picture with a border, white unless named."""
    ink = colour or [255] * image.bands
    size = (image.width + left + right, image.height + top + bottom)
    return image.embed(left, top, *size, extend="background", background=ink).copy_memory()


def size_of(image):
    return image.width, image.height


def same(one, other):
    return size_of(one) == size_of(other) and (one - other).abs().max() == 0


def test_a_border_goes_and_nothing_else():
    picture = quadrants(31, 22)
    data = saved(bordered(picture, 5, 4, 3, 9), "png")
    assert same(seen(data, "trim"), picture)
    assert same(seen(data, "trim=0"), picture)


def test_what_differs_by_the_threshold_is_border_and_by_more_is_not():
    inner = bordered(flat(*RED, width=10, height=8), 6, 6, 6, 6, colour=[240, 240, 240])
    data = saved(bordered(inner, 4, 4, 4, 4), "png")
    assert size_of(seen(data, "trim=10")) == (22, 20)
    assert size_of(seen(data, "trim=20")) == (10, 8)


def test_a_named_colour_is_the_border_whatever_is_in_the_corner():
    inner = bordered(flat(*RED, width=10, height=8), 6, 6, 6, 6, colour=[0, 0, 0])
    data = saved(bordered(inner, 4, 4, 4, 4), "png")
    assert size_of(seen(data, "trim=10,black")) == (30, 28)  # white surrounds it: no black border
    assert size_of(seen(data, "trim=10,fff")) == (22, 20)
    marked = bordered(quadrants(), 9, 9, 9, 9).insert(flat(*BLUE, width=4, height=4), 0, 0)
    assert size_of(seen(saved(marked, "png"), "trim=10,fff")) == (89, 69)


def test_a_speck_is_border():
    bar = bordered(flat(*RED, width=3, height=9), 8, 8, 8, 8)
    speck = bar.insert(flat(*RED, width=1, height=1), 18, 24)
    assert size_of(seen(saved(speck, "png"), "trim")) == (3, 9)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 5), (2, 9)])
def test_the_smallest_pictures_can_be_trimmed(size):
    data = saved(flat(*RED, width=size[0], height=size[1]), "png")
    assert size_of(seen(data, "trim")) == size
    assert size_of(seen(data, "trim=10,fff")) == size


def test_what_shines_through_is_border_whatever_colours_it_has():
    picture = quadrants(20, 10).addalpha()
    hidden = Image.black(60, 40).bandjoin([Image.xyz(60, 40)[0] * 4, Image.black(60, 40) + 9])
    hidden = hidden.cast("uchar").bandjoin(0).copy(interpretation="srgb")
    data = saved(hidden.insert(picture, 12, 7), "png")
    image = seen(data, "trim")
    assert size_of(image) == (20, 10)
    assert image(0, 0) == [*RED, 255]


def test_an_opaque_border_goes_although_something_within_is_transparent():
    hole = quadrants(20, 10).addalpha().insert(flat(0, 0, 0, 0, width=5, height=5), 0, 0)
    data = saved(bordered(hole, 3, 3, 3, 3, colour=[255, 255, 255, 255]), "png")
    assert size_of(seen(data, "trim")) == (20, 10)


@pytest.mark.parametrize(
    ("fm", "depth", "bands"),
    [
        *itertools.product(["png", "tiff"], [8, 16], [1, 2, 3, 4]),
        ("jpeg", 8, 1),
        ("jpeg", 8, 3),
    ],
)
def test_grey_alpha_and_deep_pictures_are_trimmed_alike(fm, depth, bands):
    ink = [30, 90, 200][: 1 if bands < 3 else 3] + [255] * (bands in (2, 4))
    kind = "b-w" if bands < 3 else "srgb"
    image = bordered(
        flat(*ink, width=24, height=16, interpretation=kind), 8, 8, 8, 8, colour=[255] * bands
    )
    if depth == 16:
        deep = "grey16" if bands < 3 else "rgb16"
        image = (image.cast("ushort") * 257).cast("ushort").copy(interpretation=deep)
    trimmed = seen(saved(image.copy(interpretation=image.interpretation), fm), "trim=30")
    assert size_of(trimmed) == (24, 16)


@pytest.mark.parametrize("fm", ["jpeg", "tiff"])
def test_ink_is_trimmed_as_light_is(fm):
    ink = flat(0, 200, 200, 40, width=32, height=24, interpretation="cmyk")
    data = saved(bordered(ink, 16, 8, 8, 16, colour=[0, 0, 0, 0]), fm)
    assert size_of(seen(data, "trim=20")) == (32, 24)


@pytest.mark.parametrize("fm", ["jpeg", "png", "webp", "avif", "gif", "tiff"])
def test_every_format_is_trimmed(fm):
    data = saved(bordered(flat(*BLUE, width=64, height=48), 16, 32, 16, 16), fm)
    trimmed = seen(data, "trim=30")
    assert abs(trimmed.width - 64) <= 2
    assert abs(trimmed.height - 48) <= 2


@pytest.mark.parametrize("colour", [[9, 9, 9], [9, 9, 9, 0], [9, 9, 9, 255]])
def test_nothing_but_border_stays_as_it_is(colour):
    assert size_of(seen(saved(flat(*colour, width=12, height=7), "png"), "trim")) == (12, 7)


def test_crop_counts_from_what_is_left():
    data = saved(bordered(numbered(50, 40), 10, 20, 30, 5, colour=[255, 0, 255]), "png")
    assert seen(data, "trim=5&crop=7,9,4,3")(0, 0) == [7, 9, 77]
    assert size_of(seen(data, "trim=5&crop=0.5,0.5,0.5,0.5")) == (25, 20)
    with pytest.raises(InvalidOption, match="50x40") as told:
        render(data, "trim=5&crop=60,0,4,3")
    assert told.value.param == "crop"


def test_the_box_is_filled_by_what_is_left():
    data = saved(bordered(quadrants(80, 60), 40, 10, 0, 30), "png")
    image = seen(data, "trim&crop=40,0,40,60&w=20&h=20&fit=cover&gravity=south&padding=2")
    assert size_of(image) == (24, 24)
    assert image(12, 18) == [240, 220, 10]
    assert image(1, 1) == WHITE


@pytest.mark.parametrize("fm", ["png", "jpeg", "webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_trimmed_however_it_lies(orientation, fm):
    data = saved(stored_as(bordered(quadrants(64, 48), 8, 16, 24, 32), orientation), fm)
    image = seen(data, "trim=40")
    assert abs(image.width - 64) <= 1
    assert abs(image.height - 48) <= 1
    assert all(abs(one - other) < 20 for one, other in zip(image(8, 8), RED, strict=True))
    turned = seen(data, "trim=40&rotate=90&flip=h&w=24&enlarge=0")
    assert size_of(turned) == (24, 32)


def test_what_any_frame_shows_is_kept_of_all():
    empty = flat(*WHITE, width=40, height=30)
    mark = flat(*RED, width=4, height=4)
    data = pages([empty.insert(mark, 5, 6), empty, empty.insert(mark, 20, 12)], "gif")
    made = opened_all(render(data, "trim", fm="gif").data)
    assert (made.width, made.get("page-height"), made.get("n-pages")) == (19, 10, 3)
    still = seen(data, "trim", fm="png")
    assert size_of(still) == (4, 4)


def opened_all(data):
    return Image.new_from_buffer(data, "", n=-1).copy_memory()


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(3, 30), st.integers(3, 30)),
    sides=st.tuples(*[st.integers(0, 12)] * 4),
    orientation=st.integers(1, 8),
    query=st.sampled_from(
        ["", "w=9", "w=20&h=10", "w=20&h=10&fit=cover", "crop=0.2,0.2,0.6,0.6", "extent=25x9",
         "w=12&h=12&fit=fill&enlarge=1", "max-w=7&padding=3", "tile=2x1,1,0", "rotate=90&h=8"]
    ),
)  # fmt: skip
def test_the_result_has_the_size_that_is_planned(size, sides, orientation, query):
    image = stored_as(bordered(flat(*RED, width=size[0], height=size[1]), *sides), orientation)
    kept = Box(*(int(n) for n in image.find_trim(background=WHITE)))
    data = saved(image, "png", keep="all")
    transform = Transform.from_query(f"trim=10,fff&{query}").with_output("png")
    try:
        planned = geometry.plan(
            Size(image.width, image.height), transform, orientation=orientation, trimmed=kept
        ).result
    except InvalidOption:
        with pytest.raises(InvalidOption):
            render(data, f"trim=10,fff&{query}")
        return
    made = render(data, f"trim=10,fff&{query}")
    assert (made.width, made.height) == (planned.width, planned.height)
    assert size_of(opened(made.data)) == (planned.width, planned.height)
