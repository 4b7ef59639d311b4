"""Scaling in simulation: `make bench-scale` runs it, draws docs/scaling/ and fills docs/scaling.md.

    python -m bench.simulate [--processes N]
    python -m bench.simulate --calibrate      # what renders take beside the model's prices

What is simulated is in `bench.scale`: the mixture of renders in `mix`, a replica in `replica`, the
autoscaler in `scaler`, what it may go by in `signals`, the day in `day`, and the runs in `studies`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor

from bench.scale import mix, page, plans, reports
from bench.scale.studies import find
from bench.service import processors


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.simulate", description=__doc__)
    parser.add_argument("--calibrate", action="store_true", help="measure renders, and no more")
    parser.add_argument("--processes", type=int, default=len(processors()), metavar="N")
    options = parser.parse_args()
    if options.calibrate:
        for name, value in mix.calibrate().items():
            print(f"{name:8} {value:.2f}  in use {mix.CORRECTION.get(name, mix.SPREAD):.2f}")
        return
    from bench.scale import plots  # noqa: PLC0415 - nothing else needs what draws

    began = time.monotonic()
    # Not forked: libvips has threads.
    with ProcessPoolExecutor(options.processes, multiprocessing.get_context("spawn")) as pool:
        found = find(pool)
    plots.draw(found, page.PICTURES)
    parts = plans.computed() | reports.simulated(found)
    page.PAGE.write_text(page.fill(page.PAGE.read_text(), parts))
    print(parts["findings"])
    print(f"{time.monotonic() - began:.0f} s; see {page.PAGE} and {page.PICTURES}")


if __name__ == "__main__":
    main()
