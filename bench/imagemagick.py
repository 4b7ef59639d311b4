"""python -m bench.imagemagick [PHOTO] [--sheet FILE]: the same operations by ImageMagick, compared.

Prints how far apart the results are and writes a sheet (PNG) with ImageMagick's to the left and
ours to the right. Needs ImageMagick (Debian: `apt-get install imagemagick`).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from app import samples
from transforms import effects, libvips, pipeline, tone
from transforms.limits import Limits
from transforms.transform import Transform
from transforms.values import Colour

WIDTH: Final = 800
"""To how many pixels the photograph is shrunk before anything is done to it."""
SHOWN: Final = 400
"""Width in pixels of each result on the sheet."""
VISIBLE: Final = 16
"""The difference (0..255) from which on a pixel counts as different."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photo:
    """What both work on: the pixels, and the same as a PNG."""

    image: libvips.Image
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An operation: ImageMagick's arguments, and a function that makes the same results."""

    name: str
    arguments: str
    ours: Callable[[Photo], Sequence[libvips.Image]]


def direct(name: str, arguments: str, function: Callable[..., libvips.Image], **options) -> Case:
    """A case of one function of the picture."""
    return Case(
        name=name, arguments=arguments, ours=lambda photo: [function(photo.image, **options)]
    )


def rendered(name: str, arguments: str, *queries: str, merges: bool = False) -> Case:
    """A case of one or several results of the whole pipeline. Merged are the photo's `parts`."""

    def ours(photo: Photo) -> Sequence[libvips.Image]:
        data = photo.path.read_bytes()
        others = [part.pngsave_buffer(compression=1) for part in parts(photo)] if merges else []
        results = []
        for query in queries:
            transform = Transform.from_query(query).with_output("png")
            work = pipeline.prepare(data, transform, Limits(), others=others)
            made = pipeline.run(data, work).data
            results.append(as_colour(libvips.Image.pngload_buffer(made)))
        return results

    return Case(name=name, arguments=arguments, ours=ours)


def parts(photo: Photo) -> list[libvips.Image]:
    """Pictures of other sizes to merge with the photo."""
    return [
        photo.image.crop(0, 0, 300, 200),
        photo.image.rot90(),
        photo.image.crop(100, 50, 200, 400),
    ]


_PARTS: Final = (
    "( -clone 0 -crop 300x200+0+0 +repage ) ( -clone 0 -rotate 90 ) "
    "( -clone 0 -crop 200x400+100+50 +repage )"
)
"""ImageMagick's `parts`."""

CASES: Final = (
    rendered(
        "thumb",
        "-thumbnail 200x200 -background white -gravity center -extent 200x200",
        "w=200&h=200",
    ),
    rendered("resize w", "-resize 400x", "w=400"),
    rendered("resize h", "-resize x301", "h=301"),
    rendered(
        "tile",
        "-crop 3x2@ +repage",
        *(f"tile=3x2,{column},{row}" for row in range(2) for column in range(3)),
    ),
    rendered(
        "merge",
        f"{_PARTS} -background white ( -clone 0,1 +append ) ( -clone 2,3 +append ) "
        "-delete 0-3 -append",
        "merge=a|b|c&across=2",
        merges=True,
    ),
    rendered(
        "merge row",
        f"{_PARTS} -background white +append",
        "merge=a|b|c&across=4",
        merges=True,
    ),
    rendered(
        "merge column",
        f"{_PARTS} -background white -append",
        "merge=a|b|c&across=1",
        merges=True,
    ),
    direct("level", "-level 10%,90%,1.2", tone.level, black=10, white=90, gamma=1.2),
    direct("normalize", "-normalize", tone.normalize),
    direct("gamma", "-gamma 1.5", tone.gamma, exponent=1.5),
    direct("brightness", "-brightness-contrast 20x0", tone.brightness, amount=20),
    direct("contrast", "-function polynomial 1.5,-0.25", tone.contrast, amount=50),
    direct(
        "saturation",
        "-color-matrix .6063,.3576,.0361,.1063,.8576,.0361,.1063,.3576,.5361",
        tone.saturation,
        amount=-50,
    ),
    direct("grayscale", "-colorspace Gray", tone.grayscale),
    direct(
        "sepia",
        "-color-matrix .393,.769,.189,.349,.686,.168,.272,.534,.131",
        tone.sepia,
        amount=100,
    ),
    direct(
        "duotone",
        "-colorspace Gray +level-colors rgb(25,37,80),rgb(255,213,0)",
        tone.duotone,
        dark=Colour(25, 37, 80),
        light=Colour(255, 213, 0),
    ),
    direct("negate", "-negate", tone.invert),
    direct("blur 0.5", "-blur 0x0.5", effects.blur, sigma=0.5),
    direct("blur 3", "-blur 0x3", effects.blur, sigma=3),
    direct("blur 40", "-blur 0x40", effects.blur, sigma=40),
    direct("unsharp", "-unsharp 0x1+1+0.02", effects.sharpen, sigma=1, amount=1, threshold=0.02),
    direct("sketch", "-edge 1 -negate -normalize -colorspace Gray -blur 0x.5", effects.sketch),
    direct("charcoal 1", "-charcoal 1", effects.charcoal, sigma=1),
    direct("charcoal 2", "-charcoal 2", effects.charcoal, sigma=2),
    direct("charcoal 5", "-charcoal 5", effects.charcoal, sigma=5),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.imagemagick", description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, help="default: a drawn landscape")
    parser.add_argument("--sheet", type=Path, metavar="FILE", help="where the sheet goes")
    options = parser.parse_args()
    command = find_imagemagick()
    if command is None:
        raise SystemExit("There is no ImageMagick here, so there is nothing to compare with.")
    version = subprocess.run([command, "-version"], capture_output=True, text=True, check=True)
    print(version.stdout.splitlines()[0])
    with tempfile.TemporaryDirectory() as folder:
        photo = load(options.photo, Path(folder))
        cells = [cell for case in CASES for cell in compare(case, photo, command, Path(folder))]
    sheet = options.sheet or Path(tempfile.mkstemp(prefix="imagemagick-", suffix=".png")[1])
    libvips.Image.arrayjoin(cells, across=2, shim=4, background=255).pngsave(str(sheet))
    print(f"ImageMagick's to the left, ours to the right: {sheet}")


def find_imagemagick() -> str | None:
    """The real program. Another that is only called `convert` may come first on the path."""
    if Path("/usr/bin/convert").exists():
        return "/usr/bin/convert"
    return shutil.which("magick")


def load(path: Path | None, folder: Path) -> Photo:
    """The photograph, small and without its metadata, which both would treat in their own way."""
    if path:
        image = libvips.Image.thumbnail(str(path), WIDTH, height=10_000_000, size="down")
    else:
        image = samples.landscape(WIDTH, WIDTH * 2 // 3)
    image = image.copy_memory()
    image.pngsave(str(folder / "photo.png"), compression=1, keep="none")
    return Photo(image=image, path=folder / "photo.png")


def compare(case: Case, photo: Photo, command: str, folder: Path) -> list[libvips.Image]:
    """Print how far apart the results are, and give back their places on the sheet."""
    prefix = f"{case.name}-".replace(" ", "-")
    pattern = folder / f"{prefix}%03d.png"
    # 16 bits, because ImageMagick rounds down where it writes 8.
    arguments = [str(photo.path), *case.arguments.split(), "-depth", "16", "+adjoin", str(pattern)]
    subprocess.run([command, *arguments], check=True)
    theirs = [read(path) for path in sorted(folder.glob(f"{prefix}*.png"))]
    ours = [as_colour(image) for image in case.ours(photo)]
    sizes = [[(image.width, image.height) for image in images] for images in (theirs, ours)]
    if sizes[0] != sizes[1]:
        print(f"{case.name:<12} sizes differ: theirs {sizes[0]}, ours {sizes[1]}")
    else:
        difference = beside([(a - b).abs() for a, b in zip(theirs, ours, strict=True)])
        visible = (difference > VISIBLE).bandor().avg() / 255
        print(
            f"{case.name:<12} sizes equal, mean difference {difference.avg():.2f}, "
            f"different pixels {visible:.2%}"
        )
    return [beside(images).thumbnail_image(SHOWN) for images in (theirs, ours)]


def read(path: Path) -> libvips.Image:
    image = libvips.Image.new_from_file(str(path))
    if image.format == "ushort":
        alike = "b-w" if image.bands < 3 else "srgb"
        image = (image / 257).rint().cast("uchar").copy(interpretation=alike)
    return as_colour(image)


def as_colour(image: libvips.Image) -> libvips.Image:
    """What is seen of it on white, in three bands and in memory."""
    if image.hasalpha():
        image = image.flatten(background=255)
    return (image if image.bands == 3 else image.colourspace("srgb")).copy_memory()


def beside(images: Sequence[libvips.Image]) -> libvips.Image:
    return libvips.Image.arrayjoin(list(images), across=len(images))


if __name__ == "__main__":
    main()
