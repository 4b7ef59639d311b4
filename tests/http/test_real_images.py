"""Pictures from elsewhere, well-made and hostile: each is rendered, or refused by its cause."""

from __future__ import annotations

import os
from urllib.parse import quote

import pytest

from tests.conftest import SHARED
from tests.http import originals as draw
from tests.serving import serving
from transforms import libvips

FOLDER = SHARED / "fixtures"
NAMES = sorted(
    path.name
    for path in (FOLDER.iterdir() if FOLDER.is_dir() else ())
    if path.suffix not in (".tsv", ".md")
)
REFUSED = {
    # Formats that are not decoded here.
    "favicon.ico": 415,
    "image_invalid.jpg": 415,
    "own-text.jpg": 415,
    "truncated.svgz": 415,
    # More pixels than are decoded.
    "16383x16383.png": 413,
    "17000x17000.avif": 413,
    "65536-uint32-limit.png": 413,
    "giant-image.jpg": 413,
    "own-gif-html-polyglot.gif": 413,
    "1024-pages.gif": 413,
    # Cut short, corrupt or empty; or of a compression that this libvips was built without.
    "MultipleFormats.tif": 422,
    "invalid_multiframe.gif": 422,
    "own-svg-billion-laughs.svg": 422,
    "own-svg-xxe.svg": 422,
    "BlueSquare_truncated.jpg": 422,
    "corrupt-header.jpg": 422,
    "empty": 422,
    "truncated.jpg": 422,
    "truncated.png": 422,
    "xc1n0g08.png": 422,
    "xhdn0g08.png": 422,
}
CODES = {
    413: ("source_too_large",),
    415: ("unsupported_format",),
    422: ("broken_image",),
}
UPRIGHT = {
    **{f"Landscape_{n}.jpg": (64, 43) for n in range(1, 9)},
    **{f"Portrait_{n}.jpg": (64, 96) for n in (1, 6, 8)},
    "orientation-6.png": (64, 128),
    "orientation-8.png": (64, 128),
    "gopher-exif-orientation-cw90.png": (64, 47),
    "jpg-exif-orientation-illegal.jpg": (64, 56),
}
HEADER_IS_FINE = {
    "1024-pages.gif",
    "invalid_multiframe.gif",
    "BlueSquare_truncated.jpg",
    "MultipleFormats.tif",
    "truncated.jpg",
    "truncated.png",
    "xhdn0g08.png",
}
"""What is damaged behind its header is only found out by decoding it."""
PIXELS = 96 << 20
"""More bytes of pixels than libvips may ever hold for one of these."""


@pytest.fixture(scope="module")
def served(real_images, tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    for name in NAMES:
        draw.put(folder, name, (real_images / name).read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.upper().startswith("PIXELMILL_"):
                patch.delenv(name)
        with serving(
            originals=f"file:{folder}", results="off", workers=1, queue_interactive="1h"
        ) as found:
            yield found


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_is_rendered_or_refused_by_its_cause(served, name):
    before = libvips.tracked().memory_peak
    answer = served.get(f"/thumb/{quote(name)}?w=64")
    assert answer.status_code == REFUSED.get(name, 200), answer.text[:300]
    if answer.status_code == 200:
        image = draw.opened(answer.content)
        assert 1 <= image.width <= 64
        assert answer.headers["content-type"] == f"image/{draw.format_of(answer.content)}"
        assert (image.width, image.height) == UPRIGHT.get(name, (image.width, image.height))
        assert image.interpretation in ("srgb", "b-w")
    else:
        problem = answer.json()
        assert problem["code"] in CODES[answer.status_code]
        assert problem["detail"]
    assert libvips.tracked().memory_peak <= max(before, PIXELS)


@pytest.mark.parametrize("name", NAMES)
def test_an_upload_is_kept_where_its_header_is_that_of_a_picture(served, real_images, name):
    data = (real_images / name).read_bytes()
    answer = served.client.put(f"/images/uploads/{quote(name)}", content=data)
    if name in HEADER_IS_FINE or name not in REFUSED:
        assert answer.status_code == 201, answer.text
    else:
        assert answer.status_code == REFUSED[name], answer.text
        assert served.get(f"/images/uploads/{quote(name)}").status_code == 404


def test_pictures_look_alike_whichever_way_they_were_laid_down(served):
    for name, others in (("Landscape", range(2, 9)), ("Portrait", (6, 8))):
        first = draw.opened(served.get(f"/thumb/{name}_1.jpg?w=64&fm=png").content)
        for number in others:
            other = draw.opened(served.get(f"/thumb/{name}_{number}.jpg?w=64&fm=png").content)
            assert (first - other).abs().avg() < 6, number


def test_many_ways_of_asking_for_a_hostile_picture_never_fail_the_service(served):
    for name in sorted(set(REFUSED) - {"1024-pages.gif", "invalid_multiframe.gif"}):
        if name not in NAMES:
            continue
        for query in ("", "fm=webp", "w=1&h=1", "fit=cover&w=9&h=9&gravity=attention", "page=1"):
            answer = served.get(f"/thumb/{quote(name)}?{query}")
            assert 400 <= answer.status_code < 500, (name, query, answer.text)


def test_a_real_picture_comes_in_every_format(served):
    for name in ("4.webp", "gain-map.jpg", "p3.png", "image.avif", "dancing-banana.gif"):
        if name not in NAMES:
            continue
        for fm in ("jpeg", "png", "webp", "avif", "gif", "tiff"):
            answer = served.get(f"/thumb/{name}?w=64&h=64&fm={fm}&effort=0")
            assert answer.status_code == 200
            assert draw.format_of(answer.content) == fm
            image = draw.opened(answer.content)
            assert (image.width, image.height) == (64, 64)
