"""What renders cost: a mixture of originals and requests, priced by the service's own model.

The estimates of `transforms.cost` are corrected by what `python -m bench.simulate --calibrate`
measured with the pipeline, and spread as far as single renders were from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from bench.costs import Case, processor_seconds
from transforms import pipeline
from transforms.cost import estimate_all
from transforms.formats import sniff
from transforms.inspect import Header
from transforms.limits import Limits
from transforms.shapes import Size
from transforms.transform import Transform

_STARTS: Final = {
    "jpeg": b"\xff\xd8\xff\xe0",
    "png": b"\x89PNG\r\n\x1a\n",
    "webp": b"RIFF\0\0\0\0WEBPVP8 ",
}


@dataclass(frozen=True, slots=True)
class Original:
    """A kind of original, and its share of what is asked for."""

    share: float
    format: str
    width: int
    height: int
    progressive: bool = False


ORIGINALS: Final = (
    Original(0.15, "jpeg", 1632, 1224),  # 2 MP
    Original(0.25, "jpeg", 2048, 1536),  # 3 MP
    Original(0.15, "jpeg", 3264, 2448),  # 8 MP
    Original(0.25, "jpeg", 4000, 3000),  # 12 MP
    Original(0.05, "jpeg", 6000, 4000),  # 24 MP
    Original(0.05, "jpeg", 2048, 1536, progressive=True),
    Original(0.05, "png", 1200, 800),
    Original(0.05, "webp", 1600, 1200),
)
WIDTHS: Final = {160: 0.15, 320: 0.25, 480: 0.15, 640: 0.20, 960: 0.10, 1280: 0.10, 1920: 0.05}
FORMATS: Final = {"webp": 0.75, "jpeg": 0.15, "avif": 0.10}
"""By what browsers accept, where a tenth of the pages asks for AVIF."""

CORRECTION: Final = {"jpeg": 1.04, "webp": 1.03, "avif": 0.77}
"""Measured by estimated, by the format of the result."""
SPREAD: Final = 0.15
"""Standard deviation of the logarithm of what single renders take, by what they should."""

CALIBRATED: Final = tuple(
    Case(original, f"w={width}&fm={fm}")
    for fm in FORMATS
    for original, width in (("photo12", 320), ("photo6", 640), ("photo12", 960), ("png6", 320))
)


@cache
def price(original: Original, width: int, fm: str) -> float:
    """Seconds of one processor for a render, corrected."""
    header = Header(
        format=sniff(_STARTS[original.format] + bytes(64)),
        size=Size(original.width, original.height),
        pages=1,
        orientation=1,
        bands=3,
        bytes_per_band=1,
        alpha=False,
        progressive=original.progressive,
        interpretation="srgb",
    )
    transform = Transform.from_query(f"w={width}&fm={fm}")
    work = pipeline.prepare(b"", transform, Limits(), header=header)
    return estimate_all([work]).seconds * CORRECTION[fm]


def sample(count: int, *, seed: int) -> np.ndarray:
    """Seconds of one processor for each of `count` renders."""
    random = np.random.default_rng(seed)
    kinds = [(o, w, fm) for o in ORIGINALS for w in WIDTHS for fm in FORMATS]
    shares = np.array([o.share * WIDTHS[w] * FORMATS[fm] for o, w, fm in kinds])
    prices = np.array([price(*kind) for kind in kinds])
    chosen = random.choice(len(kinds), size=count, p=shares / shares.sum())
    # A log-normal factor of mean 1.
    noise = random.lognormal(-(SPREAD**2) / 2, SPREAD, size=count)
    return prices[chosen] * noise


def calibrate(*, rounds: int = 3) -> dict[str, float]:
    """Measure a few renders, and give what they took by what was estimated, by format."""
    ratios: dict[str, list[float]] = {fm: [] for fm in FORMATS}
    for case in CALIBRATED:
        estimated, measured = processor_seconds(case, rounds=rounds)
        ratios[case.query.rpartition("=")[2]].append(measured / estimated)
    found = {fm: float(np.exp(np.mean(np.log(values)))) for fm, values in ratios.items()}
    found["spread"] = float(
        np.std([np.log(v / found[fm]) for fm, values in ratios.items() for v in values])
    )
    return found
