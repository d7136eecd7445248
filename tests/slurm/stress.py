"""Kill trainings, jobs and controllers at random moments, and compare the results.

python tests/slurm/stress.py --kills 50 --seconds 3600 starts a SLURM of its own, prints what was
killed, and ends with 0 if no result differs from those of an undisturbed run.
"""

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from cluster import Cluster, missing  # noqa: E402
from project import Project, check_out, share_subsets  # noqa: E402

SIZES = (1000, 2000, 3000, 4000)
EPOCHS = 0.012
PAUSE = 20.0  # seconds between kills at most: a job takes ten until it computes
ACTIONS = {"process": 6, "job": 2, "controller": 2, "everything": 1}
RESULTS = ("runs/*/checkpoints/*.safetensors", "runs/*/*/scores.parquet", "tables/*.parquet")


class Stress:
    """A checkout under fire. Kills count when something was there to be killed."""

    def __init__(self, project: Project, seed: int) -> None:
        self.project, self.random = project, random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.starts = 0
        self.controller: subprocess.Popen | None = None

    def until(self, kills: int, deadline: float) -> None:
        """Kill so often, or until a time, or until all is done."""
        self._start()
        while self.kills.total() < kills and time.monotonic() < deadline:
            time.sleep(self.random.uniform(0.5, PAUSE))
            ended = self.controller.poll()
            if ended == 0:
                return
            if ended is not None:  # a job has failed more often than it may
                self._start()
                continue
            self._act(self.random.choices(list(ACTIONS), ACTIONS.values())[0])
        self._end()

    def _start(self) -> None:
        self.controller, self.starts = self.project.start(), self.starts + 1

    def _end(self) -> None:
        """Let it come to its end, starting it again where jobs have failed too often."""
        while True:
            if self.controller.wait(900) == 0:
                return
            self._start()

    def _act(self, action: str) -> None:
        hit = {
            "process": self._kill_process,
            "job": self._cancel_job,
            "controller": self._kill_controller,
            "everything": self._kill_everything,
        }[action]()
        self.kills[action] += bool(hit)

    def _victims(self) -> list[psutil.Process]:
        commands = ("train", "sample", "score")
        return [process for name in commands for process in self.project.processes(name)]

    def _kill_process(self) -> bool:
        victims = self._victims()
        if victims:
            with contextlib.suppress(psutil.Error):
                self.random.choice(victims).kill()
        return bool(victims)

    def _cancel_job(self) -> bool:
        running = [job for job, state, _ in self.project.jobs() if state in ("RUNNING", "PENDING")]
        if running:
            self.project.cluster.run("scancel", self.random.choice(running))
        return bool(running)

    def _kill_controller(self) -> bool:
        os.kill(self.controller.pid, signal.SIGKILL)
        self.controller.wait()
        time.sleep(self.random.uniform(0, PAUSE / 4))
        self._start()
        return True

    def _kill_everything(self) -> bool:
        os.kill(self.controller.pid, signal.SIGKILL)
        for process in self._victims():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self.controller.wait()
        self._start()
        return True


def digests(project: Project) -> dict[str, str]:
    """SHA-256 of what a run leaves: weights, scores and tables."""
    root = project.folder / "results" / "tiny"
    paths = sorted(path for pattern in RESULTS for path in root.glob(pattern))
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def stress(
    cluster: Cluster, folder: Path, kills: int, seconds: float, seed: int = 0, sizes=SIZES
) -> dict[str, object]:
    """Figures of a stress test: kills, resumes, and results that differ from the undisturbed."""
    whole = check_out(folder / "undisturbed", None, sizes=sizes, epochs=EPOCHS)
    whole.run_here()
    expected = digests(whole)
    started = time.monotonic()
    deadline, done = started + seconds, Counter()
    rounds = starts = resumes = different = 0
    while done.total() < kills and time.monotonic() < deadline:
        project = check_out(folder / f"round-{rounds}", cluster, sizes=sizes, epochs=EPOCHS)
        share_subsets(whole, project)
        under = Stress(project, seed + rounds)
        under.until(kills - done.total(), deadline)
        found = digests(project)
        different += sum(found.get(name) != digest for name, digest in expected.items())
        different += len(found.keys() - expected.keys())
        done += under.kills
        starts, rounds = starts + under.starts, rounds + 1
        resumes += project.logs.count("resumed at step")
        shutil.rmtree(project.folder)
    return {
        "kills": done.total(),
        **{f"kills of {name}": count for name, count in sorted(done.items())},
        "starts of Snakemake": starts,
        "resumed trainings": resumes,
        "rounds": rounds,
        "results": len(expected) * rounds,
        "differences": different,
        "seconds": round(time.monotonic() - started),
    }


def main() -> None:
    """Run a stress test on a SLURM of its own."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=3600, help="No new kills after that")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if problem := missing():
        sys.exit(problem)
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        cluster = Cluster(Path(folder).resolve() / "slurm")
        try:
            cluster.start()
            work = Path(folder).resolve()
            figures = stress(cluster, work, given.kills, given.seconds, given.seed)
        finally:
            cluster.stop()
    print(json.dumps(figures, indent=1))
    sys.exit(bool(figures["differences"]) or figures["kills"] < given.kills)


if __name__ == "__main__":
    main()
