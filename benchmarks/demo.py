"""Minutes of `make demo` in a fresh copy of this checkout, its set-up left out."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common import Goal, Options, Row, Target

ROOT = Path(__file__).resolve().parent.parent
NAME = "make demo"
GOALS = (Goal("cpu", NAME, "", Target("at most", 4)),)
OUTPUT = ("results", "data")  # of the workflow, in the root


def copy_checkout(folder: Path) -> None:
    """All files of this checkout but what the workflow and tools have made."""

    def left_out(where: str, names: list[str]) -> set[str]:
        made = {name for name in names if name == "__pycache__" or name.endswith(".egg-info")}
        if Path(where) == ROOT:
            made |= {name for name in names if name in OUTPUT or name.startswith(".")}
        return made

    shutil.copytree(ROOT, folder, ignore=left_out)


def rows(options: Options) -> Iterator[Row]:
    """One row of the CPU."""
    if options.device != "cpu":
        return
    with tempfile.TemporaryDirectory(prefix="emm-demo-") as folder:
        checkout = Path(folder) / "emm"
        copy_checkout(checkout)
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        given = {"PATH": path, "PYTHONPATH": str(checkout / "workflow")}
        command = ["snakemake", "--profile", "profiles/local", "--quiet", "all"]
        started, before = time.perf_counter(), os.times()
        done = subprocess.run(
            command, cwd=checkout, env=os.environ | given, capture_output=True, text=True
        )
        minutes = (time.perf_counter() - started) / 60
        if done.returncode:
            raise SystemExit(f"the demo failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        after = os.times()
    seconds = sum(after[2:4]) - sum(before[2:4])  # of the processor, all children included
    yield Row(NAME, "", GOALS[0].target, minutes, "minutes", details={"cpu_seconds": seconds})
