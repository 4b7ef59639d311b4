"""Qualities that are aimed at: by bytes and by look."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.transforms import pictures
from transforms import libvips
from transforms.errors import InvalidOption
from transforms.likeness import Reference, distance, score
from transforms.quality import GRID, MOST_ENCODES, fit_bytes, reach

FORMATS = ("jpeg", "webp", "avif")


def photograph(width: int = 300, height: int = 200) -> libvips.Image:
    """Something between a photograph and noise, which no encoder finds easy."""
    noise = libvips.Image.perlin(width, height, cell_size=40, seed=3) * 60 + 120
    grain = libvips.Image.gaussnoise(width, height, sigma=8, mean=0, seed=4)
    bands = [noise + grain, noise.fliphor() + grain, noise.flipver() + grain]
    return bands[0].bandjoin(bands[1:]).cast("uchar").copy(interpretation="srgb").copy_memory()


DATA = bytes(photograph().pngsave_buffer())


@given(
    sizes=st.lists(st.integers(1, 200), min_size=100, max_size=100),
    budget=st.integers(1, 20_000),
    best=st.integers(1, 100),
)
def test_a_budget_is_kept_with_any_encoder_that_grows(sizes, budget, best):
    lengths = [sum(sizes[: at + 1]) for at in range(100)]
    asked = []

    def encode(quality):
        asked.append(quality)
        return bytes(lengths[quality - 1])

    aimed = fit_bytes(encode, budget=budget, best=best)
    assert len(asked) == aimed.encodes <= MOST_ENCODES
    assert 1 <= aimed.quality <= best
    assert len(aimed.data) == lengths[aimed.quality - 1]
    if lengths[0] <= budget:
        assert len(aimed.data) <= budget
    else:
        assert len(aimed.data) > budget
        assert aimed.quality == 1
    if lengths[best - 1] <= budget:
        assert asked == [best]


@given(threshold=st.floats(0, 100), hint=st.one_of(st.none(), st.sampled_from(GRID)))
def test_the_lowest_quality_that_will_do_is_found_with_or_without_a_hint(threshold, hint):
    asked = []

    def encode(quality):
        asked.append(quality)
        return bytes([quality])

    aimed = reach(encode, lambda data: float(data[0]), target=threshold, hint=hint)
    enough = [quality for quality in GRID if quality >= threshold]
    assert aimed.quality == (enough[0] if enough else GRID[-1])
    assert aimed.data == bytes([aimed.quality])
    assert len(asked) == aimed.encodes <= MOST_ENCODES + (hint is not None)
    assert len(set(asked)) == len(asked)
    if hint == aimed.quality:
        assert len(asked) <= 3


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
def test_auto_keeps_its_target_and_no_lower_quality_does(fm):
    reference = Reference.of(photograph())

    def judged(query):
        data = pictures.render(DATA, f"fm={fm}&effort=0&{query}").data
        return score(distance(reference, pictures.opened(data)), fm)

    result = pictures.render(DATA, f"fm={fm}&effort=0&q=auto:70")
    assert result.quality in GRID
    if result.quality < GRID[-1]:
        assert judged("q=auto:70") >= 70
    if result.quality > GRID[0]:
        assert judged(f"q={result.quality - 5}") < 70
    assert not math.isnan(judged("q=50"))


def test_a_higher_target_never_makes_a_smaller_file():
    sizes = [len(pictures.render(DATA, f"fm=jpeg&q=auto:{target}").data) for target in (50, 70, 90)]
    assert sizes == sorted(sizes)


def test_both_aims_at_once_keep_the_budget():
    free = pictures.render(DATA, "fm=webp&q=auto:85")
    bound = len(free.data) // 2
    result = pictures.render(DATA, f"fm=webp&q=auto:85&max-bytes={bound}")
    assert len(result.data) <= bound
