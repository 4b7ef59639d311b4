"""python -m bench.worker [PHOTO] [OUT_DIR]: one photograph, and all that an image worker is asked.

A thumbnail, a smaller size, levels, normalisation, a sketch, a charcoal drawing, six tiles and a
collage, by `pixelmill transform`, and a sheet (PNG) of the results in that order.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Final

from app import samples
from app.cli import cli
from transforms import libvips

RESULTS: Final = {
    "thumb.jpg": "--w 200 --h 200 --background white --gravity center",
    "resize.jpg": "--w 800",
    "level.jpg": "--w 800 --level 10,90,1.2",
    "normalize.jpg": "--w 800 --normalize",
    "sketch.jpg": "--w 800 --sketch",
    "charcoal.jpg": "--w 800 --charcoal 2",
    "tile.jpg": "--w 900 --tile 3x2",
    "merge.jpg": "--merge {others} --across 2 --cell 400x300 --gap 10 --background white",
}
"""The files, and the options that make them. `others` are samples that are merged."""

_MERGED: Final = ("samples/portrait-rotated.jpg", "samples/landscape.jpg", "samples/emblem.png")
_SHOWN: Final = 300
"""Width and height in pixels of each result's place on the sheet."""
_COLUMNS: Final = 5


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.worker", description=__doc__)
    parser.add_argument("photo", nargs="?", type=Path, help="default: a drawn landscape")
    parser.add_argument("out", nargs="?", type=Path, metavar="OUT_DIR", help="default: a new one")
    options = parser.parse_args()
    out = options.out or Path(tempfile.mkdtemp(prefix="pixelmill-worker-"))
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder)
        samples.draw_samples(drawn)
        photo = options.photo or drawn / "samples/landscape.jpg"
        others = "|".join(str(drawn / name) for name in _MERGED)
        made = [file for name in RESULTS for file in work(photo, out / name, others=others)]
    sheet = out / "sheet.png"
    draw_sheet(made).pngsave(str(sheet))
    print(f"{len(made)} files of {len(RESULTS)} results; all on one sheet: {sheet}")


def work(photo: Path, target: Path, *, others: str) -> list[Path]:
    """Make one result, of one file or of several. Returns the files."""
    arguments = RESULTS[target.name].format(others=others).split()
    for file in files_of(target):
        file.unlink()
    if cli(["transform", str(photo), str(target), *arguments], standalone_mode=False):
        sys.exit(f"{target.name} could not be made")
    return files_of(target)


def files_of(target: Path) -> list[Path]:
    """The file of a result, or those of its tiles from left to right and down."""
    names = sorted(target.parent.glob(f"{target.stem}*{target.suffix}"))
    return sorted(names, key=lambda file: file.stem.split("-")[::-1])


def draw_sheet(files: list[Path]) -> libvips.Image:
    cells = [
        libvips.Image.thumbnail(str(file), _SHOWN, size="down")
        .colourspace("srgb")
        .gravity("centre", _SHOWN, _SHOWN, extend="background", background=[236, 236, 244])
        for file in files
    ]
    return libvips.Image.arrayjoin(cells, across=_COLUMNS, shim=6, background=255)


if __name__ == "__main__":
    main()
