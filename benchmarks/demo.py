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
LEFT_OUT = shutil.ignore_patterns("results", "data", ".*", "__pycache__", "*.egg-info")


def rows(options: Options) -> Iterator[Row]:
    """One row of the CPU."""
    if options.device != "cpu":
        return
    with tempfile.TemporaryDirectory(prefix="emm-demo-") as folder:
        checkout = Path(folder) / "emm"
        shutil.copytree(ROOT, checkout, ignore=LEFT_OUT)
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
