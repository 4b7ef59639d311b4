from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms.pictures import flat, noise, opened, photo
from transforms.aim import MOST_ENCODES, STEP, Aimed, fit_bytes, reach_target
from transforms.libvips import Image
from transforms.likeness import Reference, distance, score

PHOTOGRAPHS = ("Landscape_1.jpg", "smart-crop.jpg", "imaginary.jpg", "large.jpg", "4.webp")
FORMATS = ("jpeg", "webp", "avif")


def encoder(image: Image, fm: str) -> Callable[[int], bytes]:
    match fm:
        case "jpeg":
            return lambda q: bytes(image.jpegsave_buffer(Q=q, keep="none"))
        case "webp":
            return lambda q: bytes(image.webpsave_buffer(Q=q, effort=0, keep="none"))
        case _:
            return lambda q: bytes(
                image.heifsave_buffer(Q=q, compression="av1", effort=0, keep="none")
            )


def counted(encode: Callable[[int], bytes]) -> tuple[Callable[[int], bytes], list[int]]:
    tried: list[int] = []

    def encode_and_note(quality: int) -> bytes:
        tried.append(quality)
        return encode(quality)

    return encode_and_note, tried


@pytest.fixture(params=PHOTOGRAPHS)
def photograph(request: pytest.FixtureRequest, real_images: Path) -> Image:
    return Image.thumbnail(str(real_images / request.param), 160).copy_memory()


# Files within a budget


@pytest.mark.parametrize("fm", FORMATS)
@pytest.mark.parametrize("share", [1, 0.8, 0.5, 0.3])
def test_photographs_fit_their_budget_and_fill_it(photograph, fm, share):
    encode, tried = counted(encoder(photograph, fm))
    budget = math.ceil(len(encode(80)) * share)
    tried.clear()
    aimed = fit_bytes(encode, budget=budget, best=80)
    assert aimed.fits
    assert 0.6 * budget < len(aimed.data) <= budget
    assert len(tried) == len(set(tried)) == aimed.encodes <= MOST_ENCODES
    assert aimed.data == encode(aimed.quality)


def test_a_budget_that_is_wide_enough_costs_one_encode_at_the_quality_asked_for():
    encode, tried = counted(encoder(photo(), "jpeg"))
    aimed = fit_bytes(encode, budget=10**6, best=83)
    assert (aimed.quality, aimed.encodes, tried) == (83, 1, [83])


def test_what_cannot_fit_is_said_not_to_and_is_as_small_as_can_be():
    encode, tried = counted(encoder(noise(120, 80), "jpeg"))
    aimed = fit_bytes(encode, budget=400, best=80, worst=10)
    assert not aimed.fits
    assert aimed.quality == min(tried) == 10


def test_best_and_worst_may_be_the_same():
    aimed = fit_bytes(lambda q: bytes(500), budget=400, best=7, worst=7)
    assert (aimed.fits, aimed.quality, aimed.encodes) == (False, 7, 1)


@settings(deadline=None)
@given(
    steps=st.lists(st.integers(0, 400), min_size=100, max_size=100),
    start=st.integers(1, 5000),
    share=st.floats(0, 1.2),
    best=st.integers(1, 100),
    worst=st.integers(1, 100),
)
def test_any_encoder_whose_files_grow_fits_where_it_can(steps, start, share, best, worst):
    best, worst = max(best, worst), min(best, worst)
    sizes = [start]
    for step in steps:
        sizes.append(sizes[-1] + step)
    budget = max(1, int(sizes[worst] + (sizes[best] - sizes[worst]) * share))
    encode, tried = counted(lambda quality: bytes(sizes[quality]))
    aimed = fit_bytes(encode, budget=budget, best=best, worst=worst)
    assert aimed.fits == (len(aimed.data) <= budget) == (sizes[worst] <= budget)
    assert len(aimed.data) == sizes[aimed.quality]
    assert aimed.quality == max((q for q in tried if sizes[q] <= budget), default=worst)
    assert len(tried) == aimed.encodes <= MOST_ENCODES


@settings(deadline=None)
@given(
    sizes=st.lists(st.integers(0, 20_000), min_size=101, max_size=101),
    budget=st.integers(1, 20_000),
)
def test_no_encoder_however_odd_breaks_the_budget_silently(sizes, budget):
    encode, tried = counted(lambda quality: bytes(sizes[quality]))
    aimed = fit_bytes(encode, budget=budget, best=90)
    assert aimed.fits == (len(aimed.data) <= budget) == any(sizes[q] <= budget for q in tried)
    assert len(tried) == len(set(tried)) <= MOST_ENCODES


# Files that are as like the picture as they must be


def likeness(image: Image, fm: str) -> Callable[[bytes], float]:
    reference = Reference.of(image)
    return lambda data: score(distance(reference, opened(data)), fm)


@pytest.mark.parametrize("fm", FORMATS)
@pytest.mark.parametrize("target", [60, 80])
def test_photographs_meet_the_target_and_would_not_one_step_below(photograph, fm, target):
    encode, tried = counted(encoder(photograph, fm))
    judge = likeness(photograph, fm)
    aimed = reach_target(photograph, encode, opened, target=target, format_name=fm)
    assert aimed.met
    assert aimed.score == judge(aimed.data) >= target
    assert judge(encode(aimed.quality - STEP)) < target
    assert aimed.encodes == len(tried) - 1 <= MOST_ENCODES


def test_a_target_out_of_reach_is_said_to_be_and_the_best_is_given():
    image = noise(96, 64)
    aimed = reach_target(
        image, encoder(image, "webp"), opened, target=99, format_name="webp", best=90
    )
    assert not aimed.met
    assert aimed.fits
    assert aimed.quality == 90


def test_a_flat_picture_needs_the_lowest_quality():
    image = flat(128, 128, 128, width=64, height=64)
    aimed = reach_target(image, encoder(image, "jpeg"), opened, target=90, format_name="jpeg")
    assert aimed.met
    assert aimed.quality == 24


def test_the_budget_goes_before_the_target():
    image = photo(200, 150)
    encode = encoder(image, "jpeg")
    free = reach_target(image, encode, opened, target=85, format_name="jpeg")
    budget = len(free.data) - 1
    bound = reach_target(image, encode, opened, target=85, format_name="jpeg", budget=budget)
    assert free.met
    assert not bound.met
    assert bound.fits
    assert bound.quality == free.quality - STEP
    enough = reach_target(
        image, encode, opened, target=85, format_name="jpeg", budget=len(free.data)
    )
    assert (enough.data, enough.met, enough.fits) == (free.data, True, True)


def test_where_nothing_fits_nothing_is_decoded_and_the_smallest_is_given():
    image = photo()
    aimed = reach_target(
        image, encoder(image, "jpeg"), not_decodable, target=80, format_name="jpeg", budget=100
    )
    assert (aimed.fits, aimed.met, aimed.score) == (False, False, None)
    assert aimed.quality == 24


def not_decodable(data: bytes) -> Image:
    raise AssertionError("a file over its budget has been decoded")


GREY = flat(128, 128, 128, width=16, height=16)


def off(error: int) -> Image:
    return flat(*[128 + error] * 3, width=16, height=16)


def reach_made_up(errors: list[int], target: float, budget: int | None = None) -> Aimed:
    """Aim with an encoder whose files of 10 bytes a quality step say how far off they are."""
    return reach_target(
        GREY,
        lambda quality: bytes([errors[quality]]) * (10 * quality),
        lambda data: off(data[0]),
        target=target,
        format_name="jpeg",
        budget=budget,
    )


ERRORS = st.lists(st.integers(0, 100), min_size=101, max_size=101)


@settings(max_examples=60, deadline=None)
@given(errors=ERRORS, target=st.integers(50, 95))
def test_any_encoder_that_errs_less_and_less_meets_what_it_can(errors, target):
    errors.sort(reverse=True)
    aimed = reach_made_up(errors, target)
    best = score(distance(Reference.of(GREY), off(errors[100])), "jpeg")
    assert aimed.met == (best >= target)
    assert aimed.met or aimed.quality == 100
    assert aimed.encodes <= MOST_ENCODES


@settings(max_examples=60, deadline=None)
@given(errors=ERRORS, target=st.integers(50, 95), budget=st.none() | st.integers(1, 1000))
def test_no_encoder_however_odd_breaks_a_promise_silently(errors, target, budget):
    aimed = reach_made_up(errors, target, budget)
    assert aimed.encodes <= MOST_ENCODES
    assert aimed.fits == (budget is None or len(aimed.data) <= budget)
    assert aimed.met == (aimed.score is not None and aimed.score >= target)
    assert aimed == reach_made_up(errors, target, budget)
