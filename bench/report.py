"""What was measured: as a table to read, and as JSON to keep."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

import pyvips

from bench.service import ROOT, processors

RESULTS: Final = ROOT / "bench" / "results"
_PACKAGES: Final = ("uvicorn", "uvloop", "httptools", "fastapi", "pyvips", "psutil")


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A goal, and whether it was met."""

    what: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def met(self) -> bool:
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    def __str__(self) -> str:
        goal = (
            f"at most {self.at_most:g}" if self.at_least is None else f"at least {self.at_least:g}"
        )
        return f"{'met   ' if self.met else 'MISSED'} {self.what}: {shown(self.value)} ({goal})"


@dataclass(slots=True)
class Report:
    """The tables, figures and verdicts of one measurement."""

    name: str
    about: str
    figures: dict[str, Any] = field(default_factory=dict)
    tables: list[tuple[str, list[dict[str, Any]]]] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)

    def add_table(self, title: str, rows: list[dict[str, Any]]) -> None:
        self.tables.append((title, rows))

    def show(self) -> None:
        print(f"\n== {self.name}: {self.about}")
        for title, rows in self.tables:
            print(f"\n{title}")
            for line in _lines(rows):
                print(f"  {line}")
        print()
        for verdict in self.verdicts:
            print(f"  {verdict}")

    def as_data(self) -> dict[str, Any]:
        return {
            "about": self.about,
            "figures": self.figures,
            "tables": dict(self.tables),
            "verdicts": [
                {
                    "what": verdict.what,
                    "value": verdict.value,
                    "at_least": verdict.at_least,
                    "at_most": verdict.at_most,
                    "met": verdict.met,
                }
                for verdict in self.verdicts
            ],
        }


def save(reports: Sequence[Report], *, quick: bool, target: Path | None = None) -> Path:
    """Write reports to a file: by default `bench/results/<name>.json`."""
    name = reports[0].name if len(reports) == 1 else "all"
    target = target or RESULTS / f"{name}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    data = {
        "quick": quick,
        "machine": machine(),
        "reports": {report.name: report.as_data() for report in reports},
    }
    target.write_text(json.dumps(data, indent=2) + "\n")
    return target


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    found: dict[str, Any] = {
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "processors": len(processors()),
        "libvips": ".".join(str(pyvips.version(part)) for part in range(3)),
    }
    if hasattr(os, "getloadavg"):
        found["load_before"] = round(os.getloadavg()[0], 2)
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def shown(value: Any) -> str:
    """A value as tables have it: three significant digits, or more before the point."""
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}" if value else "0"
    return str(value)


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed. 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0


def middle(values: Sequence[float]) -> float:
    return statistics.median(values)


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    names = list(rows[0])
    cells = [names, *([shown(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(names))]
    return [
        "  ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
