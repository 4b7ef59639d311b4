"""Cost: what is estimated grows with what is done, and names what most of it is for."""

from __future__ import annotations

import pytest

from tests.transforms.pictures import flat, noise, pages, saved
from transforms import pipeline
from transforms.cost import estimate_all
from transforms.errors import InvalidOption
from transforms.limits import Limits
from transforms.transform import Transform

PHOTO = saved(noise(600, 400), "jpeg")
MOVING = pages([noise(64, 64, seed=n) for n in range(5)], "gif")


def cost(query="", *, data=PHOTO, others=(), fm="jpeg"):
    transform = Transform.from_query(query)
    transform = transform.with_output(transform.fm or fm)
    return estimate_all([pipeline.prepare(data, transform, Limits(), others=others)])


@pytest.mark.parametrize(
    ("less", "more"),
    [
        ("blur=1", "blur=11"),
        ("sharpen=1", "sharpen=10"),
        ("charcoal=1", "charcoal=20"),
        ("w=600", "w=3000&enlarge=1"),
        ("fm=png", "fm=png&effort=9"),
        ("fm=jpeg", "fm=gif"),
        ("fm=webp", "fm=webp&round=20"),
        ("fm=webp", "fm=webp&lossless=1"),
        ("fm=jpeg", "fm=jpeg&progressive=1"),
        ("fm=webp&q=auto", "fm=webp&q=auto&max-bytes=20000"),
        ("w=300", "w=300&trim=1"),
        ("text=Hello,size=20", "text=Hello,size=200"),
        ("text=Hello", "text=Hello,outline=000"),
        ("border=5,f00", "shadow=5,5,20,000"),
        ("background=fff&padding=9", "background=blur&padding=9"),
    ],
)
def test_what_takes_longer_is_estimated_higher(less, more):
    assert cost(more).seconds > cost(less).seconds


def test_a_text_is_laid_over_every_frame_but_drawn_once():
    text = "text=Some words,size=12,outline=000"
    one, all_five = (
        cost(f"{text}&fm=gif{frames}", data=MOVING).parts["text"] for frames in ("&frames=1", "")
    )
    assert one < all_five < 5 * one + 0.02


@pytest.mark.parametrize(
    ("query", "cause"),
    [
        ("w=3000&enlarge=1", "w"),
        ("fm=avif&effort=9", "effort"),
        ("fm=avif&q=auto", "q"),
        ("fm=webp&max-bytes=9000", "max-bytes"),
        ("sharpen=10", "sharpen"),
        ("shadow=5,5,20,000", "shadow"),
        ("trim=1&w=20", "trim"),
    ],
)
def test_the_cause_is_what_most_seconds_are_for(query, cause):
    assert cost(query).cause == cause


def test_the_seconds_of_all_parts_are_the_whole():
    whole = cost("sharpen=3&text=Hello&fm=webp&q=auto&max-bytes=9000&shadow=5,5,20,000")
    assert whole.seconds == pytest.approx(sum(whole.parts.values()), abs=0.01)


def test_merged_originals_are_decoded_whole_however_small_their_cells_are():
    large = saved(flat(9, 9, 9, width=1500, height=1500), "webp")
    small = cost("merge=x&cell=10x10&across=2", data=large, others=[large])
    assert small.memory >= 1500 * 1500 * 4
    assert small.seconds > cost("w=10", data=large).seconds


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("padding=4096&w=100", "padding"),
        ("extent=8192x8192", "extent"),
        ("h=8192&enlarge=1", "h"),
        ("min-h=8192&w=1", "min-h"),
        ("w=8192&enlarge=1", "w"),
    ],
)
def test_a_result_that_is_too_large_names_its_cause(query, param):
    with pytest.raises(InvalidOption, match=f"smaller {param}") as error:
        cost(query)
    assert error.value.param == param


def test_a_page_that_is_not_there_is_told_plainly():
    with pytest.raises(InvalidOption, match="the original has 1 page, counted from 0"):
        cost("page=1")
