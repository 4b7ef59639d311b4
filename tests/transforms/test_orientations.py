"""Every EXIF orientation with every flip and every rotation: each corner lands where it should.

The reference is a matrix for each step, of whole numbers. A picture is told by the colours of its
corners, or by a cell of each colour of a grid, and that is where its middle is looked up.
"""

from __future__ import annotations

from itertools import product

import pytest

from tests.transforms.pictures import (
    CORNERS,
    RED,
    flat,
    oriented,
    pages,
    quadrants,
    render,
    saved,
    seen,
)
from transforms.libvips import Image

Point = tuple[float, float]
Matrix = tuple[tuple[int, int], tuple[int, int]]
"""Takes a vector from the middle of a picture, x to the right and y down, to where it lies then."""

# EXIF 2.32, tag 0x0112: where the first row and the first column of what is stored are seen.
ORIENTATIONS: dict[int, Matrix] = {
    1: ((1, 0), (0, 1)),  # top, left
    2: ((-1, 0), (0, 1)),  # top, right
    3: ((-1, 0), (0, -1)),  # bottom, right
    4: ((1, 0), (0, -1)),  # bottom, left
    5: ((0, 1), (1, 0)),  # left, top
    6: ((0, -1), (1, 0)),  # right, top
    7: ((0, -1), (-1, 0)),  # right, bottom
    8: ((0, 1), (-1, 0)),  # left, bottom
}
FLIPS: dict[str, Matrix] = {
    "": ((1, 0), (0, 1)),
    "h": ((-1, 0), (0, 1)),
    "v": ((1, 0), (0, -1)),
    "hv": ((-1, 0), (0, -1)),
}
ROTATIONS: dict[int, Matrix] = {
    0: ((1, 0), (0, 1)),
    90: ((0, -1), (1, 0)),  # what was up points to the right
    180: ((-1, 0), (0, -1)),
    270: ((0, 1), (-1, 0)),
}
ALL = list(product(ORIENTATIONS, ROTATIONS, FLIPS))
SAMPLE = [combination for number, combination in enumerate(ALL) if number % 5 == 0]

WIDTH, HEIGHT = 96, 64


def times(second: Matrix, first: Matrix) -> Matrix:
    (a, b), (c, d) = second
    (e, f), (g, h) = first
    return (a * e + b * g, a * f + b * h), (c * e + d * g, c * f + d * h)


def moved(matrix: Matrix, point: Point) -> Point:
    """Where a point of a picture, in 0..1 from its top left, lies in the picture as it is seen."""
    x, y = point[0] - 0.5, point[1] - 0.5
    (a, b), (c, d) = matrix
    return a * x + b * y + 0.5, c * x + d * y + 0.5


def turned(matrix: Matrix, size: tuple[int, int]) -> tuple[int, int]:
    return size if matrix[0][0] else (size[1], size[0])


def whole(orientation: int, rotate: int, flip: str) -> Matrix:
    """Upright, then mirrored, then rotated."""
    return times(ROTATIONS[rotate], times(FLIPS[flip], ORIENTATIONS[orientation]))


def asked(rotate: int, flip: str) -> str:
    return f"rotate={rotate}" + (f"&flip={flip}" if flip else "")


def size_of(image: Image) -> tuple[int, int]:
    return image.width, image.height


def colour_at(image: Image, point: Point) -> list[float]:
    """The colour at a point in 0..1."""
    at = (min(int(part * side), side - 1) for part, side in zip(point, size_of(image), strict=True))
    return list(image(*at))[:3]


def is_colour(colour: list[float], other: list[int]) -> bool:
    return max(abs(a - b) for a, b in zip(colour, other, strict=True)) <= 12


QUARTERS: list[Point] = [(0.25, 0.25), (0.75, 0.25), (0.25, 0.75), (0.75, 0.75)]
"""The middles of what `quadrants` paints in the colours of `CORNERS`."""


def assert_quarters(image: Image, matrix: Matrix) -> None:
    for point, colour in zip(QUARTERS, CORNERS, strict=True):
        assert is_colour(colour_at(image, moved(matrix, point)), colour), (point, colour)
        # The very corner too: nothing is shifted, and nothing of it is cut off.
        corner = (round(point[0]), round(point[1]))
        assert is_colour(colour_at(image, moved(matrix, corner)), colour), (corner, colour)


FILES = {
    (fm, orientation): saved(oriented(quadrants(WIDTH, HEIGHT), orientation), fm)
    for fm in ("jpeg", "png")
    for orientation in ORIENTATIONS
}


@pytest.mark.parametrize("fm", ["jpeg", "png"])
@pytest.mark.parametrize(("orientation", "rotate", "flip"), ALL)
def test_each_corner_lands_where_it_should(
    orientation: int, rotate: int, flip: str, fm: str
) -> None:
    matrix = whole(orientation, rotate, flip)
    image = seen(FILES[fm, orientation], asked(rotate, flip))
    assert size_of(image) == turned(matrix, (WIDTH, HEIGHT))
    assert_quarters(image, matrix)
    assert image.get_typeof("orientation") == 0  # nobody turns it again


@pytest.mark.parametrize(("orientation", "rotate", "flip"), ALL)
def test_so_it_does_in_another_size(orientation: int, rotate: int, flip: str) -> None:
    matrix = whole(orientation, rotate, flip)
    # 96x64 in a box of 24x24: both sizes come from shrinking while decoding.
    image = seen(FILES["jpeg", orientation], f"w=24&h=24&fit=inside&{asked(rotate, flip)}")
    assert size_of(image) == turned(matrix, (24, 16))
    assert_quarters(image, matrix)

    image = seen(FILES["png", orientation], f"w=30&h=50&fit=fill&{asked(rotate, flip)}")
    assert size_of(image) == (30, 50)
    assert_quarters(image, matrix)


# A grid of cells: which of them are kept, and where.

COLUMNS, ROWS, CELL = 6, 4, 16
SHADES = [0, 50, 100, 150, 200, 250]


def grid() -> Image:
    """A picture of cells whose red says the column and whose green says the row."""
    cells = [
        flat(SHADES[column], SHADES[row], 128, width=CELL, height=CELL)
        for row in range(ROWS)
        for column in range(COLUMNS)
    ]
    return Image.arrayjoin(cells, across=COLUMNS).copy_memory()


GRIDS = {orientation: saved(oriented(grid(), orientation), "png") for orientation in ORIENTATIONS}


def cells_of(image: Image) -> list[list[tuple[int, int]]]:
    """The column and row of each cell, as they are seen."""

    def cell(left: int, top: int) -> tuple[int, int]:
        red, green, _ = image(left + CELL // 2, top + CELL // 2)
        return SHADES.index(red), SHADES.index(green)

    return [
        [cell(left, top) for left in range(0, image.width, CELL)]
        for top in range(0, image.height, CELL)
    ]


def laid(matrix: Matrix) -> list[list[tuple[int, int]]]:
    """What `cells_of` finds in a grid that is laid so."""
    across, down = turned(matrix, (COLUMNS, ROWS))
    rows = [[(0, 0)] * across for _ in range(down)]
    for column, row in product(range(COLUMNS), range(ROWS)):
        x, y = moved(matrix, ((column + 0.5) / COLUMNS, (row + 0.5) / ROWS))
        rows[int(y * down)][int(x * across)] = column, row
    return rows


def part(cells: list[list[tuple[int, int]]], left: int, top: int, width: int, height: int):
    return [row[left : left + width] for row in cells[top : top + height]]


def turn_cells(cells: list[list[tuple[int, int]]], matrix: Matrix) -> list[list[tuple[int, int]]]:
    """Cells that were upright, as they are seen then."""
    height, width = len(cells), len(cells[0])
    across, down = turned(matrix, (width, height))
    rows = [[(0, 0)] * across for _ in range(down)]
    for column, row in product(range(width), range(height)):
        x, y = moved(matrix, ((column + 0.5) / width, (row + 0.5) / height))
        rows[int(y * down)][int(x * across)] = cells[row][column]
    return rows


@pytest.mark.parametrize(("orientation", "rotate", "flip"), SAMPLE)
def test_a_crop_is_of_the_upright_picture(orientation: int, rotate: int, flip: str) -> None:
    upright = laid(ORIENTATIONS[orientation])
    after = times(ROTATIONS[rotate], FLIPS[flip])
    for left, top, width, height in ((0, 0, 2, 1), (1, 2, 3, 2), (3, 1, 1, 3)):
        expected = turn_cells(part(upright, left, top, width, height), after)
        box = ",".join(str(CELL * number) for number in (left, top, width, height))
        image = seen(GRIDS[orientation], f"crop={box}&{asked(rotate, flip)}")
        assert cells_of(image) == expected

        # Resized as well, to half and back to what can be compared.
        size = f"w={image.width // 2}&h={image.height // 2}&fit=fill"
        half = seen(GRIDS[orientation], f"crop={box}&{asked(rotate, flip)}&{size}")
        assert cells_of(half.zoom(2, 2)) == expected


@pytest.mark.parametrize(("orientation", "rotate", "flip"), SAMPLE)
@pytest.mark.parametrize("focus", [(0.125, 0.125), (0.75, 0.25), (0.5, 0.9)])
def test_a_focal_point_is_of_the_picture_as_it_is_seen(
    focus: Point, orientation: int, rotate: int, flip: str
) -> None:
    seen_whole = laid(whole(orientation, rotate, flip))
    across, down = len(seen_whole[0]), len(seen_whole)
    gravity = f"gravity={focus[0]},{focus[1]}"
    # As high as the picture and half as wide: the columns round the focal point stay.
    query = f"w={CELL * across // 2}&h={CELL * down}&fit=cover&{gravity}&{asked(rotate, flip)}"
    image = seen(GRIDS[orientation], query)
    assert size_of(image) == (CELL * across // 2, CELL * down)
    left = min(max(CELL * across * focus[0] - image.width / 2, 0), CELL * across - image.width)
    for row in range(down):
        for x in range(0, image.width, 4):
            expected = seen_whole[row][int(left + x + 0.5) // CELL]
            red, green, _ = image(x, row * CELL + CELL // 2)
            assert (SHADES.index(red), SHADES.index(green)) == expected


# Animations have no orientation of their own; one can be asked for.


def moving(fm: str) -> bytes:
    """Two frames of quarters, of which the second has another colour at its top left."""
    first = quadrants(WIDTH, HEIGHT)
    second = first.insert(flat(*RED[::-1], width=8, height=8), 0, 0).copy_memory()
    return pages([first, second], fm)


MOVING = {fm: moving(fm) for fm in ("gif", "webp")}
TURNS = [(orient, rotate, flip) for orient in (1, 6) for rotate, flip in product(ROTATIONS, FLIPS)]


@pytest.mark.parametrize("fm", MOVING)
@pytest.mark.parametrize(("orient", "rotate", "flip"), TURNS)
def test_all_frames_of_an_animation_turn(fm: str, orient: int, rotate: int, flip: str) -> None:
    matrix = whole(orient, rotate, flip)
    query = f"{asked(rotate, flip)}&orient={orient}" + ("&lossless=1" if fm == "webp" else "")
    for size, resize in (((WIDTH, HEIGHT), ""), ((48, 32), "&w=48&h=48&fit=inside")):
        data = render(MOVING[fm], query + resize, fm=fm).data
        strip = Image.new_from_buffer(data, "", n=-1).copy_memory()
        width, height = turned(matrix, size)
        assert (strip.get("n-pages"), strip.get("page-height")) == (2, height)
        first, second = (strip.crop(0, top, width, height) for top in (0, height))
        assert_quarters(first, matrix)
        marked = moved(matrix, (4 / WIDTH, 4 / HEIGHT))
        assert is_colour(colour_at(second, marked), RED[::-1])
        for point, colour in zip(QUARTERS, CORNERS, strict=True):
            assert is_colour(colour_at(second, moved(matrix, point)), colour)


@pytest.mark.parametrize(("rotate", "flip"), list(product(ROTATIONS, FLIPS)))
def test_a_crop_and_a_cover_take_the_same_of_every_frame(rotate: int, flip: str) -> None:
    after = whole(1, rotate, flip)
    query = f"crop={WIDTH // 2},0,{WIDTH // 2},{HEIGHT}&w=20&h=20&fit=cover&{asked(rotate, flip)}"
    data = render(MOVING["gif"], query, fm="gif").data
    strip = Image.new_from_buffer(data, "", n=-1).copy_memory()
    # The right half is green above yellow. What differs between the frames is cut off.
    assert (strip.get("n-pages"), strip.get("page-height")) == (2, 20)
    for top in range(0, strip.height, 20):
        frame = strip.crop(0, top, 20, 20)
        for point, colour in (((0.5, 0.1), CORNERS[1]), ((0.5, 0.9), CORNERS[3])):
            assert is_colour(colour_at(frame, moved(after, point)), colour)
