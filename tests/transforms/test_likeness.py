from __future__ import annotations

import pytest

from tests.transforms.pictures import flat, opened, photo, quadrants, saved
from transforms.libvips import Image
from transforms.likeness import CALIBRATED, Reference, differences, distance, score

PICTURE = photo(200, 150)


def scored(image: Image, other: Image, fm: str = "jpeg") -> float:
    return score(distance(Reference.of(image), other), fm)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (15, 16), (17, 33), (200, 150)])
def test_a_picture_is_like_itself_at_every_size(size):
    image = photo(*size)
    assert differences(Reference.of(image), image) == (0, 0, 0)
    assert scored(image, image) == 100


@pytest.mark.parametrize("fm", sorted(CALIBRATED))
def test_the_score_rises_with_quality(fm):
    lossy = {"lossless": False} if fm == "webp" else {}
    scores = [
        scored(PICTURE, opened(saved(PICTURE, fm, Q=quality, **lossy)), fm)
        for quality in (20, 40, 60, 80, 95)
    ]
    assert scores == sorted(scores)
    assert scores[-1] - scores[0] > 10


@pytest.mark.parametrize(("quality", "real"), [(45, 65.9), (60, 71.2), (80, 79.8), (92, 89.7)])
def test_a_real_photograph_scores_as_ssimulacra_2_scores_it(real_images, quality, real):
    # The figures are those of ssimulacra2_rs 0.5.2.
    image = Image.new_from_file(str(real_images / "Landscape_1.jpg")).thumbnail_image(300)
    image = image.copy_memory()
    file = image.jpegsave_buffer(Q=quality, optimize_coding=True, keep="none")
    assert scored(image, opened(file)) == pytest.approx(real, abs=2)


def test_an_error_shows_more_where_the_picture_is_calm():
    calm, busy = flat(120, 120, 120, width=96, height=96), photo(96, 96)
    grain = Image.gaussnoise(96, 96, mean=0, sigma=6, seed=5)
    assert scored(calm, (calm + grain).cast("uchar")) < scored(busy, (busy + grain).cast("uchar"))


def test_a_few_bad_blocks_count_for_more_than_the_same_error_everywhere():
    image = flat(120, 120, 120, width=160, height=160)
    everywhere = (image + 4).cast("uchar")
    corner = image.draw_rect([160] * 3, 0, 0, 16, 16, fill=True)  # 40 on a hundredth of it
    assert scored(image, corner) < scored(image, everywhere)


def test_lost_colour_is_seen_though_luma_stays():
    image = quadrants(160, 120)
    grey = image.colourspace("b-w").colourspace("srgb")
    assert scored(image, grey) < 30


@pytest.mark.parametrize("shade", [0, 255])
def test_what_is_drawn_in_black_or_white_on_nothing_is_seen(shade):
    mask = quadrants(160, 120)[0]
    lettering = flat(shade, shade, shade, width=160, height=120).bandjoin(mask)
    wiped = flat(shade, shade, shade, width=160, height=120).bandjoin(mask * 0).cast("uchar")
    assert scored(lettering, wiped.copy(interpretation="srgb"), "webp") < 50


def test_colours_of_what_is_fully_transparent_do_not_count():
    mask = Image.black(64, 64)
    one, other = (flat(*c, width=64, height=64).bandjoin(mask) for c in ((9, 9, 9), (200, 0, 90)))
    assert scored(one, other) == 100


def test_grey_pictures_may_come_back_in_colour():
    grey = photo(120, 90).colourspace("b-w")
    assert scored(grey, grey.colourspace("srgb")) == 100
    assert scored(grey.colourspace("srgb"), grey) == 100
    assert 40 < scored(grey, opened(saved(grey, "jpeg", Q=50))) < 95
