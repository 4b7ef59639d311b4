"""Describe: every fact of an original, as data."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import pytest

from tests.transforms.pictures import (
    CORNERS,
    FORMATS,
    flat,
    numbered,
    oriented,
    pages,
    png_that_claims,
    quadrants,
    saved,
    stored_as,
    tiff_of_greys,
    with_metadata,
)
from transforms.describe import MOST_DELAYS, Description, describe, read_facts
from transforms.errors import BrokenImage, SourceTooLarge, Stopped, UnsupportedFormat
from transforms.libvips import Image, MetadataType
from transforms.limits import Limits
from transforms.pipeline import Stop


def told(data: bytes) -> Description:
    return describe(data, limits=Limits())


@pytest.mark.parametrize("fm", FORMATS)
def test_facts_of_every_format(fm: str) -> None:
    data = saved(quadrants(80, 60), fm)
    facts = read_facts(data)
    assert (facts.format, facts.media_type) == (fm, f"image/{fm}")
    assert (facts.length, facts.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert (facts.width, facts.height, facts.pages) == (80, 60, 1)
    assert (facts.animated, facts.delays, facts.loop) == (False, (), None)
    assert facts.colour_space == "srgb"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_size_is_that_of_the_upright_picture(orientation: int) -> None:
    data = saved(stored_as(quadrants(80, 60), orientation), "jpeg")
    facts = read_facts(data)
    assert facts.orientation == orientation
    assert (facts.width, facts.height) == (80, 60)
    stored = (facts.stored_width, facts.stored_height)
    assert stored == ((60, 80) if orientation >= 5 else (80, 60))


def test_the_codes_are_of_the_upright_picture() -> None:
    upright = told(saved(quadrants(80, 60), "png")).colours
    for orientation in (3, 6, 8):
        turned = told(saved(stored_as(quadrants(80, 60), orientation), "png")).colours
        assert turned == upright


@pytest.mark.parametrize(
    ("image", "fm", "space", "bits", "alpha"),
    [
        (flat(90), "png", "b-w", 8, False),
        (flat(90, 200), "png", "b-w", 8, True),
        (flat(1, 2, 3, 40), "webp", "srgb", 8, True),
        (flat(1, 2, 9000, interpretation="rgb16", number="ushort"), "png", "srgb", 16, False),
        (flat(9000, interpretation="grey16", number="ushort"), "png", "b-w", 16, False),
        (flat(10, 20, 30, 40, interpretation="cmyk"), "jpeg", "cmyk", 8, False),
    ],
)
def test_colour_space_bits_and_transparency(
    image: Image, fm: str, space: str, bits: int, alpha: bool
) -> None:
    description = told(saved(image, fm))
    facts = description.facts
    assert (facts.colour_space, facts.bits, facts.alpha) == (space, bits, alpha)
    assert description.colours is not None


def test_an_animation_has_delays_and_a_loop() -> None:
    frames = [flat(shade, 0, 0, width=20, height=10) for shade in (10, 120, 240)]
    tall = Image.arrayjoin(frames, across=1).copy()
    tall.set_type(MetadataType.INTEGER, "page-height", 10)
    tall.set_type(MetadataType.INTEGERS, "delay", [100, 200, 300])
    tall.set_type(MetadataType.INTEGER, "loop", 4)
    for fm in ("gif", "webp"):
        facts = read_facts(saved(tall, fm))
        assert (facts.animated, facts.pages) == (True, 3)
        assert (facts.delays, facts.loop) == ((100, 200, 300), 4)
        assert (facts.width, facts.height) == (20, 10)


def test_pages_of_a_document_are_no_frames() -> None:
    facts = read_facts(tiff_of_greys((30, 20, 10), (40, 50, 200)))
    assert (facts.pages, facts.animated, facts.delays, facts.loop) == (2, False, (), None)


def test_delays_of_endless_animations_are_not_all_told() -> None:
    frames = [numbered(2, 2), flat(255, 0, 0, width=2, height=2)] * (MOST_DELAYS // 2 + 1)
    facts = read_facts(pages(frames, "webp"))
    assert facts.pages == MOST_DELAYS + 2
    assert len(facts.delays) == MOST_DELAYS


def test_colours_of_the_picture() -> None:
    colours = told(saved(quadrants(80, 60), "png")).colours
    assert colours is not None
    seen = {
        (swatch.colour.red, swatch.colour.green, swatch.colour.blue): swatch.share
        for swatch in colours.palette
    }
    assert seen == {tuple(corner): pytest.approx(0.25) for corner in CORNERS}
    assert len(colours.blurhash) == 28
    assert len(colours.data_uri) <= 400


def test_as_json() -> None:
    data = saved(flat(200, 40, 60, width=300, height=150), "png")
    description = told(data)
    plain = description.as_json()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["format"] == "png"
    assert (plain["width"], plain["height"]) == (300, 150)
    assert plain["dominant"] == plain["average"] == "#c8283c"
    assert plain["palette"] == [{"colour": "#c8283c", "share": 1.0}]
    assert description.colours is not None
    assert base64.b64decode(plain["thumbhash"]) == description.colours.thumbhash
    assert plain["metadata"] == {"exif": {}, "iptc": {}, "xmp": {}}
    assert plain["delays"] == []


def test_as_json_of_nothing_to_be_seen() -> None:
    plain = told(saved(flat(1, 2, 3, 0), "png")).as_json()
    assert (plain["dominant"], plain["average"], plain["palette"]) == ("none", "none", [])


def test_facts_alone_are_data_too() -> None:
    plain = Description(facts=read_facts(saved(quadrants(), "jpeg"))).as_json()
    assert plain["colour_space"] == "srgb"
    assert "palette" not in plain


def test_metadata_is_told_and_secrets_are_not() -> None:
    plain = told(saved(with_metadata(quadrants(80, 60)), "jpeg")).as_json()
    assert plain["metadata"]["exif"]["artist"] == "Ada Painter"
    assert "SECRET-PLACE" not in json.dumps(plain)
    assert "SECRET-THUMBNAIL" not in json.dumps(plain)


def test_the_place_is_told_on_demand_alone(real_images: Path) -> None:
    data = (real_images / "avif-orientation-6.avif").read_bytes()
    description = Description(facts=read_facts(data))
    hidden = json.dumps(description.as_json())
    assert "latitude" not in hidden
    assert "50.4" not in hidden
    assert description.as_json(place=True)["place"] == {
        "latitude": 50.43975,
        "longitude": 30.5020722,
        "altitude": 149.64,
    }


def test_what_is_no_picture_is_refused() -> None:
    for read in (read_facts, told):
        with pytest.raises(UnsupportedFormat):
            read(b"%PDF-1.7")
        with pytest.raises(BrokenImage):
            read(b"")


def test_facts_of_a_cut_file_are_told_and_its_colours_are_not() -> None:
    data = saved(quadrants(400, 300), "jpeg")
    cut = data[: len(data) // 2]
    assert read_facts(cut).width == 400
    with pytest.raises(BrokenImage):
        told(cut)


def test_limits_hold() -> None:
    bomb = png_that_claims(60_000, 60_000)
    assert read_facts(bomb).width == 60_000
    with pytest.raises(SourceTooLarge):
        told(bomb)


def test_it_can_be_stopped() -> None:
    stop = Stop()
    stop.request()
    with pytest.raises(Stopped):
        describe(saved(oriented(quadrants(), 1), "jpeg"), limits=Limits(), stop=stop)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Portrait_6.jpg", {"width": 400, "height": 600, "orientation": 6, "density": 72.0}),
        ("animated-loop-3.gif", {"pages": 10, "loop": 3, "animated": True}),
        (
            "fogra-0-100-100-0.tif",
            {"colour_space": "cmyk", "profile": "Coated FOGRA39 (ISO 12647-2:2004)"},
        ),
        ("cielab-dagams.tiff", {"colour_space": "lab", "bits": 16}),
        ("G31D.TIF", {"colour_space": "b-w", "bits": 1, "density": 300.0}),
        ("p3.png", {"profile": "Display P3", "alpha": True}),
    ],
)
def test_real_files(real_images: Path, name: str, expected: dict[str, object]) -> None:
    plain = told((real_images / name).read_bytes()).as_json()
    assert {key: plain[key] for key in expected} == expected
