"""The originals that are measured: photograph-like pictures, drawn alike every time.

A real photograph costs what its details and its sensor's noise cost, so the pictures have both, in
such amounts that the files are as large as cameras and editors make them. Where photographs lie
beside the repository, some of them join.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyvips

from bench.service import ROOT

KEPT: Final = ROOT / "bench" / "results" / "corpus"
PHOTOGRAPHS: Final = ROOT.parent / "shared" / "fixtures"

_EDITION: Final = 1
"""Raise it when the pictures change: folders of older ones are then left alone."""
_REAL: Final = (
    "2569067123_aca715a2ee_o.jpg",  # 2725x2225
    "large.jpg",  # 1920x1080
    "jpg-24bit-icc-adobe-rgb.jpg",  # 1900x1263, with a profile
    "smart-crop.jpg",  # 700x1050
)

Save = Callable[[pyvips.Image], Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Pictures of one kind: their size, how they are saved, and (grain, detail) of each."""

    width: int
    height: int
    suffix: str
    save: Save
    looks: tuple[tuple[float, float], ...]


RECIPES: Final = {
    "jpeg12": Recipe(
        4000,
        3000,
        "jpg",
        lambda image: image.jpegsave_buffer(Q=90),
        ((2, 2.0), (3, 2.5), (4, 2.5), (5, 4.0)),
    ),
    "jpeg3": Recipe(
        2000,
        1500,
        "jpg",
        lambda image: image.jpegsave_buffer(Q=85),
        ((4, 3.0), (5, 4.0), (6, 5.0), (7, 4.0)),
    ),
    "png": Recipe(
        1200,
        800,
        "png",
        lambda image: image.pngsave_buffer(),
        ((0.6, 1.0), (0.8, 1.0), (1.0, 1.0), (1.2, 1.5)),
    ),
    "webp": Recipe(
        1600,
        1200,
        "webp",
        lambda image: image.webpsave_buffer(Q=80),
        ((2, 3.0), (3, 3.0), (4, 2.5), (2, 4.0)),
    ),
}


@dataclass(frozen=True, slots=True)
class Corpus:
    """A folder of originals, and the ids of each group in it."""

    folder: Path
    groups: dict[str, tuple[str, ...]]

    def read(self, key: str) -> bytes:
        return (self.folder / key).read_bytes()

    def copies(self, group: str, count: int) -> tuple[str, ...]:
        """So many originals of a group: equal ones have ids of their own, and so share nothing."""
        ids = self.groups[group]
        made = []
        for number in range(count):
            source = self.folder / ids[number % len(ids)]
            name = f"{group}-copies/{number}{source.suffix}"
            target = self.folder / name
            if not target.exists():
                target.parent.mkdir(exist_ok=True)
                try:
                    os.link(source, target)
                except OSError:
                    shutil.copyfile(source, target)
            made.append(name)
        return tuple(made)

    def summary(self) -> dict[str, dict[str, Any]]:
        """Files and mean kilobytes of each group."""
        return {
            group: {
                "files": len(ids),
                "mean_kb": round(
                    sum((self.folder / key).stat().st_size for key in ids) / len(ids) / 1000
                ),
            }
            for group, ids in self.groups.items()
        }


def make() -> Corpus:
    """Draw what is missing. A finished folder is used again."""
    version = ".".join(str(pyvips.version(part)) for part in range(3))
    digest = hashlib.sha256(f"{_EDITION} {version}".encode()).hexdigest()[:8]
    folder = KEPT / digest
    groups = {}
    for group, recipe in RECIPES.items():
        ids = []
        for number, (grain, detail) in enumerate(recipe.looks):
            key = f"{group}/{number}.{recipe.suffix}"
            target = folder / key
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                picture = draw(recipe.width, recipe.height, number, grain=grain, detail=detail)
                unfinished = target.with_suffix(".unfinished")
                unfinished.write_bytes(recipe.save(picture))
                unfinished.replace(target)
            ids.append(key)
        groups[group] = tuple(ids)
    real = []
    for name in _REAL:
        source, target = PHOTOGRAPHS / name, folder / "real" / name
        if source.exists() and not target.exists():
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
        if target.exists():
            real.append(f"real/{name}")
    if real:
        groups["real"] = tuple(real)
    return Corpus(folder, groups)


def draw(width: int, height: int, seed: int, *, grain: float, detail: float) -> pyvips.Image:
    """Shapes of several sizes under uneven light, fine texture here and there, and sensor noise."""
    image = pyvips.Image
    position = image.xyz(width, height)
    side = max(width, height)

    def clouds(cell: int, layer: int) -> pyvips.Image:
        return image.perlin(width, height, cell_size=cell, seed=seed * 31 + layer)

    def noise(layer: int) -> pyvips.Image:
        return image.gaussnoise(width, height, sigma=grain, mean=0, seed=seed * 31 + layer)

    light = position[0] * (20 / width) - position[1] * (70 / height) + 150
    shapes = clouds(side // 4, 1) * 50 + clouds(side // 12, 2) * 26 + clouds(side // 40, 3) * 14
    texture = (clouds(16, 4) * 12 + clouds(6, 5) * 6) * detail
    light = light + shapes + texture * (clouds(side // 6, 6) * 0.5 + 0.6)
    tint = clouds(side // 3, 7) * 22
    bands = [light + tint + noise(8), light + noise(9), light - tint + noise(10) + 12]
    return bands[0].bandjoin(bands[1:]).cast("uchar").copy(interpretation="srgb")
