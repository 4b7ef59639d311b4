"""The pictures of docs/scaling.md. Equal figures give equal bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("Agg")

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bench.scale import balance, mix
from bench.scale.capacity import render_seconds
from bench.scale.day import HOUR, Day
from bench.scale.recommended import PROCESSORS, TARGET
from bench.scale.studies import BUDGETS, CROWD, LOADS, Found

COLOURS: Final = {
    "CPU": "#d1495b",
    "requests": "#8d6a9f",
    "in flight": "#c98a12",
    "queue wait": "#6b7a8f",
    "utilisation": "#2a7f9e",
    "demand": "#1b7a3d",
    "fixed": "#999999",
}
_SHOWN: Final = {"demand": TARGET, "utilisation": TARGET, "CPU": 0.60}
"""Signals whose days are drawn, at these targets: of about as many replica-hours."""
_NAMES: Final = {
    "cold": "cold\ncache",
    "slow_store": "slow\nstore",
    "crowd": "crowd\nx5",
    "neighbours": "0.7 of a\nprocessor",
}


def draw(found: Found, folder: Path) -> None:
    """Write every picture."""
    folder.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update(
        {
            "font.size": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.color": "#e6e6e6",
            "axes.axisbelow": True,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
        }
    )
    pictures: dict[str, Callable[[Found], Figure]] = {
        "costs": _costs,
        "signals": _signals,
        "day": _day,
        "crowd": _crowd,
        "queue": _queue,
        "balance": _balance,
    }
    for name, picture in pictures.items():
        figure = picture(found)
        figure.savefig(folder / f"{name}.png", dpi=100, metadata={"Software": None})
        plt.close(figure)


def _new(height: float, rows: int = 1, **options: Any) -> tuple[Figure, Any]:
    return plt.subplots(rows, 1, figsize=(8.2, height), layout="constrained", **options)


def _costs(_: Found) -> Figure:
    figure, axes = _new(3.4)
    seconds = np.sort(mix.sample(1 << 16, seed=1)) * 1000
    share = np.arange(len(seconds)) / len(seconds) * 100
    axes.plot(seconds[::50], share[::50], color=COLOURS["demand"], linewidth=2)
    axes.set_xscale("log")
    axes.set_xticks([5, 10, 20, 50, 100, 200, 500, 1000])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("")
    axes.set_xlim(4, 1800)
    axes.set_xlabel("processor time of one render, ms")
    axes.set_ylabel("% of renders take at most this")
    mean = float(seconds.mean())
    axes.axvline(mean, color="#666666", linestyle="--", linewidth=1)
    axes.text(mean * 1.05, 8, f"mean {mean:.0f} ms", color="#444444")
    for quantile, place, side in (
        (50, (-9, 4), "right"),
        (95, (-9, 4), "right"),
        (99, (4, -15), "left"),
    ):
        value = float(np.percentile(seconds, quantile))
        axes.plot(value, quantile, "o", color=COLOURS["demand"])
        axes.annotate(
            f"{quantile} %: {value:.0f} ms",
            (value, quantile),
            xytext=place,
            ha=side,
            textcoords="offset points",
        )
    axes.set_title("What renders of the mixture cost")
    return figure


def _signals(found: Found) -> Figure:
    figure, axes = _new(5.0)
    names = list(dict.fromkeys(ran.run.name for ran in found.signals))
    for name in names:
        rans = [ran for ran in found.signals if ran.run.name == name]
        hours = [ran.outcome.replica_hours for ran in rans]
        bad = [ran.outcome.bad * 100 for ran in rans]
        strong = name == "demand"
        axes.plot(
            hours,
            bad,
            marker="o",
            markersize=6 if strong else 4,
            linewidth=2.4 if strong else 1.3,
            linestyle=":" if name == "fixed" else "-",
            color=COLOURS[name],
            label="a fixed number" if name == "fixed" else name,
            zorder=3 if strong else 2,
        )
    best = found.day_of("demand", TARGET)
    axes.annotate(
        f"demand at {TARGET:g}:\nrecommended",
        (best.replica_hours, best.bad * 100),
        xytext=(58, 0.9),
        arrowprops={"arrowstyle": "->", "color": "#444444"},
        color=COLOURS["demand"],
    )
    axes.set_yscale("log")
    axes.set_yticks([0.5, 1, 2, 5, 10])
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.set_xlim(55, 225)
    axes.set_xlabel("replica-hours of the day (two processors each)")
    axes.set_ylabel("% of renders refused, or waiting over 0.25 s")
    axes.legend(frameon=False, title="autoscaler goes by")
    axes.set_title("Left and low is better: each point is a day at another target")
    return figure


def _mark_events(axes: Axes, top: float | None = None) -> None:
    for name, words in _NAMES.items():
        event = getattr(Day(), name)
        begin, end = event.begin / HOUR, (event.begin + event.seconds) / HOUR
        axes.axvspan(begin, end, color="#f3e9d2", zorder=0)
        if top is not None:
            axes.text((begin + end) / 2, top, words, ha="center", va="top", fontsize=8.5)


def _day(found: Found) -> Figure:
    figure, (load, replicas) = _new(5.2, rows=2, sharex=True, height_ratios=(1, 1.6))
    history = found.day_of("demand", _SHOWN["demand"]).history
    hours = [at / HOUR for at, *_ in history]
    load.plot(hours, [rate for *_, rate in history], color="#444444", linewidth=0.8)
    load.set_ylabel("renders/s asked for")
    load.set_ylim(0, 420)
    load.set_title("A day with four events, and replicas that follow it")
    _mark_events(load, 415)
    for name, target in _SHOWN.items():
        history = found.day_of(name, target).history
        replicas.step(
            [at / HOUR for at, *_ in history],
            [ready for _, _, ready, _ in history],
            where="post",
            color=COLOURS[name],
            linewidth=1.5,
            zorder=3 if name == "demand" else 2,
            label=f"{name}, target {target:g}",
        )
    needed = [rate * render_seconds() / PROCESSORS for *_, rate in history]
    replicas.plot(
        hours, needed, color="#bbbbbb", linewidth=0.8, label="least that could bear it", zorder=1
    )
    _mark_events(replicas)
    replicas.set_ylim(0, None)
    replicas.set_xlim(0, 24)
    replicas.set_xticks(range(0, 25, 3))
    replicas.set_xlabel("hour")
    replicas.set_ylabel("replicas ready")
    replicas.legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def _crowd(found: Found) -> Figure:
    figure, (replicas, bad) = _new(5.0, rows=2, sharex=True)
    begin, end = CROWD
    start = Day().crowd.begin if Day().crowd else begin
    for name, target in _SHOWN.items():
        outcome = found.day_of(name, target)
        rows = [row for row in outcome.history if begin <= row[0] < end]
        minutes = [(row[0] - start) / 60 for row in rows]
        order = 3 if name == "demand" else 2
        style: dict[str, Any] = {"color": COLOURS[name], "linewidth": 2, "zorder": order}
        replicas.step(minutes, [row[2] for row in rows], where="post", **style)
        shares = [
            100 * found_bad / max(1, renders)
            for renders, found_bad, *_ in (outcome.minutes[int(row[0] // 60)] for row in rows)
        ]
        bad.step(minutes, shares, where="post", label=f"{name}, target {target:g}", **style)
    replicas.set_ylabel("replicas ready")
    replicas.set_ylim(0, None)
    replicas.set_title("Five times the load within a minute")
    bad.set_ylabel("% of renders refused or late")
    bad.set_xlabel("minutes from the beginning of the crowd")
    bad.set_ylim(0, 100)
    bad.legend(frameon=False)
    return figure


def _queue(found: Found) -> Figure:
    figure, axes = _new(3.8)
    colours = ("#c98a12", COLOURS["demand"], COLOURS["utilisation"], COLOURS["CPU"])
    for budget, colour in zip(BUDGETS, colours, strict=True):
        goodput = [one.goodput * 100 for one in found.queues[budget]]
        words = "no bound" if budget > 1e6 else f"{budget:g} s"
        line = "--" if budget > 1e6 else "-"
        axes.plot(LOADS, goodput, line, marker="o", color=colour, linewidth=2, label=words)
    axes.plot(LOADS, [min(100, 100 * load) for load in LOADS], color="#bbbbbb", linestyle=":")
    axes.set_xlabel("load, as a multiple of what the replica can do")
    axes.set_ylabel("% of capacity that is answered\nwithin 1 s of waiting")
    axes.set_xlim(0, 3.1)
    axes.set_ylim(0, 105)
    axes.legend(frameon=False, title="queue of at most", loc="center right")
    axes.set_title("One replica: what a bounded queue is for")
    return figure


def _balance(found: Found) -> Figure:
    figure, axes = _new(3.6)
    colours = (COLOURS["CPU"], COLOURS["utilisation"], COLOURS["demand"])
    for way, colour in zip(balance.WAYS, colours, strict=True):
        rows = [row for row in found.balanced if row.way == way]
        axes.plot(
            [row.replicas for row in rows],
            [row.hits * 100 for row in rows],
            marker="o",
            linewidth=2,
            color=colour,
            linestyle="--" if "bounded" in way else "-",
            label=way,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks([1, 2, 4, 8, 16])
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_xlabel("replicas, each with 64 MiB of memory tier")
    axes.set_ylabel("% of requests that are\nhits in memory")
    axes.set_ylim(0, 100)
    axes.legend(frameon=False, title="balanced", loc="upper left")
    axes.set_title("Equal ids on equal replicas: their memories add up")
    return figure
