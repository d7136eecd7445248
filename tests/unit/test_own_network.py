"""docs/your-own-network.md: its code runs as it stands there, in seconds."""

import os
import re
import shlex
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from emm import catalog, cli
from emm.nets import UNet
from emm.spec import Recipe, differing
from emm.texts import option

PAGE = Path(__file__).parents[2] / "docs" / "your-own-network.md"
NETWORK = {"model.channels": 8, "model.channel_mult": [1, 2], "model.num_blocks": 1}
SMALL = [f"--set={key}={value}" for key, value in NETWORK.items()]


def blocks(kind: str) -> list[str]:
    """Code blocks of a language on the page."""
    return re.findall(rf"^```{kind}\n(.*?)^```", PAGE.read_text(), re.M | re.S)


def commands() -> list[list[str]]:
    """The lines of the page that start with emm."""
    return [shlex.split(line) for line in re.findall(r"^    (emm .*)$", PAGE.read_text(), re.M)]


@pytest.fixture
def emm(monkeypatch):
    """Runs `emm` in this process: emm("train", "--set", ...); it has to end with exit code 0."""
    environment, numbers = dict(os.environ), (signal.SIGTERM, signal.SIGINT)
    handlers = [signal.getsignal(number) for number in numbers]

    def run(*words: object) -> None:
        monkeypatch.setattr("sys.argv", ["emm", *map(str, words)])
        with pytest.raises(SystemExit) as ending:
            cli.main()
        assert ending.value.code == 0

    yield run
    os.environ.clear()
    os.environ.update(environment)
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def kernel(tmp_path, monkeypatch) -> Path:
    """A folder with kernel.py and kernel.yaml of the page."""
    (code,) = (text for text in blocks("python") if "class Kernel" in text)
    (experiment,) = blocks("yaml")
    (tmp_path / "kernel.py").write_text(code)
    (tmp_path / "kernel.yaml").write_text(experiment)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_kernel_copies_small_training_sets_and_blends_large_ones(kernel, emm):
    """Through the commands of the rules, at the smallest and the largest size."""
    found = catalog.load({"scale": "quick", "experiments": "kernel.yaml"})
    assert list(found.figures) == ["kernel"]
    ratios = []
    smallest, *_, largest = found.runs.values()
    for run in (smallest, largest):
        (evaluation,) = run.evaluations.values()
        settings = options(run.settings)
        emm("data", *settings, "--output", "source.npz")
        emm("subset", "source.npz", *settings, "--output", "subset.npz")
        emm("train", *settings, "--record=1:1", "--subset=subset.npz", "--output=run/run.yaml")
        chosen = options(evaluation.settings, "eval")
        places = ("--run=run/run.yaml", "--subset=subset.npz", "--output=samples")
        emm("sample", *chosen, *places, "--set=eval.num_samples=200")
        emm("score", "--samples=samples", "--training=subset.npz", "--output=scores.parquet")
        ratios.append(pd.read_parquet("summary.parquet")["memorization_ratio"].item())
    assert ratios[0] > 0.9
    assert ratios[1] < 0.5


def options(settings: dict, *groups: str) -> list[str]:
    names = groups or tuple(Recipe.model_fields)
    return [option(key, value) for key, value in differing(settings, names).items()]


def test_the_commands_for_weights(tmp_path, monkeypatch, edm_pickle, edm_state, emm, capsys):
    """Those of the page with handwritten digits, a small network and few samples."""
    monkeypatch.chdir(tmp_path)
    digits = ["--set=data.dataset=digits", "--set=data.resolution=8"]
    more = {
        "data": digits,
        "subset": [*digits, "--set=data.size=20"],
        "import-weights": [*SMALL, "--set=data.dataset=digits"],
        "sample": ["--set=eval.num_samples=6", "--set=eval.steps=3"],
        "score": [],
    }
    edm_pickle(tmp_path / "edm-cifar10-32x32-uncond-vp.pkl", edm_state(network(channels=1)))
    lines = [words[1:] for words in commands() if "samples/" not in words]
    assert [words[0] for words in lines] == list(more)
    for words in lines:
        emm(*words, *more[words[0]])
    assert pd.read_parquet("summary.parquet")["n_samples"].item() == 6
    content = yaml.safe_load((tmp_path / "imported" / "run.yaml").read_text())
    assert content["weights"]["file"] == "edm-cifar10-32x32-uncond-vp.pkl"
    printed = capsys.readouterr().out
    assert f"{content['run']}: {content['parameters']:,} parameters" in printed
    assert content["run"].startswith("digits-8px-n20-ddpmpp-c8b1-weights-")


def network(channels: int = 3) -> UNet:
    """A small network with random weights."""
    return UNet(
        resolution=8, image_channels=channels, channels=8, channel_mult=(1, 2), num_blocks=1
    )


def test_the_library_call_for_weights(tmp_path, monkeypatch, edm_pickle, edm_state):
    monkeypatch.chdir(tmp_path)
    published = network()
    edm_pickle(tmp_path / "edm-cifar10-32x32-uncond-vp.pkl", edm_state(published))
    (code,) = (text for text in blocks("python") if "load_published" in text)
    small = "resolution=8, channels=8, channel_mult=(1, 2), num_blocks=1"
    assert code.count("resolution=32, num_blocks=4") == 1
    names: dict = {}
    exec(code.replace("resolution=32, num_blocks=4", small), names)
    assert names["left_out"] == []
    for name, tensor in names["network"].state_dict().items():
        assert torch.equal(tensor, published.state_dict()[name]), name


def test_a_refused_pickle_is_one_line_with_exit_code_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("a.pkl").write_bytes(b"cos\nsystem\n(S'touch was_run'\ntR.")
    monkeypatch.setattr(
        "sys.argv", ["emm", "import-weights", "a.pkl", "--to", "run", "--subset", "none.npz"]
    )
    with pytest.raises(SystemExit) as ending:
        cli.main()
    assert ending.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_the_page_is_linked_from_the_readme():
    assert "docs/your-own-network.md" in (PAGE.parents[1] / "README.md").read_text()
