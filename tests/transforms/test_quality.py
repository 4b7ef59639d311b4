"""Qualities that are aimed at: by bytes and by look."""

from __future__ import annotations

import pytest

from tests.transforms import pictures
from transforms import libvips
from transforms.errors import InvalidOption
from transforms.likeness import Reference, distance, score

FORMATS = ("jpeg", "webp", "avif")


def photograph(width: int = 300, height: int = 200) -> libvips.Image:
    """Something between a photograph and noise, which no encoder finds easy."""
    noise = libvips.Image.perlin(width, height, cell_size=40, seed=3) * 60 + 120
    grain = libvips.Image.gaussnoise(width, height, sigma=8, mean=0, seed=4)
    bands = [noise + grain, noise.fliphor() + grain, noise.flipver() + grain]
    return bands[0].bandjoin(bands[1:]).cast("uchar").copy(interpretation="srgb").copy_memory()


DATA = bytes(photograph().pngsave_buffer())


@pytest.mark.parametrize("fm", FORMATS)
@pytest.mark.parametrize("budget", [4000, 12_000])
def test_a_result_has_at_most_the_bytes_that_are_allowed(fm, budget):
    result = pictures.render(DATA, f"fm={fm}&effort=0&max-bytes={budget}")
    assert len(result.data) <= budget
    assert result.quality is not None
    better = pictures.render(DATA, f"fm={fm}&effort=0&q={min(100, result.quality + 15)}")
    assert len(better.data) > budget or result.quality >= 50


def test_a_budget_that_cannot_be_kept_is_named():
    with pytest.raises(InvalidOption) as caught:
        pictures.render(DATA, "fm=jpeg&w=2000&enlarge=1&max-bytes=1000")
    assert caught.value.param == "max-bytes"
    with pytest.raises(InvalidOption) as caught:
        pictures.render(DATA, "fm=png&max-bytes=1000")
    assert caught.value.param == "max-bytes"


@pytest.mark.parametrize("fm", FORMATS)
def test_auto_keeps_its_target_and_a_much_lower_quality_does_not(fm):
    reference = Reference.of(photograph())

    def judged(query):
        data = pictures.render(DATA, f"fm={fm}&effort=0&{query}").data
        return score(distance(reference, pictures.opened(data)), fm)

    result = pictures.render(DATA, f"fm={fm}&effort=0&q=auto:70")
    assert result.quality is not None
    assert judged("q=auto:70") >= 70
    assert judged(f"q={result.quality - 12}") < 70


def test_a_higher_target_never_makes_a_smaller_file():
    sizes = [len(pictures.render(DATA, f"fm=jpeg&q=auto:{target}").data) for target in (50, 70, 90)]
    assert sizes == sorted(sizes)


def test_both_aims_at_once_keep_the_budget():
    free = pictures.render(DATA, "fm=webp&q=auto:85")
    bound = len(free.data) // 2
    result = pictures.render(DATA, f"fm=webp&q=auto:85&max-bytes={bound}")
    assert len(result.data) <= bound


def test_a_target_that_no_quality_reaches_is_told():
    loud = pictures.saved(pictures.noise(64, 64), "png")
    result = pictures.render(loud, "fm=webp&q=auto:95")
    assert (result.reached, result.choice) == (False, "q=100 misses the target")
    assert pictures.render(loud, "fm=webp&q=auto:50").reached
    assert pictures.render(loud, "fm=webp&q=50").choice is None
