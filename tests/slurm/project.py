"""A checkout of the workflow that runs on the tests' SLURM, and what one can do to it."""

import copy
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd
import psutil
import yaml
from checkouts import TINY, copy_workflow
from cluster import Cluster, wait_for

LIMITS = {"max_runtime": 1440, "max_gpu": 4, "max_mem_mb": 64000, "max_threads": 16}
EPOCHS = 0.01  # of the published number: some seconds of training, enough to be disturbed
SIZES = (1000, 2000)  # a hundredth of them at this scale
FAST = (  # as tests cannot wait for: a real cluster is asked rarely
    *("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"),
    *("--max-status-checks-per-second", "10", "--local-cores", "1"),
)
TABLE = "results/tiny/tables/memorization.parquet"


@dataclass(frozen=True)
class Project:
    """A checkout of the workflow with results of its own.

    target: what is asked for on the cluster; what is left of the table comes from this machine.
    """

    folder: Path
    cluster: Cluster | None = None
    target: str = TABLE

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a shell on the login node of the cluster, or of one without."""
        given = self.cluster.environment if self.cluster else dict(os.environ)
        path = f"{Path(sys.executable).parent}{os.pathsep}{given['PATH']}"
        return given | {"PATH": path, "PYTHONPATH": str(self.folder / "workflow")}

    @property
    def output(self) -> str:
        """What Snakemake has said so far."""
        return (self.folder / "snakemake.log").read_text(errors="replace")

    @property
    def logs(self) -> str:
        """What trainings have said in their last attempts."""
        paths = sorted(self.folder.glob("results/tiny/logs/train/*.log"))
        return "".join(path.read_text() for path in paths)

    def start(self, *options: str) -> subprocess.Popen:
        """Start Snakemake on the cluster; its output goes to a file."""
        impatient = Path(__file__).with_name("impatient.py")
        command = [
            sys.executable,
            str(impatient),
            self.target,
            "--profile",
            "slurm",
            *FAST,
            *options,
        ]
        with (self.folder / "snakemake.log").open("ab") as log:
            return subprocess.Popen(
                command,
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def finish(self, process: subprocess.Popen, seconds: float = 300) -> None:
        """Wait for the end of a start, which has to be a good one, and see to the table."""
        try:
            assert process.wait(seconds) == 0, self.output[-5000:] + self.logs[-2000:]
        except subprocess.TimeoutExpired:
            process.terminate()
            raise AssertionError(f"no end:\n{self.output[-5000:]}") from None
        if self.target != TABLE:
            self.run_here()

    def run_here(self) -> None:
        """Compute everything on this machine, without SLURM."""
        command = ["snakemake", TABLE, "--profile", "profiles/local"]
        command += ["--configfile", "profiles/slurm/paper.yaml"]
        given = replace(self, cluster=None).environment
        options = {"cwd": self.folder, "env": given, "text": True}
        done = subprocess.run(command, capture_output=True, **options)
        assert done.returncode == 0, done.stdout + done.stderr

    def table(self) -> pd.DataFrame:
        """The memorization table."""
        return pd.read_parquet(self.folder / TABLE)

    def jobs(self, what: str = "") -> list[tuple[str, str, str]]:
        """Number, state and comment of the jobs submitted so far, of one kind or all."""
        submitted = re.findall(r"SLURM jobid (\d+)", self.output)
        return [job for job in self.cluster.jobs() if job[0] in submitted and what in job[2]]

    def training(self, seconds: float = 120) -> tuple[str, psutil.Process]:
        """Number and process of a training job that has saved its state, once there is one."""
        found: list[tuple[str, psutil.Process]] = []

        def has_state() -> bool:
            running = [job for job, state, _ in self.jobs("rule_train") if state == "RUNNING"]
            states = list(self.folder.glob("results/tiny/runs/*/state.safetensors"))
            trainers = self.processes("train") if running and states else []
            found[:] = zip(running, trainers, strict=False)
            return bool(found)

        wait_for(has_state, seconds, "a training")
        return found[0]

    def processes(self, command: str) -> list[psutil.Process]:
        """Processes of one of emm's commands that work in this checkout."""
        found = []
        for process in psutil.process_iter():
            try:
                words = process.cmdline()[1:3]
                if Path(words[0]).name == "emm" and words[1] == command:
                    found += [process] if process.cwd() == str(self.folder) else []
            except (psutil.Error, IndexError):
                continue
        return found

    def edit(self, path: str, old: str, new: str) -> None:
        """Change a file of the checkout."""
        text = (self.folder / path).read_text()
        assert old in text
        (self.folder / path).write_text(text.replace(old, new))


def check_out(
    folder: Path,
    cluster: Cluster | None,
    partition: str = "main",
    sizes: tuple[int, ...] = SIZES,
    epochs: float = EPOCHS,
) -> Project:
    """Copy the workflow as it is on disk, with a scale of seconds and the cluster's partitions.

    Trainings save their state all the time. epochs: what share of the published number.
    """
    copy_workflow(folder)
    project = Project(folder, cluster)
    scale = copy.deepcopy(TINY)
    scale["rules"]["train.epochs"]["factor"] = epochs
    (folder / "workflow" / "scales" / "tiny.yaml").write_text(yaml.safe_dump(scale))
    select = {"tiny": {"conditioning": {"labels.kind": "none", "data.size": list(sizes)}}}
    config = {"scale": "tiny", "experiments": ["conditioning"], "select": select}
    (folder / "profiles" / "slurm" / "paper.yaml").write_text(yaml.safe_dump(config))
    partitions = yaml.safe_dump({"partitions": {partition: LIMITS}})
    (folder / "profiles" / "slurm" / "partitions.yaml").write_text(partitions)
    project.edit("workflow/rules/train.smk", "emm train \\", "emm train --save-every 0.5 \\")
    return project


def share_subsets(source: Project, project: Project) -> None:
    """Copy the training sets that another checkout has made, with their times."""
    for name in ("sources", "subsets"):
        part = Path("results", "tiny", name)
        shutil.copytree(source.folder / part, project.folder / part, dirs_exist_ok=True)
