"""What clusters do to jobs, done to a training on a real SLURM.

Each fault takes a cluster, a folder to work in, and a checkout with the training set; it sees that
it has happened and that the training went on from where it was, and returns the table in the end.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
from cluster import Cluster, wait_for
from project import SIZES, Project, check_out, share_subsets

Fault = Callable[[Cluster, Path, Project], pd.DataFrame]
FAULTS: dict[str, Fault] = {}


def fault(disturb: Callable[[Project], None], partition: str = "main") -> None:
    """Register what `disturb` does to a checkout with one run."""

    def happen(slurm: Cluster, folder: Path, source: Project) -> pd.DataFrame:
        project = check_out(folder, slurm, partition, SIZES[:1])
        share_subsets(source, project)
        disturb(project)
        return project.table()

    FAULTS[disturb.__name__] = happen


def went_on(project: Project, *states: str) -> None:
    """The training was submitted as often as there are states, each but the first resumed."""
    jobs = project.jobs("rule_train")
    assert tuple(state for _, state, _ in jobs) == states, jobs
    assert "resumed at step" in project.logs, project.logs


def time_limit(project: Project) -> None:
    """A training that hangs is killed at its limit, and its next attempt does better."""
    process = project.start("--set-resources", "train:runtime=1")
    _, trainer = project.training()
    trainer.suspend()
    project.finish(process)
    went_on(project, "TIMEOUT", "COMPLETED")


def end_of_allocation(project: Project) -> None:
    """A training that needs longer than its allocation stops itself before SLURM does."""
    process = project.start("--set-resources", "train:runtime=1")
    _, trainer = project.training()
    trainer.suspend()
    time.sleep(max(0.0, trainer.create_time() + 55 - time.time()))
    trainer.resume()
    wait_for(lambda: "state saved" in project.logs, 15, "the end of the training")
    project.finish(process)
    went_on(project, "FAILED", "COMPLETED")


def node_down(project: Project) -> None:
    """A node vanishes with all that runs on it."""
    process = project.start()
    project.training()
    project.cluster.kill_node("n3")
    project.finish(process)
    went_on(project, "NODE_FAIL", "COMPLETED")


def full_disk(project: Project) -> None:
    """There is no room for the state: the one before it stays, and is gone on from."""
    results = project.folder / "results"
    inputs = results.rename(results.with_name("inputs"))
    results.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", results], check=True)
    try:
        shutil.copytree(inputs, results, dirs_exist_ok=True)
        process = project.start()
        project.training()
        filler = results / "filler"
        with filler.open("wb", buffering=0) as stream:
            wait_for(lambda: not _fill(stream), 20, "a full disk")
            wait_for(lambda: "No space left" in project.logs, 30, "the end of the training")
        filler.unlink()
        project.finish(process)
        states = [state for _, state, _ in project.jobs("rule_train")]
        assert states[0] == "FAILED"
        assert states[-1] == "COMPLETED"
        assert "resumed at step" in project.logs
        table = project.table()
    finally:
        subprocess.run(["umount", "--lazy", results], check=True)
    (results / "tiny" / "tables").mkdir(parents=True)
    table.to_parquet(results / "tiny" / "tables" / "memorization.parquet")


def _fill(stream) -> bool:
    """Whether there was room for more."""
    try:
        while stream.write(bytes(1 << 16)):
            pass
    except OSError:
        return False
    return True


def preempted(project: Project) -> None:
    """Others take the node; SLURM may not requeue, so Snakemake submits again."""
    _take_node(project, "n4", "PREEMPTED", "COMPLETED")


def requeued(project: Project) -> None:
    """Others take the node, and SLURM starts the job again by itself."""
    profile = "profiles/slurm/profile.yaml"
    project.edit(profile, "slurm-no-requeue: true", "slurm-requeue: true")
    _take_node(project, "n5", "COMPLETED")


def _take_node(project: Project, node: str, *states: str) -> None:
    process = project.start()
    project.training()
    urgent = ["sbatch", "--partition=urgent", f"--nodelist={node}", "--exclusive"]
    project.cluster.run(*urgent, "--output=/dev/null", "--wrap=sleep 2")
    project.finish(process)
    went_on(project, *states)


def killed(project: Project) -> None:
    """The training dies, as of a lack of memory, and its job fails."""
    process = project.start()
    _, trainer = project.training()
    trainer.kill()
    project.finish(process)
    went_on(project, "FAILED", "COMPLETED")


def cancelled(project: Project) -> None:
    """An admin cancels the job."""
    process = project.start()
    job, _ = project.training()
    project.cluster.run("scancel", job)
    project.finish(process)
    went_on(project, "CANCELLED", "COMPLETED")


def controller_killed(project: Project) -> None:
    """Snakemake dies with jobs in the queue; the next start stops them before it starts its own."""
    process = project.start()
    project.training()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    again = project.start()
    project.finish(again)
    assert "stopped 1 job" in project.output
    went_on(project, "CANCELLED", "COMPLETED")


def two_controllers(project: Project) -> None:
    """A second start on the same results, from another checkout, says so and stops."""
    process = project.start()
    project.training()
    other = check_out(project.folder.with_name("other"), project.cluster, sizes=SIZES[:1])
    (other.folder / "results").symlink_to(project.folder / "results")
    assert other.start().wait(60) == 75
    assert f"error: results/tiny: process {process.pid} on " in other.output
    assert " is at work in it; wait for it" in other.output
    assert not other.jobs()
    project.finish(process)
    assert len(project.jobs("rule_train")) == 1


for each, where in {
    time_limit: "main",
    end_of_allocation: "main",
    node_down: "fragile",
    requeued: "spare",
    preempted: "scavenge",
    full_disk: "main",
    controller_killed: "main",
    two_controllers: "main",
    cancelled: "main",
    killed: "main",
}.items():  # those that wait longest first
    fault(each, where)
