"""The gallery shows every option, as it is."""

from __future__ import annotations

import pytest

from docs.gallery import EXAMPLES, FOLDER, INVISIBLE, PAGE, alike, bitmap, examples, page
from transforms.libvips import Image
from transforms.options import OPTIONS

LARGEST = 700_000
"""Bytes of all pictures together: they are part of every clone."""


@pytest.fixture(scope="module", autouse=True)
def _bitmaps_let_go():
    yield
    bitmap.cache_clear()


def test_every_option_has_pictures_or_is_listed_as_invisible():
    names = {option.name for option in OPTIONS}
    assert set(EXAMPLES) | set(INVISIBLE) == names
    assert not set(EXAMPLES) & set(INVISIBLE)
    assert all(EXAMPLES.values())


@pytest.mark.parametrize("option", [option for option in OPTIONS if option.name in EXAMPLES])
def test_the_examples_of_an_option_use_it(option):
    shown = [example for example in examples() if example.option == option.name]
    assert any(name in option.spellings for example in shown for name, _ in example.query)


def test_the_page_is_current():
    assert PAGE.read_text() == page(), "run `make docs`"


def test_there_are_the_pictures_of_the_page_and_no_others():
    assert {file.name for file in FOLDER.iterdir()} == {example.file.name for example in examples()}
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) <= LARGEST


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.file.stem)
def test_a_picture_is_what_its_query_makes(example):
    kept = example.file.read_bytes()
    made = example.render().data
    if example.portable:
        assert alike(kept, made), "run `make docs`"
    else:  # fonts differ
        sizes = [(image.width, image.height) for image in map(open_webp, (kept, made))]
        assert sizes[0] == sizes[1]


def test_pictures_that_differ_in_one_place_are_not_alike():
    plain = Image.black(64, 64, bands=3).copy(interpretation="srgb")
    dotted = plain.draw_rect([200, 40, 40], 24, 24, 8, 8, fill=True)
    assert alike(plain.webpsave_buffer(), plain.webpsave_buffer(lossless=True))
    assert not alike(plain.webpsave_buffer(), dotted.webpsave_buffer())


def test_pictures_of_other_sizes_are_not_alike():
    images = [Image.black(width, 8, bands=3).webpsave_buffer() for width in (8, 9)]
    assert not alike(*images)


def open_webp(data):
    return Image.webpload_buffer(data, n=-1)
