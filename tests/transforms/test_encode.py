"""Encode: what an effort buys."""

from __future__ import annotations

import pytest

from tests.transforms.pictures import flat, noise, opened, render, saved
from transforms.shapes import Size

LARGE, SMALL = Size(1250, 1000), Size(600, 400)


@pytest.mark.parametrize(
    ("size", "dense", "query", "own_tables"),
    [
        pytest.param(SMALL, True, "", True, id="small"),
        pytest.param(LARGE, True, "", False, id="large and dense"),
        pytest.param(LARGE, False, "", True, id="large and flat"),
        pytest.param(LARGE, True, "effort=5", True, id="with effort"),
        pytest.param(LARGE, True, "max-bytes=10m", True, id="with a budget"),
        pytest.param(SMALL, True, "effort=0", False, id="without effort"),
    ],
)
def test_jpegs_have_tables_of_their_own_unless_these_save_little(
    size: Size, dense: bool, query: str, own_tables: bool
) -> None:
    across, down = size.width, size.height
    picture = noise(across, down) if dense else flat(90, 120, 60, width=across, height=down)
    original = saved(picture, "png")

    result = render(original, query, fm="jpeg")

    own, standard = (
        len(opened(original).jpegsave_buffer(Q=80, optimize_coding=chosen, keep="none"))
        for chosen in (True, False)
    )
    assert own < standard
    assert len(result.data) == (own if own_tables else standard)
