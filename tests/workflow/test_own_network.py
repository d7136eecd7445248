"""Networks that are not trained here, as runs of the workflow: what they leave, what runs again."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from emm.nets import UNet

PAGE = Path(__file__).parents[2] / "docs" / "your-own-network.md"
NETWORK = {"model.channels": 8, "model.channel_mult": [1, 2], "model.num_blocks": 1}
GIVEN = {
    "title": "A kernel, and weights that others trained",
    "scaled": False,
    "set": {
        "data.dataset": "digits",
        "data.resolution": 8,
        "data.size": 20,
        "eval.num_samples": 60,
        "eval.steps": 8,
    },
    "runs": [
        {"model.arch": "denoiser", "model.denoiser": "kernel.py:Kernel"},
        {"model.weights": "weights/ema.pt", "model.precond": "edm", **NETWORK},
    ],
    "figures": {
        "given_images": {"plot": "grid", "hue": "model.arch"},
        "given_curve": {"plot": "curve", "x": "epoch", "hue": "model.arch", "epoch": "all"},
    },
}
OPTIONS = ("given_images", "given_curve", "--config")
OPTIONS += ("experiments=[given.yaml, edm_images]", "weights={edm_images: data/edm.pkl}")

pytestmark = pytest.mark.slow


def save_network(path: Path, seed: int) -> None:
    torch.manual_seed(seed)
    network = UNet(resolution=8, image_channels=1, channels=8, channel_mult=(1, 2), num_blocks=1)
    path.parent.mkdir(exist_ok=True)
    torch.save(network.state_dict(), path)


@pytest.fixture(scope="module")
def made(shipped, tmp_path_factory):
    """A checkout whose experiment has run once, and what Snakemake said; not to be changed."""
    project = shipped.clone(tmp_path_factory.mktemp("given") / "project")
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    (code,) = (text for text in blocks if "class Kernel" in text)
    (project.folder / "kernel.py").write_text(code)
    save_network(project.folder / "weights" / "ema.pt", 0)
    project.write("given.yaml", GIVEN)
    return project, project.snakemake(*OPTIONS)


@pytest.fixture
def changed(made, tmp_path):
    """A copy of that checkout, to be changed by one test."""
    return made[0].clone(tmp_path / "changed")


def test_both_leave_results_and_figures(made):
    project, output = made
    folder = project.folder / "results" / "quick"
    rows = pd.read_parquet(folder / "tables" / "given" / "memorization.parquet")
    assert rows["model.arch"].tolist() == ["denoiser", "ddpmpp"]
    assert rows[["step", "epoch", "n_samples"]].values.tolist() == [[0, 0, 60], [0, 0, 60]]
    assert rows["memorization_ratio"][0] > 0.9
    assert rows["memorization_ratio"][1] < 0.1
    for name in ("given_images", "given_curve"):
        for suffix in ("svg", "pdf", "png", "csv"):
            assert (folder / "figures" / f"{name}.{suffix}").stat().st_size > 50
    assert "note: config: weights: edm_images trains its own network at scale quick" in output


def test_nothing_runs_again(made):
    assert made[0].plan(*OPTIONS).nothing


def test_an_edit_of_the_code_samples_its_run_again(changed):
    changed.edit("kernel.py", "min=1", "min=2")
    counts = changed.plan(*OPTIONS).counts
    assert {counts.pop(rule) for rule in ("train", "sample", "score")} == {1}
    assert not {"data", "subset"} & set(counts)


def test_another_file_of_weights_samples_its_run_again(changed):
    save_network(changed.folder / "weights" / "ema.pt", 1)
    plan = changed.plan(*OPTIONS)
    assert all("-weights-" in run for run in plan.runs("train") | plan.runs("sample"))
    assert (plan.counts["train"], plan.counts["sample"], plan.counts["score"]) == (1, 1, 1)


def test_weights_that_are_not_there(changed):
    shutil.rmtree(changed.folder / "results")
    (changed.folder / "weights" / "ema.pt").unlink()
    done = changed.run("snakemake", "--dry-run", "--profile", "profiles/local", *OPTIONS)
    assert done.returncode == 2
    assert done.stdout.endswith("error: experiment given: weights/ema.pt: no such file\n")


def test_an_error_of_the_users_code_is_shown_with_its_traceback(changed):
    """And one of its output in a line."""
    changed.edit("kernel.py", "return (weights", "return (wieghts")
    changed.run("snakemake", "--profile", "profiles/local", *OPTIONS)
    (log,) = (changed.folder / "results" / "quick" / "logs" / "sample").glob("*denoiser*/*.log")
    assert "kernel.py" in log.read_text()
    assert "NameError: name 'wieghts' is not defined" in log.read_text()
    changed.edit("kernel.py", "(wieghts @ self.images).view(-1, *self.shape)", "weights")
    changed.run("snakemake", "--profile", "profiles/local", *OPTIONS)
    last = log.read_text().splitlines()[-1]
    assert last.startswith("error: model.denoiser kernel.py:Kernel: returned")
