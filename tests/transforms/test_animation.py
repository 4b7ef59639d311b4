"""Animations: every frame is made, and moves on as it did."""

from __future__ import annotations

import pytest

from tests.transforms.pictures import (
    BLUE,
    GREEN,
    RED,
    flat,
    noise,
    opened,
    pages,
    quadrants,
    render,
    saved,
)
from transforms import pipeline
from transforms.bitmap import Bitmap
from transforms.errors import InvalidOption, SourceTooLarge
from transforms.libvips import Image, MetadataType
from transforms.limits import Limits
from transforms.shapes import Size
from transforms.transform import Transform

BANANA, LOOPS, SQUARES = "dancing-banana.gif", "animated-loop-3.gif", "rotating-squares.gif"
DISPOSED, WEBP = "dispose-background.gif", "dancing_banana2.lossless.webp"
REAL = (LOOPS, SQUARES, DISPOSED)
MOVING = ("gif", "webp")
THREE = pages([flat(*ink, width=40, height=30) for ink in (RED, GREEN, BLUE)], "gif")


def all_of(data):
    """All frames of a file, one above the other."""
    moves = data[:3] == b"GIF" or data[8:12] == b"WEBP"
    return Image.new_from_buffer(data, "", **({"n": -1} if moves else {})).copy_memory()


def frames_of(data):
    """The frames of a file, one by one, in colours with transparency."""
    tall = all_of(data)
    height = tall.get("page-height") if tall.get_typeof("page-height") else tall.height
    tall = tall.colourspace("srgb")
    tall = (tall if tall.hasalpha() else tall.addalpha()).copy_memory()
    return [tall.crop(0, at, tall.width, height) for at in range(0, tall.height, height)]


def timing_of(data):
    """How long each frame is shown in ms, and how often all are repeated."""
    image = all_of(data)
    count = image.get("n-pages") if image.get_typeof("n-pages") else 1
    return image.get("delay")[:count], image.get("loop")


def without_repetition(data):
    """The frames of a file and how long each is seen in ms: equal ones in a row are one."""
    seen = []
    for frame, delay in zip(frames_of(data), timing_of(data)[0], strict=True):
        if seen and (frame - seen[-1][0]).abs().max() == 0:
            seen[-1] = (frame, seen[-1][1] + delay)
        else:
            seen.append((frame, delay))
    return seen


def size_of(image):
    return image.width, image.height


def near(pixel, colour, by=12):
    return all(abs(a - b) <= by for a, b in zip(pixel, colour, strict=False))


def middle(frame):
    return frame(frame.width // 2, frame.height // 2)


# What moves goes on moving.


@pytest.mark.parametrize("fm", MOVING)
@pytest.mark.parametrize("name", [*REAL, WEBP])
def test_frames_delays_and_loops_are_those_of_the_original(real_images, name, fm):
    data = (real_images / name).read_bytes()
    made = render(data, "w=90&effort=0", fm=fm).data
    expected = without_repetition(data)
    if fm == "gif":
        assert timing_of(made) == timing_of(data)
    else:  # the encoder makes one frame of equal ones
        assert timing_of(made) == ([delay for _, delay in expected], timing_of(data)[1])
    # Every frame is that of the original, as a viewer shows it.
    exact = without_repetition(
        render(data, "w=90&background=white&lossless=1&effort=0", fm="webp").data
    )
    for (frame, _), (original, _) in zip(exact, expected, strict=True):
        small = original.thumbnail_image(frame.width, height=frame.height, size="force")
        assert (frame[:3] - small.flatten(background=255)).abs().avg() < 3


def test_a_large_animation_is_made_within_its_bounds(real_images):
    data = (real_images / BANANA).read_bytes()
    made = render(data, "w=66&effort=0", fm="gif")
    assert (made.width, made.height) == (66, 70)
    assert timing_of(made.data) == ([100] * 8, 0)


@pytest.mark.parametrize("fm", MOVING)
def test_frames_may_last_unequally_long(fm):
    tall = Image.arrayjoin([flat(*ink) for ink in (RED, GREEN, BLUE)], across=1).copy()
    tall.set_type(MetadataType.INTEGER, "page-height", 16)
    tall.set_type(MetadataType.INTEGERS, "delay", [50, 200, 1000])
    tall.set_type(MetadataType.INTEGER, "loop", 4)
    made = render(saved(tall, fm), "w=12", fm="gif")
    assert timing_of(made.data) == ([50, 200, 1000], 4)
    part = render(saved(tall, fm), "page=1&frames=2", fm="webp")
    assert timing_of(part.data)[0] == [200, 1000]


def test_without_a_format_what_moves_becomes_a_gif():
    assert render(THREE, fm="auto").format.name == "gif"
    assert render(THREE, "frames=1", fm="auto").format.name == "jpeg"
    assert render(THREE, "page=1", fm="auto").format.name == "jpeg"
    assert render(THREE, fm="same").format.name == "gif"


@pytest.mark.parametrize("fm", ["jpeg", "png", "avif", "tiff"])
def test_what_stands_still_has_the_first_frame(fm):
    made = render(THREE, "w=20", fm=fm)
    image = opened(made.data)
    assert size_of(image) == (20, 15)
    assert not image.get_typeof("n-pages") or image.get("n-pages") == 1
    assert near(middle(image), RED)


@pytest.mark.parametrize(
    ("query", "colours"),
    [
        ("", [RED, GREEN, BLUE]),
        ("frames=2", [RED, GREEN]),
        ("frames=99", [RED, GREEN, BLUE]),
        ("frames=1", [RED]),
        ("page=1", [GREEN]),
        ("page=1&frames=5", [GREEN, BLUE]),
        ("page=2&frames=1", [BLUE]),
    ],
)
def test_page_and_frames_choose(query, colours):
    for fm in MOVING:
        frames = frames_of(render(THREE, query, fm=fm).data)
        assert len(frames) == len(colours)
        assert all(near(middle(f), c) for f, c in zip(frames, colours, strict=True))
    assert near(middle(opened(render(THREE, query, fm="png").data)), colours[0])


# Each frame is transformed as a still picture is.


@pytest.mark.parametrize(
    "query",
    [
        "w=20&h=20",
        "w=20&h=10&fit=cover&gravity=east",
        "rotate=90&flip=h&w=15",
        "crop=10,10,20,15&padding=3&background=gold",
        "grayscale=1&brightness=10&blur=2",
        "pixelate=5&saturation=40",
        "round=8",
        "border=2,lime&round=full",
        "shadow=3,3,4,00f",
        "background=blur&w=30&h=30",
        "opacity=0.5",
        "tile=2x2,1,0",
        "trim=10,fff&w=20",
        "max-w=25&padding=10",
    ],
)
def test_each_frame_is_what_a_still_of_it_would_be(query):
    images = [quadrants(40, 30), quadrants(40, 30).rot180(), noise(40, 30)]
    data = pages(images, "webp")
    made = render(data, f"{query}&lossless=1", fm="webp")
    frames = frames_of(made.data)
    assert [size_of(frame) for frame in frames] == [(made.width, made.height)] * 3
    for frame, image in zip(frames, images, strict=True):
        still = opened(render(saved(image, "webp"), query).data).colourspace("srgb")
        still = still if still.hasalpha() else still.addalpha()
        assert size_of(still) == size_of(frame)
        # The colour of what cannot be seen is the encoder's own business.
        shown = frame.premultiply() - still.premultiply()
        assert shown.abs().max() <= 1


def test_a_watermark_is_on_every_frame():
    query = "watermark=m,gravity=northwest&fm=webp&lossless=1"
    transform = Transform.from_query(query)
    image = flat(9, 200, 9, 255, width=8, height=8).copy_memory()
    mark = Bitmap(image=image, size=Size(8, 8))
    work = pipeline.prepare(THREE, transform, Limits(), marks={"m": mark})
    frames = frames_of(pipeline.run(THREE, work).data)
    assert [frame(4, 4) for frame in frames] == [[9, 200, 9, 255]] * 3
    assert all(near(frame(20, 20), c) for frame, c in zip(frames, (RED, GREEN, BLUE), strict=True))


def test_what_catches_the_eye_in_the_first_frame_decides_for_all():
    grey = flat(120, 120, 120, width=90, height=30)
    left, right = grey.insert(quadrants(20, 20), 4, 5), grey.insert(quadrants(20, 20), 66, 5)
    data = pages([left, right, flat(120, 120, 121, width=90, height=30)], "webp")
    query = "w=30&h=30&fit=cover&gravity=attention&lossless=1"
    first, second, third = frames_of(render(data, query, fm="webp").data)
    assert first[:3].deviate() > 30
    assert (second - third).abs().max() <= 1  # what is on the right is out of sight


FADE = pages([quadrants(40, 30).linear(by, 90).cast("uchar") for by in (0.2, 0.1, 0.05)], "webp")


@pytest.mark.parametrize("look", ["normalize", "sketch", "charcoal=1"])
def test_contrast_is_stretched_as_the_first_frame_needs_it(look):
    def spread(picture):
        grey = picture[:3].colourspace("b-w")
        return grey.max() - grey.min()

    first, second, third = (
        spread(frame) for frame in frames_of(render(FADE, f"{look}&lossless=1", fm="webp").data)
    )
    assert first > 150
    assert first * 0.35 < second < first * 0.75
    assert third < second * 0.75


def test_the_background_is_that_of_the_first_frame():
    data = pages([flat(*ink, width=40, height=20) for ink in (RED, GREEN)], "webp")
    query = "w=40&h=40&background=auto&lossless=1"
    for frame in frames_of(render(data, query, fm="webp").data):
        assert near(frame(2, 2)[:3], RED, 4)


def test_equal_frames_in_a_row_may_become_one_but_are_seen_as_long():
    images = [flat(*ink, width=40, height=30) for ink in (RED, RED, RED, GREEN, GREEN, BLUE)]
    tall = Image.arrayjoin(images, across=1).copy()
    tall.set_type(MetadataType.INTEGER, "page-height", 30)
    tall.set_type(MetadataType.INTEGERS, "delay", [50, 60, 70, 80, 90, 100])
    data = saved(tall, "gif", keep_duplicate_frames=True)
    assert timing_of(render(data, fm="gif").data)[0] == [50, 60, 70, 80, 90, 100]
    assert timing_of(render(data, fm="webp").data)[0] == [180, 170, 100]


def test_tiles_of_all_frames_make_the_whole():
    images = [quadrants(41, 31), noise(41, 31)]
    data = pages(images, "webp")
    parts = [
        frames_of(render(data, f"tile=3x2,{x},{y}&lossless=1", fm="webp").data)
        for y in range(2)
        for x in range(3)
    ]
    for number, image in enumerate(images):
        rows = [
            parts[3 * y][number].join(parts[3 * y + 1][number], "horizontal")
            .join(parts[3 * y + 2][number], "horizontal")
            for y in range(2)
        ]  # fmt: skip
        whole = rows[0].join(rows[1], "vertical")
        assert (whole[:3] - image).abs().max() == 0


# Bounds.


def test_too_many_frames_are_refused():
    with pytest.raises(SourceTooLarge, match="ask for fewer frames"):
        render(THREE, fm="gif", limits=Limits(frames=2))
    assert len(frames_of(render(THREE, "frames=2", fm="gif", limits=Limits(frames=2)).data)) == 2
    with pytest.raises(SourceTooLarge):
        render(THREE, "page=2", fm="gif", limits=Limits(frames=2))  # those before are decoded too
    assert render(THREE, fm="png", limits=Limits(frames=2))


def test_pixels_of_all_frames_count_together():
    with pytest.raises(SourceTooLarge, match="40x30 x 3 frames"):
        render(THREE, fm="gif", limits=Limits(source_pixels=3599))
    with pytest.raises(InvalidOption, match="40x30 x 3 frames") as told:
        render(THREE, fm="gif", limits=Limits(result_pixels=3599))
    assert told.value.param == "w"
    assert render(THREE, fm="png", limits=Limits(source_pixels=1200, result_pixels=1200))
    assert render(THREE, fm="gif", limits=Limits(source_pixels=3600, result_pixels=3600))


def test_a_page_beyond_the_last_is_refused():
    for query in ("page=3", "page=3&frames=2"):
        with pytest.raises(InvalidOption, match="has 3 pages"):
            render(THREE, query, fm="gif")


def test_stills_and_animations_of_one_original_do_not_mix():
    works = [
        pipeline.prepare(THREE, Transform.from_query(query), Limits())
        for query in ("fm=gif&w=20", "fm=png&w=20", "fm=webp&page=1&frames=2", "fm=gif&frames=1")
    ]
    made = pipeline.run_all(THREE, works)
    assert [len(frames_of(one.data)) for one in made] == [3, 1, 2, 1]
    for one, work in zip(made, works, strict=True):
        alone = pipeline.run(THREE, work)
        assert [middle(f) for f in frames_of(one.data)] == [
            middle(f) for f in frames_of(alone.data)
        ]
