"""Foreign formats: told by their first bytes, measured, and drawn at exactly the size asked for."""

from __future__ import annotations

import gzip
import importlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms import pictures
from transforms import foreign, formats, libvips
from transforms.errors import (
    BrokenImage,
    InvalidOption,
    SourceTooLarge,
    TransformError,
    UnsupportedFormat,
)
from transforms.foreign_jxl import read_header
from transforms.foreign_raster import tiff_head
from transforms.foreign_svg import INFLATED_BYTES
from transforms.shapes import Size

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def package(name, extra):
    try:
        return importlib.import_module(name)
    except ImportError:
        pytest.skip(f"the extra pixelmill[{extra}] is not installed")


def svg(body="", attributes='width="40" height="20"'):
    return f"<svg {NAMESPACE} {attributes}>{body}</svg>".encode()


@pytest.fixture
def svg_allowed():
    """In this process SVG is blocked; a test may draw what it wrote itself."""
    libvips.allow_decoders([*libvips.DECODERS, "Svg"])
    yield
    libvips.allow_decoders(libvips.DECODERS)


def pixels(name, data, *, scale=1.0, page=0):
    """The picture that the main process decodes."""
    raster = foreign.draw(name, data, page=page, scale=scale)
    assert raster.size == foreign.measure(name, data, page).drawn(scale)
    return pictures.opened(tiff_head(raster.size, raster.bands) + raster.pixels)


def corners(image):
    across, down = image.width - 3, image.height - 3
    return [image(x, y)[:3] for x, y in ((2, 2), (across, 2), (2, down), (across, down))]


def about(colours, expected, *, by):
    return all(
        abs(a - b) <= by
        for one, other in zip(colours, expected, strict=True)
        for a, b in zip(one, other, strict=True)
    )


def sniffed(head):
    """The name of the foreign format that a head is of, if it is of one."""
    try:
        found = formats.sniff(head)
    except TransformError:
        return None
    return found.name if found.foreign else None


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"<svg width='1'", "svg"),
        (b"<svg>", "svg"),
        (b"<svg:svg xmlns:svg='...'", "svg"),
        (b"\xef\xbb\xbf \r\n<?xml version='1.0'?>", "svg"),
        (b"<!-- made by hand -->", "svg"),
        (b"<!DOCTYPE svg PUBLIC", "svg"),
        ("\ufeff<svg ".encode("utf-16-le"), "svg"),
        (gzip.compress(b"<svg xmlns='http://www.w3.org/2000/svg'/>", mtime=0), "svg"),
        (gzip.compress(b"<!DOCTYPE html>", mtime=0), None),
        (b"\x1f\x8b and no more", None),
        (b"<!DOCTYPE html>", None),
        (b"<html>", None),
        (b"<svgfont>", None),
        (b"%PDF-1.7", "pdf"),
        (b"\xff\x0a\xfa", "jxl"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "jxl"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "heic"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", None),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", None),
        (b"\xff\xd8\xff\xe0", None),
        (b"", None),
    ],
)
def test_a_foreign_format_is_told_by_its_first_bytes(head, name):
    assert sniffed(head) == name


@given(st.binary(max_size=200))
def test_any_first_bytes_are_of_one_format_or_of_none(head):
    assert sniffed(head) in {*foreign.NAMES, None}


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('width="40" height="20"', (40, 20)),
        ('width="10in" height="25.4mm"', (960, 96)),
        ('width="72pt" height="6pc"', (96, 96)),
        ('width="100mm" height="50mm"', (378, 189)),
        ('viewBox="0 0 300 200"', (300, 200)),
        ('width="50%" height="50%" viewBox="0 0 30 40"', (30, 40)),
        ('width="600" viewBox="0 0 300 200"', (600, 400)),
        ('width="10000000" height="10000000"', (10_000_000, 10_000_000)),
        ('width="1" height="1"', (1, 1)),
    ],
)
def test_an_svg_is_as_large_as_css_says(svg_allowed, attributes, size):
    leaf = foreign.measure("svg", svg(attributes=attributes))
    assert leaf.size == Size(*size)
    assert leaf.scalable
    assert leaf.alpha


def test_an_svg_without_a_size_is_as_large_as_what_it_shows(svg_allowed):
    leaf = foreign.measure("svg", svg('<rect width="33" height="44"/>', ""))
    assert leaf.size == Size(33, 44)


@pytest.mark.parametrize("size", ["1e9", "1e12", "1e30"])
def test_an_svg_of_a_size_without_number_is_too_large(svg_allowed, size):
    with pytest.raises((SourceTooLarge, BrokenImage)):
        foreign.measure("svg", svg(attributes=f'width="{size}" height="{size}"'))


@pytest.mark.parametrize("size", ["0", "-5", "none"])
def test_an_svg_without_extent_is_broken(svg_allowed, size):
    with pytest.raises(BrokenImage):
        foreign.measure("svg", svg(attributes=f'width="{size}" height="{size}"'))


@settings(max_examples=40, deadline=None)
@given(
    width=st.integers(1, 3000),
    height=st.integers(1, 3000),
    longest=st.integers(1, 200),
)
def test_an_svg_is_drawn_at_exactly_the_scale(width, height, longest):
    block = libvips.pyvips.operation_block_set
    block("VipsForeignLoadSvg", False)
    try:
        data = svg('<rect width="100%" height="100%"/>', f'width="{width}" height="{height}"')
        image = pixels("svg", data, scale=longest / max(width, height))
    finally:
        block("VipsForeignLoadSvg", True)
    assert max(image.width, image.height) == longest
    assert image.bands == 4


def test_an_svg_is_drawn_sharp_at_any_scale(svg_allowed):
    data = svg('<rect width="20" height="20" fill="#f00"/>')
    image = pixels("svg", data, scale=10)
    assert (image.width, image.height) == (400, 200)
    assert image(199, 100) == [255, 0, 0, 255]
    assert image(200, 100)[3] == 0


def test_a_giant_svg_is_drawn_small(svg_allowed):
    data = svg('<rect width="9999999" height="9999999" fill="#00f"/>', 'width="1e7" height="1e7"')
    image = pixels("svg", data, scale=1e-5)
    assert (image.width, image.height) == (100, 100)
    assert image(50, 50) == [0, 0, 255, 255]


def test_an_svg_may_be_compressed_but_not_without_bound(svg_allowed):
    data = gzip.compress(svg())
    assert foreign.measure("svg", data).size == Size(40, 20)
    assert pixels("svg", data).width == 40
    with pytest.raises(BrokenImage, match="cut short"):
        foreign.measure("svg", data[:-9])
    with pytest.raises(BrokenImage):
        foreign.measure("svg", b"\x1f\x8b\x08\0 what is this")
    bomb = gzip.compress(svg(" " * INFLATED_BYTES), 1)
    with pytest.raises(SourceTooLarge, match="decompressed"):
        foreign.measure("svg", bomb)


def test_xml_that_is_not_svg_is_unsupported(svg_allowed):
    with pytest.raises(UnsupportedFormat):
        foreign.measure("svg", b"<!-- a page --><html/>")


def test_a_reference_out_of_an_svg_is_not_followed(svg_allowed, tmp_path):
    secret = tmp_path / "secret.png"
    secret.write_bytes(pictures.saved(pictures.flat(255, 0, 0, width=40, height=20), "png"))
    entity = f'<!DOCTYPE svg [<!ENTITY x SYSTEM "{secret.as_uri()}">]>'.encode()
    for address in (secret.as_uri(), str(secret), secret.name):
        body = f'<image width="40" height="20" xlink:href="{address}"/>'
        assert pixels("svg", svg(body)).avg() == 0
    with pytest.raises(BrokenImage):
        foreign.measure("svg", entity + svg("<text>&x;</text>"))


def test_a_page_that_is_not_there_is_a_wrong_parameter(svg_allowed):
    with pytest.raises(InvalidOption, match="no page 1: the original has 1 page"):
        foreign.measure("svg", svg(), page=1)


def test_only_what_a_format_needs_is_left_to_libvips(tmp_path):
    for name, fm in (("png", "png"), ("jpeg", "jpeg")):
        (tmp_path / name).write_bytes(pictures.saved(pictures.quadrants(), fm))
    (tmp_path / "svg").write_bytes(svg())
    code = (
        "import sys\nfrom pathlib import Path\nfrom transforms import foreign, libvips\n"
        "def loads(name):\n"
        "    try:\n"
        f"        libvips.Image.new_from_file(str(Path({str(tmp_path)!r}) / name))\n"
        "    except libvips.Error:\n        return False\n"
        "    return True\n"
        "names = ('svg', 'png', 'jpeg')\n"
        "print([loads(n) for n in names])\n"
        "foreign.restrict('svg')\nprint([loads(n) for n in names])\n"
        "foreign.restrict('jxl')\nprint([loads(n) for n in names])\n"
        "foreign.restrict('pdf')\nprint([loads(n) for n in names])\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert shown.stdout.split("\n")[:4] == [
        "[False, True, True]",
        "[True, False, False]",
        "[False, False, True]",
        "[False, False, False]",
    ]


@pytest.mark.parametrize("name", ["heic", "jxl", "pdf"])
def test_a_format_without_its_package_names_the_extra(monkeypatch, name):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for attempt in (
        lambda: foreign.require(name),
        lambda: foreign.measure(name, b"..."),
        lambda: foreign.draw(name, b"...", scale=1),
    ):
        with pytest.raises(UnsupportedFormat, match=rf"needs the extra pixelmill\[{name}\]"):
            attempt()


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 400),
    height=st.integers(1, 400),
    bands=st.integers(1, 4),
    seed=st.integers(0, 255),
)
def test_pixels_come_back_from_the_tiff_as_they_were(width, height, bands, seed):
    raw = bytes((seed + 7 * at) % 256 for at in range(width * bands)) * height
    image = pictures.opened(tiff_head(Size(width, height), bands) + raw)
    assert (image.width, image.height, image.bands) == (width, height, bands)
    assert image.hasalpha() == (bands in (2, 4))
    assert bytes(image.write_to_memory()) == raw


# HEIC


def heic(image, **options):
    pillow_heif = package("pillow_heif", "heic")
    mode = {1: "L", 3: "RGB", 4: "RGBA"}[image.bands]
    raw = bytes(image.write_to_memory())
    file = pillow_heif.from_bytes(mode=mode, size=(image.width, image.height), data=raw)
    out = io.BytesIO()
    file.save(out, quality=95, chroma="444", **options)
    return out.getvalue()


@pytest.mark.parametrize(("width", "height"), [(80, 60), (65, 33)])
def test_a_heic_is_drawn(width, height):
    data = heic(pictures.quadrants(width, height))
    assert sniffed(data) == "heic"
    leaf = foreign.measure("heic", data)
    assert (leaf.size, leaf.pages, leaf.alpha, leaf.scalable) == (
        Size(width, height),
        1,
        False,
        False,
    )
    for scale in (1, 0.5):
        assert about(corners(pixels("heic", data, scale=scale)), pictures.CORNERS, by=16)


def test_a_heic_is_never_enlarged():
    raster = foreign.draw("heic", heic(pictures.quadrants()), scale=3)
    assert raster.size == Size(80, 60)


def test_a_heic_keeps_its_transparency():
    image = pictures.quadrants().bandjoin(100)
    data = heic(image)
    assert foreign.measure("heic", data).alpha
    drawn = pixels("heic", data)
    assert drawn.bands == 4
    assert abs(drawn(5, 5)[3] - 100) <= 4


def test_the_colours_of_a_heic_end_in_srgb():
    wide = pictures.quadrants().icc_transform("p3", input_profile="srgb")
    data = heic(wide, icc_profile=bytes(wide.get("icc-profile-data")))
    assert about(corners(pixels("heic", data)), pictures.CORNERS, by=16)
    assert not about(corners(wide), pictures.CORNERS, by=16)


def test_a_heic_that_is_cut_short_is_broken():
    data = heic(pictures.noise(200, 150))
    for part in (data[: len(data) // 2], data[:40]):
        with pytest.raises(BrokenImage):
            foreign.draw("heic", part, scale=1)


def test_a_real_heic_is_drawn(real_images):
    package("pillow_heif", "heic")
    data = next(real_images.rglob("winter_1440x960.heic")).read_bytes()
    assert foreign.measure("heic", data).size == Size(1440, 960)
    assert pixels("heic", data, scale=0.1).width == 144


# JPEG XL


def jxl(data, size, *, mode="RGB", jpeg=False):
    encoder = package("pillow_jxl", "jxl").Encoder(mode, lossless=True, quality=100, num_threads=0)
    return encoder(data, size.width, size.height, jpeg_encode=jpeg)


def without_box(data, kind):
    kept, at = b"", 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "big") or len(data) - at
        if data[at + 4 : at + 8] != kind:
            kept += data[at : at + length]
        at += length
    return kept


@pytest.mark.parametrize("packed", [True, False], ids=["jpeg", "pixels"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jxl_is_upright(orientation, packed):
    stored = pictures.stored_as(pictures.quadrants(64, 40), orientation)
    jpeg = pictures.saved(pictures.oriented(stored, orientation), "jpeg")
    data = jxl(jpeg, Size(stored.width, stored.height), jpeg=True)
    if not packed:
        data = without_box(data, b"jbrd")  # what makes the JPEG again
    assert foreign.measure("jxl", data).size == Size(64, 40)
    assert read_header(data).orientation == orientation
    for scale in (1, 0.5):
        assert about(corners(pixels("jxl", data, scale=scale)), pictures.CORNERS, by=16)


@settings(max_examples=25, deadline=None)
@given(
    width=st.integers(1, 700),
    height=st.integers(1, 700),
    mode=st.sampled_from(["L", "RGB", "RGBA"]),
)
def test_the_header_of_a_jxl_says_what_the_decoder_gives(width, height, mode):
    bands = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    data = jxl(bytes(width * height * bands), Size(width, height), mode=mode)
    leaf = foreign.measure("jxl", data)
    assert (leaf.size, leaf.alpha) == (Size(width, height), mode == "RGBA")
    assert foreign.draw("jxl", data, scale=1).size == leaf.size


@given(st.binary(max_size=60), st.booleans())
def test_any_header_of_a_jxl_is_read_or_refused(data, boxed):
    start = b"\0\0\0\x0cJXL \r\n\x87\n" if boxed else b"\xff\x0a"
    try:
        header = read_header(start + data)
    except BrokenImage:
        return
    assert header.stored.width >= 1
    assert header.stored.height >= 1


def test_a_jxl_that_is_cut_short_is_broken():
    noise = pictures.noise(64, 64)
    data = jxl(bytes(noise.write_to_memory()), Size(64, 64))
    with pytest.raises(BrokenImage, match="cut short"):
        foreign.draw("jxl", data[: len(data) // 2], scale=1)


def test_a_real_jxl_is_drawn(real_images):
    package("pillow_jxl", "jxl")
    data = next(real_images.rglob("jxl-isobmff.jxl")).read_bytes()
    assert foreign.measure("jxl", data).size == Size(640, 416)
    assert pixels("jxl", data, scale=0.25).width == 160


# PDF


def test_pages_of_a_pdf_are_drawn_on_white(real_images):
    package("pypdfium2", "pdf")
    data = next(real_images.rglob("sizes.pdf")).read_bytes()
    for page, size in enumerate([(612, 792), (649, 323), (792, 612)]):
        leaf = foreign.measure("pdf", data, page)
        assert (leaf.size, leaf.pages, leaf.scalable, leaf.alpha) == (Size(*size), 3, True, False)
        for scale in (0.37, 1.5):
            image = pixels("pdf", data, page=page, scale=scale)
            assert image.bands == 3
            assert image(1, 1) == [255, 255, 255]
            assert image.min() < 128  # there is text on it
    with pytest.raises(InvalidOption):
        foreign.measure("pdf", data, page=3)


def test_what_only_begins_as_a_pdf_is_broken():
    package("pypdfium2", "pdf")
    with pytest.raises(BrokenImage):
        foreign.measure("pdf", b"%PDF-1.7\nand nothing else")


def test_svg_stays_blocked_in_this_process():
    with pytest.raises(libvips.Error):
        libvips.Image.svgload_buffer(svg())
