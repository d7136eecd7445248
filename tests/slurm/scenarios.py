"""What the workflow does on a real SLURM, and what it survives there.

Each scenario takes a cluster, a folder to work in, and a checkout in which the same runs were
computed undisturbed; it sees that what it is about has happened, and compares the tables.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
import yaml
from cluster import Cluster, wait_for
from project import SIZES, Project, check_out, share_subsets
from stress import stress

Scenario = Callable[[Cluster, Path, Project], None]
SCENARIOS: dict[str, Scenario] = {}  # in the order of their start: those that wait longest first


def scenario(function: Scenario) -> Scenario:
    """Register a scenario."""
    SCENARIOS[function.__name__] = function
    return function


def fault(partition: str = "main") -> Callable[[Callable[[Project], None]], Callable]:
    """Register what is done to a checkout with one run on a partition, as a scenario."""

    def register(disturb: Callable[[Project], None]) -> Callable[[Project], None]:
        def happen(slurm: Cluster, folder: Path, undisturbed: Project) -> None:
            project = check_out(folder, slurm, partition, SIZES[:1])
            share_subsets(undisturbed, project)
            (record,) = undisturbed.folder.glob("results/tiny/runs/*-n10-*/run.yaml")
            disturb(replace(project, target=str(record.relative_to(undisturbed.folder))))
            same_table(project, undisturbed)

        SCENARIOS[disturb.__name__] = happen
        return disturb

    return register


def same_table(project: Project, undisturbed: Project) -> None:
    """Every number is that of the undisturbed run."""
    table, whole = project.table(), undisturbed.table()
    same = whole[whole["run"].isin(table["run"])].reset_index(drop=True)
    assert len(same)
    pd.testing.assert_frame_equal(table, same)


def requests(slurm: Cluster, job: str) -> tuple[str | None, ...]:
    """GPUs, cores and time limit that a job was submitted with."""
    text = slurm.run("scontrol", "show", "job", job).stdout
    found = [re.search(rf"\b{key}=(\S+)", text) for key in ("TresPerJob", "NumCPUs", "TimeLimit")]
    return tuple(match and match[1] for match in found)


def went_on(project: Project, *states: str) -> None:
    """The training was submitted as often as there are states, each but the first resumed."""
    jobs = project.jobs("rule_train")
    assert tuple(state for _, state, _ in jobs) == states, jobs
    assert "resumed at step" in project.logs, project.logs


@fault()
def time_limit(project: Project) -> None:
    """A training that hangs is killed at its limit, and its next attempt does better."""
    process = project.start("--set-resources", "train:runtime=1")
    _, trainer = project.training()
    trainer.suspend()
    project.finish(process)
    went_on(project, "TIMEOUT", "COMPLETED")


@fault()
def end_of_allocation(project: Project) -> None:
    """A training that needs longer than its allocation stops itself before SLURM does."""
    process = project.start("--set-resources", "train:runtime=1")
    job, trainer = project.training()
    trainer.suspend()
    told = ("squeue", "--noheader", f"--jobs={job}", "--format=%e")
    end = datetime.fromisoformat(project.cluster.run(*told).stdout.strip()).timestamp()
    time.sleep(max(0.0, end - 5 - time.time()))
    trainer.resume()
    wait_for(lambda: "state saved" in project.logs, 15, "the end of the training")
    project.finish(process)
    went_on(project, "FAILED", "COMPLETED")


@fault("fragile")
def node_down(project: Project) -> None:
    """A node vanishes with all that runs on it."""
    process = project.start()
    project.training()
    project.cluster.kill_node("n3")
    project.finish(process)
    went_on(project, "NODE_FAIL", "COMPLETED")


@scenario
def undisturbed_run(slurm: Cluster, folder: Path, undisturbed: Project) -> None:
    """Every job asks for what it needs, and a run is sampled and scored in one allocation."""
    project = check_out(folder, slurm)
    project.finish(project.start())
    same_table(project, undisturbed)
    assert len(project.table()) == len(undisturbed.table())
    comments = [what for _, _, what in project.jobs()]
    assert sum("rule_train" in what for what in comments) == 2
    assert sum("sample_score" in what for what in comments) == 2
    assert not any(what.startswith(("rule_sample", "rule_score")) for what in comments)
    asked = {what: requests(slurm, job) for job, _, what in project.jobs()}
    train = next(each for what, each in asked.items() if "rule_train" in what)
    assert train == ("gres:gpu:1", "1", "01:00:00")
    assert asked["rule_evaluate_sample_score"] == ("gres:gpu:1", "1", "02:00:00")
    assert asked["rule_tables"] == (None, "1", "00:30:00")


@scenario
def random_kills(slurm: Cluster, folder: Path, undisturbed: Project) -> None:
    """The short form of stress.py: no result differs in a bit."""
    figures = stress(slurm, folder, kills=3, seconds=40, sizes=SIZES[:1])
    assert figures["kills"] >= 1
    assert figures["differences"] == 0
    assert figures["results"] >= 3


@scenario
def shared_training(slurm: Cluster, folder: Path, undisturbed: Project) -> None:
    """A training on two GPUs gets both on one node, and its loss is that of one up to rounding.

    Two are free from the start, on a node each.
    """
    for node in ("n6", "n7"):
        busy = [
            "sbatch",
            "--partition=pair",
            f"--nodelist={node}",
            "--gpus=3",
            "--output=/dev/null",
        ]
        slurm.run(*busy, "--wrap=sleep 20")
    project = check_out(folder, slurm, "pair", SIZES[:1])
    share_subsets(undisturbed, project)
    path = project.folder / "profiles" / "slurm" / "paper.yaml"
    plan = {"gpus_per_run": 2, "run_hours": 1e-6}
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"plan": plan}))
    project.finish(project.start())
    ((job, _, _),) = project.jobs("rule_train")
    assert requests(slurm, job)[:2] == ("gres:gpu:2", "2")
    (record,) = project.folder.glob("results/tiny/runs/*/run.yaml")
    found = yaml.safe_load(record.read_text())
    whole = yaml.safe_load((undisturbed.folder / record.relative_to(project.folder)).read_text())
    assert (found["processes"], whole["processes"]) == (2, 1)
    assert abs(found["loss"] / whole["loss"] - 1) < 0.01


@fault("spare")
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


@fault("scavenge")
def preempted(project: Project) -> None:
    """Others take the node; SLURM may not requeue, so Snakemake submits again."""
    _take_node(project, "n4", "PREEMPTED", "COMPLETED")


@fault()
def full_disk(project: Project) -> None:
    """There is no room for the state: the one before it stays, and is gone on from."""
    results = project.folder / "results"
    inputs = results.rename(results.with_name("inputs"))
    results.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", results]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no small disk: file systems cannot be mounted here")
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


@fault()
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


@fault()
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


@fault()
def cancelled(project: Project) -> None:
    """An admin cancels the job."""
    process = project.start()
    job, _ = project.training()
    project.cluster.run("scancel", job)
    project.finish(process)
    went_on(project, "CANCELLED", "COMPLETED")


@fault()
def killed(project: Project) -> None:
    """The training dies, as of a lack of memory, and its job fails."""
    process = project.start()
    _, trainer = project.training()
    trainer.kill()
    project.finish(process)
    went_on(project, "FAILED", "COMPLETED")
