"""The command line: exit codes, one-line errors, and what commands print."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from emm import catalog, cli
from emm.analyse.parquet import read_table
from emm.score import nearest
from emm.score.stage import read_scores
from emm.spec import DEFAULTS, Recipe, differing
from emm.texts import option

EXPERIMENT = """
title: Three trainings of seconds
scaled: false
set:
  data.dataset: digits
  data.resolution: 8
  model.channels: 8
  model.channel_mult: [1]
  model.attention_levels: []
  model.num_blocks: 1
  model.precond: edm
  train.batch_size: 4
  train.epochs: 3
  train.warmup_epochs: 0
  eval.num_samples: 6
  eval.steps: 3
  eval.snapshots: 1
runs: [{data.size: [10, 20, 30]}]
figures:
  ratio: {plot: curve}
  pictures: {plot: grid, hue: data.size}
claims:
  any:
    statement: Something is copied.
    figure: ratio
    kind: threshold
    by: data.size
    op: ">="
    value: 0
"""


COLOURS = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)


class Result(NamedTuple):
    """What a command left: exit code and what it printed."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


def run(*words: object) -> int:
    """Exit code of the command `emm` in this process; nothing that it sets stays."""
    numbers = (signal.SIGTERM, signal.SIGINT)
    handlers, environment = [signal.getsignal(number) for number in numbers], dict(os.environ)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["emm", *map(str, words)])
            cli.main()
    except SystemExit as ending:
        return ending.code
    finally:
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    raise AssertionError("typer ends with SystemExit")


@pytest.fixture
def emm(capfd) -> Command:
    """The command with what it prints."""

    def captured(*words: object) -> Result:
        capfd.readouterr()
        return Result(run(*words), *capfd.readouterr())

    return captured


@pytest.fixture
def fails(emm) -> Callable[..., str]:
    """A command that has to end with exit code 2 and one line; returns the line."""

    def line(*words: object) -> str:
        result = emm(*words)
        assert result.code == 2
        assert result.out == ""
        assert result.err.startswith("error: ")
        assert result.err.count("\n") == 1
        return result.err.removeprefix("error: ").removesuffix("\n")

    return line


def options(settings: dict, *groups: str) -> list[str]:
    return [option(key, value) for key, value in differing(settings, groups).items()]


class Project(NamedTuple):
    """A config whose first run is done, whose second can be resumed, and whose third is missing."""

    config: str
    catalog: catalog.Catalog

    def run_file(self, name: str) -> Path:
        return self.catalog.run_folder(next(iter(self.catalog.runs))) / name

    def evaluation_file(self, name: str) -> Path:
        run_id, evaluation_id = next(iter(self.catalog.evaluations))
        return self.catalog.evaluation_folder(run_id, evaluation_id) / name

    @property
    def subset(self) -> Path:
        return self.catalog.root / "subset.npz"

    @property
    def table(self) -> Path:
        return self.catalog.root / "tables" / "memorization.parquet"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Project:
    """The project, made by the commands of the rules once for this module."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "mine.yaml").write_text(EXPERIMENT)
    config = {"scale": "paper", "experiments": [str(folder / "mine.yaml")], "results": str(folder)}
    project = Project(json.dumps(config), catalog.load(config))
    done, resumable, _ = project.catalog.runs.values()
    (evaluation,) = done.evaluations.values()
    everything = options(done.settings, *Recipe.model_fields)
    record, samples = project.run_file("run.yaml"), project.evaluation_file("samples")
    source = folder / "source.npz"
    for words in (
        ["data", *everything, "--output", source],
        ["subset", source, *everything, "--output", project.subset],
        ["train", *everything, "--record=3:1", "--subset", project.subset, "--output", record],
        ["sample", *everything, "--run", record, "--subset", project.subset, "--name",
         evaluation.id, "--output", samples],
        ["score", "--samples", samples, "--training", project.subset, "--gallery-size", 4,
         "--output", project.evaluation_file("scores.parquet")],
    ):  # fmt: skip
        assert run(*words) == 0
    state = project.catalog.run_folder(resumable.id) / "state.safetensors"
    state.parent.mkdir(parents=True)
    state.touch()
    return project


@pytest.fixture
def project(made) -> Iterator[Project]:
    """The project, brought back afterwards to what it was."""
    root = made.catalog.root
    shutil.copytree(root, root.with_name("copy"))
    yield made
    shutil.rmtree(root)
    root.with_name("copy").rename(root)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


def test_runs_as_json(emm, made):
    result = emm("runs", "--config", made.config, "--json")
    assert (result.code, result.err) == (0, "")
    rows = json.loads(result.out)
    assert [row["state"] for row in rows] == ["done", "resumable", "missing"]
    assert [row["id"] for row in rows] == list(made.catalog.runs)
    for row, run in zip(rows, made.catalog.runs.values(), strict=True):
        assert row["experiments"] == ["mine"]
        assert row["settings"] == json.loads(json.dumps(run.settings))
        assert set(row["settings"]) == set(DEFAULTS)
        assert (row["epochs"], row["ema"]) == (3, [0.99929])
    done, *others = (row["results"] for row in rows)
    assert others == [[], []]
    (result,) = done
    assert result["n_samples"] == 6
    assert result["memorization_ratio"] == result["n_memorized"] / 6
    assert result["epoch"] == 3.2  # eight steps of four images


def test_runs_for_people(emm, made):
    result = emm("runs", "--config", made.config)
    assert result.code == 0
    *_, head, _rule, first, second, third, _, last = result.out.splitlines()
    assert head.split() == ["Run", "State", "Experiments", "Epochs", "Best", "ratio"]
    assert last == "3 runs: 1 done, 1 resumable, 1 missing"
    listed = [line.split() for line in (first, second, third)]
    assert [line[0] for line in listed] == list(made.catalog.runs)
    assert listed[0][1:4] == ["done", "mine", "3"]
    assert listed[0][5] == "%"
    assert listed[2][1:] == ["missing", "mine", "3", "-"]


def test_runs_with_results_do_without_pandas(made):
    code = f"import sys; sys.argv = {['emm', 'runs', '--config', made.config]}\n"
    code += "from emm.cli import main\ntry: main()\nfinally: print('pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "1 done" in done.stdout
    assert done.stdout.splitlines()[-1] == "False"


def test_runs_of_a_config_file(emm, made, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(made.config)
    listed = [emm("runs", "--config", config, "--json") for config in (path, made.config)]
    assert listed[0] == listed[1]
    names = json.loads(emm("runs", "--config", path, "--experiments", "optimum", "--json").out)
    assert [row["experiments"] for row in names] == [["optimum"]]
    quick = emm("runs", "--config", path, "--scale", "quick", "--experiments", "gu2023", "--json")
    used = {row["settings"]["data.dataset"] for row in json.loads(quick.out)}
    assert used == {"digits", "digits_blend", "digits_rgb"}


def test_tables_figures_and_summary(emm, made, tmp_path):
    tables = made.catalog.root / "tables"
    assert emm(
        "tables", "--config", made.config, "--memorization", tables / "memorization.parquet",
        "--emm", tables / "emm.parquet",
    ).code == 2  # fmt: skip
    one = json.dumps(json.loads(made.config) | {"select": {"paper": {"mine": {"data.size": 10}}}})
    words = ["--memorization", tables / "memorization.parquet", "--emm", tables / "emm.parquet"]
    assert emm("tables", "--config", one, *words).code == 0
    assert list(read_table(made.table)["experiments"]) == ["mine"]
    for name in ("ratio", "pictures"):
        assert emm("figure", name, "--config", one, *words, "--output", tmp_path / name).code == 0
        found = {path.suffix for path in tmp_path.glob(f"{name}.*")}
        assert found == {".svg", ".pdf", ".png", ".csv"}
    result = emm("summary", "--config", one)
    assert result.code == 0
    assert "ratio.png" not in result.out  # it was drawn elsewhere
    drawn = made.catalog.root / "figures" / "ratio.png"
    drawn.parent.mkdir(exist_ok=True)
    drawn.touch()
    result = emm("summary", "--config", made.config)
    assert f"ratio                    {drawn}\n" in result.out


def test_replication(emm, fails, made, tmp_path):
    one = json.dumps(json.loads(made.config) | {"select": {"paper": {"mine": {"data.size": 10}}}})
    rows, output = tmp_path / "memorization.parquet", tmp_path / "replication.parquet"
    words = ["--memorization", rows, "--emm", tmp_path / "emm.parquet"]
    assert emm("tables", "--config", one, *words).code == 0
    words = ["replicate", "--config", one, "--memorization", rows, "--output"]
    assert emm(*words, output) == Result(0, "", "")
    table = read_table(output).set_index("id")
    assert table.loc["mine.any", ["verdict", "n_runs"]].to_list() == ["supported", 1]
    assert list(table.index) == [
        "mine.any"
    ]  # values of papers that were not asked for are not told
    assert output.with_suffix(".csv").exists()
    assert "Something is copied." in output.with_suffix(".md").read_text()
    assert fails(*words, tmp_path / "table.csv").endswith("end it with .parquet")
    rows.unlink()
    assert fails(*words, output) == f"{rows}: no such file"


def test_settings(emm):
    result = emm("settings")
    assert result.code == 0
    shown = [line.split() for line in result.out.splitlines() if line.strip()]
    found = {line[0]: " ".join(line[1:]) for line in shown if line[0] in DEFAULTS}
    assert list(found) == list(DEFAULTS)
    assert found["train.lr"].startswith("0.0002 number above 0 Learning rate")
    assert found["data.size"].startswith("null integer from 2 or null Number of")
    assert found["model.channel_mult"].startswith("[2, 2, 2] list of integers")
    assert found["labels.kind"].startswith("none none, constant, true, random, unique")
    assert "mondrian" in found["data.dataset"]


def test_network(emm):
    result = emm("network", "--recipe", "ddpmpp", "--set", "model.channels=320", "--json")
    assert (result.code, result.err) == (0, "")
    facts = json.loads(result.out)
    assert facts["parameters"] == 219_294_723
    assert facts["forward_gflop"] == pytest.approx(158.0, abs=0.05)
    assert facts["training_gflop"] == 3 * facts["forward_gflop"]
    assert sum(layer["parameters"] for layer in facts["layers"]) == facts["parameters"]
    assert {"name", "kind", "shape", "parameters"} <= set(facts["layers"][0])


@pytest.mark.parametrize(
    ("words", "parameters"),
    [
        ([], 35_125_251),
        (["--recipe", "ncsnpp"], 35_788_035),
        (["--recipe", "edm"], 55_732_739),
        (["--set", "labels.kind=true"], 35_126_659),
        (["--set", "model.skip_mask=000000111"], 35_125_251),
        (["--recipe", "edm", "--set", "labels.kind=unique"], 62_132_867),
        (["--set", "labels.kind=vectors"], 35_125_251 + 129 * 128),
    ],
)
def test_published_sizes_of_networks(emm, words, parameters):
    result = emm("network", *words)
    assert f"{parameters:,} parameters" in result.out
    assert result.code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "edn"], "--recipe: no recipe 'edn'; did you mean 'edm'?"),
        (["--recipe", "optimum"], "the optimum has no network"),
        (
            ["--recipe", "stable_diffusion"],
            "the network of stable_diffusion is the U-Net of model.base",
        ),
        (["--set", "model.chanels=5"], "--set: unknown setting 'model.chanels'; did you mean"),
        (["--set", "model.channels"], "--set model.channels: write it as key=value"),
        (["--set", "model.channels=wide"], "--set: model.channels: input should be a valid integ"),
        (["--set", "model.skip_mask=101"], "model.skip_mask: '101' is not 9 characters 0 or 1"),
        (["--set", "data.resolution=30"], "data.resolution: 30 px cannot be halved 2 times"),
        (["--recipe", "small", "--set", "labels.kind=unique"], "data.size: needed for unique lab"),
        (["--recipe", "small", "--set", "labels.kind=true"], "data.num_classes: needed for true"),
    ],
)
def test_networks_that_cannot_be(fails, words, message):
    assert fails("network", *words).startswith(message)


def grey(*levels: int) -> np.ndarray:
    """Images of 2x2 pixels in one shade each."""
    return np.repeat(np.array(levels, np.uint8), 4).reshape(-1, 2, 2, 1)


@pytest.fixture
def toy(tmp_path) -> list[object]:
    """Options of a score that can be computed by hand: two copies, one on the limit, two not."""
    np.save(tmp_path / "samples.npy", grey(0, 10, 25, 200, 150))
    np.save(tmp_path / "training.npy", grey(0, 100, 200, 200))
    samples, training = tmp_path / "samples.npy", tmp_path / "training.npy"
    output = tmp_path / "new" / "scores.parquet"
    return ["score", "--samples", samples, "--training", training, "--output", output]


def test_score(emm, toy):
    result = emm(*toy)
    assert result.code == 0
    facts = json.loads(result.out)
    expected = {
        "n_samples": 5,
        "n_training": 4,
        "n_memorized": 3,  # 0/100, 10/90 and 0/100; 25/75 is not less than a third
        "memorization_ratio": 0.6,
        "knn_distance": (0 + 10 + 25 + 0 + 50) / 5,
        "duplicates": 1,
    }
    assert list(facts)[:6] == list(expected)
    assert {key: facts[key] for key in expected} == expected
    assert facts["n_memorized_published"] == 2  # the copy of the repeated image has d1 = d2
    assert facts["distinct_copied"] == 2
    rows = read_scores(toy[-1])
    assert rows["memorized"].to_pylist() == [True, True, False, True, False]
    assert rows["d1_squared"].to_pylist() == [0, 400, 2500, 0, 10000]
    assert rows["nn1"].to_pylist()[:4] == [0, 0, 0, 2]


def test_score_by_the_published_rule(emm, toy):
    facts = json.loads(emm(*toy, "--duplicates", "published").out)
    assert (facts["n_memorized"], facts["n_memorized_published"], facts["duplicates"]) == (2, 2, 1)


def save_images(folder: Path, images: np.ndarray) -> Path:
    folder.mkdir()
    for number, image in enumerate(images):
        Image.fromarray(image[..., 0]).save(folder / f"{number}.png")
    return folder


def test_score_of_folders(emm, toy, tmp_path):
    samples = save_images(tmp_path / "samples", np.load(toy[2]))
    training = save_images(tmp_path / "training", np.load(toy[4]))
    expected = emm(*toy)
    assert emm("score", "--samples", samples, "--training", training, *toy[-2:]) == expected
    rows = read_scores(toy[-1]).to_pylist()
    assert [row["sample_file"] for row in rows] == [f"{number}.png" for number in range(5)]
    assert [row["nearest_file"] for row in rows] == [f"{row['nn1']}.png" for row in rows]


def test_score_on_a_chosen_device(emm, fails, toy):
    assert emm(*toy, "--device", "cpu") == emm(*toy)
    if nearest.array_module() is np:
        assert "device cuda" in fails(*toy, "--device", "cuda")


def bad_scores() -> dict[str, tuple[Callable[[Path], object], Callable[[Path], object], str]]:
    """Name: samples, training and message, made in a folder."""

    def array(name: str, content: np.ndarray) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            np.save(folder / name, content)
            return folder / name

        return make

    def text(name: str) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            (folder / name).write_text("not an image")
            return folder / name

        return make

    def folder_of(images: list[np.ndarray]) -> Callable[[Path], Path]:
        def make(folder: Path) -> Path:
            (folder / "images").mkdir()
            for number, image in enumerate(images):
                Image.fromarray(image).save(folder / "images" / f"{number}.png")
            return folder / "images"

        return make

    good = array("samples.npy", grey(0, 10))
    training = array("training.npy", grey(0, 100))
    two_sizes = [np.zeros((4, 4), np.uint8), np.zeros((4, 5), np.uint8)]
    return {
        "missing samples": (lambda f: f / "none", training, "none: no such file or folder"),
        "missing training": (good, lambda f: f / "none.npz", "none.npz: no such file or folder"),
        "shapes": (good, array("t.npy", np.zeros((2, 3, 3, 1), np.uint8)), "sizes must agree"),
        "channels": (good, array("t.npy", COLOURS), "sizes must agree"),
        "one image": (good, array("t.npy", grey(5)), "two"),
        "all the same": (good, array("t.npy", grey(5, 5, 5)), "are the same: two must differ"),
        "floats": (array("s.npy", np.zeros((2, 2, 2, 1))), training, "float64, need uint8"),
        "damaged array": (text("s.npy"), training, "cannot be read as an array"),
        "damaged archive": (text("s.npz"), training, "cannot be read as an array"),
        "other file": (text("s.txt"), training, "expected an .npy or .npz file or a folder"),
        "empty folder": (folder_of([]), training, "no images in this folder"),
        "images of two sizes": (folder_of(two_sizes), training, "images differ in size"),
    }


def test_grey_images_saved_as_rgb_are_grey(emm, tmp_path):
    grey = np.array([10, 200, 90], np.uint8)[:, None, None, None] * np.ones((2, 2, 1), np.uint8)
    np.save(tmp_path / "training.npy", grey)
    np.save(tmp_path / "samples.npy", np.repeat(grey, 3, axis=3))
    words = ["--samples", tmp_path / "samples.npy", "--training", tmp_path / "training.npy"]
    result = emm("score", *words, "--output", tmp_path / "scores.parquet")
    assert json.loads(result.out)["n_memorized"] == 3


def test_scores_of_a_model_that_was_trained_with_flips(emm, fails, tmp_path):
    training = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 1), np.uint8)
    np.save(tmp_path / "training.npy", training)
    np.save(tmp_path / "samples.npy", training[:, :, ::-1])
    words = ["--samples", tmp_path / "samples.npy", "--training", tmp_path / "training.npy"]
    words = ["score", *words, "--output", tmp_path / "scores.parquet"]
    assert json.loads(emm(*words).out)["n_memorized"] == 0
    found = json.loads(emm(*words, "--augment", "flip").out)
    assert (found["n_memorized"], found["memorization_ratio"]) == (5, 1.0)
    found = json.loads(emm(*words, "--augment", "flip_shift", "--shift", 1).out)
    assert found["n_memorized"] == 5


@pytest.mark.parametrize("name", bad_scores())
def test_what_cannot_be_scored(fails, tmp_path, name):
    make_samples, make_training, message = bad_scores()[name]
    samples, training = make_samples(tmp_path), make_training(tmp_path)
    output = tmp_path / "scores.parquet"
    words = ["score", "--samples", samples, "--training", training, "--output", output]
    assert message in fails(*words)
    assert not output.exists()


def test_output_that_cannot_be_written(fails, toy, tmp_path):
    (tmp_path / "folder.parquet").mkdir()
    assert "cannot be written (Is a directory)" in fails(*toy[:-1], tmp_path / "folder.parquet")
    assert "end it with .parquet" in fails(*toy[:-1], tmp_path / "scores.csv")
    below_a_file = tmp_path / "samples.npy" / "scores.parquet"
    assert "cannot be written (" in fails(*toy[:-1], below_a_file)


@pytest.mark.parametrize("name", ["--samples", "--duplicates=both", "--threads=0"])
def test_wrong_options_are_bad_input(emm, toy, name):
    result = emm(*toy, name)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert name.strip("-").partition("=")[0] in result.err


def test_help(emm):
    result = emm("--help")
    assert result.code == 0
    for command in cli.app.registered_commands:
        assert f" {command.callback.__name__.replace('_', '-')} " in result.out


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("none.yaml", "none.yaml: no such file"),
        ("{bad", "--config: not valid JSON ("),
        ("/dev/null/x", "/dev/null/x: cannot be read (Not a directory)"),
        ('{"scale": "huge"}', "config: scale: no scale 'huge'; allowed: paper, quick"),
        ('{"experiments": "mine.yaml"}', "mine.yaml: no such file"),
        ('{"set": {"train.lr": "fast"}}', "config: set: train.lr: input should be a valid number"),
        (
            '{"experiments": "demo", "set": {"data.size": 2000}}',
            ": data.size 2000: the source has only 1797 such images",
        ),
    ],
)
def test_wrong_configs(fails, config, message):
    assert message in fails("runs", "--config", config)


def test_config_that_is_a_list(fails, tmp_path):
    (tmp_path / "config.yaml").write_text("[scale, quick]")
    assert "holds no keys and values" in fails("runs", "--config", tmp_path / "config.yaml")


def train(project: Project, *words: object) -> list[object]:
    output = project.catalog.root / "other" / "run.yaml"
    given = ["--set=data.resolution=8", "--record=3:1", "--subset", project.subset]
    return ["train", *given, "--output", output, *words]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--record=3"], "--record 3: write it as 40000:published or 1000:5"),
        (["--record=many:1"], "--record many:1: train.epochs: input should be a valid number"),
        (["--record=-3:1"], "--record -3:1: train.epochs: input should be greater than 0"),
        (["--record=NaN:1"], "--record NaN:1: train.epochs: input should be a finite number"),
        (
            ["--record=3:0"],
            "--record 3:0: eval.snapshots: input should be 'published', 'log' ('log18'",
        ),
        (
            ["--record=3:best"],
            "--record 3:best: eval.snapshots: input should be 'published', 'log' (",
        ),
        (["--ema=1"], "--ema: train.ema: input should be less than 1, not 1.0"),
        (["--set=train.lrr=1"], "--set: unknown setting 'train.lrr'; did you mean 'train.lr'?"),
        (["--set=train.lr=fast"], "--set: train.lr: input should be a valid number, not 'fast'"),
        (["--set=train.device=cuda"], "train.device cuda: no CUDA device is visible"),
        (["--set=model.skip_mask=1"], "model.skip_mask: '1' is not 9 characters"),
        (["--subset=none.npz"], "none.npz: no such file"),
    ],
)
def test_trainings_that_cannot_be(fails, made, monkeypatch, words, message):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert fails(*train(made, *words)).startswith(message)


def test_damaged_subset(fails, project):
    damage(project.subset)
    assert fails(*train(project)).startswith(f"{project.subset}: damaged (")


def test_subset_that_is_another_file(fails, project):
    np.savez(project.subset, images=grey(1, 2))
    assert fails(*train(project)).startswith(f"{project.subset}: damaged (")


def sample(project: Project, *words: object) -> list[object]:
    record, output = project.run_file("run.yaml"), project.catalog.root / "other"
    settings = options(next(iter(project.catalog.runs.values())).settings, "eval", "train.epochs")
    return [
        "sample", *settings, "--run", record, "--subset", project.subset, "--output", output, *words
    ]  # fmt: skip


def test_a_missing_run(fails, made):
    assert fails(*sample(made, "--run=none.yaml")) == "none.yaml: no such file"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1", "not valid YAML"),
        ("- 1", "not the record of a run"),
        ("run: x", "not the record of a run"),
        ("\xff\x00", "damaged"),
    ],
)
def test_a_run_that_is_another_file(fails, project, text, message):
    path = project.run_file("run.yaml")
    path.write_bytes(text.encode("latin-1"))
    assert fails(*sample(project)).startswith(f"{path}: ")
    assert message in fails(*sample(project))


def test_truncated_runs(fails, project):
    path = project.run_file("run.yaml")
    whole = path.read_text()
    for end in range(0, whole.index("memory_mb"), 50):
        path.write_text(whole[:end])
        assert fails(*sample(project)).startswith(f"{path}: damaged (")


def test_a_run_with_an_unknown_setting(fails, project):
    path = project.run_file("run.yaml")
    path.write_text(path.read_text().replace("  channels:", "  chanels:"))
    expected = f"{path}: unknown key 'model.chanels'; did you mean 'channels'?"
    assert fails(*sample(project)) == expected


def test_a_damaged_checkpoint(fails, project):
    (path,) = (project.run_file("checkpoints")).iterdir()
    damage(path)
    assert fails(*sample(project)).startswith(f"{path}: damaged (")
    path.write_bytes(path.read_bytes()[:100])
    assert fails(*sample(project)).startswith(f"{path}: damaged (")
    path.unlink()
    assert fails(*sample(project)) == f"{path}: no such file"


def test_checkpoints_that_were_not_kept(fails, made):
    message = fails(*sample(made, "--set=eval.snapshots=2"))
    assert message.endswith("has no checkpoint at step 4; there are 8")
    message = fails(*sample(made, "--set=train.ema=0.9"))
    assert message.endswith("has EMA rates [0.99929], not 0.9; train the run again")


def score(project: Project) -> list[object]:
    samples, output = project.evaluation_file("samples"), project.evaluation_file("scores.parquet")
    return ["score", "--samples", samples, "--training", project.subset, "--output", output]


def test_damaged_samples(fails, project):
    (path,) = project.evaluation_file("samples").glob("*.npz")
    damage(path)
    assert fails(*score(project)).startswith(f"{path}: damaged (")
    path.unlink()
    assert fails(*score(project)) == f"{path}: no such file"


def test_damaged_index_of_samples(fails, project):
    path = project.evaluation_file("samples") / "samples.json"
    path.write_text(path.read_text()[:50])
    assert fails(*score(project)).startswith(f"{path}: damaged (")


def test_samples_of_another_training_set(fails, project):
    wrong = grey(*range(10))
    classes = np.full(10, -1)
    arrays = {"images": wrong, "labels": classes, "classes": classes, "index": np.arange(10)}
    np.savez(project.subset, label_dim=np.int64(0), **arrays)
    assert "samples of shape (8, 8, 1), training images of (2, 2, 1)" in fails(*score(project))


def test_damaged_summary(fails, project):
    path = project.evaluation_file("summary.parquet")
    path.write_bytes(path.read_bytes()[:-1000])
    assert fails("runs", "--config", project.config, "--json").startswith(f"{path}: damaged (")


def figure(project: Project, name: str) -> list[object]:
    words = ["--memorization", project.table, "--emm", project.table.with_name("emm.parquet")]
    output = project.catalog.root / "x"
    return ["figure", name, "--config", project.config, *words, "--output", output]


def test_unknown_figure(fails, made):
    assert fails(*figure(made, "ratios")) == "no figure 'ratios'; did you mean 'ratio'?"


def test_missing_and_damaged_tables(fails, project):
    project.table.unlink(missing_ok=True)
    assert fails(*figure(project, "ratio")) == f"{project.table}: no such file"
    advice = "run snakemake --profile profiles/local --config experiments=mine"
    assert fails("summary", "--config", project.config).endswith(f"yet; {advice}")
    project.table.parent.mkdir(exist_ok=True)
    project.table.write_text("PAR1")
    assert fails(*figure(project, "ratio")).startswith(f"{project.table}: damaged (")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--set=data.size=2000"], "data.size 2000: the source has only 1797 such images"),
        (["--set=data.size=1790"], "data.size 1790: needs 179 images of class 0, which has 178"),
        (["--set=data.num_classes=11"], "data.num_classes 11: the source has 10 classes"),
        (["--set=data.resolution=32"], "data.resolution 32: the images have 8 pixels"),
        (["--set=data.sise=5"], "--set: unknown setting 'data.sise'; did you mean 'data.size'?"),
    ],
)
def test_subsets_that_cannot_be(fails, made, words, message):
    source, output = made.catalog.root.parent / "source.npz", made.catalog.root / "x.npz"
    words = ["subset", source, "--set=data.resolution=8", *words, "--output", output]
    assert fails(*words).startswith(message)


def test_missing_and_damaged_sources(fails, tmp_path):
    words = ["--output", tmp_path / "subset.npz"]
    assert (
        fails("subset", tmp_path / "none.npz", *words) == f"{tmp_path / 'none.npz'}: no such file"
    )
    (tmp_path / "source.npz").write_bytes(b"PK\x03\x04")
    message = fails("subset", tmp_path / "source.npz", *words)
    assert message.startswith(f"{tmp_path / 'source.npz'}: damaged (")


def test_data_that_is_not_there(fails, tmp_path):
    words = ["data", "--set=data.dataset=folder", "--output", tmp_path / "source.npz"]
    assert "set data.path to a folder of images" in fails(*words)
    assert fails(*words, f"--set=data.path={tmp_path / 'none'}").endswith("none: no such folder")
    (tmp_path / "empty").mkdir()
    assert "no images in this folder" in fails(*words, f"--set=data.path={tmp_path / 'empty'}")
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 and then nothing")
    message = fails(*words, f"--set=data.path={tmp_path / 'a.npz'}")
    assert message.startswith(f"{tmp_path / 'a.npz'}: damaged (")
    unknown = fails("data", "--set=data.dataset=cifar", "--output", tmp_path / "source.npz")
    assert unknown.startswith("data.dataset: no source 'cifar'; allowed: cifar10, cifar100")


def test_schemas_are_written(emm, tmp_path):
    result = emm("schema", "--folder", tmp_path / "new")
    assert result.code == 0
    assert sorted(result.out.split()) == sorted(str(path) for path in (tmp_path / "new").iterdir())


def start(*words: object, before: str = "") -> subprocess.Popen:
    """The command in a process of its own."""
    arguments = [str(word) for word in words]
    code = f"{before}\nimport sys\nfrom emm import cli\nsys.argv[1:] = {arguments}\ncli.main()"
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code], stdout=pipe, stderr=pipe, text=True)


def test_a_full_disk_is_resumable(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("samples", "training"):
        np.save(tmp_path / f"{name}.npy", rng.integers(0, 256, (3000, 2, 2, 1), np.uint8))
    output = tmp_path / "scores.parquet"
    output.write_text("old")
    words = ["--samples", tmp_path / "samples.npy", "--training", tmp_path / "training.npy"]
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))"
    process = start("score", *words, "--output", output, before=limit)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert (
        err == f"error: {output}: File too large; free some space and run the same command again\n"
    )
    assert out == ""
    assert output.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 3


def open_when_read(pipe: Path, process: subprocess.Popen) -> int:
    """Descriptor of the writing end of a pipe that the process has begun to read."""
    while process.poll() is None:
        try:
            return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.05)
    raise AssertionError(process.communicate())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_resumable(tmp_path, number):
    os.mkfifo(tmp_path / "samples.npy")  # nobody writes: the command waits in it
    np.save(tmp_path / "training.npy", grey(0, 1))
    words = ["--samples", tmp_path / "samples.npy", "--training", tmp_path / "training.npy"]
    process = start("score", *words, "--output", tmp_path / "scores.parquet")
    writer = open_when_read(tmp_path / "samples.npy", process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    os.close(writer)
    assert process.returncode == 75
    assert err == f"error: stopped by {number.name}; run the same command again to go on\n"
    assert out == ""


def test_planning_commands_start_light(tmp_path):
    """Nothing heavy is imported where nothing is computed: a dry run has to answer at once."""
    code = """
import sys
from emm import cli
sys.argv[1:] = {words}
try:
    cli.main()
finally:
    heavy = ("torch", "pandas", "numpy", "pyarrow", "matplotlib", "snakemake")
    print([name for name in heavy if name in sys.modules])
"""
    nothing_made = json.dumps({"scale": "quick", "experiments": "all", "results": str(tmp_path)})
    for words in (["runs", f"--config={nothing_made}"], ["settings"], ["--help"]):
        program = code.format(words=words)
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "[]", words


def test_the_command_is_installed():
    command = Path(sys.executable).with_name("emm")
    done = subprocess.run([command, "runs", "--scale=huge"], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: config: scale: no scale 'huge'; allowed: paper, quick\n"
    assert done.stdout == ""


HEAVY = ("numpy", "pandas", "pyarrow", "scipy", "sklearn", "matplotlib", "torch", "snakemake")
UNTIL_SETTINGS = ("pydantic_core.core_schema", "yaml", "emm.spec", "emm.catalog")


@pytest.mark.parametrize(
    ("words", "unwanted"),
    [
        (["--help"], (*HEAVY, *UNTIL_SETTINGS)),
        (["summary", "--help"], (*HEAVY, "emm.spec", "emm.catalog")),
        (["score", "--help"], (*HEAVY, "emm.spec", "emm.catalog")),
        (["settings"], HEAVY),
        (["runs"], HEAVY),
        (["plan", "--output", "plan"], HEAVY),
    ],
)
def test_commands_import_what_they_need_alone(words, unwanted, tmp_path):
    """Half a second of waiting is easily added to all commands by one import."""
    (tmp_path / "config.yaml").write_text("experiments: [seeds]")
    code = f"import sys; sys.argv = {['emm', *words]}; from emm.cli import main\ntry: main()\n"
    code += "finally: print('\\n'.join(sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert set(unwanted) & set(done.stderr.splitlines()) == set()


def test_copies_are_counted_again(emm, fails, tmp_path):
    samples, training = tmp_path / "samples.npy", tmp_path / "training.npy"
    images = np.zeros((5, 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = [0, 10, 12, 14, 100]  # in 0..20: the first two are nearest to an end
    np.save(samples, images[:4])
    np.save(training, np.stack([images[0], images[0] + 20]) * (images[0] == 0))
    scores, output = tmp_path / "scores.parquet", tmp_path / "counts.csv"
    assert emm("score", "--samples", samples, "--training", training, "--output", scores).code == 0
    done = emm("recount", tmp_path, "--threshold", "1/3", "--threshold=1", "--output", output)
    assert done.code == 0
    assert "below 0.333" in done.out
    rows = [line.split(",") for line in output.read_text().splitlines()]
    found = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    counted = read_scores(scores).to_pandas()
    assert int(found[0]["n_memorized"]) == counted["memorized"].sum()
    assert int(found[1]["n_memorized"]) == (counted["d1_squared"] < counted["d2_squared"]).sum()
    assert fails("recount", tmp_path, "--threshold", "3").startswith("--threshold 3: write a")


def test_counting_again_takes_the_scores_of_a_config(emm, made, fails, tmp_path):
    done = emm("recount", "--config", made.config, "--threshold", "1/2")
    assert done.code == 0
    assert str(made.evaluation_file("scores.parquet")) in done.out
    other = json.dumps(json.loads(made.config) | {"results": str(tmp_path)})
    assert fails("recount", "--config", other).startswith("no scores of mine in ")


def test_criteria_of_folders_side_by_side(emm, fails, tmp_path):
    training = tmp_path / "known.npy"
    np.save(training, np.random.default_rng(0).integers(0, 256, (30, 4, 4, 1), np.uint8))
    np.save(tmp_path / "new.npy", 255 - np.load(training))
    samples = save_images(tmp_path / "samples", np.load(training)[:12])
    words = ["criteria", "--samples", samples, "--training", training]
    found = json.loads(emm(*words, "--json").out)
    assert (found["ratio_share_10"], found["spurious_share"], found["n_held_out"]) == (1, 0, 0)
    assert found["near_share"] is None
    words += ["--held-out", tmp_path / "new.npy"]
    (line,) = (line for line in emm(*words).out.splitlines() if "ratio_share_10 " in line)
    assert line.split()[-5:] == ["100", "75.75", "to", "100", "0"]
    found = json.loads(emm(*words, "--json").out)
    assert (found["n_held_out"], found["near_share"]) == (30, 1)
    assert found["memorization_ratio_held_out"] < 0.2
    np.save(tmp_path / "large.npy", np.zeros((9, 5, 5, 1), np.uint8))
    message = "large.npy: held-out images are 5x5x1, training images 4x4x1"
    assert message in fails(*words[:-1], tmp_path / "large.npy")
    assert "--source and --output are for samples of a run" in fails(*words, "--output", "x")
    alone = emm(*words[:-2]).out
    assert "Held out" not in alone
    assert "near_share" not in alone
