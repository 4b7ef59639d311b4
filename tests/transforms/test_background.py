"""Backgrounds that come from the picture: its ground colour, or itself, blurred."""

from __future__ import annotations

import itertools

import pytest

from tests.transforms.pictures import (
    BLUE,
    GREEN,
    RED,
    flat,
    opened,
    photo,
    quadrants,
    render,
    saved,
    seen,
)
from transforms.libvips import Image

WHITE = [255, 255, 255]


def size_of(image):
    return image.width, image.height


def near(one, other, by=2):
    return len(one) == len(other) and all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


def only(image, colour):
    return all(image[band].min() == image[band].max() == v for band, v in enumerate(colour))


def logo(colour, *, width=60, height=40):
    """A bar of one colour in a picture that is transparent all round."""
    clear = flat(0, 0, 0, 0, width=width, height=height)
    return clear.insert(flat(*colour, 255, width=width // 2, height=height // 4), 15, 15)


# auto


def test_a_canvas_goes_on_as_the_ground_does():
    ground = [12, 99, 180]
    picture = flat(*ground, width=80, height=40).insert(quadrants(30, 20), 25, 10)
    image = seen(saved(picture, "png"), "w=80&h=80&background=auto&padding=5")
    assert size_of(image) == (90, 90)
    assert only(image.crop(0, 0, 90, 20), ground)
    assert only(image.crop(0, 0, 5, 90), ground)
    assert image(45, 45) in ([240, 220, 10], [20, 180, 20], [20, 20, 230], [230, 20, 20])


def test_the_ground_is_that_of_the_part_that_is_seen():
    data = saved(quadrants(80, 80), "png")
    image = seen(data, "crop=0,0,40,40&w=20&h=40&background=auto")
    assert near(image(1, 1), RED)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
def test_a_grey_or_transparent_picture_has_a_ground_too(bands):
    ink = [77] * (1 if bands < 3 else 3) + [255] * (bands in (2, 4))
    picture = flat(*ink, interpretation="b-w" if bands < 3 else "srgb")
    image = seen(saved(picture, "png"), "w=24&h=24&background=auto")
    assert [round(v) for v in image(1, 1)][:1] == [77]


@pytest.mark.parametrize(
    "colour", [[0, 0, 0], [255, 255, 255], BLUE], ids=["black", "white", "blue"]
)
def test_a_transparent_logo_does_not_vanish(colour):
    for query in ("background=auto", "w=80&h=80&background=auto", "background=auto&fm=jpeg&q=95"):
        image = opened(render(saved(logo(colour), "png"), query).data)
        image = image.flatten(background=[127, 127, 127]) if image.hasalpha() else image
        middle = image(image.width // 2, image.height // 2 - 1)
        corner = image(0, 0)
        assert max(abs(a - b) for a, b in zip(middle, corner, strict=True)) > 60, query


def test_a_picture_with_transparent_corners_goes_on_as_it_is():
    ground = [12, 99, 180]
    cut = render(saved(flat(*ground, width=60, height=60), "png"), "round=12").data
    assert only(seen(cut, "background=auto"), ground)


def test_nothing_visible_has_no_ground():
    data = saved(flat(0, 0, 0, 0), "png")
    image = seen(data, "w=40&h=40&background=auto")
    assert size_of(image) == (40, 40)
    assert image.hasalpha()
    assert image[3].max() == 0


# blur


def test_room_is_filled_with_the_picture_blurred():
    picture = flat(*RED, width=80, height=40).insert(flat(*GREEN, width=40, height=40), 40, 0)
    image = seen(saved(picture, "png"), "w=80&h=80&background=blur")
    assert (size_of(image), image.bands) == ((80, 80), 3)
    assert only(image.crop(0, 20, 39, 40), RED)
    assert only(image.crop(41, 20, 39, 40), GREEN)
    # Left of it is red and right is green, with no edge between them.
    for y in (2, 77):
        row = [image(x, y) for x in range(80)]
        assert row[0][0] > 150 > row[0][1]
        assert row[-1][1] > 130 > row[-1][0]
        assert max(abs(a[0] - b[0]) for a, b in itertools.pairwise(row)) < 40


def test_the_backdrop_covers_padding_and_extent_too():
    data = saved(photo(200, 100), "png")
    image = seen(data, "w=100&extent=120x120&padding=10&background=blur&gravity=south")
    assert size_of(image) == (140, 140)
    inner = seen(data, "w=100")
    assert (image.crop(20, 80, 100, 50) - inner).abs().max() == 0
    border = image.crop(0, 0, 140, 60)
    assert border.avg() == pytest.approx(inner.avg(), abs=45)


def test_without_room_a_backdrop_changes_nothing():
    data = saved(photo(100, 100), "png")
    assert (seen(data, "w=50&h=50&background=blur") - seen(data, "w=50&h=50")).abs().max() == 0


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (200, 2), (60, 60)])
def test_any_picture_can_be_its_own_backdrop(bands, size):
    picture = quadrants(max(2, size[0]), max(2, size[1])).crop(0, 0, *size)
    picture = picture if bands >= 3 else picture.colourspace("b-w")
    data = saved(picture.addalpha() if bands in (2, 4) else picture, "png")
    image = seen(data, "w=40&h=30&background=blur&padding=3")
    assert size_of(image) == (46, 36)
    assert not image.hasalpha() or image[image.bands - 1].min() == 255


def test_a_transparent_picture_lies_on_its_own_backdrop():
    image = seen(saved(logo(RED), "png"), "background=blur")
    assert (size_of(image), image.bands) == ((60, 40), 3)
    assert near(image(25, 20), RED, 6)
    assert image(1, 1)[1] > 200  # white shines through, tinted by the logo


def test_what_is_laid_on_a_background_is_rounded_and_not_darkened():
    picture = photo(120, 90)
    alpha = (Image.xyz(120, 90)[0] * 2 + 8).cast("uchar")
    clear = picture.bandjoin(alpha).copy(interpretation="srgb").copy_memory()
    image = seen(saved(clear, "png"), "background=ff00007f")
    share, under = clear[3] / 255, 127 / 255
    rest = (share * -1 + 1) * under
    expected = (clear[:3] * share + rest * [255, 0, 0]) / (share + rest)
    assert abs((image[:3] - expected).avg()) < 0.15
