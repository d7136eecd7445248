"""Several processes that share a training: the same run as by one, up to rounding."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
import yaml
from torch.nn import functional

from emm.data.stage import Subset, write_subset
from emm.files import read_arrays
from emm.nets.dropout import Dropout, share_dropout
from emm.owner import exclusive
from emm.train import checkpoint
from emm.train.team import ALONE, Team

pytestmark = pytest.mark.slow

SETTINGS = {
    "data.resolution": 8,
    "data.size": 12,
    "model.channels": 8,
    "model.channel_mult": "[1, 2]",
    "model.attention_levels": "[1]",
    "model.num_blocks": 1,
    "model.dropout": 0.3,
    "train.batch_size": 10,
    "train.lr": 0.002,
    "train.warmup_epochs": 5.0,
    "train.device": "cpu",
}


@pytest.fixture(scope="module")
def subset(tmp_path_factory) -> Path:
    """Twelve random images."""
    path = tmp_path_factory.mktemp("subset") / "subset.npz"
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (12, 8, 8, 1), dtype=np.uint8)
    none = np.full(12, -1)
    write_subset(path, Subset(images, none, none, np.arange(12), 0))
    return path


def command(subset: Path, folder: Path, processes: int, epochs: int) -> list[str]:
    """The command that trains."""
    options = [f"--set={key}={value}" for key, value in SETTINGS.items()]
    return [
        *(sys.executable, "-m", "emm.cli", "train", *options, f"--subset={subset}"),
        *(f"--output={folder}/run.yaml", f"--record={epochs}:2", f"--processes={processes}"),
        *("--ema=0.9", "--save-every=0.5"),
    ]


def trained(subset: Path, folder: Path, processes: int, epochs: int = 40) -> dict:
    """The record of a run."""
    done = subprocess.run(
        command(subset, folder, processes, epochs), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return yaml.safe_load((folder / "run.yaml").read_text())


def assert_same(folder: Path, expected: Path, rounding: float = 1e-4) -> None:
    """The loss curve and the weights of two runs.

    Weights as a whole: Adam turns the rounding errors of a gradient that is 0, such as that of the
    bias of attention's keys, into steps.
    """
    curves = [pd.read_parquet(each / "metrics.parquet") for each in (folder, expected)]
    columns = ["step", "epoch", "loss", "lr"]
    pd.testing.assert_frame_equal(*(curve[columns] for curve in curves), rtol=rounding)
    names = [path.name for path in sorted((expected / "checkpoints").iterdir())]
    assert [path.name for path in sorted((folder / "checkpoints").iterdir())] == names
    for name in names:
        found, wanted = (weights(each / "checkpoints" / name) for each in (folder, expected))
        assert (found - wanted).norm() < rounding * wanted.norm()


def weights(path: Path) -> torch.Tensor:
    """All tensors of a checkpoint, one after another."""
    tensors, _ = checkpoint.load(path)
    return torch.cat([tensors[name].reshape(-1) for name in sorted(tensors)])


def samples(subset: Path, folder: Path) -> np.ndarray:
    """Images of the last checkpoint of a run."""
    command = [
        *(sys.executable, "-m", "emm.cli", "sample", f"--run={folder}/run.yaml"),
        *(f"--subset={subset}", f"--output={folder}/samples", "--set=train.epochs=40"),
        *("--set=train.ema=0.9", "--set=eval.num_samples=16", "--set=eval.steps=8"),
        "--set=eval.snapshots=2",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    path = sorted((folder / "samples").glob("*.npz"))[-1]
    return read_arrays(path)["images"].astype(int)


@pytest.fixture(scope="module")
def alone(subset, tmp_path_factory) -> Path:
    """The run of one process."""
    folder = tmp_path_factory.mktemp("alone")
    trained(subset, folder, 1)
    return folder


@pytest.mark.parametrize("processes", [2, 3])
def test_the_run_is_that_of_one_process(subset, alone, tmp_path, processes):
    """With dropout, and where the batch cannot be cut into equal parts."""
    record = trained(subset, tmp_path, processes)
    assert record["processes"] == processes
    assert_same(tmp_path, alone)
    assert not list(tmp_path.glob(".*"))
    if processes == 2:
        found, expected = samples(subset, tmp_path), samples(subset, alone)
        assert np.ptp(expected) > 100
        assert np.abs(found - expected).max() <= 1


def test_stopped_by_a_signal_and_continued_by_one_process(subset, tmp_path, started):
    process = started(command(subset, tmp_path, 2, 40000))
    wait_for_state(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert said.count("state saved") == 1
    _, metadata = checkpoint.load(tmp_path / "state.safetensors")
    process = started(command(subset, tmp_path, 1, 40000))
    assert f"resumed at step {metadata['step']} of" in process.stderr.readline()


@pytest.fixture
def started():
    """Starts commands, and ends them whatever happens."""
    processes = []

    def start(words: list[str]) -> subprocess.Popen:
        processes.append(
            subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
        )
        return processes[-1]

    yield start
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for_state(folder: Path, process: subprocess.Popen) -> None:
    """Wait until a training has got somewhere."""
    deadline = time.monotonic() + 60
    while not (folder / "state.safetensors").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_bad_input_is_said_once_and_ends_all(tmp_path):
    missing = command(tmp_path / "nothing.npz", tmp_path, 2, 40)
    done = subprocess.run(missing, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.count("nothing.npz: no such file") == 1


def test_a_folder_in_use_is_said_by_the_leader(subset, tmp_path):
    with exclusive(tmp_path):
        words = command(subset, tmp_path, 2, 40)
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.returncode == 75, done.stderr
    assert "is at work in it; wait for it" in done.stderr


def test_a_process_that_dies_ends_the_others(subset, tmp_path, started):
    process = started(command(subset, tmp_path, 2, 40000))
    wait_for_state(tmp_path, process)
    os.kill(psutil.Process(process.pid).children()[-1].pid, signal.SIGKILL)
    process.communicate(timeout=60)
    assert process.returncode not in (0, 2)
    checkpoint.load(tmp_path / "state.safetensors")


def test_processes_stop_when_their_launcher_dies(subset, tmp_path, started):
    process = started(command(subset, tmp_path, 2, 40000))
    wait_for_state(tmp_path, process)
    workers = psutil.Process(process.pid).children()
    process.kill()
    _, alive = psutil.wait_procs(workers, 30)
    assert not alive
    checkpoint.load(tmp_path / "state.safetensors")


@pytest.mark.parametrize("count", [1, 7, 10, 512])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_parts_make_up_a_batch(count, size):
    whole = np.arange(count)
    parts = [whole[Team(rank, size).part(count)] for rank in range(size)]
    assert np.array_equal(np.concatenate(parts), whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_parts_have_the_masks_of_the_whole(layout):
    x = torch.randn(6, 5, 4, 4).contiguous(memory_format=layout)
    torch.manual_seed(1)
    expected = functional.dropout(x, 0.4)
    found = []
    for rank in range(2):
        module = Dropout(0.4)
        share_dropout(module, 6, Team(rank, 2).part(6))
        torch.manual_seed(1)
        found.append(module(x[Team(rank, 2).part(6)]))
    torch.testing.assert_close(torch.cat(found), expected)
    assert torch.equal(Dropout(0.4).eval()(x), x)


def test_one_process_asks_nobody():
    assert ALONE.leads
    assert ALONE.agree(True)
    assert not ALONE.agree(False)
    tensor = torch.ones(2)
    ALONE.add(tensor)
    assert tensor.tolist() == [1, 1]
