"""What the benchmarks share: goals, rows, times of sides that take turns, machine and files.

A module of benchmarks has GOALS, which it is to meet, and a function `rows(options)` that yields a
Row for each of them on a device, and for whatever else it compares.
"""

import json
import os
import platform
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("numpy", "torch", "scikit-learn", "pandas", "pyarrow", "snakemake", "faiss-cpu", "cupy")


@dataclass(frozen=True)
class Options:
    """What is asked of a benchmark: rows of which device, on how many threads, at full size?"""

    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    full: bool = False


@dataclass(frozen=True)
class Target:
    """A bound on what is measured, such as at most 0.7 or at least 5."""

    bound: Literal["at most", "at least"]
    value: float

    def met(self, measured: float) -> bool:
        return measured <= self.value if self.bound == "at most" else measured >= self.value

    def __str__(self) -> str:
        return f"{'≤' if self.bound == 'at most' else '≥'} {self.value:g}"


@dataclass(frozen=True)
class Goal:
    """A target for `what` against what a user would take instead, on machines with some device."""

    device: Literal["cpu", "cuda"]
    what: str
    against: str
    target: Target


@dataclass(frozen=True)
class Row:
    """One comparison: `what` against what a user would take instead, and what came out.

    measured: the number that the target bounds, in `unit`; None where it was not measured, for the
    reason that `note` gives. target: None for what is only reported. part: of interest only to
    those who want to know where the time goes, left out of docs/performance.md.
    """

    what: str
    against: str
    target: Target | None
    measured: float | None
    unit: str = "of its time"
    note: str = ""
    part: bool = False
    details: Mapping[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool | None:
        """Whether the target is met; None where there is none, or nothing was measured."""
        if self.target is None or self.measured is None:
            return None
        return self.target.met(self.measured)


def not_measured(what: str, against: str, target: Target | None, reason: str) -> Row:
    """A row whose peer or device is missing."""
    return Row(what, against, target, None, note=reason)


def without_gpu(goals: Iterable[Goal]) -> list[Row]:
    """Rows of goals where there is no GPU."""
    return [not_measured(goal.what, goal.against, goal.target, "no GPU") for goal in goals]


Times = dict[str, list[float]]


def take_turns(sides: Mapping[str, Callable[[], object]], rounds: int) -> Times:
    """Seconds of each side in each round; who is first rotates. The caller has warmed them up."""
    times: Times = {name: [] for name in sides}
    names = list(sides)
    for turn in range(rounds):
        start = turn % len(names)
        for name in names[start:] + names[:start]:
            started = time.perf_counter()
            sides[name]()
            times[name].append(time.perf_counter() - started)
    return times


def ratios(times: Times, side: str, peer: str) -> list[float]:
    """Time of a side in that of its peer, round by round."""
    return [own / other for own, other in zip(times[side], times[peer], strict=True)]


def compare(
    what: str, against: str, target: Target | None, times: Times, sides: tuple[str, str], **facts
) -> Row:
    """Row of the median ratio of two sides of `take_turns`: time / time, or where more is better,
    how many times as fast. The spread, both medians and further facts are details.
    """
    faster = target is not None and target.bound == "at least"
    found = ratios(times, *(reversed(sides) if faster else sides))
    details = {
        "ratio_min_max": [min(found), max(found)],
        "seconds": {name: statistics.median(times[name]) for name in sides},
        "rounds": len(found),
        **facts,
    }
    unit = "times as fast" if faster else "of its time"
    return Row(what, against, target, statistics.median(found), unit, details=details)


def processor() -> str:
    """Name of the processor and number of cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    name = platform.processor() or platform.machine()
    file = Path("/proc/cpuinfo")
    if file.exists() and (found := re.search(r"model name\s*:\s*(.+)", file.read_text())):
        name = found[1]
    return f"{name}, {cores} cores"


def gpu() -> str | None:
    """Name of the GPU that torch sees."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def versions() -> dict[str, str]:
    """Versions of Python and of the packages at hand."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write(name: str, rows: Iterable[Row], options: Options, folder: Path = RESULTS) -> Path:
    """Write rows of a module with versions and load into the file of this machine, MACHINE.json.

    Rows of other modules stay; a new folder gets those of RESULTS. Returns the path.
    """
    machine = (gpu() if options.device == "cuda" else processor()) or "no GPU"
    path = folder / f"{re.sub(r'[^a-z0-9]+', '-', machine.lower()).strip('-')}.json"
    before = path if path.exists() else RESULTS / path.name
    modules = json.loads(before.read_text())["modules"] if before.exists() else {}
    modules[name] = {
        "date": time.strftime("%Y-%m-%d"),
        "threads": options.threads,
        "load_at_the_end": round(os.getloadavg()[0], 1),
        "versions": versions(),
        "rows": [_as_json(row) for row in rows],
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = {"machine": machine, "device": options.device, "modules": modules}
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return path


def _as_json(row: Row) -> dict[str, Any]:
    target = None if row.target is None else str(row.target)
    return asdict(row) | {"target": target, "passed": row.passed}
