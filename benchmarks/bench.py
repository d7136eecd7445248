"""Measure what is meant to be fast against what one would take instead, and check the targets.

    python benchmarks/bench.py                   # rows of the CPU: make bench
    python benchmarks/bench.py --device cuda     # rows of the GPU: make bench-gpu
    python benchmarks/bench.py --only nearest    # rows of some modules

Ends with 1 where a target is missed. Writes benchmarks/results/MACHINE.json, from which
benchmarks/table.py makes the table of docs/performance.md.
"""

import argparse
import importlib
import os
from pathlib import Path
from typing import Any

from emm.commands import limit_threads

MODULES = (
    *("training", "quick_training", "sampling", "precision", "scaling"),
    *("nearest", "tables", "graph", "demo"),
)  # each has GOALS and a function rows(options) that yields Rows


def main() -> int:
    arguments = parse()
    limit_threads(arguments.threads)  # before the libraries are imported
    from common import RESULTS, Options, processor, write
    from table import show

    options = Options(arguments.device, arguments.threads, arguments.full)
    print(f"{processor()}; {options.threads} threads; load {os.getloadavg()[0]:.1f}", flush=True)
    everything = []
    for name in arguments.only or MODULES:
        rows = measured(name, options)
        if any(row.measured is not None for row in rows):
            print(write(name, rows, options, arguments.output or RESULTS), flush=True)
        everything += rows
    show(everything)
    return 1 if any(row.passed is False for row in everything) else 0


def measured(name: str, options: Any) -> list[Any]:
    """Rows of a module; one that fails has a failed row, so that the others are seen."""
    from common import Row, Target

    rows = []
    try:
        for row in importlib.import_module(name).rows(options):
            rows.append(row)
    except SystemExit as error:
        note = " ".join(str(error).split())
        rows.append(Row(name, "", Target("at most", 0), 1.0, "failed", note=note))
    return rows


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=MODULES, help="of these modules")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each library")
    parser.add_argument("--full", action="store_true", help="largest sizes too: takes long")
    parser.add_argument("--output", type=Path, help="folder of the results")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
