"""Watermarks and text over pictures: where they lie, what they leave alone, what they look like."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SHARED
from tests.transforms.pictures import flat, noise, numbered, photo, saved, with_metadata
from transforms.bitmap import Bitmap
from transforms.layers import BLENDS, TEXTS, WATERMARKS, Length, Text, Watermark
from transforms.libvips import Image
from transforms.overlay import draw_text, draw_watermark, fit, lay, place
from transforms.shapes import Size
from transforms.values import COMPASS, Colour, Gravity

ONE = Decimal(1)
NOTHING = Length()


def pixels(value: int) -> Length:
    return Length(Decimal(value))


def share(value: str) -> Length:
    return Length(Decimal(value), fractional=True)


def logo(width: int = 6, height: int = 4) -> Image:
    """A mark that fades from clear to solid, in colours that say where in it one is."""
    at = Image.xyz(width, height)
    alpha = at[0] * (255 / (width - 1))
    mark = (at[0] * 7).bandjoin([at[1] * 9, alpha * 0 + 200, alpha]).cast("uchar")
    return mark.copy(interpretation="srgb").copy_memory()


def solid(*colour: int, width: int = 6, height: int = 4) -> Image:
    """A mark of one colour, with alpha."""
    bands = colour if len(colour) == 4 else (*colour, 255)
    return flat(*bands, width=width, height=height).copy_memory()


def with_alpha(image: Image) -> Image:
    """The picture, from clear at the left to opaque at the right, colours unlike what is clear."""
    alpha = (Image.xyz(image.width, image.height)[0] * (255 / (image.width - 1))).cast("uchar")
    return image.bandjoin(alpha).copy_memory()


def size_of(image: Image) -> Size:
    return Size(image.width, image.height)


def kept(image: Image) -> Bitmap:
    """A mark as it is kept, in its own size."""
    return Bitmap(image=image, size=size_of(image))


def lay_watermark(image: Image, bitmap: Bitmap, watermark: Watermark, *, scale: Decimal) -> Image:
    return lay(image, draw_watermark(size_of(image), bitmap, watermark, scale=scale))


def lay_text(image: Image, text: Text, *, scale: Decimal) -> Image:
    mark = draw_text(size_of(image), text, scale=scale)
    return image if mark is None else lay(image, mark)


def marked(image: Image, bitmap: Image, parts: str = "", *, scale: Decimal = ONE) -> Image:
    (watermark,) = WATERMARKS.read(f"id,{parts}" if parts else "id")
    return lay_watermark(image, kept(bitmap), watermark, scale=scale).copy_memory()


def written(image: Image, text: str, *, scale: Decimal = ONE) -> Image:
    (layer,) = TEXTS.read(text)
    return lay_text(image, layer, scale=scale).copy_memory()


def changed(before: Image, after: Image) -> tuple[int, int, int, int] | None:
    """The box (left, top, width, height) round all pixels that differ, or None."""
    if before.bands < 3:
        before = before.colourspace("srgb")
    differs = (before != after).bandor()
    left, top, width, height = differs.find_trim(background=[0], threshold=1)
    return (left, top, width, height) if width and height else None


# Places


@pytest.mark.parametrize(
    ("gravity", "x", "y", "at"),
    [
        ("northwest", 10, 5, (10, 5)),
        ("north", 10, 5, (85, 5)),
        ("northeast", 10, 5, (140, 5)),
        ("west", 10, 5, (10, 45)),
        ("center", 0, 0, (75, 40)),
        ("center", -3, 4, (72, 44)),
        ("east", 10, 5, (140, 45)),
        ("southwest", 10, 5, (10, 75)),
        ("south", 10, 5, (85, 75)),
        ("southeast", 10, 5, (140, 75)),
        ("southeast", -10, -5, (160, 85)),
        ("northwest", -10, -5, (-10, -5)),
    ],
)
def test_offsets_lead_inward_from_the_edges_that_gravity_names(
    gravity: str, x: int, y: int, at: tuple[int, int]
) -> None:
    canvas, mark = Size(200, 100), Size(50, 20)
    assert place(canvas, mark, COMPASS[gravity], x=pixels(x), y=pixels(y), scale=ONE) == at


@pytest.mark.parametrize(
    ("canvas", "mark", "at"), [(101, 50, 26), (100, 51, 25), (50, 101, -25), (51, 100, -24)]
)
def test_half_a_pixel_is_rounded_up(canvas: int, mark: int, at: int) -> None:
    left, _ = place(
        Size(canvas, 1), Size(mark, 1), COMPASS["center"], x=NOTHING, y=NOTHING, scale=ONE
    )
    assert left == at


def test_a_point_of_gravity_lies_on_the_same_point_of_the_mark() -> None:
    gravity = Gravity(Decimal("0.2"), Decimal("0.8"))
    assert place(Size(200, 100), Size(50, 20), gravity, x=NOTHING, y=NOTHING, scale=ONE) == (30, 64)


def test_fractions_are_of_the_result_and_pixels_times_the_scale() -> None:
    canvas, mark, gravity = Size(201, 100), Size(50, 20), COMPASS["southeast"]
    two = Decimal(2)
    assert place(canvas, mark, gravity, x=share("0.1"), y=share("-0.25"), scale=two) == (131, 105)
    assert place(canvas, mark, gravity, x=pixels(7), y=pixels(3), scale=two) == (137, 74)
    half = Decimal("1.5")
    assert place(canvas, mark, gravity, x=pixels(7), y=pixels(3), scale=half) == (140, 75)


sizes = st.builds(Size, st.integers(1, 9000), st.integers(1, 9000))
offsets = st.integers(-500, 500).map(pixels)


@given(canvas=sizes, mark=sizes, x=offsets, y=offsets, scale=st.decimals("0.1", 8, places=2))
def test_opposite_corners_are_mirror_images(
    canvas: Size, mark: Size, x: Length, y: Length, scale: Decimal
) -> None:
    first = place(canvas, mark, COMPASS["northwest"], x=x, y=y, scale=scale)
    last = place(canvas, mark, COMPASS["southeast"], x=x, y=y, scale=scale)
    assert last == (
        canvas.width - mark.width - first[0],
        canvas.height - mark.height - first[1],
    )


@given(canvas=sizes, mark=sizes, gravity=st.sampled_from(list(COMPASS.values())))
def test_a_mark_that_fits_lies_within(canvas: Size, mark: Size, gravity: Gravity) -> None:
    size = fit(canvas, mark, Decimal(0), ONE)
    left, top = place(canvas, size, gravity, x=NOTHING, y=NOTHING, scale=ONE)
    assert 0 <= left <= canvas.width - size.width
    assert 0 <= top <= canvas.height - size.height


@given(canvas=sizes, mark=sizes, part=st.decimals("0.01", 1, places=2))
def test_a_share_of_the_result_is_filled_in_one_direction(
    canvas: Size, mark: Size, part: Decimal
) -> None:
    size = fit(canvas, mark, part, Decimal(3))
    room = canvas.width * part, canvas.height * part
    assert size.width <= max(1, room[0] + Decimal("0.5"))
    assert size.height <= max(1, room[1] + Decimal("0.5"))
    assert abs(size.width - room[0]) <= 1 or abs(size.height - room[1]) <= 1


@pytest.mark.parametrize(
    ("canvas", "mark", "scale", "size"),
    [
        (Size(200, 100), Size(50, 20), "1", Size(50, 20)),
        (Size(200, 100), Size(50, 20), "2", Size(100, 40)),
        (Size(200, 100), Size(50, 20), "0.5", Size(25, 10)),
        (Size(200, 100), Size(50, 20), "8", Size(200, 80)),
        (Size(100, 100), Size(3, 900), "1", Size(1, 100)),
    ],
)
def test_without_a_share_a_mark_has_its_own_size_but_no_more_than_the_result(
    canvas: Size, mark: Size, scale: str, size: Size
) -> None:
    assert fit(canvas, mark, Decimal(0), Decimal(scale)) == size


# What other servers' tests say

_POSITION = re.compile(r"watermark:1:(\w+):(-?\d+):(-?\d+) \(watermark image (\d+)x(\d+)\)")
_PEERS_WORDS = {"nowe": "northwest", "ce": "center"}
_DIFFERENCES = {
    "ip-wm-pos-ce-0-0": "imgproxy adds 1 before it halves, so that an even gap may end one pixel "
    "off the middle: 76 of 150; here it is 75."
}


def test_marks_lie_where_other_servers_put_them(capsys: pytest.CaptureFixture[str]) -> None:
    folder = SHARED / "vectors"
    if not folder.is_dir():
        pytest.skip("the vectors of other servers are not beside this checkout")
    facts = json.loads((folder / "imgproxy_imagor.json").read_text(encoding="utf-8"))
    facts += json.loads((folder / "peers.json").read_text(encoding="utf-8"))["vectors"]
    same, excluded = 0, {"state the result's size alone": 0}
    for fact in facts:
        if "watermark" not in json.dumps(fact):
            continue
        if "watermark_at" not in fact["expect"]:
            excluded["state the result's size alone"] += 1
            continue
        match = _POSITION.fullmatch(fact["options"])
        assert match, fact["options"]
        word, x, y, width, height = match.groups()
        at = place(
            Size(fact["source"]["w"], fact["source"]["h"]),
            Size(int(width), int(height)),
            COMPASS[_PEERS_WORDS[word]],
            x=pixels(int(x)),
            y=pixels(int(y)),
            scale=ONE,
        )
        assert (list(at) == fact["expect"]["watermark_at"]) == (fact["id"] not in _DIFFERENCES)
        same += fact["id"] not in _DIFFERENCES
    with capsys.disabled():
        sys.stdout.write(
            f"\nwatermarks: {same} as elsewhere, {len(_DIFFERENCES)} not, excluded {excluded}\n"
        )
    assert same


# Pixels of watermarks


def test_a_solid_mark_replaces_what_is_under_it_and_nothing_else() -> None:
    image, bitmap = noise(40, 30), solid(10, 200, 30)
    result = marked(image, bitmap, "x=3,y=2")
    assert result(31, 24) == [10, 200, 30]
    assert changed(image, result) == (31, 24, 6, 4)


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("parts", ["", "tile", "tile,gap=5", "opacity=0.5", "scale=0.5"])
@pytest.mark.parametrize("draw", [lambda: noise(40, 30), lambda: with_alpha(noise(40, 30))])
def test_where_a_mark_is_clear_not_a_bit_changes(
    draw: Callable[[], Image], parts: str, blend: str
) -> None:
    image = draw()
    clear = marked(image, solid(90, 90, 90, 0), f"blend={blend},{parts}".rstrip(","))
    assert changed(image, clear) is None
    assert (clear.bands, clear.format, clear.interpretation) == (image.bands, "uchar", "srgb")


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
def test_outside_a_mark_not_a_bit_changes(blend: str, *, alpha: bool) -> None:
    image = with_alpha(noise(40, 30)) if alpha else noise(40, 30)
    result = marked(image, logo(), f"blend={blend},gravity=northwest,x=20,y=11")
    left, top, width, height = changed(image, result) or (0, 0, 0, 0)
    assert width
    assert left >= 20
    assert top >= 11
    assert left + width <= 26
    assert top + height <= 15


def test_a_mark_of_no_opacity_changes_nothing() -> None:
    image = noise(40, 30)
    assert changed(image, marked(image, solid(1, 2, 3), "opacity=0")) is None
    assert changed(image, marked(image, solid(1, 2, 3), "opacity=0,tile,blend=multiply")) is None


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
def test_over_is_the_formula_of_the_standard(*, alpha: bool) -> None:
    # W3C Compositing and Blending 1, 5.1: source over.
    image = with_alpha(photo(24, 16)) if alpha else photo(24, 16)
    bitmap = logo(24, 16)
    result = marked(image, bitmap)
    above, below = bitmap[3] / 255, (image[3] / 255 if alpha else bitmap[3] * 0 + 1)
    whole = above + below * (1 - above)
    for band in range(3):
        mixed = bitmap[band] * above + image[band] * below * (1 - above)
        expected = (whole == 0).ifthenelse(image[band], mixed / whole)
        assert (result[band] - expected).abs().max() <= 0.51
    if alpha:
        assert (result[3] - whole * 255).abs().max() <= 0.51


_MODES: dict[str, Callable[[float, float], float]] = {
    "over": lambda _, s: s,
    "multiply": lambda b, s: b * s,
    "screen": lambda b, s: b + s - b * s,
    "overlay": lambda b, s: 2 * b * s if b <= 0.5 else 1 - 2 * (1 - b) * (1 - s),
    "darken": min,
    "lighten": max,
    "difference": lambda b, s: abs(b - s),
    "soft-light": lambda b, s: (
        b - (1 - 2 * s) * b * (1 - b)
        if s <= 0.5
        else b + (2 * s - 1) * ((((16 * b - 12) * b + 4) * b if b <= 0.25 else b**0.5) - b)
    ),
}


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize(("below", "above"), [(200, 60), (40, 220), (128, 128), (0, 255), (30, 90)])
def test_blends_are_those_of_the_standard(blend: str, below: int, above: int) -> None:
    # W3C Compositing and Blending 1, 9.1.
    image = flat(below, below, below)
    result = marked(image, solid(above, above, above, width=24, height=16), f"blend={blend}")
    expected = 255 * _MODES[blend](below / 255, above / 255)
    assert result(5, 5) == pytest.approx([expected] * 3, abs=0.6)


def test_opacity_mixes_in_proportion() -> None:
    result = marked(flat(0, 0, 0), solid(200, 100, 0, width=24, height=16), "opacity=0.5")
    assert result(3, 3) == pytest.approx([100, 50, 0], abs=1)


def test_a_grey_picture_takes_a_mark_in_colour() -> None:
    grey = flat(77, interpretation="b-w")
    result = marked(grey, solid(255, 0, 0), "gravity=northwest")
    assert (result.bands, result.interpretation) == (3, "srgb")
    assert result(0, 0) == [255, 0, 0]
    assert result(20, 12) == [77, 77, 77]
    faint = flat(77, 128, interpretation="b-w")
    assert marked(faint, solid(255, 0, 0), "gravity=northwest")(20, 12) == [77, 77, 77, 128]


@pytest.mark.parametrize(
    ("parts", "box"),
    [
        ("x=-3,y=-2", (37, 28, 3, 2)),
        ("gravity=northwest,x=-4", (0, 0, 2, 4)),
        ("x=-6", None),
        ("x=4000,y=-4000", None),
        ("gravity=north,y=0.999999", None),
    ],
)
def test_what_hangs_over_the_edge_is_cut(parts: str, box: tuple[int, int, int, int] | None) -> None:
    image = noise(40, 30)
    assert changed(image, marked(image, solid(0, 0, 0), parts)) == box


def test_dpr_multiplies_a_mark_and_its_offsets() -> None:
    image = flat(255, 255, 255, width=40, height=30)
    result = marked(image, solid(0, 0, 0), "x=2,y=1", scale=Decimal(2))
    assert changed(image, result) == (40 - 12 - 4, 30 - 8 - 2, 12, 8)


def test_resized_marks_have_no_fringe_of_the_colour_that_was_clear() -> None:
    bitmap = solid(255, 255, 255, 0, width=40, height=40).insert(
        solid(0, 0, 0, width=20, height=40), 0, 0
    )
    result = marked(flat(0, 0, 0, width=15, height=15), bitmap.copy_memory(), "scale=1")
    assert result.max() == 0


@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("gravity", ["northwest", "center", "southeast"])
@pytest.mark.parametrize("size", [(40, 30), (300, 280)])
def test_tiles_fill_the_picture_and_go_through_the_place_of_the_mark(
    size: tuple[int, int], gravity: str, gap: int
) -> None:
    image = flat(0, 0, 0, width=size[0], height=size[1]).copy_memory()
    bitmap = numbered(7, 5).linear(1, [1, 1, 0], uchar=True).bandjoin(255).copy_memory()
    result = marked(image, bitmap, f"tile,gap={gap},gravity={gravity},x=2")
    left, top = place(Size(*size), Size(7, 5), COMPASS[gravity], x=pixels(2), y=NOTHING, scale=ONE)
    for x, y in [(0, 0), (17, 11), (size[0] - 1, size[1] - 1), (left, top), (9, 29)]:
        across, down = (x - left) % (7 + gap), (y - top) % (5 + gap)
        inside = across < 7 and down < 5
        assert result(x, y) == ([across + 1, down + 1, 77] if inside else [0, 0, 0])


def test_a_mark_leaves_the_metadata_of_the_picture_alone() -> None:
    bitmap = with_metadata(logo(), orientation=6)
    for image in (noise(40, 30), with_metadata(noise(40, 30), orientation=3)):
        for parts in ("", "tile", "blend=multiply", "scale=1"):
            result = marked(image, bitmap, parts)
            assert set(result.get_fields()) <= {*image.get_fields(), "vips-sequential"}
            if "orientation" in image.get_fields():
                assert result.get("orientation") == 3


@pytest.mark.parametrize("fm", ["jpeg", "png"])
def test_a_picture_may_be_one_that_is_still_to_be_decoded(fm: str) -> None:
    data = saved(noise(300, 400), fm)
    lazy = Image.new_from_buffer(data, "", access="sequential")
    ready = Image.new_from_buffer(data, "").copy_memory()
    results = []
    for image in (lazy, ready):
        for gravity in ("south", "north", "center", "west"):
            (mark,) = WATERMARKS.read(f"id,scale=0.9,opacity=0.5,gravity={gravity}")
            image = lay_watermark(image, kept(logo(60, 40)), mark, scale=ONE)  # noqa: PLW2901 - a chain
        image = lay_text(image, Text("Hello"), scale=ONE)  # noqa: PLW2901 - the same
        results.append(image.copy_memory())
    assert changed(*results) is None


@settings(max_examples=60, deadline=None)
@given(
    canvas=st.builds(Size, st.integers(1, 60), st.integers(1, 60)),
    mark=st.builds(Size, st.integers(2, 40), st.integers(1, 40)),
    watermark=st.builds(
        Watermark,
        st.just("id"),
        gravity=st.sampled_from(list(COMPASS.values())),
        x=st.integers(-80, 80).map(pixels),
        y=st.sampled_from([NOTHING, share("0.3"), share("-0.9")]),
        scale=st.sampled_from([Decimal(0), Decimal("0.01"), Decimal("0.4"), Decimal(1)]),
        blend=st.sampled_from(BLENDS),
        tile=st.booleans(),
        gap=st.integers(0, 70),
    ),
    alpha=st.booleans(),
    scale=st.sampled_from([Decimal("0.1"), ONE, Decimal("2.5")]),
)
def test_any_mark_can_be_laid_on_any_picture(
    canvas: Size, mark: Size, watermark: Watermark, scale: Decimal, *, alpha: bool
) -> None:
    image = flat(9, 99, 199, *([70] if alpha else []), width=canvas.width, height=canvas.height)
    result = lay_watermark(image, kept(logo(mark.width, mark.height)), watermark, scale=scale)
    result = result.copy_memory()
    assert (result.width, result.height, result.bands) == (image.width, image.height, image.bands)
    assert result.format == "uchar"


# Text

WHITE = [255, 255, 255]

# Where there are none, all signs are boxes of one size.
needs_fonts = pytest.mark.skipif(
    Image.text("M", font="sans, 90", dpi=72).height < 40, reason="no fonts are installed"
)


def paper(width: int = 400, height: int = 200) -> Image:
    return flat(*WHITE, width=width, height=height).copy_memory()


def ink(image: Image) -> tuple[int, int, int, int]:
    """The box round what was written on white paper."""
    box = changed(paper(image.width, image.height), image)
    assert box
    return box


@pytest.mark.parametrize("gravity", list(COMPASS))
def test_text_is_placed_by_its_ink(gravity: str) -> None:
    left, top, width, height = ink(written(paper(), f"Xylophone,gravity={gravity},x=7,y=9"))
    expected = place(
        Size(400, 200), Size(width, height), COMPASS[gravity], x=pixels(7), y=pixels(9), scale=ONE
    )
    # The raster may have a margin that is too faint to be seen.
    assert (left, top) == pytest.approx(expected, abs=1)


@needs_fonts
def test_text_has_its_colour_and_leaves_the_rest_alone() -> None:
    image = noise(400, 200)
    result = written(image, "Il,size=100,color=ff8000")
    left, top, _, height = changed(image, result) or (0, 0, 0, 0)
    assert result(left + 4, top + height // 2) == [255, 128, 0]
    assert 60 <= height <= 110


@needs_fonts
def test_size_is_in_pixels_and_grows_with_dpr() -> None:
    plain, doubled = (
        ink(written(paper(), text, scale=Decimal(scale)))
        for text, scale in (("Hxg,size=40", 1), ("Hxg,size=40", 2))
    )
    assert abs(doubled[3] - 2 * plain[3]) <= 3
    assert ink(written(paper(), "Hxg,size=80")) == doubled


def test_markup_is_written_as_it_stands() -> None:
    assert ink(written(paper(), "<b>x</b>"))[2] > 3 * ink(written(paper(), "x,weight=bold"))[2]
    assert ink(written(paper(), "&amp;"))[2] > 2 * ink(written(paper(), "&"))[2]
    for hostile in ("<span size='999999'>x", "</span>x", "&", "]]>", "<!--", "&#0;", "'\""):
        written(paper(), hostile)


def test_words_of_a_font_family_are_no_style() -> None:
    plain = written(paper(), "Hello,font=No Such Family")
    assert changed(plain, written(paper(), "Hello,font=No Such Family 99")) is None
    assert changed(plain, written(paper(), "Hello,font=Bold")) is None


@pytest.mark.parametrize(
    "words",
    [
        "שלום עולם",
        "مرحبا بالعالم",
        "你好世界",
        "😀🎉👨‍👩‍👧❤️",
        "e\u0301\u0328\u0330",
        "a" + "\u0301" * 499,
        "\u0378\uffff\ufffe\U0010ffff\ue000",
        "\u202ereversed\u2066\u2028new\u2029line",
        "\u200d",
        "\u3164\u00ad\ufeff",
        "﷽" * 50,
        "x" * 500,
        "x\n" * 249 + "x",
    ],
)
def test_no_words_are_too_strange(words: str) -> None:
    result = lay_text(paper(120, 90), Text(words), scale=ONE).copy_memory()
    assert (result.width, result.height, result.bands) == (120, 90, 3)


def test_lines_are_wrapped_at_the_width() -> None:
    words = "some words that need more than one line"
    wide, half, narrow = (
        ink(written(paper(), f"{words},size=16,width={width}")) for width in ("1.0", "0.5", "60")
    )
    assert wide[2] > 200
    assert half[2] <= 201
    assert narrow[2] <= 61
    assert wide[3] < half[3] < narrow[3]
    assert ink(written(paper(), f"{words},size=16"))[2] <= 361
    assert ink(written(paper(), f"{'long' * 12},size=16,width=100"))[2] <= 101


def test_a_line_break_begins_a_line() -> None:
    assert ink(written(paper(), r"xx\nxx"))[3] > 1.5 * ink(written(paper(), "xxxx"))[3]


def _first_line(align: str, words: str) -> int:
    """Where the short first of two lines begins, from where the long second one does."""
    image = written(paper(), rf"{words},size=30,align={align}")
    left, top, width, _ = ink(image)
    upper = image.crop(left, top, width, 20)
    box = changed(paper(width, 20), upper)
    assert box
    return box[0]


@needs_fonts
@pytest.mark.parametrize("words", [r"xx\nxxxxxxxx", r"שש\nששששששש"])
def test_left_is_left_in_every_script(words: str) -> None:
    left, center, right = (_first_line(align, words) for align in ("left", "center", "right"))
    assert left <= 2
    assert left + 20 < center < right - 20


@needs_fonts
def test_a_background_is_a_box_round_the_ink() -> None:
    left, top, width, height = ink(written(paper(), "Hello,size=30"))
    boxed = written(paper(), "Hello,size=30,bg=ff0000,padding=5")
    assert ink(boxed) == (left - 5, top - 5, width + 10, height + 10)
    assert boxed(left - 5, top - 5) == [255, 0, 0]
    faint = written(flat(0, 0, 0, width=400, height=200), "Hello,bg=ffffff80")
    assert faint.crop(0, 0, 400, 200).find_trim(background=[0])[2] > 60
    assert faint(200 - 20, 100 - 18)[0] in range(126, 130)
    doubled = written(paper(), "Hello,size=15,bg=ff0000,padding=5", scale=Decimal(2))
    assert ink(doubled) == (left - 10, top - 10, width + 20, height + 20)


@needs_fonts
@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_an_outline_goes_all_round(width: int) -> None:
    left, top, across, down = ink(written(paper(), "o,size=60"))
    outlined = written(paper(), f"o,size=60,color=fff,outline=f00,outline-width={width}")
    assert ink(outlined) == (
        left - width,
        top - width,
        across + 2 * width,
        down + 2 * width,
    )
    assert outlined(200, top + 2) == WHITE  # the letter itself
    assert outlined(200, top - 1)[0] == 255
    assert outlined(200, top - 1)[1] < 90


def test_opacity_is_that_of_the_whole() -> None:
    image = flat(0, 0, 0, width=400, height=200)
    result = written(image, "Hello,color=fff,outline=fff,bg=fff,opacity=0.5")
    assert result(200, 100) in ([127] * 3, [128] * 3)
    assert changed(image, written(image, "Hello,color=fff,opacity=0")) is None
    see_through = written(image, "I,size=150,color=ffffff80")
    assert see_through.max() == 128


@needs_fonts
def test_text_on_a_clear_picture_is_opaque() -> None:
    image = flat(0, 0, 0, 0, width=400, height=200)
    result = written(image, "I,size=150,color=fc0")
    assert result.bands == 4
    assert result(200, 100) == [255, 204, 0, 255]
    assert result(0, 0) == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "text",
    [
        "W" * 500,
        "x\n" * 249 + "x",
        " ".join(["words"] * 80),
        "a" + "\u0301" * 499,
        "﷽" * 500,
    ],
)
@pytest.mark.parametrize("canvas", [(40, 30), (900, 700)])
def test_the_end_of_a_text_without_bounds_is_left_out(text: str, canvas: tuple[int, int]) -> None:
    layer = Text(text, size=500, outline=Colour(255, 0, 0))
    image = flat(*WHITE, width=canvas[0], height=canvas[1])
    result = lay_text(image, layer, scale=Decimal(8)).copy_memory()
    assert (result.width, result.height) == canvas


def test_a_text_that_fits_is_all_there() -> None:
    # Long enough to be measured first, and small enough to be drawn.
    words = " ".join(["word"] * 90)
    image = paper(400, 900)
    shorter, longer = (
        written(image, f"{words}{end},size=20,gravity=north") for end in ("", " end")
    )
    box = changed(shorter, longer)
    assert box
    _, top, _, height = ink(longer)
    assert box[1] > top + height - 30


def test_many_threads_write_as_one_does() -> None:
    texts = ["Hello", "שלום,size=60", "bold,weight=bold,size=90", "serif,font=serif,italic"] * 12

    def write(text: str) -> bytes:
        return bytes(b"".join(written(paper(), text).write_to_memory()))

    expected = [write(text) for text in texts[:4]] * 12
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(write, texts)) == expected


_FORGETFUL = """
import random
from decimal import Decimal
from pathlib import Path
from transforms.layers import Text
from transforms.overlay import draw_text
from transforms.shapes import Size

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def write(times):
    for _ in range(times):
        family, scale = f"F{random.random()}".replace(".", ""), random.uniform(0.2, 2)
        draw_text(Size(40, 30), Text("Hi", font=family), scale=Decimal(f"{scale:.5f}"))

write(500)
before = resident()
write(1000)
print(resident() - before)
"""


def _run(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).resolve().parents[2]
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=root,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(root), **environment},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is read as on Linux")
def test_fonts_that_are_named_once_are_not_remembered_for_ever() -> None:
    done = _run(_FORGETFUL)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 12_000_000  # without forgetting it is three times that


_FONTLESS = """
from decimal import Decimal
from transforms.layers import Text
from transforms.libvips import Image
from transforms.overlay import draw_text, lay
from transforms.shapes import Size

image = Image.black(200, 60, bands=3).copy(interpretation="srgb")
mark = draw_text(Size(200, 60), Text("Hello", outline_width=2), scale=Decimal(1))
print(lay(image + 255, mark).cast("uchar").min())
"""


def test_without_any_font_there_are_boxes(tmp_path: Path) -> None:
    config = tmp_path / "fonts.conf"
    config.write_text(
        '<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
        f"<dir>{tmp_path}/none</dir><cachedir>{tmp_path}/cache</cachedir></fontconfig>",
        encoding="utf-8",
    )
    done = _run(_FONTLESS, FONTCONFIG_FILE=str(config))
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60
