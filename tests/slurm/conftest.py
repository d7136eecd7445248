"""A SLURM that the tests start, and checkouts of the workflow that run on it."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import yaml
from checkouts import TINY, copy_workflow
from cluster import Cluster, missing

SELECT = {"tiny": {"conditioning": {"labels.kind": "none", "data.size": [1000, 2000]}}}
CONFIG = {"scale": "tiny", "experiments": ["conditioning"], "select": SELECT}
PARTITIONS = {"main": {"max_runtime": 1440, "max_gpu": 4, "max_mem_mb": 64000, "max_threads": 16}}
FAST = (  # as the tests cannot wait for: a real cluster is asked rarely
    *("--slurm-init-seconds-before-status-checks", "1", "--latency-wait", "5"),
    *("--max-status-checks-per-second", "10", "--local-cores", "1"),
)
TABLE = "results/tiny/tables/memorization.parquet"


@dataclass(frozen=True)
class Project:
    """A checkout of the workflow with results of its own."""

    folder: Path
    cluster: Cluster | None = None

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a shell on the login node of the cluster, or of one without."""
        given = self.cluster.environment if self.cluster else dict(os.environ)
        path = f"{Path(sys.executable).parent}{os.pathsep}{given['PATH']}"
        return given | {"PATH": path, "PYTHONPATH": str(self.folder / "workflow")}

    def start(self, *options: str) -> subprocess.Popen:
        """Start Snakemake on the cluster; its output goes to a file of its own."""
        log = (self.folder / "snakemake.log").open("ab")
        command = ["snakemake", TABLE, "--profile", "slurm", *FAST, *options]
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *options: str, seconds: float = 240) -> None:
        """Run on the cluster to the end, which has to be a good one."""
        process = self.start(*options)
        assert process.wait(seconds) == 0, self.output[-5000:]

    @property
    def output(self) -> str:
        """What Snakemake has said so far."""
        return (self.folder / "snakemake.log").read_text(errors="replace")

    def table(self) -> pd.DataFrame:
        """The memorization table, without what tells one machine from another."""
        return pd.read_parquet(self.folder / TABLE)

    def set(self, **settings: object) -> None:
        """Force settings on every run."""
        path = self.folder / "profiles" / "slurm" / "paper.yaml"
        content = yaml.safe_load(path.read_text())
        path.write_text(yaml.safe_dump(content | settings))


def check_out(folder: Path, cluster: Cluster | None) -> Project:
    """Copy the workflow as it is on disk, with the smallest of scales and the cluster's names."""
    copy_workflow(folder)
    (folder / "workflow" / "scales" / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    (folder / "profiles" / "slurm" / "paper.yaml").write_text(yaml.safe_dump(CONFIG))
    partitions = yaml.safe_dump({"partitions": PARTITIONS})
    (folder / "profiles" / "slurm" / "partitions.yaml").write_text(partitions)
    return Project(folder, cluster)


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A running cluster; skips, with the reason, where there can be none."""
    if reason := missing():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("slurm"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def project(slurm: Cluster, tmp_path: Path) -> Project:
    """A checkout on the cluster, nothing computed."""
    return check_out(tmp_path / "project", slurm)


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """The table of the same runs, computed on this machine without SLURM."""
    project = check_out(tmp_path_factory.mktemp("local") / "project", None)
    command = ["snakemake", TABLE, "--profile", "profiles/local", "--configfile"]
    command += ["profiles/slurm/paper.yaml"]
    subprocess.run(
        command, cwd=project.folder, env=project.environment, check=True, capture_output=True
    )
    return project.table()
