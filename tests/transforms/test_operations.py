"""Operations through the whole pipeline: where things land, how large they are, what is kept."""

from __future__ import annotations

import gc
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.transforms import pictures
from transforms import libvips, pipeline
from transforms.errors import InvalidOption, SourceTooLarge
from transforms.limits import Limits
from transforms.transform import Transform

RED, GREEN, BLUE, GOLD = (220, 20, 20), (20, 200, 20), (20, 20, 220), (230, 200, 20)
ANIMATIONS = (
    "dancing-banana.gif",
    "animated-loop-3.gif",
    "rotating-squares.gif",
    "dispose-background.gif",
    "dancing_banana2.lossless.webp",
)


def flat(colour, width, height):
    image = (libvips.Image.black(width, height, bands=3) + list(colour)).cast("uchar")
    return image.copy(interpretation="srgb")


def corners_of(image):
    """The nearest of the four colours in each corner: left top, right top, left low, right low."""
    right, low = image.width - 4, image.height - 4
    found = []
    for x, y in ((3, 3), (right, 3), (3, low), (right, low)):
        pixel = image(x, y)[:3]
        found.append(
            min(
                (RED, GREEN, BLUE, GOLD),
                key=lambda colour: sum((a - b) ** 2 for a, b in zip(colour, pixel, strict=True)),
            )
        )
    return tuple(found)


def quarters(width=60, height=40):
    top = flat(RED, width // 2, height // 2).join(
        flat(GREEN, width // 2, height // 2), "horizontal"
    )
    low = flat(BLUE, width // 2, height // 2).join(
        flat(GOLD, width // 2, height // 2), "horizontal"
    )
    return top.join(low, "vertical")


def saved(image, ending="png", **options):
    return bytes(image.write_to_buffer(f".{ending}", **options))


def works_of(data, queries):
    transforms = [Transform.from_query(query, unknown="refuse") for query in queries]
    return [pipeline.prepare(data, transform, Limits()) for transform in transforms]


# Each EXIF orientation says where the first row and the first column of the stored picture are
# (CIPA DC-008, tag 274): the corners left top, right top, left low, right low as they are seen.
LAID = {1: "0123", 2: "1032", 3: "3210", 4: "2301", 5: "0213", 6: "2031", 7: "3120", 8: "1302"}
FLIPPED = {"": "0123", "h": "1032", "v": "2301", "hv": "3210"}
TURNED = {0: "0123", 90: "2031", 180: "3210", 270: "1302"}


@pytest.mark.parametrize(
    ("orientation", "rotate", "flip"), list(itertools.product(LAID, TURNED, FLIPPED))
)
def test_each_corner_lands_where_tag_flip_and_turn_say(orientation, rotate, flip):
    image = quarters().copy()
    image.set_type(libvips.MetadataType.INTEGER, "orientation", orientation)
    data = saved(image, "jpg", Q=95)
    corners = (RED, GREEN, BLUE, GOLD)
    for step in (LAID[orientation], FLIPPED[flip], TURNED[rotate]):
        corners = tuple(corners[int(at)] for at in step)
    query = f"w=30&rotate={rotate}&fm=png" + (f"&flip={flip}" if flip else "")
    seen = pictures.opened(pictures.render(data, query).data)
    assert corners_of(seen) == corners
    turned = (orientation >= 5) != (rotate % 180 == 90)
    assert (seen.width, seen.height) == ((30, 45) if turned else (30, 20))


@pytest.mark.parametrize("name", ANIMATIONS)
@pytest.mark.parametrize("fm", ["gif", "webp"])
def test_an_animation_keeps_its_frames_delays_and_loop(real_images, name, fm):
    data = (real_images / name).read_bytes()
    before = libvips.Image.new_from_buffer(data, "", n=-1)
    for query in ("w=60", "w=50&h=40&fit=cover&grayscale&round=9", "rotate=90&h=40&padding=3"):
        result = pictures.render(data, f"{query}&fm={fm}&effort=0")
        after = libvips.Image.new_from_buffer(result.data, "", n=-1)
        assert sum(after.get("delay")) == sum(before.get("delay"))
        if fm == "gif" or name != "rotating-squares.gif":
            # WebP's encoder joins frames that are equal, and adds their delays up.
            assert after.get("n-pages") == before.get("n-pages")
            assert after.get("delay") == before.get("delay")
        assert after.get("loop") == before.get("loop")
        assert (after.width, after.height // after.get("n-pages")) == (result.width, result.height)


def test_a_still_result_has_the_first_frame_and_frames_can_be_chosen(real_images):
    data = (real_images / "rotating-squares.gif").read_bytes()
    still = pictures.opened(pictures.render(data, "fm=png").data)
    first = pictures.opened(pictures.render(data, "page=0&fm=png").data)
    assert (still - first).abs().max() == 0
    for query, frames in (("frames=1", 1), ("page=3", 1), ("page=28&frames=9", 2), ("frames=5", 5)):
        result = pictures.render(data, f"{query}&fm=gif")
        image = libvips.Image.new_from_buffer(result.data, "", n=-1)
        assert (image.get("n-pages") if image.get_typeof("n-pages") else 1) == frames
    assert pictures.render(data, fm="auto").format.name == "gif"


def test_an_animation_beyond_the_limits_is_refused(real_images):
    data = (real_images / "rotating-squares.gif").read_bytes()
    with pytest.raises(SourceTooLarge, match="fewer frames"):
        pictures.render(data, "fm=gif", limits=Limits(frames=10))
    with pytest.raises(SourceTooLarge):
        pictures.render(data, "fm=gif", limits=Limits(source_pixels=100_000))
    with pytest.raises(InvalidOption):
        pictures.render(data, "fm=gif", limits=Limits(result_pixels=100_000))
    assert pictures.render(data, "fm=png", limits=Limits(frames=10)).width == 80


LENGTHS = st.integers(1, 40)
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "w": LENGTHS.map(str),
        "h": LENGTHS.map(str),
        "fit": st.sampled_from(["contain", "cover", "inside", "outside", "fill"]),
        "padding": st.integers(0, 9).map(str),
        "border": st.integers(1, 9).map(str),
        "round": st.one_of(st.just("full"), LENGTHS.map(str)),
        "shadow": st.sampled_from(["", "0,0,0", "-3,5,4,red"]),
        "dpr": st.sampled_from(["0.5", "2"]),
        "max-w": LENGTHS.map(str),
        "blur": st.just("2"),
        "sharpen": st.just(""),
        "pixelate": st.just("3"),
        "sepia": st.just("50"),
        "opacity": st.just("0.5"),
        "normalize": st.just("1"),
        "charcoal": st.just("1"),
        "background": st.sampled_from(["auto", "blur", "gold", "none"]),
        "text": st.just("Hi,size=8"),
        "rotate": st.sampled_from(["90", "180"]),
        "gravity": st.sampled_from(["north", "0.2,0.8", "attention"]),
        "trim": st.just("5"),
    },
)


@settings(max_examples=150, deadline=None)
@given(width=st.integers(1, 50), height=st.integers(1, 50), bands=st.integers(1, 4), parts=PARTS)
def test_a_result_has_the_size_that_was_planned(width, height, bands, parts):
    image = flat((90, 120, 30), width, height)
    if bands < 3:
        image = image[0].copy(interpretation="b-w")
    if bands in (2, 4):
        image = image.addalpha()
    data = saved(image)
    (work,) = works_of(data, ["&".join(f"{name}={value}" for name, value in parts.items())])
    result = pipeline.run(data, work)
    seen = pictures.opened(result.data)
    assert (seen.width, seen.height) == (result.width, result.height)
    assert (seen.width, seen.height) == (work.plan.result.width, work.plan.result.height)


def test_several_results_of_one_decode_equal_separate_ones(real_images):
    data = (real_images / "large.jpg").read_bytes()
    queries = [f"w={width}&fm=png&effort=0" for width in (1600, 960, 640, 320, 100)]
    queries += ["w=300&h=300&fit=cover&fm=png&effort=0", "crop=0.5,0.5,0.25,0.25&fm=png&effort=0"]
    works = works_of(data, queries)
    for work, together in zip(works, pipeline.run_all(data, works), strict=True):
        alone = pictures.opened(pipeline.run(data, work).data)
        seen = pictures.opened(together.data)
        assert (seen.width, seen.height) == (alone.width, alone.height)
        assert (seen - alone).abs().avg() < 1.5, work.transform.canonical


def test_the_tiles_of_a_grid_are_the_whole(real_images):
    data = (real_images / "imaginary.jpg").read_bytes()
    places = [(column, row) for row in range(2) for column in range(3)]
    queries = [f"w=301&fm=png&tile=3x2,{column},{row}" for column, row in places]
    tiles = [pictures.opened(made.data) for made in pipeline.run_all(data, works_of(data, queries))]
    rows = []
    for row in range(2):
        left, middle, right = tiles[3 * row : 3 * row + 3]
        rows.append(left.join(middle, "horizontal").join(right, "horizontal"))
    joined = rows[0].join(rows[1], "vertical")
    whole = pictures.opened(pictures.render(data, "w=301&fm=png").data)
    assert (joined.width, joined.height) == (whole.width, whole.height)
    assert (joined - whole).abs().avg() < 1.5


def test_originals_are_joined_in_rows_and_columns():
    pieces = [flat(RED, 40, 30), flat(GREEN, 20, 50), flat(BLUE, 60, 10)]
    data, *others = map(saved, pieces)
    transform = Transform.from_query("merge=b|c&across=2&fm=png&gap=4")
    work = pipeline.prepare(data, transform, Limits(), others=others)
    seen = pictures.opened(pipeline.run(data, work).data)
    assert (seen.width, seen.height) == (64, 64)
    for x, y, colour in (
        (1, 1, RED),
        (39, 29, RED),
        (41, 1, (255, 255, 255)),
        (44, 49, GREEN),
        (1, 40, (255, 255, 255)),
        (59, 63, BLUE),
    ):
        assert tuple(seen(x, y)[:3]) == colour
    cells = Transform.from_query("merge=b|c&across=2&cell=50x50&fm=png&background=gold")
    work = pipeline.prepare(data, cells, Limits(), others=others)
    assert (work.plan.result.width, work.plan.result.height) == (100, 100)


def test_a_border_a_corner_and_a_shadow_are_where_css_has_them():
    data = saved(flat(BLUE, 60, 40))
    seen = pictures.opened(pictures.render(data, "border=5,gold&round=12&fm=png").data)
    assert (seen.width, seen.height) == (70, 50)
    assert seen(0, 0)[3] == 0
    assert tuple(seen(35, 2)) == (255, 215, 0, 255)
    assert tuple(seen(35, 25)) == (*BLUE, 255)
    shadow = pictures.opened(pictures.render(data, "shadow=0,10,0,000000ff&fm=png").data)
    assert (shadow.width, shadow.height) == (60, 50)
    assert tuple(shadow(30, 45)) == (0, 0, 0, 255)
    circle = pictures.opened(pictures.render(data, "w=40&h=40&fit=cover&round=full&fm=png").data)
    assert circle(0, 0)[3] == 0
    assert circle(20, 1)[3] == 255
    flattened = pictures.opened(pictures.render(data, "round=12&bg=gold&fm=jpeg&q=95").data)
    assert all(abs(a - b) < 12 for a, b in zip(flattened(0, 0), (255, 215, 0), strict=True))


def test_a_blurred_background_fills_what_the_picture_leaves():
    data = saved(quarters())
    seen = pictures.opened(pictures.render(data, "w=60&h=90&background=blur&fm=png").data)
    assert corners_of(seen) == (RED, GREEN, BLUE, GOLD)
    auto = pictures.opened(
        pictures.render(saved(flat(RED, 40, 20)), "w=40&h=40&bg=auto&fm=png").data
    )
    assert tuple(auto(1, 1)[:3]) == RED


def test_smaller_gives_the_original_itself_where_it_is_what_was_asked_for():
    picture = libvips.Image.gaussnoise(400, 300, sigma=30, mean=120, seed=1).cast("uchar")
    picture = picture.bandjoin([picture, picture]).copy(interpretation="srgb")
    data = saved(picture, "jpg", Q=20)
    assert pictures.render(data, "auto=smaller", fm="auto").data == data
    assert pictures.render(data, "auto=smaller&fm=jpeg&w=400").data == data
    for query in ("auto=smaller&w=100", "auto=smaller&fm=png", "auto=smaller&flip=h", "q=95"):
        assert pictures.render(data, query, fm="auto").data != data
    told = picture.copy()
    told.set_type(libvips.MetadataType.TEXT, "exif-ifd0-Make", "A camera")
    told = saved(told, "jpg", Q=20)
    assert pictures.render(told, "auto=smaller", fm="auto").data != told
    assert pictures.render(told, "auto=smaller&meta=keep", fm="auto").data == told
    whose = picture.copy()
    whose.set_type(libvips.MetadataType.TEXT, "exif-ifd0-Copyright", "Somebody")
    whose = saved(whose, "jpg", Q=20)
    assert pictures.render(whose, "auto=smaller", fm="auto").data == whose
    assert pictures.render(whose, "auto=smaller&meta=none", fm="auto").data != whose
    noted = picture.copy()
    noted.set_type(libvips.MetadataType.TEXT, "png-comment-0-Comment", "taken at home")
    noted = saved(noted, "png")
    assert pictures.render(noted, "auto=smaller&fm=png").data != noted
    lying = picture.copy()
    lying.set_type(libvips.MetadataType.INTEGER, "orientation", 6)
    lying = saved(lying, "jpg", Q=20)
    assert pictures.render(lying, "auto=smaller", fm="auto").data != lying


def test_a_gain_map_stays_with_a_jpeg_unless_it_is_dropped(real_images):
    data = (real_images / "gain-map.jpg").read_bytes()
    kept = pictures.render(data, "w=400&fm=jpeg").data
    dropped = pictures.render(data, "w=400&fm=jpeg&hdr=drop").data
    assert b"hdrgm" in kept
    assert b"hdrgm" not in dropped
    assert b"hdrgm" not in pictures.render(data, "w=400&fm=jpeg&sepia").data
    assert (pictures.opened(kept) - pictures.opened(dropped)).abs().max() == 0


def test_a_gain_map_that_is_to_be_dropped_is_not_handed_on_with_the_original(real_images):
    data = (real_images / "gain-map.jpg").read_bytes()
    for meta in ("keep", "none"):
        result = pictures.render(data, f"auto=smaller&q=100&hdr=drop&meta={meta}", fm="auto")
        assert result.data != data


def test_renders_leave_nothing_behind_in_libvips(real_images):
    data = (real_images / "imaginary.jpg").read_bytes()
    moving = (real_images / "rotating-squares.gif").read_bytes()
    queries = (
        "w=200&h=200",
        "trim&w=90",
        "w=90&h=90&fit=cover&gravity=attention&blur=4&sharpen",
        "sketch&w=90",
        "charcoal&w=90",
        "background=blur&w=90&h=90",
        "text=Hi&border=3&round&shadow",
        "w=90&q=auto",
        "w=90&max-bytes=20k",
        "tile=3x3,1,1&duotone=red,blue",
    )  # fmt: skip - a list

    def render_all():
        for query in queries:
            pictures.render(data, query.replace("round&", "round=4&"))
        pictures.render(moving, "w=40&fm=webp")
        works = works_of(data, ["w=300", "w=100"])
        pipeline.run_all(data, works)
        del works
        gc.collect()
        found = libvips.tracked()
        return found.memory, found.allocations, found.files

    assert render_all() == render_all()
