"""Mosaic: pieces are where ImageMagick's +append, -append and montage put them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.pictures import (
    BLUE,
    GREEN,
    RED,
    YELLOW,
    flat,
    noise,
    opened,
    pages,
    quadrants,
    saved,
    stored_as,
)
from transforms import pipeline
from transforms.errors import BrokenImage, InvalidOption, SourceTooLarge
from transforms.limits import Limits
from transforms.mosaic import plan_mosaic
from transforms.shapes import Size
from transforms.transform import Transform

WHITE = [255, 255, 255]


def merged(pieces, query="", *, fm="png", limits=None):
    """The result of merging some files; the ids in the query only say that there are some."""
    names = "|".join("x" * (at + 1) for at in range(len(pieces) - 1))
    transform = Transform.from_query(f"merge={names}&{query}").with_output(fm)
    work = pipeline.prepare(pieces[0], transform, limits or Limits(), others=pieces[1:])
    made = pipeline.run(pieces[0], work)
    assert (made.width, made.height) == (work.plan.result.width, work.plan.result.height)
    return opened(made.data)


def size_of(image):
    return image.width, image.height


def near(one, other, by=1):
    return all(abs(a - b) <= by for a, b in zip(one, other, strict=True))


def only(image, colour):
    return all(image[band].min() == image[band].max() == v for band, v in enumerate(colour))


WIDE, TALL, SMALL = (
    saved(flat(*ink, width=w, height=h), "png")
    for ink, w, h in ((RED, 30, 10), (GREEN, 12, 25), (BLUE, 7, 5))
)


def test_a_row_stands_at_its_top():
    image = merged([WIDE, TALL, SMALL], "across=3")
    assert size_of(image) == (49, 25)
    assert only(image.crop(0, 0, 30, 10), RED)
    assert only(image.crop(30, 0, 12, 25), GREEN)
    assert only(image.crop(42, 0, 7, 5), BLUE)
    assert only(image.crop(0, 10, 30, 15), WHITE)
    assert only(image.crop(42, 5, 7, 20), WHITE)


def test_a_column_stands_at_its_left():
    image = merged([WIDE, TALL, SMALL], "across=1")
    assert size_of(image) == (30, 40)
    assert only(image.crop(0, 0, 30, 10), RED)
    assert only(image.crop(0, 10, 12, 25), GREEN)
    assert only(image.crop(0, 35, 7, 5), BLUE)
    assert only(image.crop(12, 10, 18, 25), WHITE)


def test_rows_follow_each_other_with_gaps_between():
    image = merged([WIDE, TALL, SMALL], "gap=4&background=gold")
    assert size_of(image) == (46, 34)  # two in the first row, one in the second
    assert only(image.crop(34, 0, 12, 25), GREEN)
    assert only(image.crop(0, 29, 7, 5), BLUE)
    assert only(image.crop(30, 0, 4, 34), [255, 215, 0])
    assert only(image.crop(0, 25, 46, 4), [255, 215, 0])


def test_cells_hold_pieces_in_their_middle():
    image = merged([WIDE, TALL, SMALL, WIDE], "cell=20x20&gap=2&across=3")
    assert size_of(image) == (64, 42)
    assert only(image.crop(0, 6, 20, 7), RED)  # 30x10 fits as 20x7
    assert only(image.crop(27, 0, 10, 20), GREEN)
    assert only(image.crop(50, 7, 7, 5), BLUE)  # not enlarged
    assert only(image.crop(0, 28, 20, 7), RED)


def test_what_is_transparent_is_laid_on_the_background_which_is_white_by_default():
    clear = saved(flat(*YELLOW, 0, width=10, height=20), "png")
    half = saved(flat(*YELLOW, 100, width=10, height=10), "png")
    for query, ink in (("", WHITE), ("&background=gold", [255, 215, 0])):
        image = merged([clear, WIDE], f"across=2{query}")
        assert image.bands == 3
        assert only(image.crop(0, 0, 10, 20), ink)
        assert only(image.crop(10, 10, 30, 10), ink)
    image = merged([half, WIDE], "across=2&background=none")
    assert image(5, 5) == [*YELLOW, 100]
    assert image(20, 5) == [*RED, 255]
    room = merged([WIDE, TALL], "across=2&background=none")
    assert room(5, 20)[3] == 0


def test_grey_deep_and_ink_are_joined_in_srgb():
    grey = saved(flat(90, interpretation="b-w"), "png")
    deep = (flat(*RED).cast("ushort") * 257).cast("ushort").copy(interpretation="rgb16")
    ink = flat(0, 255, 255, 0, interpretation="cmyk")
    image = merged([grey, saved(deep, "png"), saved(ink, "jpeg")], "across=3")
    assert (size_of(image), image.bands) == ((72, 16), 3)
    assert image(12, 8) == [90, 90, 90]
    assert image(36, 8) == RED
    red, green, blue = image(60, 8)
    assert red > 150 > max(green, blue)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pieces_stand_upright(orientation):
    held = saved(stored_as(quadrants(40, 24), orientation), "jpeg")
    image = merged([held, WIDE], "across=2")
    assert size_of(image) == (70, 24)
    places = ((8, 5), (32, 5), (8, 18), (32, 18))
    for (x, y), colour in zip(places, (RED, GREEN, BLUE, YELLOW), strict=True):
        assert near(image(x, y), colour, 12)


def test_everything_else_is_done_to_the_whole():
    image = merged([WIDE, TALL], "across=2&w=21&h=30")
    assert size_of(image) == (21, 30)
    assert only(image.crop(1, 11, 12, 3), RED)
    assert only(image.crop(0, 0, 21, 8), WHITE)
    assert size_of(merged([WIDE, TALL], "across=2&w=10&h=10&fit=cover")) == (10, 10)
    assert merged([WIDE, TALL], "across=2&crop=30,0,12,25&rotate=90")(12, 5) == GREEN
    assert only(merged([WIDE, TALL], "across=2&tile=42x1,35,0"), GREEN)
    assert size_of(merged([WIDE, TALL], "across=2&round=full&border=2")) == (46, 29)


def test_a_smaller_result_is_made_of_smaller_pieces():
    pieces = [saved(noise(600, 400, seed=seed), "jpeg") for seed in (1, 5)]
    whole = merged(pieces, "across=2")
    assert size_of(whole) == (1200, 400)
    small = merged(pieces, "across=2&w=240")
    assert size_of(small) == (240, 80)
    expected = whole.thumbnail_image(240, height=80, size="force")
    assert (small - expected).abs().avg() < 4


def test_several_results_made_together_each_have_their_own_pieces():
    first, *others = (saved(flat(*ink), "png") for ink in (RED, GREEN, BLUE))
    works = []
    for at, other in enumerate(others):
        transform = Transform.from_query(f"merge=x{at}&across=2").with_output("png")
        works.append(pipeline.prepare(first, transform, Limits(), others=[other]))
    for made, ink in zip(pipeline.run_all(first, works), (GREEN, BLUE), strict=True):
        assert only(opened(made.data).crop(24, 0, 24, 16), ink)


def test_halves_of_pixels_are_rounded_up_as_everywhere():
    transform = Transform.from_query("merge=x&cell=20x20&across=2")
    mosaic = plan_mosaic([Size(40, 5), Size(40, 9)], transform)  # 20x2.5 and 20x4.5
    assert [box.size for box in mosaic.boxes] == [Size(20, 3), Size(20, 5)]


def test_only_the_first_frame_of_an_animation_is_merged():
    moving = pages([flat(*ink) for ink in (RED, GREEN, BLUE)], "gif")
    image = merged([moving, moving], "across=2", limits=Limits(source_pixels=24 * 32))
    assert size_of(image) == (48, 16)
    assert near(image(40, 8)[:3], RED, 4)
    still = merged([WIDE, moving], "across=1", fm="gif")
    assert size_of(still) == (30, 26)


def test_a_part_of_a_very_wide_whole_can_be_had():
    pieces = [saved(flat(*ink, width=8200, height=4), "png") for ink in (RED, GREEN)]
    image = merged(pieces, "across=2&crop=8190,0,20,4")
    assert only(image.crop(0, 0, 10, 4), RED)
    assert only(image.crop(10, 0, 10, 4), GREEN)


def test_limits_hold_for_pieces_and_for_the_whole():
    with pytest.raises(SourceTooLarge):
        merged([WIDE, TALL], "across=2", limits=Limits(source_pixels=1000))
    with pytest.raises(InvalidOption):
        merged([WIDE, TALL], "across=2", limits=Limits(result_pixels=1000))
    with pytest.raises(BrokenImage):
        merged([WIDE, TALL[:60]])


def test_what_is_wrong_with_merged_originals_names_merge():
    with pytest.raises(BrokenImage, match=r"^merge: ") as broken:
        merged([WIDE, TALL[:60]])
    with pytest.raises(SourceTooLarge, match=r"^merge: .* together") as many:
        merged([WIDE, TALL], limits=Limits(source_pixels=500))
    with pytest.raises(SourceTooLarge, match=r"^merge: .* smaller cell") as whole:
        merged([WIDE, TALL], "cell=90x90&across=2", limits=Limits(source_pixels=1000))
    assert [caught.value.param for caught in (broken, many, whole)] == ["merge"] * 3
    with pytest.raises(BrokenImage) as own:
        merged([TALL[:60], WIDE])
    assert own.value.param is None


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.builds(Size, st.integers(1, 50), st.integers(1, 50)), min_size=2, max_size=9),
    across=st.integers(1, 9),
    gap=st.integers(0, 9),
    cell=st.none() | st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_pieces_lie_within_the_whole_and_never_on_each_other(sizes, across, gap, cell):
    query = f"merge=x&across={across}&gap={gap}"
    query += f"&cell={cell[0]}x{cell[1]}" if cell else ""
    mosaic = plan_mosaic(sizes, Transform.from_query(query))
    taken = set()
    for box, size in zip(mosaic.boxes, sizes, strict=True):
        assert box.size == size or (cell and box.width <= cell[0] and box.height <= cell[1])
        places = {
            (x, y)
            for x in range(box.left, box.left + box.width)
            for y in range(box.top, box.top + box.height)
        }
        assert not places & taken
        taken |= places
    assert max(x for x, _ in taken) < mosaic.size.width
    assert max(y for _, y in taken) < mosaic.size.height
