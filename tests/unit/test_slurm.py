"""What SLURM is asked, by a command of its name that answers as SLURM does."""

import math
import time
from datetime import datetime

import pytest

from emm import slurm


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """Makes a squeue of a shell script."""

    def make(script: str) -> None:
        path = tmp_path / "squeue"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    for name in ("SLURM_JOB_ID", "SLURM_JOB_END_TIME"):
        monkeypatch.delenv(name, raising=False)
    return make


@pytest.mark.parametrize(
    ("script", "alive"),
    [
        ("echo RUNNING", True),
        ("echo PENDING", True),
        ("echo COMPLETING", True),
        ("echo COMPLETED", False),
        ("echo TIMEOUT", False),
        ("echo NODE_FAIL", False),
        ("true", False),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", False),
        ("echo 'Unable to contact slurm controller' >&2; exit 1", None),
    ],
)
def test_whether_a_job_is_alive(squeue, script, alive):
    squeue(script)
    assert slurm.is_alive("7") is alive


def test_without_slurm(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm.is_alive("7") is None
    assert slurm.end_time() is None
    assert slurm.stop_time() == math.inf


def test_the_end_of_this_job(squeue, monkeypatch):
    squeue('test "$3" = --jobs=12 && echo 2026-11-22T10:00:00')
    assert slurm.end_time() is None
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert slurm.end_time() == datetime(2026, 11, 22, 10).timestamp()
    monkeypatch.setenv("SLURM_JOB_END_TIME", "1700000000")
    assert slurm.end_time() == 1.7e9


@pytest.mark.parametrize("answer", ["N/A", "NONE", ""])
def test_a_job_without_an_end(squeue, monkeypatch, answer):
    squeue(f"echo {answer}")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    assert slurm.stop_time() == math.inf


def test_work_stops_before_the_end(squeue, monkeypatch):
    """Three minutes before, or a tenth of the time of a short job."""
    squeue("exit 1")
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 7200))
    assert slurm.stop_time() == pytest.approx(time.time() + 7020, abs=5)
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(time.time() + 600))
    assert slurm.stop_time() == pytest.approx(time.time() + 540, abs=5)
