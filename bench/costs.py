"""Costs: what a render is estimated to take beside what it takes, for requests of every kind.

Admission and the refusal of what cannot be done in time rest on `transforms.cost`. Its table is
filled from measurements such as these.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import pyvips

from bench import corpus
from bench.report import Report, Verdict
from transforms import pipeline
from transforms.cost import estimate_all
from transforms.errors import TransformError
from transforms.limits import Limits
from transforms.pipeline import Stop, Work
from transforms.transform import Transform

_LIMITS: Final = Limits()
_APART: Final = 2.5
"""How far an estimate may lie from what is measured, as a factor to either side."""
_SHORTEST: Final = 0.02
"""Below so many seconds an estimate decides nothing."""
_WORDS: Final = "size=40,outline=000,outline-width=4,color=fff"
_FOUR: Final = "|".join(
    f"Every frame has these words,{_WORDS},gravity={at}"
    for at in ("north", "south", "east", "west")
)


@dataclass(frozen=True, slots=True)
class Case:
    """A request for one of `_ORIGINALS`, and what it is merged with or marked by."""

    original: str
    query: str
    others: tuple[str, ...] = ()
    mark: str | None = None

    def __str__(self) -> str:
        return f"{self.original}?{self.query}"[:90]


CASES: Final = (
    Case("photo12", "w=200"),
    Case("photo12", "w=800&fm=webp"),
    Case("photo12", "w=1200&fm=avif&effort=0"),
    Case("photo6", "fm=png"),
    Case("photo6", "fm=png&effort=9"),
    Case("photo6", "fm=jpeg"),
    Case("photo6", "fm=jpeg&effort=9"),
    Case("photo6", "fm=webp"),
    Case("photo6", "fm=tiff"),
    Case("photo6", "fm=gif&sepia=1"),
    Case("photo6", "w=1500&fm=gif"),
    Case("tiff6", "w=1500&fm=gif"),
    Case("tiff6", "w=300&fm=jpeg"),
    Case("png6", "w=300"),
    Case("webp6", "w=300"),
    Case("avif6", "w=300"),
    Case("progressive12", "w=300"),
    Case("photo6", "normalize=1"),
    Case("photo6", "level=10,90&gamma=2&brightness=10&contrast=10"),
    Case("photo6", "saturation=20&hue=30&tint=336699"),
    Case("photo6", "duotone=000,fff&invert=1"),
    Case("photo6", "sketch=1"),
    Case("photo6", "pixelate=20"),
    *(Case("photo6", f"charcoal={sigma}") for sigma in (1, 2, 5, 20)),
    *(Case("photo6", f"blur={sigma}") for sigma in (1, 4, 11, 40, 200)),
    *(Case("photo6", f"sharpen={sigma}") for sigma in (1, 4, 10)),
    Case("alpha3", "blur=10"),
    Case("alpha3", "sharpen=10"),
    Case("photo6", "w=6000&enlarge=1&sharpen=20,10&blur=200"),
    Case("photo6", "border=20,f00"),
    Case("photo6", "round=40&fm=png&effort=0"),
    Case("photo6", "shadow=10,10,40,000&fm=png&effort=0"),
    Case("photo6", "border=20,f00&round=max&fm=png&effort=0"),
    Case("photo6", "w=5000&enlarge=1&shadow=10,10,40,000&round=max&fm=webp"),
    Case("photo6", "background=blur&w=3000&h=3000&fit=contain"),
    Case("photo6", "text=Hello,size=200"),
    Case("photo6", f"text={_FOUR}"),
    Case("photo6", "text=Hello world,size=500,outline=000,outline-width=4"),
    Case("photo6", "watermark=m", mark="alpha3"),
    Case("photo6", "watermark=m,blend=multiply", mark="alpha3"),
    Case("photo6", "watermark=m,scale=0.01,tile=1", mark="alpha3"),
    Case("photo6", "w=7000&enlarge=1&watermark=m,scale=0.01,tile=1,blend=overlay", mark="alpha3"),
    Case("movie200", "fm=gif"),
    Case("movie200", "fm=webp"),
    Case("movie200", f"fm=gif&text={_FOUR}"),
    Case("movie24", "w=900&enlarge=1&fm=gif&sepia=1"),
    Case("movie24", "w=600&enlarge=1&fm=webp&max-bytes=100000"),
    Case("photo6", "w=1200&fm=jpeg&q=auto"),
    Case("photo6", "w=1200&fm=webp&q=auto"),
    Case("photo6", "w=1200&fm=webp&q=auto&max-bytes=20000"),
    Case("photo6", "w=1200&fm=jpeg&max-bytes=20000"),
    Case("photo100", "trim=1&w=300"),
    Case("photo100", "w=300"),
    Case("photo6", "w=600&merge=a,b&cell=50x50", others=("webp6", "png6")),
    Case("photo6", "w=600&merge=a,b,c", others=("webp6", "png6", "photo12")),
)


@cache
def _picture(width: int, height: int) -> pyvips.Image:
    return corpus.draw(width, height, 1, grain=4, detail=3.0).copy_memory()


def _movie(side: int, frames: int) -> pyvips.Image:
    """A part of the picture that wanders, one frame above the other."""
    picture = _picture(3000, 2000)
    parts = [picture.crop(n * 4, n * 2, side, side) for n in range(frames)]
    joined = pyvips.Image.arrayjoin(parts, across=1).copy()
    joined.set_type(pyvips.GValue.gint_type, "page-height", side)
    return joined


def _alpha() -> pyvips.Image:
    picture = _picture(3000, 2000).crop(0, 0, 2000, 1500)
    ramp = (pyvips.Image.xyz(2000, 1500)[0] * (255 / 2000)).cast("uchar")
    return picture.bandjoin(ramp)


_ORIGINALS: Final[Mapping[str, Any]] = {
    "photo6": lambda: _picture(3000, 2000).jpegsave_buffer(Q=88),
    "photo12": lambda: _picture(4000, 3000).jpegsave_buffer(Q=88),
    "progressive12": lambda: _picture(4000, 3000).jpegsave_buffer(Q=88, interlace=True),
    "photo100": lambda: _picture(4000, 3000).resize(2.8).jpegsave_buffer(Q=80),
    "png6": lambda: _picture(3000, 2000).pngsave_buffer(compression=6),
    "webp6": lambda: _picture(3000, 2000).webpsave_buffer(Q=80),
    "avif6": lambda: _picture(3000, 2000).heifsave_buffer(compression="av1", effort=1),
    "tiff6": lambda: _picture(3000, 2000).tiffsave_buffer(),
    "alpha3": lambda: _alpha().pngsave_buffer(compression=1),
    "movie24": lambda: _movie(300, 24).gifsave_buffer(effort=1),
    "movie200": lambda: _movie(64, 200).gifsave_buffer(effort=1),
}


@cache
def _original(name: str) -> bytes:
    return bytes(_ORIGINALS[name]())


def prepare(case: Case) -> tuple[bytes, Work]:
    """The original and the work that a case comes to."""
    data = _original(case.original)
    marks = {}
    if case.mark is not None:
        marked = Transform.from_query("w=2048&h=2048&fit=inside").with_output("png")
        mark = _original(case.mark)
        work = pipeline.prepare(mark, marked, _LIMITS)
        marks = {"m": pipeline.make_bitmap(mark, [work], Stop())}
    transform = Transform.from_query(case.query.replace("+", "%2B"), unknown="refuse")
    others = [_original(name) for name in case.others]
    return data, pipeline.prepare(
        data, transform.with_output(transform.fm or "auto"), _LIMITS, others=others, marks=marks
    )


def processor_seconds(case: Case, *, rounds: int) -> tuple[float, float]:
    """What is estimated and the least that was measured."""
    data, work = prepare(case)
    least = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        with contextlib.suppress(TransformError):  # no file is small enough: it has looked by then
            pipeline.run(data, work)
        least = min(least, time.process_time() - began)
    return estimate_all([work]).seconds, least


def measure(*, quick: bool, cases: Sequence[Case] = CASES) -> Report:
    """Run every case a few times, and keep the least of each."""
    report = Report("costs", "estimated beside measured, in seconds of one processor")
    rows: list[dict[str, Any]] = []
    for case in cases:
        estimated, measured = processor_seconds(case, rounds=1 if quick else 3)
        rows.append(
            {
                "request": str(case),
                "estimated": estimated,
                "measured": measured,
                "ratio": estimated / measured,
            }
        )
    report.add_table("each request", rows)
    told = [row["ratio"] for row in rows if row["measured"] >= _SHORTEST]
    report.figures = {"lowest": min(told), "highest": max(told)}
    report.verdicts = [
        Verdict(what="estimate of measured, lowest", value=min(told), at_least=1 / _APART),
        Verdict(what="estimate of measured, highest", value=max(told), at_most=_APART),
    ]
    return report
