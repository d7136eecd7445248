"""Runs that train nothing: what decides them, what does not, and settings that contradict."""

from pathlib import Path

import pytest

from emm import catalog
from emm.analyse.places import Entry, groups_of
from emm.documents import Claim
from emm.errors import UserError
from emm.given import given_files, is_trained, split_name
from emm.ids import run_id
from emm.resolve import resolve
from emm.spec import DEFAULTS

FILE = "data/network.pkl"
WEIGHTS = {"model.weights": FILE, "model.precond": "edm"}
OWN = {"model.arch": "denoiser", "model.denoiser": "kernel.py:Kernel"}


def resolved(settings: dict) -> dict:
    return resolve(DEFAULTS | {"data.size": 1000} | settings, "mine.yaml: runs item 1")


@pytest.mark.parametrize(
    ("settings", "trained"),
    [({}, True), ({"model.arch": "optimum"}, False), (WEIGHTS, False), (OWN, False)],
)
def test_what_is_trained(settings, trained):
    assert is_trained(resolved(settings)) is trained


@pytest.mark.parametrize("base", [WEIGHTS, OWN])
def test_a_training_that_does_not_happen_makes_no_other_run(base):
    training = {
        "train.lr": 1.0,
        "train.epochs": 5.0,
        "train.seed": 3,
        "train.ema": 0.5,
        "train.order": "shuffled",
        "train.batch_size": 2000,  # more than there are images
        "model.dropout": 0.3,
        "eval.snapshots": 3,
    }
    assert resolved(base | training) == resolved(base)


@pytest.mark.parametrize(
    ("base", "changed"),
    [
        (WEIGHTS, {"model.weights": "data/other.pkl"}),
        (WEIGHTS, {"model.precond": "vp"}),
        (WEIGHTS, {"model.channels": 64}),
        (WEIGHTS, {"train.precision": "bf16"}),
        (OWN, {"model.denoiser": "kernel.py:Other"}),
        (OWN, {"data.size": 500}),
        (OWN, {"labels.kind": "true"}),
    ],
)
def test_what_changes_the_samples_makes_another_run(base, changed):
    assert run_id(resolved(base | changed)) != run_id(resolved(base))


def test_the_device_is_kept_and_makes_no_other_run():
    for base in (WEIGHTS, OWN):
        chosen = resolved(base | {"train.device": "cpu"})
        assert chosen["train.device"] == "cpu"
        assert run_id(chosen) == run_id(resolved(base))


def test_a_network_is_of_no_account_to_a_denoiser():
    settings = {"model.channels": 64, "model.skip_mask": "1", "data.resolution": 30}
    assert resolved(OWN | settings) == resolved(OWN | {"data.resolution": 30})


def test_run_ids_say_what_is_sampled():
    assert run_id(resolved(WEIGHTS)).startswith("cifar10-32px-n1000-ddpmpp-c128b2-weights-")
    assert run_id(resolved(OWN)).startswith("cifar10-32px-n1000-denoiser-")


@pytest.mark.parametrize(
    ("settings", "files"),
    [
        ({}, []),
        (WEIGHTS, [FILE]),
        (OWN, ["kernel.py"]),
        (OWN | {"model.denoiser": "../a b/kernel.py:make"}, ["../a b/kernel.py"]),
        (OWN | {"model.denoiser": "package.kernels:make"}, []),
    ],
)
def test_files_that_a_run_is_made_from(settings, files):
    assert given_files(resolved(settings)) == files


@pytest.mark.parametrize(
    ("denoiser", "parts"),
    [
        ("kernel.py:Kernel", ("kernel.py", "Kernel")),
        ("C:/a/kernel.py:k", ("C:/a/kernel.py", "k")),
        ("package.module:name", ("package.module", "name")),
    ],
)
def test_names_of_denoisers(denoiser, parts):
    assert split_name(denoiser) == parts


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"model.arch": "denoiser"},
            "model.denoiser: needed with model.arch denoiser; set it to f",
        ),
        ({"model.denoiser": "a.py:b"}, "model.denoiser: goes with model.arch denoiser, not ddpmpp"),
        (OWN | {"model.weights": "x"}, "model.weights: goes with model.arch ddpmpp"),
        (WEIGHTS | {"model.arch": "optimum"}, "model.weights: goes with model.arch ddpmpp or ncs"),
        *[
            (OWN | {"model.denoiser": text}, f"model.denoiser {text}: write it as file.py:name")
            for text in ("kernel", "kernel.py", "kernel.py:", ":k", "a-b:k", "k.py:a.b", "k.py:1")
        ],
        (OWN | {"eval.sampler": "ddim"}, "eval.sampler ddim: denoiser is sampled by heun"),
    ],
)
def test_contradictions_are_one_line(settings, message):
    with pytest.raises(UserError) as error:
        resolved(settings)
    assert str(error.value).startswith(f"mine.yaml: runs item 1: {message}")


def mine(tmp_path: Path, text: str, **config: object) -> catalog.Catalog:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    return catalog.load({"scale": "quick", "experiments": str(path), **config})


KERNEL = """
title: x
scaled: false
set: {data.dataset: digits, data.resolution: 8, model.arch: denoiser}
runs: [{data.size: [10, 20], model.denoiser: kernel.py:Kernel, train.epochs: [5, 50]}]
figures: {over_time: {plot: curve, x: epoch, hue: data.size, epoch: all}}
"""


def test_an_untrained_run_has_one_evaluation_at_step_0(tmp_path):
    found = mine(tmp_path, KERNEL)
    assert len(found.rows) == 4
    assert len(found.runs) == len(found.evaluations) == 2
    for run in found.runs.values():
        assert (run.snapshots, run.is_trained, run.given) == ([0], False, ["kernel.py"])
    assert all("ep-" not in evaluation for _, evaluation in found.evaluations)


def test_claims_about_epochs_leave_untrained_runs_out(tmp_path):
    found = mine(tmp_path, KERNEL)
    claim = Claim(statement="x", figure="over_time", kind="monotone-increasing", along="epoch")
    assert groups_of(claim, "mine", found.rows, "") == []
    assert Entry(found.rows[0]).step is None


EDM = {"edm_images": "data/edm.pkl"}


def figure_1b(scale: str, experiments: str = "edm_images", **config) -> catalog.PlannedFigure:
    return catalog.load({"scale": scale, "experiments": experiments, **config}).figures["fig1b"]


def test_weights_of_an_experiment_take_the_place_of_its_training():
    (row,) = figure_1b("paper", weights=EDM).rows
    assert row.settings["model.weights"] == row.published["model.weights"] == "data/edm.pkl"
    assert not is_trained(row.settings)
    assert row.settings["data.size"] == 50000


def test_the_caption_says_which_network_was_sampled():
    assert "``edm.pkl``, which others trained" in figure_1b("paper", weights=EDM).caption
    assert "others trained" not in figure_1b("paper").caption


def test_without_weights_the_run_of_another_experiment_is_shown():
    found = catalog.load({"scale": "paper", "experiments": ["edm_images", "data_size"]})
    (row,) = found.figures["fig1b"].rows
    assert found.runs[row.run_id].experiments == {"edm_images", "data_size"}
    assert len(found.runs) == 6
    quick = catalog.load({"scale": "quick", "experiments": ["edm_images", "data_size"]})
    assert len(quick.runs) == len(found.runs)


def test_weights_do_not_move_the_runs_of_other_experiments():
    config = {"scale": "paper", "experiments": ["edm_images", "data_size"]}
    plain, given = catalog.load(config), catalog.load(config | {"weights": EDM})
    assert set(plain.runs) < set(given.runs)
    assert given.only("data_size") == plain.only("data_size")
    assert given.only("edm_images").weights == EDM


def test_a_scale_that_changes_the_runs_takes_no_weights_and_says_so():
    config = {"scale": "quick", "experiments": "edm_images"}
    found, plain = catalog.load(config | {"weights": EDM}), catalog.load(config)
    assert list(found.runs) == list(plain.runs)
    (notice,) = found.notices
    assert notice.startswith("config: weights: edm_images trains its own network at scale quick")
    assert plain.notices == []
    assert catalog.load({"scale": "paper", "experiments": "gu2023", "weights": EDM}).notices == []


def test_weights_of_an_own_experiment_at_every_scale(tmp_path):
    text = "title: x\nscaled: false\nruns: [{data.size: 10}]"
    found = mine(tmp_path, text, weights={"mine": "a.pt"})
    assert [run.given for run in found.runs.values()] == [["a.pt"]]
    assert found.notices == []


def test_weights_for_an_experiment_that_does_not_exist():
    with pytest.raises(UserError, match="config: weights: no experiment 'edm_image'; did you mean"):
        figure_1b("paper", weights={"edm_image": "x.pkl"})
