"""The generated parts of docs/scaling.md, so that its figures are those of a run.

What is `computed` needs no run, and a test holds the page against it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from bench.scale import balance, capacity, jobs, mix
from bench.scale.capacity import Prices
from bench.scale.fleet import SLOW, Outcome
from bench.scale.recommended import BACKLOG, PROCESSORS, RULES, TARGET, WORKERS
from bench.scale.scaler import Direction
from bench.scale.studies import BUDGETS, LOADS, Found
from bench.service import ROOT

PAGE: Final = ROOT / "docs" / "scaling.md"
PICTURES: Final = ROOT / "docs" / "scaling"
_LOADS_SHOWN: Final = (0.65, 1.0, 2.0, 3.0)
_EVENTS: Final = {
    "ordinary": "ordinary hours",
    "cold": "cold cache",
    "slow_store": "slow store",
    "crowd": "crowd",
    "neighbours": "0.7 of a processor",
}


def fill(text: str, parts: Mapping[str, str]) -> str:
    """The page with each part in its place. Raises ValueError where it has none."""
    for name, part in parts.items():
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not found or not closed:
            raise ValueError(f"docs/scaling.md has no place for {name}")
        text = f"{before}{begin}\n{part}\n{end}{after}"
    return text


def part(text: str, name: str) -> str:
    """What the page has in a place."""
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", text, re.DOTALL)
    if found is None:
        raise ValueError(f"docs/scaling.md has no place for {name}")
    return found[1]


def computed() -> dict[str, str]:
    """The parts that are arithmetic on the costs."""
    return {
        "costs": _costs(),
        "capacity": _capacity(),
        "money": _money(),
        "deploy": _deploy(),
    }


def simulated(found: Found) -> dict[str, str]:
    """The parts that a run gives."""
    return {
        "findings": _findings(found),
        "signals": _signals(found),
        "events": _events(found),
        "variants": _variants(found),
        "zones": _zones(found),
        "queue": _queue(found),
        "balance": _balance(found),
        "backlog": _backlog(found),
    }


def summary(found: Found) -> str:
    """A few lines for whoever ran it."""
    return _findings(found)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.001 or share == 0 else "< 0.1 %"


def _many(number: float) -> str:
    return f"{number:,.0f}"


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
        (f"{fm}, {_percent(mix.FORMATS[fm])} of renders", *(f"{1000 * s:.0f} ms" for s in costs))
        for fm, *costs in by_format
    ]
    middle, high, highest = np.percentile(seconds, [50, 95, 99]) * 1000
    return (
        _table(("result", "mean of the mixture", "12 MP to 320 px", "12 MP to 1280 px"), rows)
        + f"\n\nAll together: mean {seconds.mean() * 1000:.0f} ms, median {middle:.0f}, 95th "
        f"percentile {high:.0f}, 99th {highest:.0f}. With the download of the original and the "
        f"upload of the result, a render is **{capacity.render_seconds() * 1000:.0f} ms** of a "
        f"processor. A hit is {capacity.hit_seconds() * 1e6:.0f} us, where "
        f"{capacity.IN_MEMORY:.0%} of hits are in memory."
    )


def _capacity() -> str:
    rows = []
    for requests in (100, 1000, 10_000):
        for hits in (0.80, 0.95, 0.99):
            busy = capacity.busy_processors(requests, hits)
            count = capacity.replicas(requests, hits)
            rows.append(
                (
                    _many(requests),
                    f"{hits:.0%}",
                    _many(requests * (1 - hits)),
                    f"{busy:.1f}",
                    str(count),
                    _many(count * PROCESSORS),
                )
            )
    head = ("requests/s", "hits", "renders/s", "processors in use", "replicas", "their processors")
    return _table(head, rows)


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
            _many(seconds * 1e6),
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
        _table(head, rows)
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
        ("target", f"{TARGET:g}", "a third of the fleet may go: 3 zones, one lost"),
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
    return _table(("what", "value", "why"), rows)


def _findings(found: Found) -> str:
    best = found.day_of("demand", TARGET)
    utilisation = found.day_of("utilisation", TARGET)
    cpu = _nearest(found, "CPU", best.replica_hours)
    flying = _nearest(found, "in flight", best.replica_hours)
    double = found.queues[0.5][LOADS.index(2.0)]
    unbounded = found.queues[BUDGETS[-1]][LOADS.index(2.0)]
    hashed = {(row.way, row.replicas): row for row in found.balanced}
    fixed = [ran.outcome for ran in found.signals if ran.run.name == "fixed"]
    as_good = next((one for one in fixed if one.bad <= best.bad), fixed[-1])
    lines = [
        (
            f"Demand at {TARGET:g} takes {best.replica_hours:.0f} replica-hours, and "
            f"{_percent(best.bad)} of renders are refused or wait over {SLOW:g} s. A fixed fleet "
            f"as good needs {as_good.replica_hours:.0f}."
        ),
        (
            f"Within the crowd {_percent(best.bad_in('crowd'))} of renders are bad; with "
            f"utilisation {_percent(utilisation.bad_in('crowd'))} at the same target; with CPU "
            f"{_percent(cpu.bad_in('crowd'))}, and with renders in flight "
            f"{_percent(flying.bad_in('crowd'))}, each at the target of about as many hours."
        ),
        (
            f"At twice the load, a queue of half a second turns {double.goodput:.0%} of a "
            f"replica's capacity into answers within a second of waiting; without a bound it is "
            f"{unbounded.goodput:.0%}."
        ),
        (
            f"With 8 replicas, balancing by id makes {hashed['by id', 8].hits:.0%} of requests "
            f"hits in memory, and by chance {hashed['by chance', 8].hits:.0%}."
        ),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _nearest(found: Found, signal: str, hours: float) -> Outcome:
    """The day of a signal at the target whose hours are nearest."""
    days = [ran.outcome for ran in found.signals if ran.run.name == signal]
    return min(days, key=lambda day: abs(day.replica_hours - hours))


def _signals(found: Found) -> str:
    rows = []
    for ran in found.signals:
        name, outcome = ran.run.name, ran.outcome
        unit = ran.run.signal.unit if ran.run.signal else "replicas"
        strong = "**" if (name, ran.run.target) == ("demand", TARGET) else ""
        rows.append(
            (
                f"{strong}{name}{strong}",
                f"{ran.run.target:g} {unit}",
                f"{outcome.replica_hours:.0f}",
                _percent(outcome.bad),
                str(outcome.bad_minutes),
                str(outcome.most),
                str(outcome.changes),
            )
        )
    head = (
        "goes by",
        "target",
        "replica-hours",
        "bad renders",
        "bad minutes",
        "most replicas",
        "changes",
    )
    return _table(head, rows)


def _events(found: Found) -> str:
    hours = found.day_of("demand", TARGET).replica_hours
    rows = []
    for name in dict.fromkeys(ran.run.name for ran in found.signals):
        day = _nearest(found, name, hours)
        shares = [_percent(day.bad_in(event)) for event in _EVENTS]
        rows.append((name, f"{day.replica_hours:.0f}", *shares))
    return _table(("goes by", "replica-hours", *_EVENTS.values()), rows)


def _variants(found: Found) -> str:
    days = {"as recommended": found.day_of("demand", TARGET)}
    days |= {ran.run.name: ran.outcome for ran in found.variants}
    rows = [
        (
            name,
            f"{day.replica_hours:.0f}",
            _percent(day.bad),
            _percent(day.bad_in("crowd")),
            str(day.bad_minutes),
            str(day.most),
        )
        for name, day in days.items()
    ]
    head = (
        "what",
        "replica-hours",
        "bad renders",
        "in the crowd",
        "bad minutes",
        "most",
        "changes",
    )
    return _table(head, rows)


def _zones(found: Found) -> str:
    rows = [
        (
            f"{zone.utilisation:g}",
            f"{zone.utilisation * 1.5:.2f}",
            _percent(zone.before),
            _percent(zone.first_minute),
            _percent(zone.second_minute),
        )
        for zone in found.zones
    ]
    head = ("utilisation", "without a zone", "bad before", "in the first minute", "in the second")
    return _table(head, rows)


def _queue(found: Found) -> str:
    rows = []
    for budget, loads in found.queues.items():
        shown = [loads[LOADS.index(load)] for load in _LOADS_SHOWN]
        words = "no bound" if budget > 1e6 else f"{budget:g} s"
        answered = [f"{one.goodput:.0%} ({one.p99_wait:.2g} s)" for one in shown]
        rows.append((words, *answered))
    return _table(("queue of at most", *(f"load {load:g}" for load in _LOADS_SHOWN)), rows)


def _balance(found: Found) -> str:
    counts = sorted({row.replicas for row in found.balanced})
    rows = []
    for way in balance.WAYS:
        of_way = {row.replicas: row for row in found.balanced if row.way == way}
        cells = [f"{of_way[n].hits:.0%} ({of_way[n].busiest:.1f})" for n in counts]
        rows.append((way, *cells))
    return _table(("balanced", *(f"{n} replicas" if n > 1 else "1 replica" for n in counts)), rows)


def _backlog(found: Found) -> str:
    rows = [
        (
            f"{one.target:g} s",
            f"{one.replica_hours:.1f}",
            f"{one.busy:.0%}",
            str(one.most),
            *(f"{minutes:.1f} min" for minutes in one.minutes),
        )
        for one in found.worked
    ]
    batches = [f"{_many(count)} jobs took" for count in jobs.BATCHES.values()]
    return _table(("target", "worker-hours", "of them busy", "most workers", *batches), rows)
