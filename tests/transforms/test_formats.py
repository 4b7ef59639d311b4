"""Formats: what a file is, is told by its bytes; what its size is, often by the first of them."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms import pictures
from tests.transforms.pictures import FORMATS as NAMES
from tests.transforms.pictures import flat, photo, quadrants, saved
from transforms import libvips
from transforms.errors import BrokenImage, TransformError, UnsupportedFormat
from transforms.formats import FORMATS, SNIFFED_BYTES, sniff
from transforms.inspect import look, peek
from transforms.options import OUTPUTS
from transforms.shapes import Size

PEEKABLE = ("jpeg", "png", "gif", "webp")


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    """Files of every format and of several layouts of it."""
    grey = flat(90, width=301, height=7, interpretation="b-w")
    clear = flat(1, 2, 3, 4, width=300, height=257)
    frames = [flat(50 * n, 0, 0, 255 - n, width=70, height=50) for n in range(3)]
    made = {f"{fm}": saved(photo(320, 211), fm) for fm in NAMES}
    made |= {f"{fm} of one pixel": saved(flat(1, 2, 3, width=1, height=1), fm) for fm in NAMES}
    made |= {f"grey {fm}": saved(grey, fm) for fm in NAMES}
    made |= {f"{fm} with alpha": saved(clear, fm) for fm in NAMES if fm != "jpeg"}
    made |= {f"{fm} of pages": pictures.pages(frames, fm) for fm in ("gif", "webp", "tiff")}
    return made | {
        "progressive jpeg": saved(photo(), "jpeg", interlace=True),
        "jpeg with tables": saved(photo(), "jpeg", restart_interval=4),
        "jpeg with metadata": saved(pictures.with_metadata(photo()), "jpeg"),
        "cmyk jpeg": saved(flat(1, 2, 3, 4, interpretation="cmyk"), "jpeg"),
        "lossy webp": saved(photo(), "webp", lossless=False),
        "lossy webp with alpha": saved(clear, "webp", lossless=False),
        "webp with metadata": saved(pictures.with_metadata(photo()), "webp"),
        "wide webp": saved(flat(1, 2, 3, width=16_383, height=2), "webp", lossless=False),
        "interlaced png": saved(photo(), "png", interlace=True),
        "palette png": saved(photo(), "png", palette=True),
        "tiled tiff": saved(photo(), "tiff", tile=True),
        "big tiff": saved(photo(), "tiff", bigtiff=True),
        "tall gif": saved(flat(1, 2, 3, width=2, height=3000), "gif"),
    }


def test_every_output_of_the_table_is_a_format() -> None:
    assert tuple(FORMATS) == OUTPUTS == NAMES
    for name, image_format in FORMATS.items():
        assert image_format.name == name
        assert image_format.media_type.startswith("image/")
        assert image_format.alpha == (name != "jpeg")


@pytest.mark.parametrize("fm", NAMES)
def test_a_format_is_told_by_its_first_bytes(fm: str) -> None:
    data = saved(quadrants(), fm)
    assert sniff(data[:SNIFFED_BYTES]) is FORMATS[fm]
    assert sniff(data) is FORMATS[fm]
    assert look(data).format is FORMATS[fm]


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"\xff\xd8\xff\xdb", "jpeg"),
        (b"GIF87a", "gif"),
        (b"II*\0", "tiff"),
        (b"MM\0*", "tiff"),
        (b"II+\0", "tiff"),
        (b"MM\0+", "tiff"),
        (b"RIFF\xff\xff\xff\xffWEBP", "webp"),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", "avif"),
        (b"\0\0\0\x18ftypavis\0\0\0\0msf1avis", "avif"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", "avif"),
        (b"\0\0\0\x20ftypmif1\0\0\0\0mif1miafMA1Bavif", "avif"),
    ],
)
def test_magic_bytes_of_what_is_read(head: bytes, name: str) -> None:
    assert sniff(head).name == name


@pytest.mark.parametrize(
    ("head", "named"),
    [
        (b"BM\x36\0", "BMP"),
        (b"\0\0\1\0\1\0", "ICO"),
        (b"8BPS\0\1", "PSD"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\x1f\x8b\x08", "gzip"),
        (b"<!DOCTYPE html>", "HTML or another text"),
        (b"\0\0\0\x18ftypmp42\0\0\0\0isommp42", "video"),
        (b"RIFF\0\0\0\0WAVE", "not an image"),
        (b"plain text", "not an image"),
        (b"\0" * 32, "not an image"),
        (b"\xff\xd8", "not an image"),
    ],
)
def test_what_is_not_read_is_refused_by_name(head: bytes, named: str) -> None:
    for function in (sniff, peek, look):
        with pytest.raises(UnsupportedFormat) as caught:
            function(head)
        assert named in caught.value.detail
        assert caught.value.detail.startswith("The original is ")
        assert caught.value.code == "unsupported_format"


def test_an_empty_file_is_broken() -> None:
    for function in (sniff, peek, look):
        with pytest.raises(BrokenImage, match=r"^The original is empty$"):
            function(b"")


def test_no_other_decoder_can_run() -> None:
    # Formats that libvips itself could write and read; here only the six may be decoded.
    picture = quadrants()
    for data in (bytes(picture.write_to_memory()), b"P5 1 1 255\n\0", b"P6 1 1 255\n\0\0\0"):
        with pytest.raises(libvips.Error):
            libvips.Image.new_from_buffer(data, "")
    with pytest.raises(libvips.Error):
        libvips.Image.new_from_buffer(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "")


def test_the_name_of_a_real_file_does_not_matter(real_images: Path) -> None:
    data = (real_images / "jpg-incorrect-extension.png").read_bytes()
    assert look(data).format.name == "jpeg"
    for name in ("own-text.jpg", "image_invalid.jpg"):
        with pytest.raises(UnsupportedFormat):
            look((real_images / name).read_bytes())
    assert look((real_images / "looks-like-svg.webp").read_bytes()).format.name == "webp"


def test_the_header_is_read_whole(files: dict[str, bytes]) -> None:
    header = look(saved(pictures.stored_as(quadrants(50, 40), 6), "jpeg", interlace=True))
    assert header.size == Size(40, 50)
    assert header.orientation == 6
    assert header.progressive
    assert (header.bands, header.bytes_per_band, header.alpha) == (3, 1, False)
    assert (header.pages, header.interpretation) == (1, "srgb")
    assert look(files["png with alpha"]).alpha
    assert look(files["gif of pages"]).pages == 3
    assert look(files["gif of pages"]).size == Size(70, 50)
    assert look(files["grey jpeg"]).interpretation == "b-w"
    assert look(files["cmyk jpeg"]).interpretation == "cmyk"


def test_the_first_bytes_tell_what_the_whole_file_tells(files: dict[str, bytes]) -> None:
    for name, data in files.items():
        header = look(data)
        for length in (64, 100, 256, 1024, 2000, 4096, len(data)):
            image_format, size = peek(data[:length])
            assert image_format is header.format, name
            assert size in (None, header.size), name
        if header.format.name in PEEKABLE:
            assert peek(data)[1] == header.size, name
            if "metadata" not in name:
                assert peek(data[:1024])[1] == header.size, name


def test_a_jpeg_behind_much_metadata_is_measured_once_that_has_come() -> None:
    data = saved(quadrants(50, 40), "jpeg")
    comment = b"\xff\xfe" + struct.pack(">H", 60_000) + b"\xff\xc0" * 29_999
    data = data[:2] + comment * 2 + data[2:]
    assert look(data).size == Size(50, 40)
    assert peek(data[:100_000]) == (FORMATS["jpeg"], None)
    assert peek(data[:130_000]) == (FORMATS["jpeg"], Size(50, 40))


def test_fill_bytes_before_a_marker_do_not_mislead() -> None:
    data = saved(quadrants(50, 40), "jpeg")
    # ITU-T T.81, B.1.1.2: any number of 0xFF may stand before a marker.
    data = data[:2] + b"\xff\xff\xff" + data[2:]
    assert look(data).size == Size(50, 40)
    assert peek(data)[1] in (None, Size(50, 40))


def test_an_avif_that_names_itself_late_is_the_same_to_both() -> None:
    data = saved(quadrants(50, 40), "avif")
    length = int.from_bytes(data[:4], "big")
    brands = b"mif1miafMA1BMA1Amsf1iso8avif"
    box = struct.pack(">I4s4sI", 16 + len(brands), b"ftyp", b"mif1", 0) + brands
    # The item locations of a file are counted from its start, so only the header is looked at.
    data = box + data[length:]
    assert peek(data)[0] is FORMATS["avif"]
    assert sniff(data[:SNIFFED_BYTES]) is FORMATS["avif"]


def test_real_files_measure_the_same_from_their_first_bytes(real_images: Path) -> None:
    for path in sorted(real_images.iterdir()):
        data = path.read_bytes()
        try:
            header = look(data)
        except TransformError:
            continue
        for length in (64, 512, 4096, 65_536):
            image_format, size = peek(data[:length])
            assert image_format is header.format, path.name
            assert size in (None, header.size), path.name


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    for function in (sniff, peek, look):
        try:
            function(data)
        except TransformError as error:
            assert error.detail  # noqa: PT017 - an error is one of two right ends


MAGICS = [
    b"\xff\xd8\xff",
    b"\x89PNG\r\n\x1a\n",
    b"RIFF\0\0\0\0WEBPVP8 ",
    b"RIFF\0\0\0\0WEBPVP8L",
    b"RIFF\0\0\0\0WEBPVP8X",
    b"GIF89a",
    b"II*\0",
    b"MM\0*",
    b"II+\0",
    b"\0\0\0\x18ftypavif",
    b"\0\0\0\x04ftyp",
]


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(MAGICS), st.binary(max_size=120))
def test_random_bytes_behind_a_true_beginning_raise_nothing_else(magic: bytes, rest: bytes) -> None:
    for function in (sniff, peek, look):
        try:
            function(magic + rest)
        except TransformError as error:
            assert error.detail  # noqa: PT017 - an error is one of two right ends


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_beginning_raises_nothing_else(
    files: dict[str, bytes], data: st.DataObject
) -> None:
    whole = files[data.draw(st.sampled_from(sorted(files)))][:4096]
    head = bytearray(whole[: data.draw(st.integers(1, len(whole)))])
    for _ in range(data.draw(st.integers(0, 4))):
        head[data.draw(st.integers(0, len(head) - 1))] = data.draw(st.integers(0, 255))
    for function in (peek, look):
        try:
            function(bytes(head))
        except TransformError as error:
            assert error.detail  # noqa: PT017 - an error is one of two right ends


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (b"%PDF-1.7", "pdf"),
        (b"\xff\x0a\xfa", "jxl"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "heic"),
    ],
)
def test_a_foreign_format_is_told_and_never_decoded_in_this_process(head: bytes, name: str) -> None:
    assert (sniff(head).name, sniff(head).foreign) == (name, True)
    assert peek(head) == (sniff(head), None)
    with pytest.raises(UnsupportedFormat, match=name):
        look(head)
