"""The likeness of `transforms.likeness` beside SSIMULACRA 2, on real photographs.

    python -m bench.calibrate [--photographs FOLDER] [--tool PROGRAM] [--quick]

Fits the constants of that module, tells how far its scores are from those of the program, and then
whether what `transforms.aim` chooses keeps its promise. Errors are of pictures that the constants
were not fitted to: each photograph in turn is left out. It takes some minutes.
"""

from __future__ import annotations

import argparse
import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.report import Report, Verdict, middle, percentile, save
from bench.service import ROOT, processors
from transforms import likeness
from transforms.aim import MOST_ENCODES, STEP, fit_bytes, reach_target
from transforms.encode import DEFAULT_QUALITY
from transforms.libvips import Image

_PROGRAMS: Final = ("ssimulacra2_rs", "ssimulacra2")
_MISSING: Final = """\
No SSIMULACRA 2 was found. Either of these is one; put it on PATH or name it with --tool:
  cargo install ssimulacra2_rs --no-default-features
  the program ssimulacra2 of https://github.com/cloudinary/ssimulacra2"""

_QUALITIES: Final = {
    "jpeg": (30, 45, 60, 70, 80, 87, 92, 95),
    "webp": (30, 45, 60, 70, 80, 87, 92, 95),
    "avif": (20, 30, 40, 50, 60, 70, 80, 90),
}
_TARGETS: Final = (70, 80, 90)
_PROMISED: Final = 20
_SHARES: Final = (0.8, 0.5, 0.25)
"""Budgets of bytes, as parts of the file at the usual quality."""
_LOWEST: Final = 35.0
"""Scores below this are of no use to anyone and are left out of the fit."""
_JUDGED: Final = 60.0
_MEAN_ERROR: Final = 1.5

_PICTURES: Final[dict[str, tuple[tuple[tuple[float, ...] | None, int], ...]]] = {
    "2569067123_aca715a2ee_o.jpg": (
        (None, 300),
        (None, 800),
        (None, 1200),
        ((0.3, 0.3, 0.4, 0.4), 600),
    ),
    "large.jpg": ((None, 400), (None, 1000), ((0.2, 0.4, 0.5, 0.6), 700)),
    "imaginary.jpg": ((None, 300), (None, 500)),
    "smart-crop.jpg": ((None, 300), (None, 600), ((0.1, 0.0, 0.8, 0.5), 500)),
    "Landscape_1.jpg": ((None, 300), (None, 500)),
    "Portrait_1.jpg": ((None, 320),),
    "4.webp": ((None, 300), (None, 640), (None, 900), ((0.2, 0.2, 0.5, 0.5), 400)),
    "gain-map.jpg": ((None, 400), (None, 1200), ((0.2, 0.3, 0.5, 0.5), 800)),
    "jpg-24bit-icc-adobe-rgb.jpg": (
        (None, 300),
        (None, 700),
        (None, 1100),
        ((0.3, 0.1, 0.4, 0.7), 500),
    ),
    "Channel_digital_image_CMYK_color.jpg": ((None, 300), (None, 450)),
}
"""Photographs, the part of each that is used (x, y, width, height in 0..1), and its width."""


@dataclass(frozen=True, slots=True)
class Picture:
    photograph: str
    name: str
    pixels: Image


@dataclass(frozen=True, slots=True)
class Sample:
    """One encoding: its differences by our measure, and its score by the program."""

    photograph: str
    format: str
    quality: int
    differences: tuple[float, ...]
    real: float


Constants = list[float]
"""Logarithms: of the weights of coarse luma and chroma, and of the three formats' factors."""


class Judge:
    """The program: gives the score of a file beside the pixels it was made from."""

    def __init__(self, program: str) -> None:
        self._command = [program, "image"] if program.endswith("_rs") else [program]

    def score(self, pixels: Image, data: bytes) -> float:
        with tempfile.TemporaryDirectory() as folder:
            files = [str(Path(folder) / name) for name in ("reference.png", "encoded.png")]
            for image, file in zip((pixels, decode(data)), files, strict=True):
                image.pngsave(file, compression=0, keep="none")
            done = subprocess.run(
                [*self._command, *files], capture_output=True, text=True, check=True
            )
        found = re.search(r"(-?\d+\.\d+)\s*$", done.stdout)
        assert found, done.stdout
        return float(found[1])


def encode(image: Image, fm: str, quality: int) -> bytes:
    match fm:
        case "jpeg":
            return bytes(image.jpegsave_buffer(Q=quality, optimize_coding=True, keep="none"))
        case "webp":
            return bytes(image.webpsave_buffer(Q=quality, effort=2, keep="none"))
        case _:
            return bytes(image.heifsave_buffer(Q=quality, compression="av1", effort=2, keep="none"))


def decode(data: bytes) -> Image:
    return Image.new_from_buffer(data, "").copy_memory()


def take_pictures(folder: Path, *, quick: bool) -> list[Picture]:
    """The pictures, in sRGB."""
    pictures = []
    for photograph, parts in _PICTURES.items():
        image = Image.new_from_file(str(folder / photograph)).autorot()
        if image.get_typeof("icc-profile-data"):
            image = image.icc_transform("srgb", embedded=True, intent="relative")
        image = image.colourspace("srgb").copy_memory()
        for part, width in parts[:1] if quick else parts:
            x, y, across, down = part or (0.0, 0.0, 1.0, 1.0)
            shape = (x * image.width, y * image.height, across * image.width, down * image.height)
            pixels = image.crop(*map(int, shape)).thumbnail_image(width, size="down")
            pictures.append(Picture(photograph, f"{photograph}@{width}", pixels.copy_memory()))
    return pictures


def measure(pictures: Sequence[Picture], judge: Judge, pool: ThreadPoolExecutor) -> list[Sample]:
    """Encode every picture at every quality, and score it both ways."""

    def run(job: tuple[Picture, str, int]) -> Sample:
        picture, fm, quality = job
        data = encode(picture.pixels, fm, quality)
        reference = likeness.Reference.of(picture.pixels)
        return Sample(
            picture.photograph,
            fm,
            quality,
            likeness.differences(reference, decode(data)),
            judge.score(picture.pixels, data),
        )

    jobs = [
        (picture, fm, quality)
        for picture in pictures
        for fm, qualities in _QUALITIES.items()
        for quality in qualities
    ]
    return list(pool.map(run, jobs))


def predict(sample: Sample, constants: Constants) -> float:
    luma, chroma, *factors = map(math.exp, constants)
    detail, coarse, colour = sample.differences
    factor = factors[list(_QUALITIES).index(sample.format)]
    return 100 - factor * math.sqrt(detail + luma * coarse + chroma * colour)


def fit(samples: Sequence[Sample]) -> Constants:
    """The constants with the least mean absolute error, by pattern search (Hooke and Jeeves)."""

    def loss(constants: Constants) -> float:
        return statistics.fmean(abs(predict(one, constants) - one.real) for one in samples)

    start = [*likeness.WEIGHTS[1:], *(likeness.CALIBRATED[fm] for fm in _QUALITIES)]
    best = [math.log(value) for value in start]
    least, step = loss(best), 0.2
    while step > 0.002:
        before = least
        for place in range(len(best)):
            for change in (step, -step):
                tried = [*best]
                tried[place] += change
                if (one := loss(tried)) < least:
                    best, least = tried, one
        if least == before:
            step /= 2
    return best


def rank_correlation(one: Sequence[float], other: Sequence[float]) -> float:
    """Spearman's: the correlation of the places in order."""

    def places(values: Sequence[float]) -> list[float]:
        order = sorted(range(len(values)), key=values.__getitem__)
        found = [0.0] * len(values)
        for place, index in enumerate(order):
            found[index] = float(place)
        return found

    return statistics.correlation(places(one), places(other))


def judge_scores(samples: Sequence[Sample], report: Report) -> None:
    """Add what is fitted, and how far scores are off where a photograph is left out of the fit."""
    used = [one for one in samples if one.real >= _LOWEST]
    errors: dict[str, list[tuple[float, float]]] = {fm: [] for fm in _QUALITIES}
    for photograph in {one.photograph for one in used}:
        constants = fit([one for one in used if one.photograph != photograph])
        for one in used:
            if one.photograph == photograph and one.real >= _JUDGED:
                errors[one.format].append((one.real, predict(one, constants)))
    rows = []
    for fm, pairs in {
        **errors,
        "all": [pair for all_of in errors.values() for pair in all_of],
    }.items():
        off = [abs(real - ours) for real, ours in pairs]
        rows.append(
            {
                "format": fm,
                "encodings": len(pairs),
                "rank correlation": rank_correlation(*zip(*pairs, strict=True)),
                "mean error": statistics.fmean(off),
                "p95": percentile(off, 0.95),
                "worst": max(off),
            }
        )
    report.add_table(f"scores from {_JUDGED:.0f} up, of photographs left out of the fit", rows)
    values = [math.exp(value) for value in fit(used)]
    names = ("weight of luma", "weight of chroma", *_QUALITIES)
    report.add_table(
        "constants",
        [
            {"constant": name, "fitted": value, "in use": now}
            for name, value, now in zip(
                names,
                values,
                (*likeness.WEIGHTS[1:], *(likeness.CALIBRATED[fm] for fm in _QUALITIES)),
                strict=True,
            )
        ],
    )
    report.add_table(
        "median score of the program by quality",
        [
            {
                "format": fm,
                "quality": quality,
                "score": middle(
                    [one.real for one in samples if (one.format, one.quality) == (fm, quality)]
                ),
            }
            for fm, qualities in _QUALITIES.items()
            for quality in qualities
        ],
    )
    report.verdicts.append(
        Verdict(what="mean error of scores", value=rows[-1]["mean error"], at_most=_MEAN_ERROR)
    )


def judge_promises(pictures: Sequence[Picture], judge: Judge, report: Report) -> None:
    """Add what aiming at a target reaches by the program's score, and what it costs."""
    rows: list[dict[str, Any]] = []
    most = 0
    for fm in _QUALITIES:
        for target in _TARGETS:
            real, qualities, encodes, cost = [], [], [], []
            missed = uncertain = 0
            for picture in pictures:
                pixels = picture.pixels
                save_at = _saver(pixels, fm)
                began = time.process_time()
                aimed = reach_target(pixels, save_at, decode, target=target, format_name=fm)
                ended = time.process_time()
                save_at(aimed.quality)
                cost.append((ended - began) / (time.process_time() - ended))
                real.append(judge.score(pixels, aimed.data))
                qualities.append(aimed.quality)
                encodes.append(aimed.encodes)
                missed += not aimed.met
                uncertain += aimed.encodes == MOST_ENCODES
            most = max(most, *encodes)
            rows.append(
                {
                    "format": fm,
                    "target": target,
                    "least": min(real),
                    "median": middle(real),
                    "most": max(real),
                    "qualities": f"{min(qualities)}-{max(qualities)}",
                    "out of reach": missed,
                    "encodes": statistics.fmean(encodes),
                    "at most": max(encodes),
                    "cost in encodes": middle(cost),
                }
            )
    report.add_table(
        f"what the program says of the qualities chosen for {len(pictures)} pictures "
        f"(a grid of {STEP})",
        rows,
    )
    report.verdicts.append(Verdict(what="encodes", value=float(most), at_most=MOST_ENCODES))


def judge_budgets(pictures: Sequence[Picture], report: Report) -> None:
    """Add how well files fill the bytes that they may have, and what finding them costs."""
    rows = []
    for fm, best in DEFAULT_QUALITY.items():
        for share in _SHARES:
            filled, encodes, cost, refused = [], [], [], 0
            for picture in pictures:
                save_at = _saver(picture.pixels, fm)
                began = time.process_time()
                whole = save_at(best)
                once = time.process_time() - began
                budget = int(len(whole) * share)
                began = time.process_time()
                fitted = fit_bytes(save_at, budget=budget, best=best)
                cost.append((time.process_time() - began) / once)
                if len(save_at(1)) <= budget:
                    filled.append(len(fitted.data) / budget)
                else:
                    refused += not fitted.fits
                encodes.append(fitted.encodes)
            rows.append(
                {
                    "format": fm,
                    "bytes / usual": share,
                    "filled, least": min(filled),
                    "median": middle(filled),
                    "most": max(filled),
                    "cannot be": len(pictures) - len(filled),
                    "refused": refused,
                    "encodes": statistics.fmean(encodes),
                    "at most": max(encodes),
                    "cost in encodes": middle(cost),
                }
            )
    report.add_table(f"max-bytes for {len(pictures)} pictures", rows)
    report.verdicts += [
        Verdict(what="bytes / max-bytes", value=max(row["most"] for row in rows), at_most=1.0),
        Verdict(
            what="pictures that cannot be so small, and were not refused",
            value=float(sum(row["cannot be"] - row["refused"] for row in rows)),
            at_most=0.0,
        ),
        Verdict(
            what="encodes for max-bytes",
            value=float(max(row["at most"] for row in rows)),
            at_most=MOST_ENCODES,
        ),
    ]


def _saver(pixels: Image, fm: str) -> Callable[[int], bytes]:
    return lambda quality: encode(pixels, fm, quality)


def judge_cost(pictures: Sequence[Picture], report: Report) -> None:
    """Add what the measure costs beside a JPEG encode and decode."""
    rows = []
    for picture in sorted(pictures, key=lambda one: one.pixels.width)[:: len(pictures) - 1]:
        pixels = picture.pixels
        data = encode(pixels, "jpeg", 80)
        reference, decoded = likeness.Reference.of(pixels), decode(data)
        steps: dict[str, Callable[[], object]] = {
            "reference": lambda pixels=pixels: likeness.Reference.of(pixels),
            "distance": lambda one=reference, other=decoded: likeness.distance(one, other),
            "jpeg encode": lambda pixels=pixels: encode(pixels, "jpeg", 80),
            "jpeg decode": lambda data=data: decode(data),
        }
        mega = pixels.width * pixels.height / 1e6
        rows.append(
            {"picture": picture.name, "megapixels": mega}
            | {f"{name} ms": _milliseconds(step) for name, step in steps.items()}
        )
    report.add_table("processor time", rows)


def _milliseconds(step: Callable[[], object]) -> float:
    taken = []
    for _ in range(15):
        began = time.process_time()
        step()
        taken.append(time.process_time() - began)
    return min(taken) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.calibrate", description=__doc__)
    parser.add_argument("--photographs", type=Path, default=ROOT.parent / "shared" / "fixtures")
    parser.add_argument("--tool", help="the program that gives the scores of SSIMULACRA 2")
    parser.add_argument("--quick", action="store_true", help="one picture of each photograph")
    options = parser.parse_args()
    program = shutil.which(options.tool) if options.tool else None
    for name in () if options.tool else _PROGRAMS:
        program = program or shutil.which(name)
    if program is None:
        sys.exit(_MISSING)
    missing = [name for name in _PICTURES if not (options.photographs / name).is_file()]
    if missing:
        sys.exit(f"{options.photographs} lacks {', '.join(missing)}; see --photographs")
    judge = Judge(program)
    pictures = take_pictures(options.photographs, quick=options.quick)
    report = Report("calibrate", f"likeness beside {Path(program).name}, {len(pictures)} pictures")
    with ThreadPoolExecutor(len(processors())) as pool:
        judge_scores(measure(pictures, judge, pool), report)
    smallest = sorted(pictures, key=lambda one: one.pixels.width * one.pixels.height)
    judge_promises(smallest[:_PROMISED], judge, report)
    judge_budgets(smallest[:_PROMISED], report)
    judge_cost(pictures, report)
    report.show()
    save([report], quick=options.quick)


if __name__ == "__main__":
    main()
