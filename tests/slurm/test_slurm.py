"""The workflow on a real SLURM: what it asks for, and what it survives."""

import os
import re
import signal
import time

import pandas as pd
import pytest
from cluster import wait_for

pytestmark = pytest.mark.slurm


def same(project, undisturbed: pd.DataFrame) -> None:
    """The results are those of a run that nothing disturbed."""
    pd.testing.assert_frame_equal(project.table(), undisturbed)


def jobs(slurm, project) -> list[tuple[str, str, str]]:
    """Number, state and comment of the jobs that a project has submitted."""
    submitted = re.findall(r"SLURM jobid (\d+)", project.output)
    return [job for job in slurm.jobs() if job[0] in submitted]


def requests(slurm, job: str) -> tuple[str | None, str, str]:
    """GPUs, cores and time limit that a job was submitted with."""
    text = slurm.run("scontrol", "show", "job", job).stdout
    found = [re.search(rf"\b{key}=(\S+)", text) for key in ("TresPerJob", "NumCPUs", "TimeLimit")]
    return tuple(match and match[1] for match in found)


def wait_for_training(slurm, project) -> str:
    """Number of a training job that has got somewhere."""
    found: list[str] = []

    def is_training() -> bool:
        running = [
            job
            for job, state, what in jobs(slurm, project)
            if state == "RUNNING" and "train" in what
        ]
        states = list(project.folder.glob("results/tiny/runs/*/state.safetensors"))
        found[:] = running
        return bool(running and states)

    wait_for(is_training, 120, "a training")
    return found[0]


@pytest.fixture
def long(project):
    """A project whose trainings take half a minute and save their state all the time."""
    path = project.folder / "workflow" / "scales" / "tiny.yaml"
    path.write_text(path.read_text().replace("factor: 0.0015", "factor: 0.05"))
    rule = project.folder / "workflow" / "rules" / "train.smk"
    rule.write_text(rule.read_text().replace("emm train \\", "emm train --save-every 1 \\"))
    return project


def test_a_run(slurm, project, undisturbed):
    """Every job asks for what it needs, and a run is sampled and scored in one allocation."""
    project.run()
    same(project, undisturbed)
    comments = [what for _, _, what in jobs(slurm, project)]
    assert sum("rule_train" in what for what in comments) == 2
    assert sum("sample_score" in what for what in comments) == 2
    assert not any(what.startswith(("rule_sample", "rule_score")) for what in comments)
    asked = {what: requests(slurm, job) for job, _, what in jobs(slurm, project)}
    train = next(each for what, each in asked.items() if "rule_train" in what)
    assert train == ("gres:gpu:1", "1", "01:00:00")
    assert asked["rule_evaluate_sample_score"] == ("gres:gpu:1", "1", "02:00:00")
    assert asked["rule_tables"] == (None, "1", "00:30:00")


def test_a_job_that_an_admin_cancels_goes_on(slurm, long):
    process = long.start()
    job = wait_for_training(slurm, long)
    slurm.run("scancel", job)
    assert process.wait(300) == 0, long.output[-5000:]
    logs = "".join(path.read_text() for path in long.folder.glob("results/tiny/logs/train/*.log"))
    assert "resumed at step" in logs
    assert sum("rule_train" in what for _, _, what in jobs(slurm, long)) == 3


def test_a_controller_that_is_killed_starts_again(slurm, long):
    """Its jobs are still in the queue: no run is trained by two at a time."""
    process = long.start()
    wait_for_training(slurm, long)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(1)
    long.run("--unlock")
    long.run(seconds=400)
    records = list(long.folder.glob("results/tiny/runs/*/run.yaml"))
    assert len(records) == 2
