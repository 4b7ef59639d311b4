"""python -m bench [MEASUREMENT|all] [--quick] [--json FILE]."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Final

from bench import cold, costs, hits, hostile, ingest, jobs, kit, memory, overload
from bench.report import Report, save

MEASUREMENTS: Final[dict[str, Callable[..., Report]]] = {
    "cold": cold.measure,
    "kit": kit.measure,
    "hits": hits.measure,
    "overload": overload.measure,
    "hostile": hostile.measure,
    "memory": memory.measure,
    "jobs": jobs.measure,
    "ingest": ingest.measure,
    "costs": costs.measure,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("what", nargs="?", default="all", choices=[*MEASUREMENTS, "all"])
    parser.add_argument("--quick", action="store_true", help="fewer rounds: a look, not a figure")
    parser.add_argument("--seconds", type=float, help="how long each overload lasts")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where the figures go")
    options = parser.parse_args()
    names = list(MEASUREMENTS) if options.what == "all" else [options.what]
    reports = []
    for name in names:
        given = {"seconds": options.seconds} if name == "overload" and options.seconds else {}
        report = MEASUREMENTS[name](quick=options.quick, **given)
        report.show()
        reports.append(report)
        if options.json is None:
            save([report], quick=options.quick)
    if options.json is not None:
        save(reports, quick=options.quick, target=options.json)


if __name__ == "__main__":
    main()
