"""The log of an attempt: what it says of work that ends, fails, is stopped or is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emm import attempts
from emm.attempts import recorded
from emm.devices import VISIBLE
from emm.errors import Interrupted
from emm.usage.records import read_logs

WORK = """
import sys, time
from pathlib import Path
from emm.attempts import recorded
with recorded(Path(sys.argv[1]), heartbeat=0.05):
    content = bytearray(200_000_000)
    time.sleep(60)
"""


@pytest.fixture
def log(tmp_path) -> Path:
    """Log of a training in a folder of results that is not there yet."""
    return tmp_path / "usage" / "train" / "run.jsonl"


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Makes a nvidia-smi of these shell commands; returns the file that says how it was called."""
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "cupy", raising=False)

    def make(*commands: str) -> Path:
        path, calls = tmp_path / "bin" / "nvidia-smi", tmp_path / "calls"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(["#!/bin/sh", f'echo "$@" >> {calls}', *commands, ""]))
        path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
        return calls

    return make


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def wait_for(lines_of: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while not lines_of.exists() or lines_of.read_text().count("\n") < count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_attempt_counts_up_to_its_last_line(log, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", WORK, str(log)])
    try:
        wait_for(log, 5)
        (alive,) = read_logs(tmp_path)["train", "run"]
        assert alive.outcome == "running"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (killed,) = read_logs(tmp_path)["train", "run"]
    first, *_, last = lines(log)
    assert killed.outcome == "killed"
    assert killed.seconds == last["time"] - first["start"] >= 0.15
    assert killed.end == last["time"]
    assert 200 < killed.peak_memory_mb < 2000
    assert killed.host == os.uname().nodename
    assert len({line["attempt"] for line in lines(log)}) == 1


def test_how_attempts_end(log, tmp_path):
    with recorded(log):
        pass
    with pytest.raises(Interrupted), recorded(log):
        raise Interrupted("stopped by SIGTERM")
    with pytest.raises(ValueError, match="a bug"), recorded(log):
        raise ValueError("a bug")
    found = [record.outcome for record in read_logs(tmp_path)["train", "run"]]
    assert found == ["finished", "stopped", "failed"]
    assert [line["outcome"] for line in lines(log)][::2] == [None] * 3  # written at the start


def test_time_and_cpu_of_an_attempt(log, tmp_path):
    with recorded(log, sample=0.05):
        until = time.thread_time() + 0.3
        while time.thread_time() < until:
            pass
    (record,) = read_logs(tmp_path)["train", "run"]
    assert 0.3 <= record.seconds < 10
    assert record.cpu_percent == pytest.approx(100 * 0.3 / record.seconds, rel=0.2)


def test_without_a_log_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with recorded(None):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_line_that_was_cut_off_costs_that_line_only(log, tmp_path):
    with recorded(log):
        pass
    log.write_text(log.read_text()[:-40])  # within the line of the end
    with recorded(log):
        pass
    first, second = read_logs(tmp_path)["train", "run"]
    assert (first.outcome, second.outcome) == ("killed", "finished")
    assert log.read_text().count("\n") == 4


@pytest.mark.parametrize("path", ["/dev/full", "/proc/no/such.jsonl"])
def test_a_log_that_cannot_be_written_does_not_matter(path):
    done = []
    with recorded(Path(path), heartbeat=0.01):
        time.sleep(0.1)
        done.append(True)
    assert done


def test_a_signal_in_the_middle_of_a_line_counts(log, monkeypatch):
    def signalled(*_):
        raise Interrupted("stopped by SIGTERM")

    monkeypatch.setattr(attempts, "_append", signalled)
    with pytest.raises(Interrupted), recorded(log):
        raise AssertionError("not reached")


def test_use_of_the_gpu_that_slurm_gave(log, smi, monkeypatch):
    percent = 'if [ $(wc -l < "$0.n") -gt 1 ]; then p=90; else p=30; fi; echo >> "$0.n"'
    calls = smi('touch "$0.n"', percent, 'echo "GPU-abc, NVIDIA H100 PCIe, $p, 1000"')
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(VISIBLE, "3")
    with recorded(log, sample=0.05):
        wait_for(calls, 8)
    last = lines(log)[-1]
    assert (last["gpu"], last["gpu_id"], last["slurm_job"]) == ("NVIDIA H100 PCIe", "GPU-abc", "7")
    assert 50 < last["gpu_percent"] < 90  # the mean of two small ones and many large ones
    assert last["peak_gpu_memory_mb"] == pytest.approx(1048.6)  # MiB in MB
    assert all("--id=3" in line for line in calls.read_text().splitlines())


def test_a_gpu_that_does_not_tell_its_utilisation(log, smi, monkeypatch):
    calls = smi('echo "MIG-abc, NVIDIA A100, [N/A], 5"')
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(VISIBLE, "0")
    with recorded(log, sample=0.02):
        wait_for(calls, 2)
    last = lines(log)[-1]
    assert (last["gpu"], last["gpu_percent"]) == ("NVIDIA A100", None)


def test_only_a_gpu_in_use_is_asked_for(log, smi, monkeypatch):
    calls = smi('echo "GPU-abc, NVIDIA A100, 50, 1"')
    monkeypatch.setenv(VISIBLE, "0")
    with recorded(log, sample=0.02):
        time.sleep(0.2)
    assert not calls.exists()
    monkeypatch.setitem(sys.modules, "cupy", object())
    with recorded(log, sample=0.02):
        wait_for(calls, 2)
    assert [line["gpu"] for line in lines(log)] == [None, None, None, "NVIDIA A100"]


def test_a_nvidia_smi_that_hangs_or_fails_delays_nothing(log, smi, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv(VISIBLE, "0")
    for commands in (["exec sleep 5"], ["echo No devices were found", "exit 6"]):
        calls = smi(*commands)
        start = time.monotonic()
        with recorded(log, sample=0.02):
            wait_for(calls, 1)
        assert time.monotonic() - start < 3
        assert lines(log)[-1]["outcome"] == "finished"
        assert lines(log)[-1]["gpu"] is None
        calls.unlink()
