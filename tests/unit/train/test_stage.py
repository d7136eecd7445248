"""Training as a command: its record, and processes that are killed, stopped or out of space."""

import dataclasses
import multiprocessing
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from emm.data.stage import write_subset
from emm.errors import Interrupted, UserError
from emm.ids import run_id
from emm.owner import exclusive
from emm.spec import RECIPE_VERSION, Recipe, flatten, nested
from emm.texts import option
from emm.train import METRICS, checkpoint
from emm.train.stage import read_run, train_run

PARALLEL = multiprocessing.get_context("forkserver")  # imports torch once for all processes
PARALLEL.set_forkserver_preload(["emm.train.stage", "emm.train.loop", "emm.train.progress"])


@pytest.fixture
def subset_path(tmp_path, digits) -> Path:
    write_subset(tmp_path / "subset.npz", digits(10))
    return tmp_path / "subset.npz"


@pytest.fixture
def trained(tmp_path, settings, subset_path):
    """train_run with other settings in a sub-folder: trained("name", [(5.0, 2)], ...)."""

    def run(name: str, record, ema=(0.9,), **changed) -> dict:
        named = settings | {key.replace("__", "."): value for key, value in changed.items()}
        return train_run(named, subset_path, record, ema, tmp_path / name / "run.yaml")

    return run


def without_time(record: dict) -> dict:
    return {key: value for key, value in record.items() if key not in ("seconds", "made")}


def assert_same_results(found: Path, expected: Path) -> None:
    """Bit-identical checkpoints, state and losses, and records that differ in times alone."""
    names = [path.name for path in sorted((expected / "checkpoints").iterdir())]
    assert [path.name for path in sorted((found / "checkpoints").iterdir())] == names
    for name in names:
        content = (expected / "checkpoints" / name).read_bytes()
        assert (found / "checkpoints" / name).read_bytes() == content
    states = [checkpoint.load(folder / "state.safetensors") for folder in (found, expected)]
    for name, tensor in states[1][0].items():
        if name != "metrics":
            assert torch.equal(states[0][0][name], tensor), name
    tables = [pd.read_parquet(folder / "metrics.parquet") for folder in (found, expected)]
    timeless = [table[["step", "epoch", "loss", "lr"]] for table in tables]
    pd.testing.assert_frame_equal(*timeless, check_exact=True)
    records = [yaml.safe_load((folder / "run.yaml").read_text()) for folder in (found, expected)]
    assert without_time(records[0]) == without_time(records[1])


def test_other_images_under_the_same_settings_train_anew(tmp_path, settings, digits, capfd):
    subset, path = digits(10), tmp_path / "subset.npz"
    for images, name in ((subset.images, "a"), (255 - subset.images, "a"), (subset.images, "b")):
        write_subset(path, dataclasses.replace(subset, images=images))
        train_run(settings, path, [(5.0, 1)], [0.9], tmp_path / name / "run.yaml")
    assert "belongs to other settings or images" in capfd.readouterr().err
    weights = [next((tmp_path / n / "checkpoints").iterdir()).read_bytes() for n in ("a", "b")]
    assert weights[0] != weights[1]


def test_record_of_a_run(tmp_path, trained, settings):
    content = trained("run", [(5.0, 2), (2.0, 1)], (0.9, 0.99929))
    assert yaml.safe_load((tmp_path / "run" / "run.yaml").read_text()) == content
    full = flatten(Recipe.model_validate(nested(settings))) | {"data.size": 10}
    assert content["run"] == run_id(full)
    assert content["settings"]["train"]["lr"] == 2e-3
    assert content["settings"]["data"]["size"] == 10
    assert (content["recipe_version"], content["ema"]) == (RECIPE_VERSION, [0.9, 0.99929])
    assert content["device"].startswith("cpu (")
    assert content["parameters"] > 1000
    assert content["made"]["torch"] == torch.__version__
    expected = [(5, 2.0), (7, 2.8), (13, 5.2)]
    assert [(entry["step"], entry["epoch"]) for entry in content["checkpoints"]] == expected
    for entry in content["checkpoints"]:
        _, metadata = checkpoint.load(tmp_path / "run" / entry["file"])
        assert (metadata["step"], metadata["ema"]) == (entry["step"], [0.9, 0.99929])


def test_metrics_of_a_run(tmp_path, trained):
    content = trained("run", [(5.0, 1)])
    table = pd.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert tuple(table.columns) == METRICS
    assert table["step"].dtype == np.int64
    assert table["step"].tolist() == list(range(1, 14))
    assert content["loss"] == table["loss"].iloc[-1]
    assert content["seconds"] == pytest.approx(table["seconds"].iloc[-1], abs=1e-3)


def test_settings_come_back(tmp_path, trained, settings):
    trained("run", [(1.0, 1)], model__skip_mask="01", train__lr=1e-5)
    content, found = read_run(tmp_path / "run" / "run.yaml")
    changed = {"model.skip_mask": "01", "train.lr": 1e-5, "data.size": 10}
    recipe = Recipe.model_validate(nested(settings | changed))
    assert found == flatten(recipe)
    assert content["run"] == run_id(found)


def test_a_run_is_extended(tmp_path, trained):
    trained("run", [(20.0, 1)])
    trained("run", [(20.0, 1), (40.0, 2)])
    trained("at once", [(40.0, 2), (20.0, 1)])
    assert_same_results(tmp_path / "run", tmp_path / "at once")


def test_a_shorter_record_of_a_longer_run(tmp_path, trained):
    before = trained("run", [(20.0, 1), (4.0, 1)])
    short = trained("run", [(4.0, 1)])
    assert [entry["step"] for entry in short["checkpoints"]] == [10, 50]
    assert pd.read_parquet(tmp_path / "run" / "metrics.parquet")["step"].max() == 50
    assert short["loss"] == before["loss"]


def test_other_snapshots_do_not_cost_a_longer_training(tmp_path, trained, capfd):
    longer = trained("run", [(20.0, 1)])
    trained("run", [(8.0, 2)])
    assert "is past step 10, whose checkpoint is missing: not resumed" in capfd.readouterr().err
    assert (tmp_path / "run" / "state.step-00000050.safetensors").exists()
    again = trained("run", [(20.0, 1)])
    assert "resumed at step 50 of 50" in capfd.readouterr().err
    assert [entry["step"] for entry in again["checkpoints"]] == [10, 20, 50]
    assert again["loss"] == longer["loss"]


def test_one_training_at_a_time(tmp_path, trained):
    (tmp_path / "run").mkdir()
    with exclusive(tmp_path / "run"), pytest.raises(Interrupted, match="is at work in it"):
        trained("run", [(4.0, 1)])


def test_a_run_goes_on_with_what_does_not_decide_its_trajectory(trained, capfd):
    trained("run", [(4.0, 1)])
    trained("run", [(8.0, 1), (4.0, 1)], train__epochs=8.0, train__ema=0.5, train__device="auto")
    assert "resumed at step 10 of 20" in capfd.readouterr().err


def test_a_run_of_other_settings_starts_anew(trained, capfd):
    trained("run", [(4.0, 1)])
    trained("run", [(4.0, 1)], train__lr=0.003)
    assert "belongs to other settings or images: not resumed from it" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data__size": 12}, r"data.size 12: .*subset.npz has 10"),
        (
            {"data__copies": 3, "data__duplicated": 0.2},
            r"data.copies 3: .*subset.npz has 1",
        ),
        ({"data__resolution": 8}, r"data.resolution 8: .*subset.npz has 4"),
        ({"labels__kind": "unique"}, r"labels.kind unique: .*subset.npz has other labels"),
        ({"labels__kind": "constant"}, r"labels.kind constant: .*subset.npz has other labels"),
        ({"labels__kind": "vectors"}, r"labels.kind vectors: .*subset.npz has other labels"),
        ({"train__lr": "high"}, r"settings: train.lr: input should be a valid number"),
        ({"model__attention_levels": [4]}, r"model.attention_levels: level 4 does not exist"),
    ],
)
def test_settings_that_do_not_fit(tmp_path, trained, changed, message):
    with pytest.raises(UserError, match=message):
        trained("run", [(1.0, 1)], **changed)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu(trained):
    with pytest.raises(UserError, match="no CUDA device is visible; use auto or cpu"):
        trained("run", [(1.0, 1)], train__device="cuda")


def test_a_damaged_subset(tmp_path, trained, subset_path):
    subset_path.write_bytes(subset_path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"subset.npz: damaged"):
        trained("run", [(1.0, 1)])


OPTIMUM = """
import sys
from pathlib import Path
from emm.train.stage import train_run
settings = {"data.dataset": "digits", "data.resolution": 4, "model.arch": "optimum"}
train_run(settings, Path(sys.argv[1]), [(40000.0, "published")], [0.99929], Path(sys.argv[2]))
assert "torch" not in sys.modules
"""


def test_the_optimum_is_recorded_at_once_without_torch(tmp_path, subset_path):
    record = tmp_path / "run" / "run.yaml"
    subprocess.run([sys.executable, "-c", OPTIMUM, subset_path, record], check=True)
    content, settings = read_run(record)
    assert content["checkpoints"] == [{"step": 0, "epoch": 0.0, "file": None}]
    assert settings["model.arch"] == "optimum"
    assert content["parameters"] == 0
    table = pd.read_parquet(record.with_name("metrics.parquet"))
    assert (tuple(table.columns), len(table)) == (METRICS, 0)


@pytest.mark.slow
def test_killed_at_any_moment(tmp_path, settings, subset_path, trained):
    """The state is saved after every step, so that kills also hit half-written files."""
    record = [(60.0, 3)]
    trained("undisturbed", record, (0.9, 0.99929))
    folder, moments = tmp_path / "killed", random.Random(0)
    arguments = (settings, subset_path, record, (0.9, 0.99929), folder / "run.yaml")
    kills = 0
    while not (folder / "run.yaml").exists():
        process = PARALLEL.Process(target=train_run, args=arguments, kwargs={"save_seconds": 0.0})
        before = newest(folder)
        process.start()
        while process.is_alive() and newest(folder) == before:
            time.sleep(0.002)
        process.join(moments.uniform(0, 0.3) if kills < 12 else 60)
        if process.is_alive():
            process.kill()
            kills += 1
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL)
    assert kills >= 3
    assert_same_results(folder, tmp_path / "undisturbed")
    assert not list(folder.rglob("*.tmp"))


def newest(folder: Path) -> int:
    """When the newest state was written."""
    try:
        return (folder / "state.safetensors").stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def command(settings: dict, subset_path: Path, output: Path, *record: str) -> list[str]:
    """`emm train` with these settings."""
    options = [option(key, value) for key, value in settings.items()]
    records = [f"--record={text}" for text in record]
    files = ["--subset", str(subset_path), "--output", str(output)]
    return [sys.executable, "-m", "emm.cli", "train", *options, *records, *files, "--ema=0.9"]


@pytest.mark.slow
def test_sigterm_ends_the_command_with_75(tmp_path, settings, subset_path, trained):
    output = tmp_path / "stopped" / "run.yaml"
    line = command(settings, subset_path, output, "1:1", "60:1")
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (output.parent / "checkpoints").exists():
            time.sleep(0.01)
        process.terminate()
        _, said = process.communicate(timeout=60)
    assert process.returncode == 75
    assert said.splitlines()[-1].startswith("error: ")
    assert "state saved; run the same command again to go on" in said
    assert not output.exists()
    trained("stopped", [(1.0, 1), (60.0, 1)])
    trained("undisturbed", [(1.0, 1), (60.0, 1)])
    assert_same_results(output.parent, tmp_path / "undisturbed")


@pytest.mark.slow
def test_a_full_disk_ends_the_command_with_75(tmp_path, settings, subset_path, trained):
    """A limit on the size of files, which the state exceeds and a checkpoint does not."""
    output = tmp_path / "full" / "run.yaml"
    trained("undisturbed", [(2.0, 1), (4.0, 1)])
    sizes = [path.stat().st_size for path in (tmp_path / "undisturbed").rglob("*.safetensors")]
    limit = (min(sizes) + max(sizes)) // 2
    trained("full", [(2.0, 1)])
    before = (output.parent / "state.safetensors").read_bytes()
    done = subprocess.run(
        command(settings, subset_path, output, "2:1", "4:1"),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 75
    assert "File too large; free some space and run the same command again" in done.stderr
    assert len(done.stderr.splitlines()) == 2  # resumed at step, error
    states = [path.read_bytes() for path in output.parent.glob("state*")]
    assert states == [before]
    trained("full", [(2.0, 1), (4.0, 1)])
    assert_same_results(output.parent, tmp_path / "undisturbed")


@pytest.mark.parametrize("content", [None, "", "[]", "run: 3", "\t", "{run: x, settings: {}}"])
def test_what_is_not_a_record(tmp_path, content):
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"run\.yaml: (no such file|damaged)"):
        read_run(path)
