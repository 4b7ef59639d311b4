"""The parts of docs/scaling.md that a run of the simulation gives."""

from __future__ import annotations

from typing import Final

from bench.scale import balance, jobs
from bench.scale.fleet import SLOW, Outcome
from bench.scale.page import many, percent, table
from bench.scale.recommended import PROCESSORS, TARGET
from bench.scale.signals import SIGNALS
from bench.scale.studies import BUDGETS, LOADS, VARIED, Found

_BAD_MINUTES: Final = 10
_LOADS_SHOWN: Final = (0.65, 1.0, 2.0, 3.0)
_EVENTS: Final = {
    "ordinary": "ordinary hours",
    "cold": "cold cache",
    "slow_store": "slow store",
    "crowd": "crowd",
    "neighbours": "0.7 of a processor",
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
    held = ", ".join(
        f"{day.replica_hours:.0f} by {name}" if day else f"no target that was tried by {name}"
        for name in SIGNALS
        for day in [_cheapest(found, name)]
    )
    lines = [
        f"At most {_BAD_MINUTES} bad minutes in the day take these replica-hours: {held}.",
        (
            f"Demand at {TARGET:g} takes {best.replica_hours:.0f} replica-hours, and "
            f"{percent(best.bad)} of renders are refused or wait over {SLOW:g} s. Of the fixed "
            f"fleets that were tried, the smallest as good takes {as_good.replica_hours:.0f}."
        ),
        (
            f"Within the crowd {percent(best.bad_in('crowd'))} of renders are bad; with "
            f"utilisation {percent(utilisation.bad_in('crowd'))} at the same target; with CPU "
            f"{percent(cpu.bad_in('crowd'))}, and with renders in flight "
            f"{percent(flying.bad_in('crowd'))}, each at the target of about as many hours."
        ),
        (
            "At twice the load, a queue of half a second turns "
            f"{percent(double.goodput, digits=0)} of a replica's capacity into answers within a "
            f"second of waiting; without a bound it is {percent(unbounded.goodput, digits=0)}."
        ),
        (
            "With 8 replicas, balancing by id makes "
            f"{percent(hashed['by id', 8].hits, digits=0)} of requests hits in memory, and by "
            f"chance {percent(hashed['by chance', 8].hits, digits=0)}."
        ),
    ]
    return "\n".join(f"- {line}" for line in lines)


def _cheapest(found: Found, signal: str) -> Outcome | None:
    """The day of fewest hours that has few bad minutes."""
    days = [ran.outcome for ran in found.signals if ran.run.name == signal]
    held = [day for day in days if day.bad_minutes <= _BAD_MINUTES]
    return min(held, key=lambda day: day.replica_hours, default=None)


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
                percent(outcome.bad),
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
    return table(head, rows)


def _events(found: Found) -> str:
    hours = found.day_of("demand", TARGET).replica_hours
    rows = []
    for name in dict.fromkeys(ran.run.name for ran in found.signals):
        day = _nearest(found, name, hours)
        shares = [percent(day.bad_in(event)) for event in _EVENTS]
        rows.append((name, f"{day.replica_hours:.0f}", *shares))
    return table(("goes by", "replica-hours", *_EVENTS.values()), rows)


def _variants(found: Found) -> str:
    rows = []
    unchanged = next(r for r in found.signals if (r.run.name, r.run.target) == ("demand", VARIED))
    for ran in [unchanged, *found.variants]:
        run, day = ran.run, ran.outcome
        rows.append(
            (
                "none of these" if ran is unchanged else run.name,
                f"{day.replica_hours * run.site.processors / PROCESSORS:.0f}",
                percent(day.bad),
                percent(day.bad_in("crowd")),
                str(day.bad_minutes),
                str(day.most),
            )
        )
    head = (
        "changed",
        "replica-hours",
        "bad renders",
        "in the crowd",
        "bad minutes",
        "most replicas",
    )
    return table(head, rows)


def _zones(found: Found) -> str:
    rows = []
    for zone in found.zones:
        shares = (zone.before, zone.first_minute, zone.second_minute)
        told = [f"{percent(bad)}, {percent(refused)}" for bad, refused in shares]
        rows.append((f"{zone.utilisation:g}", f"{zone.utilisation * 1.5:.2f}", *told))
    head = ("utilisation", "without a zone", "before", "in the first minute", "in the second")
    return table(head, rows)


def _queue(found: Found) -> str:
    rows = []
    for budget, loads in found.queues.items():
        shown = [loads[LOADS.index(load)] for load in _LOADS_SHOWN]
        words = "no bound" if budget > 1e6 else f"{budget:g} s"
        answered = [f"{percent(one.goodput, digits=0)} ({_seconds(one.p99_wait)})" for one in shown]
        rows.append((words, *answered))
    return table(("queue of at most", *(f"load {load:g}" for load in _LOADS_SHOWN)), rows)


def _seconds(wait: float) -> str:
    return f"{wait:.0f} s" if wait >= 10 else f"{wait:.2g} s"


def _balance(found: Found) -> str:
    counts = sorted({row.replicas for row in found.balanced})
    rows = []
    for way in balance.WAYS:
        of_way = {row.replicas: row for row in found.balanced if row.way == way}
        cells = [f"{percent(of_way[n].hits, digits=0)} ({of_way[n].busiest:.1f})" for n in counts]
        rows.append((way, *cells))
    return table(("balanced", *(f"{n} replicas" if n > 1 else "1 replica" for n in counts)), rows)


def _backlog(found: Found) -> str:
    rows = [
        (
            f"{one.target:g} s",
            f"{one.replica_hours:.1f}",
            percent(one.busy, digits=0),
            str(one.most),
            *(f"{minutes:.1f} min" for minutes in one.minutes),
        )
        for one in found.worked
    ]
    batches = [f"{many(count)} jobs took" for count in jobs.BATCHES.values()]
    return table(("target", "worker-hours", "of them busy", "most workers", *batches), rows)
