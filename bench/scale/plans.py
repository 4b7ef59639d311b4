"""The parts of docs/scaling.md that are arithmetic on costs. A test holds the page against them."""

from __future__ import annotations

import math

import numpy as np

from bench.scale import capacity, mix
from bench.scale.capacity import Prices
from bench.scale.page import many, percent, table
from bench.scale.recommended import BACKLOG, PROCESSOR_TARGET, PROCESSORS, RULES, TARGET, WORKERS
from bench.scale.scaler import Direction


def computed() -> dict[str, str]:
    """The parts that are arithmetic on the costs."""
    return {
        "costs": _costs(),
        "capacity": _capacity(),
        "money": _money(),
        "deploy": _deploy(),
    }


def _costs() -> str:
    seconds = mix.sample(1 << 18, seed=1)
    by_format = [
        (
            fm,
            sum(
                o.share * share * mix.price(o, width, fm)
                for o in mix.ORIGINALS
                for width, share in mix.WIDTHS.items()
            ),
            mix.price(mix.ORIGINALS[3], 320, fm),
            mix.price(mix.ORIGINALS[3], 1280, fm),
        )
        for fm in ("jpeg", "webp", "avif")
    ]
    rows = [
        (
            f"{fm}, {percent(mix.FORMATS[fm], digits=0)} of renders",
            *(f"{1000 * s:.0f} ms" for s in costs),
        )
        for fm, *costs in by_format
    ]
    middle, high, highest = np.percentile(seconds, [50, 95, 99]) * 1000
    return (
        table(("result", "mean of the mixture", "12 MP to 320 px", "12 MP to 1280 px"), rows)
        + f"\n\nAll together: mean {seconds.mean() * 1000:.0f} ms, median {middle:.0f}, 95th "
        f"percentile {high:.0f}, 99th {highest:.0f}. With the download of the original and the "
        f"upload of the result, a render is **{capacity.render_seconds() * 1000:.0f} ms** of a "
        f"processor. A hit is {capacity.hit_seconds() * 1e6:.0f} us, where "
        f"{percent(capacity.IN_MEMORY, digits=0)} of hits are in memory."
    )


def _capacity() -> str:
    rows = []
    for requests in (100, 1000, 10_000):
        for hits in (0.80, 0.95, 0.99):
            busy = capacity.busy_processors(requests, hits)
            count = capacity.replicas(requests, hits)
            rows.append(
                (
                    many(requests),
                    percent(hits, digits=0),
                    many(requests * (1 - hits)),
                    f"{busy:.1f}",
                    str(count),
                    many(count * PROCESSORS),
                )
            )
    head = ("requests/s", "hits", "renders/s", "processors in use", "replicas", "their processors")
    return table(head, rows)


def _money() -> str:
    prices = Prices()
    original = mix.ORIGINALS[3]
    kinds = {
        "the mixture": capacity.render_seconds(),
        "12 MP to 320 px, WebP": mix.price(original, 320, "webp") + capacity.AROUND_SECONDS,
        "12 MP to 1280 px, WebP": mix.price(original, 1280, "webp") + capacity.AROUND_SECONDS,
        "12 MP to 1280 px, AVIF": mix.price(original, 1280, "avif") + capacity.AROUND_SECONDS,
        "3 MP to 160 px, JPEG": mix.price(mix.ORIGINALS[1], 160, "jpeg") + capacity.AROUND_SECONDS,
    }
    rows = [
        (
            kind,
            many(seconds * 1e6),
            f"{seconds * 1e6 / 3600 / TARGET:.1f}",
            f"{capacity.million(seconds, prices):.2f}",
            "never" if math.isinf(w := capacity.worthwhile(seconds, prices)) else f"{w:.1f} times",
        )
        for kind, seconds in kinds.items()
    ]
    head = (
        "a million renders of",
        "processor seconds",
        f"processor hours at {TARGET:g}",
        "dollars",
        "storing pays from",
    )
    return (
        table(head, rows)
        + f"\n\nHere a processor hour is {prices.processor_hour:g} dollars, a million PUTs "
        f"{prices.million_puts:g}, a million GETs {prices.million_gets:g}, a gigabyte and month "
        f"{prices.gigabyte_month:g}, and a result {capacity.RESULT_KB:g} KB. To store a million "
        f"results for a month is {capacity.storing(prices):.2f} dollars, nearly all of it for the "
        "PUTs."
    )


def _direction(way: Direction) -> str:
    most = f"{way.percent} % or {way.pods}, the more of both, in {way.period:g} s"
    return f"{most}; window {way.window:g} s"


def _deploy() -> str:
    rows = [
        ("processors of a replica", str(PROCESSORS), "one event loop feeds two to four of them"),
        ("replicas go by", "demand, as a sum", "see the comparison: it has no ceiling"),
        ("target", f"{TARGET:g}", "the cheapest that holds the percentile; of 3 zones one may go"),
        ("target of CPU", f"{PROCESSOR_TARGET:g}", "where a cluster measures nothing better"),
        ("replicas", f"{RULES.least} to {RULES.most}", "one in each zone; the bill has a bound"),
        ("up", _direction(RULES.up), "starting is what takes long, so all start at once"),
        ("down", _direction(RULES.down), "each takes a memory full of results with it"),
        (
            "backlog of workers",
            f"{BACKLOG} s",
            "more than a start takes: less pays for idleness",
        ),
        ("workers", f"{WORKERS.least} to {WORKERS.most}", "one for schedules and webhooks"),
        ("workers up", _direction(WORKERS.up), "a batch is there at once or never"),
        ("workers down", _direction(WORKERS.down), "a job in hand is handed back"),
    ]
    return table(("what", "value", "why"), rows)
