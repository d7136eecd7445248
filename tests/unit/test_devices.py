"""One GPU for each job, with a nvidia-smi that names some which are not there."""

import multiprocessing
import os
import time

import pytest

from emm import devices
from emm.devices import take_gpus, visible_gpus


@pytest.fixture
def gpus(tmp_path, monkeypatch):
    """Makes a machine of GPUs with these names."""

    def make(*names: str) -> None:
        path = tmp_path / "bin" / "nvidia-smi"
        path.parent.mkdir(exist_ok=True)
        path.write_text("#!/bin/sh\nprintf '%s\\n' " + " ".join(names) + "\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")

    monkeypatch.setattr(devices, "_held", [])
    monkeypatch.setenv("SLURM_JOB_ID", "")
    monkeypatch.setenv(devices.VISIBLE, "set so that it is restored")
    monkeypatch.delenv(devices.VISIBLE)
    return make


def test_which_gpus_may_be_used(gpus, monkeypatch):
    assert visible_gpus() == []
    gpus("GPU-a", "GPU-b")
    assert visible_gpus() == ["GPU-a", "GPU-b"]
    monkeypatch.setenv(devices.VISIBLE, "3,5")
    assert visible_gpus() == ["3", "5"]
    monkeypatch.setenv(devices.VISIBLE, "")
    assert visible_gpus() == []


def test_nothing_to_choose(gpus, tmp_path, monkeypatch):
    gpus("GPU-a")
    assert take_gpus(folder=tmp_path / "locks") == []
    gpus("GPU-a", "GPU-b")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert take_gpus(folder=tmp_path / "locks") == []
    assert devices.VISIBLE not in os.environ


def _job(folder, queue, seconds: float) -> None:
    queue.put((*take_gpus(folder=folder), os.environ[devices.VISIBLE]))
    time.sleep(seconds)


def test_jobs_at_the_same_time_have_different_gpus(gpus, tmp_path, monkeypatch):
    gpus("GPU-a", "GPU-b", "GPU-c")
    monkeypatch.setattr(devices, "POLL_SECONDS", 0.05)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    jobs = [context.Process(target=_job, args=(tmp_path / "locks", queue, 60)) for _ in range(3)]
    for job in jobs:
        job.start()
    taken = [queue.get(timeout=30) for _ in jobs]
    assert sorted(taken) == [(name, name) for name in ("GPU-a", "GPU-b", "GPU-c")]
    fourth = context.Process(target=_job, args=(tmp_path / "locks", queue, 0))
    fourth.start()
    time.sleep(0.5)
    assert queue.empty()
    jobs[1].kill()  # whatever a job dies of, its GPU is free again
    assert queue.get(timeout=30)[0] in ("GPU-a", "GPU-b", "GPU-c")
    for job in (jobs[0], jobs[2], fourth):
        job.kill()


def test_a_job_of_several_gpus_takes_all_or_none(gpus, tmp_path, monkeypatch):
    """Two that each hold one and wait for the other's would wait forever."""
    gpus("GPU-a", "GPU-b", "GPU-c")
    monkeypatch.setattr(devices, "POLL_SECONDS", 0.05)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    first = context.Process(target=_job, args=(tmp_path / "locks", queue, 60))
    first.start()
    assert queue.get(timeout=30)[0] == "GPU-a"
    assert take_gpus(2, tmp_path / "locks") == ["GPU-b", "GPU-c"]
    assert os.environ[devices.VISIBLE] == "GPU-b,GPU-c"
    monkeypatch.delenv(devices.VISIBLE)
    assert devices._lock(["GPU-a", "GPU-b"], 2, tmp_path / "locks") == []
    first.kill()
    first.join()
    assert devices._lock(["GPU-a"], 1, tmp_path / "locks") == ["GPU-a"]
