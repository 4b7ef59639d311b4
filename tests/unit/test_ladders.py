"""Ladders: every width shows the same picture, and none goes beyond the original."""

from __future__ import annotations

from hypothesis import assume, given
from hypothesis import strategies as st

from app.ladders import ladder_of
from transforms import geometry
from transforms.errors import InvalidOption
from transforms.formats import FORMATS
from transforms.inspect import Header
from transforms.shapes import Size
from transforms.transform import Transform

_SIDES = st.integers(20, 4000)
_WIDTHS = st.lists(st.integers(1, 4000), min_size=1, max_size=6)
_FITS = st.sampled_from(["contain", "cover", "inside", "outside", "fill"])


def header(width: int, height: int, *, scalable: bool = False) -> Header:
    return Header(
        format=FORMATS["jpeg"],
        size=Size(width, height),
        pages=1,
        orientation=1,
        bands=3,
        bytes_per_band=1,
        alpha=False,
        progressive=False,
        interpretation="srgb",
        scalable=scalable,
    )


@st.composite
def transforms(draw: st.DrawFn) -> Transform:
    parts = [f"fit={draw(_FITS)}"]
    parts += [f"w={draw(_SIDES)}"] if draw(st.booleans()) else []
    parts += [f"h={draw(_SIDES)}"] if draw(st.booleans()) else []
    parts += [f"dpr={draw(st.sampled_from(['1', '1.5', '2']))}"]
    parts += [f"rotate={draw(st.sampled_from(['0', '90']))}"]
    try:
        return Transform.from_query("&".join(parts))
    except InvalidOption:
        assume(False)
        raise


@given(width=_SIDES, height=_SIDES, transform=transforms(), widths=_WIDTHS)
def test_no_step_goes_beyond_what_is_asked_for_or_what_the_original_has(
    width, height, transform, widths
):
    ladder = ladder_of(header(width, height), transform)
    steps, widest = ladder.steps(widths)
    assert steps == sorted(set(steps))
    assert widest in steps
    assert widest <= max(widths)
    assert ladder.top is not None
    assert widest <= ladder.top
    assert len([step for step in steps if step > widest]) <= 1


@given(width=_SIDES, height=_SIDES, transform=transforms(), widths=_WIDTHS)
def test_every_step_has_the_proportions_of_the_widest(width, height, transform, widths):
    known = header(width, height)
    ladder = ladder_of(known, transform)
    steps, widest = ladder.steps(widths)
    try:
        boxes = [ladder.at(step, widest=widest) for step in steps]
    except InvalidOption:
        return  # a side of it would be longer than can be asked for
    sizes = [geometry.plan(known.size, box).result for box in boxes]
    last = sizes[steps.index(widest)]
    for size in sizes:
        # Each side is off by a pixel at most, which for a narrow one is much of it.
        drawn = size.width * last.height - size.height * last.width
        assert abs(drawn) <= 1.5 * (last.width + last.height + size.width + size.height)


def test_a_drawing_has_no_end_but_the_one_that_is_asked_for():
    drawing = header(24, 24, scalable=True)
    free = ladder_of(drawing, Transform.from_query(""))
    assert free.steps([100, 1000]) == ([100, 1000], 1000)
    asked = ladder_of(drawing, Transform.from_query("w=500"))
    assert asked.steps([100, 1000]) == ([100, 500], 500)


def test_lengths_shrink_with_the_width_and_bounds_end_the_ladder():
    ladder = ladder_of(header(1000, 500), Transform.from_query("padding=40&max-w=500"))
    steps, widest = ladder.steps([100, 1000])
    assert (steps, widest) == ([100, 500], 500)
    narrow = ladder.at(100, widest=widest)
    assert (narrow.w, narrow.padding.left, narrow.max_w) == (100, 8, 100)
    text = ladder_of(header(1000, 500), Transform.from_query("w=400&dpr=2&text=x"))
    assert text.asked == 800
    drawn = text.at(400, widest=800)
    assert (drawn.w, drawn.dpr) == (400, 1)
