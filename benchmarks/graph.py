"""Seconds until the whole paper is planned, a job has read the Snakefile, and `emm` has started.

Nothing of results exists, so that all jobs are planned. Each command runs several times, all in
turn; what counts is the fastest run, which other work on the machine disturbed least. Its CPU time
and all wall times are in the details, with the start of Snakemake alone.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common import Goal, Options, Row, Target

from emm.catalog import load

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 5
PAPER = ("scale=paper", "experiments=gu2023,yoon2023")
DRY_RUN, JOB, START = "dry run of the whole paper", "Snakefile read in a job", "emm"
SNAKEMAKE = "snakemake --version"
STARTS = ("--help", "settings", "runs", "score --help")
GOALS = (
    Goal("cpu", DRY_RUN, "", Target("at most", 4)),
    Goal("cpu", JOB, "", Target("at most", 1.5)),
    *(Goal("cpu", f"{START} {words}", "", Target("at most", 0.4)) for words in STARTS),
)


class Run(NamedTuple):
    """Seconds of a command, by the clock and of the processor."""

    wall: float
    cpu: float


def rows(options: Options) -> Iterator[Row]:
    """Rows of the CPU; nothing here is for a GPU."""
    if options.device != "cpu":
        return
    with tempfile.TemporaryDirectory(prefix="emm-graph-") as folder:
        commands = planning(folder) | {f"{START} {words}": emm(words) for words in STARTS}
        runs = {name: [] for name in commands}
        for turn in range(ROUNDS + 1):
            for name, command in commands.items():
                found = run(command)
                if turn:  # the first one compiles modules and fills caches
                    runs[name].append(found)
    for goal in GOALS:
        yield row(goal, runs[goal.what], min(runs[SNAKEMAKE]).wall)


def row(goal: Goal, runs: Sequence[Run], snakemake: float) -> Row:
    best, walls = min(runs), sorted(found.wall for found in runs)
    details = {"cpu_seconds": best.cpu, "wall_seconds": walls, "rounds": len(runs)}
    if goal.what in (DRY_RUN, JOB):
        details["start_of_snakemake_alone"] = snakemake
    return Row(
        goal.what,
        goal.against,
        goal.target,
        best.wall,
        f"s, fastest of {len(runs)}",
        details=details,
    )


def planning(results: str) -> dict[str, list[str]]:
    """The dry run, and what a job does before its command; results: a folder without any."""
    config = ["--config", *PAPER, f"results={results}"]
    source = next(iter(load({"scale": "paper", "experiments": ["gu2023", "yoon2023"]}).sources))
    job = ["--target-jobs", f"data:source={source}", "--allowed-rules", "data", "--cores", "1"]
    job += ["--force", "--nolock", "--no-hooks", "--ignore-incomplete", "--mode", "subprocess"]
    snakemake = [sys.executable, "-m", "snakemake"]
    return {
        DRY_RUN: [*snakemake, "--profile", "profiles/local", "--dry-run", *config],
        JOB: [*snakemake, *job, "--dry-run", *config],
        SNAKEMAKE: [*snakemake, "--version"],
    }


def emm(words: str) -> list[str]:
    return [str(Path(sys.executable).with_name("emm")), *words.split()]


def run(command: list[str]) -> Run:
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)
    wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stderr.strip()}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(wall, cpu)


def environment() -> dict[str, str]:
    """This checkout's library first, as for the jobs of a workflow."""
    return os.environ | {"PYTHONPATH": str(ROOT / "workflow")}
