"""Geometry: what must hold for every source, orientation and transform, and the eight turns."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import floor
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.transforms.pictures import numbered, saved
from transforms import pipeline
from transforms.errors import InvalidOption
from transforms.geometry import Plan, plan
from transforms.limits import Limits
from transforms.load import open_original
from transforms.options import FITS
from transforms.orient import orient
from transforms.shapes import EXIF_TURNS, Box, Size, Turn
from transforms.transform import Transform
from transforms.values import Sides, Tile

read = Transform.from_query

sides = st.one_of(st.integers(1, 20), st.integers(1, 20_000))
sources = st.builds(Size, sides, sides)
orientations = st.integers(1, 8)
boxes = st.one_of(st.integers(1, 20), st.integers(1, 8192)).map(str)
TURNS = [Turn(quarters, mirrored) for mirrored in (False, True) for quarters in range(4)]


def shares(low: str) -> st.SearchStrategy[str]:
    return st.decimals(low, 1, places=4).map(lambda share: f"{share:f}")


def requests(*names: str, **fixed: Any) -> st.SearchStrategy[Transform]:
    """Transforms of these options, each there or not; of those in `fixed`, always."""
    rows = {
        "w": boxes,
        "h": boxes,
        "min-w": boxes,
        "min-h": boxes,
        "max-w": boxes,
        "max-h": boxes,
        "fit": st.sampled_from(FITS),
        "enlarge": st.sampled_from(["0", "1"]),
        "dpr": st.sampled_from(["0.1", "0.5", "1", "1.37", "2"]),
        "crop": st.one_of(
            st.tuples(shares("0"), shares("0"), shares("0.0001"), shares("0.0001")).map(",".join),
            st.tuples(*[st.integers(0, 300)] * 2, *[st.integers(1, 9999)] * 2).map(
                lambda numbers: ",".join(map(str, numbers))
            ),
        ),
        "gravity": st.one_of(
            st.sampled_from(["center", "north", "southeast", "west"]),
            st.tuples(shares("0"), shares("0")).map(",".join),
        ),
        "extent": st.builds(lambda w, h: f"{w}x{h}", boxes, boxes),
        "padding": st.lists(st.integers(0, 90).map(str), min_size=1, max_size=4).map(",".join),
        "border": st.integers(1, 90).map(str),
        "shadow": st.tuples(st.integers(-90, 90), st.integers(-90, 90), st.integers(0, 90)).map(
            lambda numbers: ",".join(map(str, numbers))
        ),
        "tile": st.builds(
            lambda columns, rows, across, down: (
                f"{columns}x{rows},{across % columns},{down % rows}"
            ),
            *[st.integers(1, 9)] * 2,
            *[st.integers(0, 8)] * 2,
        ),
        "rotate": st.sampled_from(["0", "90", "180", "270"]),
        "flip": st.sampled_from(["h", "v", "hv"]),
        "orient": st.sampled_from(["auto", "none", *"12345678"]),
    }
    always = {name: rows[name] if value is ... else st.just(value) for name, value in fixed.items()}
    maybe = {name: rows[name] for name in (names or rows) if name not in fixed}
    return st.fixed_dictionaries(always, optional=maybe).map(read_or_none).filter(bool)


def read_or_none(request: dict[str, str]) -> Transform | None:
    try:
        return read(request.items())
    except InvalidOption as error:
        if "times dpr must be at most" not in error.detail:
            raise
        return None


@st.composite
def boxes_in(draw: st.DrawFn, size: Size) -> Box:
    left, top = draw(st.integers(0, size.width - 1)), draw(st.integers(0, size.height - 1))
    return Box(
        left,
        top,
        draw(st.integers(1, size.width - left)),
        draw(st.integers(1, size.height - top)),
    )


def half_up(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def planned(source: Size, transform: Transform, orientation: int = 1) -> Plan:
    try:
        return plan(source, transform, orientation=orientation)
    except InvalidOption as error:
        assume("lies outside" not in error.detail and "more parts" not in error.detail)
        raise


def picture(made: Plan) -> Size:
    """The part that is used, as it is laid down before it is scaled."""
    return made.turn.apply(made.region.size)


PLAIN = ("gravity", "rotate", "flip", "orient", "crop")
many = settings(max_examples=150, deadline=None)


@many
@given(sources, requests(), orientations)
def test_no_side_is_ever_less_than_one_pixel(source, transform, orientation) -> None:
    made = planned(source, transform, orientation)
    for size in (
        made.region.size,
        made.stored_scaled,
        made.scaled,
        made.window_size,
        made.canvas,
        made.result,
    ):
        assert size.width >= 1
        assert size.height >= 1


@many
@given(sources, requests(*PLAIN, "enlarge", "min-w", "min-h", w=..., h=..., fit="contain"))
def test_contain_is_exactly_the_box(source, transform) -> None:
    made = planned(source, transform)
    assert made.result == Size(transform.w, transform.h)


@many
@given(sources, requests(*PLAIN, "min-w", "min-h", w=..., h=..., fit="cover", enlarge="1"))
def test_cover_that_may_enlarge_is_exactly_the_box(source, transform) -> None:
    made = planned(source, transform)
    assert made.result == Size(transform.w, transform.h)


@many
@given(sources, requests(*PLAIN, w=..., h=..., fit="cover"))
def test_cover_never_exceeds_the_box_and_fills_it_where_the_picture_is_large_enough(
    source, transform
) -> None:
    made = planned(source, transform)
    assert made.result.width == min(transform.w, made.scaled.width)
    assert made.result.height == min(transform.h, made.scaled.height)
    if picture(made).width >= transform.w and picture(made).height >= transform.h:
        assert made.result == Size(transform.w, transform.h)


@many
@given(sources, requests(*PLAIN, "enlarge", "min-w", "min-h", w=..., h=..., fit="inside"))
def test_inside_never_exceeds_the_box(source, transform) -> None:
    result = planned(source, transform).result
    assert result.width <= transform.w
    assert result.height <= transform.h


@many
@given(sources, requests(*PLAIN, w=..., h=..., fit="inside", enlarge="1"))
def test_inside_touches_the_box(source, transform) -> None:
    result = planned(source, transform).result
    assert result.width == transform.w or result.height == transform.h


@many
@given(sources, requests(*PLAIN, w=..., h=..., fit="outside", enlarge="1"))
def test_outside_covers_the_box_and_touches_it(source, transform) -> None:
    result = planned(source, transform).result
    assert result.width >= transform.w
    assert result.height >= transform.h
    assert result.width == transform.w or result.height == transform.h


@many
@given(sources, requests(*PLAIN, w=..., h=..., fit="fill", enlarge="1"))
def test_fill_that_may_enlarge_is_exactly_the_box(source, transform) -> None:
    assert planned(source, transform).result == Size(transform.w, transform.h)


@many
@given(sources, requests(*PLAIN, "enlarge", w=...))
def test_one_side_alone_is_met_and_the_other_follows(source, transform) -> None:
    made = planned(source, transform)
    whole = picture(made)
    width = transform.w if transform.enlarge else min(transform.w, whole.width)
    assert made.result.width == width
    assert abs(made.result.height - Fraction(whole.height * width, whole.width)) <= 1


@many
@given(
    sources,
    requests("w", "h", "fit", "dpr", "extent", "padding", "max-w", "max-h", *PLAIN, enlarge="0"),
    orientations,
)
def test_nothing_is_enlarged_unless_that_is_asked_for(source, transform, orientation) -> None:
    made = planned(source, transform, orientation)
    assert made.scaled.width <= picture(made).width
    assert made.scaled.height <= picture(made).height


@many
@given(sources, requests("w", "h", "fit", "enlarge", "dpr", "min-w", "min-h", *PLAIN))
def test_the_picture_is_at_least_as_large_as_the_minimum(source, transform) -> None:
    scaled = planned(source, transform).scaled
    assert scaled.width >= int((transform.min_w or 0) * transform.dpr)
    assert scaled.height >= int((transform.min_h or 0) * transform.dpr)


@settings(max_examples=600, deadline=None)
@given(
    sources,
    st.one_of(requests(**{"max-w": ...}), requests(**{"max-h": ...})),
    orientations,
)
def test_the_result_is_never_larger_than_the_maximum(source, transform, orientation) -> None:
    result = planned(source, transform, orientation).result
    if transform.max_w is not None:
        assert result.width <= max(1, Fraction(transform.max_w * transform.dpr) + Fraction(1, 2))
    if transform.max_h is not None:
        assert result.height <= max(1, Fraction(transform.max_h * transform.dpr) + Fraction(1, 2))


@pytest.mark.parametrize(
    ("source", "query"),
    [
        (Size(1, 1), "padding=1,0,0,1&max-w=1"),
        (Size(1, 1), "padding=1,0,0,1&max-h=1"),
        (Size(1, 1), "padding=3&max-w=2&max-h=3"),
        (Size(3, 3), "padding=3&max-w=3&max-h=3"),
        (Size(1, 9), "padding=5&max-w=5&max-h=4"),
        (Size(9, 9), "border=4&max-w=5"),
        (Size(9, 9), "shadow=3,-2,5&max-w=7&max-h=5"),
        (Size(4, 2), "border=1&shadow=1,2,0&dpr=1.37&max-h=4"),
    ],
)
def test_a_frame_gives_way_to_the_maximum_on_both_sides(source: Size, query: str) -> None:
    transform = read(query)
    result = plan(source, transform).result
    for most, side in ((transform.max_w, result.width), (transform.max_h, result.height)):
        assert most is None or side <= half_up(most * Fraction(transform.dpr))


@many
@given(sources, requests(), orientations)
def test_the_window_lies_within_the_scaled_picture(source, transform, orientation) -> None:
    made = planned(source, transform, orientation)
    window = made.window
    assert window is not None
    assert window.size == made.window_size
    assert 0 <= window.left <= made.scaled.width - window.width
    assert 0 <= window.top <= made.scaled.height - window.height
    assert made.crops == (made.window_size != made.scaled)


@many
@given(sources, requests(), orientations)
def test_the_window_lies_within_the_canvas(source, transform, orientation) -> None:
    made = planned(source, transform, orientation)
    left, top = made.offset
    assert 0 <= left <= made.canvas.width - made.window_size.width
    assert 0 <= top <= made.canvas.height - made.window_size.height
    assert made.frames == (made.padded != made.window_size)


@many
@given(sources, requests(), orientations)
def test_padding_border_and_the_room_of_the_shadow_make_the_result(
    source, transform, orientation
) -> None:
    made = planned(source, transform, orientation)
    width, height = made.canvas.width, made.canvas.height
    for sides in (made.padding, made.shadow_room):
        assert min(sides.top, sides.right, sides.bottom, sides.left) >= 0
        width += sides.left + sides.right
        height += sides.top + sides.bottom
    assert made.border >= 0
    assert made.whole == Size(width + 2 * made.border, height + 2 * made.border)
    assert made.result == (made.tile.size if made.tile else made.whole)


FRAMED = ("w", "h", "fit", "extent", "dpr", "padding", "border", "shadow")


@many
@given(sources, requests(*FRAMED))
def test_without_a_maximum_all_lengths_grow_with_dpr(source, transform) -> None:
    made = planned(source, transform)
    scale = Fraction(transform.dpr)
    assert made.scale == scale
    assert made.border == (half_up(transform.border.width * scale) if transform.border else 0)
    for name in ("top", "right", "bottom", "left"):
        assert getattr(made.padding, name) == half_up(getattr(transform.padding, name) * scale)
    if transform.shadow is None:
        assert made.shadow_room == Sides()
    else:
        # CSS Backgrounds 3, 6.1: moved by its offset, and its blur beyond that on every side.
        shadow = transform.shadow
        x, y, blur = shadow.x * scale, shadow.y * scale, shadow.blur * scale
        reach = (max(0, floor(side)) for side in (blur - y, blur + x, blur + y, blur - x))
        assert made.shadow_room == Sides(*reach)


@many
@given(sources, st.one_of(requests(*FRAMED, **{"max-w": ...}), requests(*FRAMED, **{"max-h": ...})))
def test_a_maximum_shrinks_all_lengths_alike(source, transform) -> None:
    made = planned(source, transform)
    free = planned(source, replace(transform, max_w=None, max_h=None))
    assert 0 < made.scale <= free.scale
    exceeds = (
        transform.max_w is not None
        and free.whole.width > max(1, half_up(transform.max_w * free.scale)),
        transform.max_h is not None
        and free.whole.height > max(1, half_up(transform.max_h * free.scale)),
    )
    assert (made.scale < free.scale) == any(exceeds)
    if transform.border is not None:
        assert abs(made.border - transform.border.width * made.scale) < 1
    for name in ("top", "right", "bottom", "left"):
        # Padding may give way further, where all that is rounded up exceeds the maximum.
        assert getattr(made.padding, name) - getattr(transform.padding, name) * made.scale <= 0.5
        assert getattr(made.shadow_room, name) <= getattr(free.shadow_room, name)


@many
@given(sources, requests(*FRAMED, "max-w", "max-h", *PLAIN), orientations)
def test_a_drawing_is_enlarged_as_if_that_were_asked_for(source, transform, orientation) -> None:
    enlarged = planned(source, replace(transform, enlarge=True), orientation)
    assert plan(source, transform, orientation=orientation, scalable=True) == enlarged


@many
@given(sources, requests("w", "h", "fit", "padding", "border", "shadow", "max-w"), st.data())
def test_tiles_cover_the_whole_without_gap_or_overlap(source, transform, data) -> None:
    whole = planned(source, transform).whole
    columns = data.draw(st.integers(1, min(6, whole.width)))
    rows = data.draw(st.integers(1, min(6, whole.height)))
    tiles = {}
    for column, row in product(range(columns), range(rows)):
        made = plan(source, replace(transform, tile=Tile(columns, rows, column, row)))
        assert made.tile is not None
        assert (made.whole, made.result) == (whole, made.tile.size)
        tiles[column, row] = made.tile
    for (column, row), box in tiles.items():
        right, lower = tiles.get((column + 1, row)), tiles.get((column, row + 1))
        assert box.left + box.width == (right.left if right else whole.width)
        assert box.top + box.height == (lower.top if lower else whole.height)
        assert (box.left == 0) == (column == 0)
        assert (box.top == 0) == (row == 0)
        assert tiles[column, 0].left == box.left
        assert tiles[0, row].top == box.top
    for sides in ([box.width for box in tiles.values()], [box.height for box in tiles.values()]):
        assert max(sides) - min(sides) <= 1
        assert min(sides) >= 1


@pytest.mark.parametrize("grid", ["4x1", "1x3"])
def test_a_tile_without_a_pixel_is_refused(grid: str) -> None:
    columns, rows = (int(part) for part in grid.split("x"))
    refused = []
    for column, row in product(range(columns), range(rows)):
        try:
            plan(Size(3, 2), read(f"tile={grid},{column},{row}"))
        except InvalidOption as error:
            refused.append((error.param, error.detail))
    assert refused == [("tile", "tile asks for more parts than the 3x2 pixels allow")]


@many
@given(sources, requests(), orientations, st.data())
def test_a_trimmed_picture_is_planned_as_if_it_were_no_larger(
    source, transform, orientation, data
) -> None:
    box = data.draw(boxes_in(source))
    assume(transform.crop is None or transform.crop.fractional)
    alone = planned(box.size, transform, orientation)
    made = plan(source, transform, orientation=orientation, trimmed=box)
    region = made.region
    assert box.left <= region.left <= box.left + box.width - region.width
    assert box.top <= region.top <= box.top + box.height - region.height
    moved = replace(alone.region, left=region.left - box.left, top=region.top - box.top)
    assert moved == alone.region
    assert replace(made, stored=alone.stored, region=alone.region) == alone
    assert made.stored == source


@many
@given(sources, requests().filter(lambda transform: transform.fit != "fill"), orientations)
def test_the_picture_keeps_its_shape_but_for_rounding(source, transform, orientation) -> None:
    made = planned(source, transform, orientation)

    def scales(scaled: int, whole: int) -> tuple[Fraction, Fraction]:
        # Every scale that rounds to this side; a side of one pixel may have been less.
        low = Fraction(0) if scaled == 1 else Fraction(2 * scaled - 1, 2 * whole)
        return low, Fraction(2 * scaled + 1, 2 * whole)

    across = scales(made.scaled.width, picture(made).width)
    down = scales(made.scaled.height, picture(made).height)
    assert max(across[0], down[0]) <= min(across[1], down[1])


@many
@given(sources, requests(), orientations)
def test_the_region_lies_within_the_stored_picture(source, transform, orientation) -> None:
    made = planned(source, transform, orientation)
    region = made.region
    assert made.stored == source
    assert 0 <= region.left <= source.width - region.width
    assert 0 <= region.top <= source.height - region.height
    assert made.turn.apply(made.stored_scaled) == made.scaled


@many
@given(sources, requests(), orientations)
def test_w_and_h_mean_the_upright_picture(source, transform, orientation) -> None:
    upright = EXIF_TURNS[orientation].apply(source)
    assume(transform.orient == "auto")
    stored = planned(source, transform, orientation)
    laid = planned(upright, transform)
    assert stored.scaled == laid.scaled
    assert stored.window == laid.window
    assert stored.offset == laid.offset
    assert stored.result == laid.result


@many
@given(sources, requests("w", "h", "fit", "crop", "gravity"), orientations)
def test_an_orientation_that_is_asked_for_replaces_that_of_the_file(
    source, transform, orientation
) -> None:
    of_file = planned(source, transform, orientation)
    request = {**dict(transform.items()), "orient": str(orientation)}
    for other in (1, 3, 6, 99):
        assert plan(source, read(request.items()), orientation=other) == of_file
    request["orient"] = "none"
    assert planned(source, read(request.items()), orientation) == planned(source, transform, 1)


@pytest.mark.parametrize("orientation", [0, -1, 9, 274, 65535])
def test_an_orientation_that_does_not_exist_means_upright(orientation: int) -> None:
    assert plan(Size(5, 3), read("w=2"), orientation=orientation) == plan(Size(5, 3), read("w=2"))


@pytest.mark.parametrize("query", ["crop=5,0,1,1", "crop=0,3,1,1", "crop=1.0,0,0.5,0.5"])
def test_a_crop_outside_the_picture_is_refused(query: str) -> None:
    with pytest.raises(
        InvalidOption, match=r"^crop lies outside the picture, which is 5x3$"
    ) as caught:
        plan(Size(5, 3), read(query))
    assert caught.value.param == "crop"


def test_what_of_a_crop_lies_outside_is_cut_off() -> None:
    assert plan(Size(100, 50), read("crop=90,40,100,100")).region == Box(90, 40, 10, 10)
    assert plan(Size(100, 50), read("crop=0.5,0.5,1.0,1.0")).region == Box(50, 25, 50, 25)


@many
@given(sources, shares("0"), shares("0"), shares("0.0001"), shares("0.0001"))
def test_a_crop_in_fractions_that_begins_inside_the_picture_has_a_pixel(
    source, x, y, width, height
) -> None:
    assume(float(x) < 1 and float(y) < 1)
    region = plan(source, read([("crop", f"{x},{y},{width},{height}")])).region
    assert region.width >= 1
    assert region.height >= 1


def test_the_crop_is_of_the_upright_picture_and_comes_before_flip_and_rotate() -> None:
    # Stored 60x40, laid by a quarter turn: upright it is 40x60.
    made = plan(Size(60, 40), read("crop=0,0,10,20&flip=h&rotate=90"), orientation=6)
    assert made.region == Box(0, 30, 20, 10)
    assert made.result == Size(20, 10)


# The eight turns.


def lay(turn: Turn, point: tuple[int, int], size: Size) -> tuple[int, int]:
    """Where a turn takes a pixel: mirrored first, then by quarters clockwise."""
    x, y = point
    if turn.mirrored:
        x = size.width - 1 - x
    for _ in range(turn.quarters):
        x, y = size.height - 1 - y, x
        size = size.turned
    return x, y


def points(box: Box) -> set[tuple[int, int]]:
    across = range(box.left, box.left + box.width)
    return set(product(across, range(box.top, box.top + box.height)))


SMALL = Size(5, 3)


@pytest.mark.parametrize("second", TURNS, ids=str)
@pytest.mark.parametrize("first", TURNS, ids=str)
def test_a_turn_then_another_is_both_at_once(first: Turn, second: Turn) -> None:
    both = first.then(second)
    assert both.apply(SMALL) == second.apply(first.apply(SMALL))
    for point in points(Box(0, 0, 5, 3)):
        between = lay(first, point, SMALL)
        assert lay(both, point, SMALL) == lay(second, between, first.apply(SMALL))


@many
@given(*[st.sampled_from(TURNS)] * 3)
def test_it_does_not_matter_which_two_of_three_turns_are_joined_first(one, two, three) -> None:
    assert one.then(two).then(three) == one.then(two.then(three))
    assert one.then(Turn()) == Turn().then(one) == one


@many
@given(
    st.sampled_from(TURNS),
    st.integers(1, 9),
    st.integers(1, 9),
    st.data(),
)
def test_undo_finds_the_box_that_a_turn_has_laid_down(turn, width, height, data) -> None:
    size = Size(width, height)
    box = data.draw(boxes_in(size))
    laid = [lay(turn, point, size) for point in points(box)]
    across, down = [x for x, _ in laid], [y for _, y in laid]
    turned = Box(min(across), min(down), max(across) - min(across) + 1, max(down) - min(down) + 1)
    assert turn.undo(turned, size) == box


# TIFF 6.0, Orientation: which side of the upright picture row 0 and column 0 of the stored one are.
UPRIGHT = {
    1: lambda x, y, w, h: (x, y),
    2: lambda x, y, w, h: (w - 1 - x, y),
    3: lambda x, y, w, h: (w - 1 - x, h - 1 - y),
    4: lambda x, y, w, h: (x, h - 1 - y),
    5: lambda x, y, w, h: (y, x),
    6: lambda x, y, w, h: (h - 1 - y, x),
    7: lambda x, y, w, h: (h - 1 - y, w - 1 - x),
    8: lambda x, y, w, h: (y, w - 1 - x),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_real_pixels_are_laid_as_the_tag_says(orientation: int) -> None:
    data = saved(numbered(5, 3), "png")
    work = pipeline.prepare(data, read(f"orient={orientation}"), Limits())
    image = orient(open_original(data, [work]).region(0, work.plan), work).copy_memory()
    assert Size(image.width, image.height) == work.plan.result
    for x, y in points(Box(0, 0, 5, 3)):
        assert image.getpoint(*UPRIGHT[orientation](x, y, 5, 3))[:2] == [x, y]
        assert lay(EXIF_TURNS[orientation], (x, y), SMALL) == UPRIGHT[orientation](x, y, 5, 3)


@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
@pytest.mark.parametrize("flip", ["", "h", "v", "hv"])
@pytest.mark.parametrize("orientation", UPRIGHT)
def test_real_pixels_are_mirrored_before_they_are_turned(
    orientation: int, flip: str, rotate: int
) -> None:
    data = saved(numbered(5, 3), "png")
    query = f"orient={orientation}&rotate={rotate}" + (f"&flip={flip}" if flip else "")
    work = pipeline.prepare(data, read(query), Limits())
    image = orient(open_original(data, [work]).region(0, work.plan), work).copy_memory()
    for x, y in points(Box(0, 0, 5, 3)):
        at = UPRIGHT[orientation](x, y, 5, 3)
        size = Size(3, 5) if orientation >= 5 else Size(5, 3)
        at = (size.width - 1 - at[0], at[1]) if "h" in flip else at
        at = (at[0], size.height - 1 - at[1]) if "v" in flip else at
        assert image.getpoint(*lay(Turn(rotate // 90), at, size))[:2] == [x, y]


@pytest.mark.parametrize("orientation", UPRIGHT)
def test_the_region_of_a_crop_holds_the_pixels_that_are_there_in_the_upright_picture(
    orientation: int,
) -> None:
    data = saved(numbered(5, 3), "png")
    upright = EXIF_TURNS[orientation].apply(SMALL)
    for box in (Box(0, 0, 2, 1), Box(1, 1, 2, 2), Box(upright.width - 1, 0, 1, 3)):
        query = f"orient={orientation}&crop={box.left},{box.top},{box.width},{box.height}"
        region = pipeline.prepare(data, read(query), Limits()).plan.region
        laid = {UPRIGHT[orientation](x, y, 5, 3) for x, y in points(region)}
        assert laid == points(box)
