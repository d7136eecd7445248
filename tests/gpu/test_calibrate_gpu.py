"""The speeds of a GPU, measured. Skipped where there is no device."""

import json
import subprocess
import sys

import pytest
import torch

from emm.plan.gpus import find_gpu

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def test_command(tmp_path):
    path, config = tmp_path / "mine.yaml", json.dumps({"experiments": "conditioning"})
    command = [sys.executable, "-m", "emm.cli", "calibrate", f"--output={path}", "--seconds=5"]
    done = subprocess.run([*command, f"--config={config}"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    gpu = find_gpu(str(path))
    assert gpu.gpu
    assert gpu.title == torch.cuda.get_device_name()
    assert {"fp32", "fp16"} <= set(gpu.operations)
    assert all(1e11 < speed < 1e16 for speed in gpu.operations.values())
    assert gpu.rate("fp16") > gpu.rate("fp32")  # TF32 is off
    trained = [
        line.split() for line in done.stdout.splitlines() if line.split()[:1] == ["training"]
    ]
    assert len(trained) == 3 * len(gpu.operations)
    assert all(0.5 < float(row[-1]) < 2 for row in trained)
