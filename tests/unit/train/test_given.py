"""Weights that others trained, and denoisers of one's own, through all stages as runs."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from scipy.spatial.distance import cdist

from emm.data.sources import load_source
from emm.data.stage import Subset, build_subset, write_subset
from emm.diffusion.sampling import draw_inputs, sample, sample_run
from emm.errors import UserError
from emm.files import read_arrays, sha256
from emm.ids import EVALUATION_KEYS
from emm.nets.published_iddpm import iddpm_names
from emm.nets.weights import load_published
from emm.score.runs import score_run
from emm.spec import DEFAULTS, Recipe, among, flatten, nested
from emm.train import METRICS, checkpoint, given
from emm.train.device import build_denoiser
from emm.train.given import import_run
from emm.train.stage import read_run, train_run

CPU = torch.device("cpu")
SETTINGS = {
    "data.dataset": "digits",
    "data.resolution": 8,
    "model.channels": 8,
    "model.channel_mult": [1, 2],
    "model.num_blocks": 1,
    "model.attention_levels": [2],
    "model.precond": "edm",
    "train.device": "cpu",
    "eval.num_samples": 7,
    "eval.steps": 4,
}


def recipe_of(**changed) -> Recipe:
    named = {name.replace("__", "."): value for name, value in changed.items()}
    return Recipe.model_validate(nested(SETTINGS | named))


def digits(label_kind: str = "none", size: int = 12) -> Subset:
    return build_subset(load_source("digits"), size=size, label_kind=label_kind)


def trained_looking(recipe: Recipe, subset: Subset) -> torch.nn.Module:
    """A denoiser whose output depends on all of its weights."""
    denoiser = build_denoiser(recipe, subset, CPU).eval()
    generator = torch.Generator().manual_seed(1)
    for weight in denoiser.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return denoiser


def evaluation(recipe: Recipe) -> dict:
    return among(flatten(recipe), EVALUATION_KEYS)


@pytest.mark.parametrize("labels", ["none", "true", "unique"])
def test_samples_of_an_import_are_those_of_the_network(tmp_path, edm_pickle, edm_state, labels):
    """Bit for bit, and scored like those of a training."""
    recipe, subset = recipe_of(labels__kind=labels), digits(labels)
    denoiser = trained_looking(recipe, subset)
    file = edm_pickle(tmp_path / "snapshot.pkl", edm_state(denoiser.network))
    write_subset(tmp_path / "subset.npz", subset)
    settings = flatten(recipe_of(labels__kind=labels, model__weights=str(file)))
    record = tmp_path / "run" / "run.yaml"
    content = train_run(settings, tmp_path / "subset.npz", [(40.0, 2)], [0.99929], record)
    assert [entry["step"] for entry in content["checkpoints"]] == [0]

    samples = tmp_path / "samples"
    sample_run(record, tmp_path / "subset.npz", evaluation(recipe), samples, name="seven")
    noise, drawn = draw_inputs(recipe, subset)
    expected = sample(denoiser, noise, drawn, recipe, CPU, 256)
    np.testing.assert_array_equal(read_arrays(samples / "step-00000000.npz")["images"], expected)
    assert expected.std() > 10

    frame = score_run(
        samples,
        tmp_path / "subset.npz",
        tmp_path / "scores.parquet",
        summary=tmp_path / "summary.parquet",
        pictures=tmp_path / "gallery.npz",
        device="cpu",
    )
    assert frame[["step", "epoch", "n_samples"]].values.tolist() == [[0, 0.0, 7]]
    flat = (images.reshape(len(images), -1).astype(float) for images in (expected, subset.images))
    distances = cdist(*flat).min(axis=1) / np.sqrt(subset.images[0].size)
    assert frame["knn_distance"].item() == pytest.approx(distances.mean())


def test_the_record_says_where_the_network_comes_from(tmp_path, edm_pickle, edm_state):
    recipe, subset = recipe_of(), digits()
    network = trained_looking(recipe, subset).network
    state = edm_state(network) | {"map_augment.weight": torch.ones(8, 9)}
    file = edm_pickle(tmp_path / "snapshot.pkl", state)
    write_subset(tmp_path / "subset.npz", subset)
    settings = flatten(recipe_of(model__weights=str(file)))
    record = tmp_path / "run.yaml"
    train_run(settings, tmp_path / "subset.npz", [(40.0, 2)], [0.5, 0.9], record)
    content, found = read_run(record)
    assert content["weights"] == {
        "file": str(file),
        "sha256": sha256(file),
        "left_out": ["map_augment.weight"],
    }
    assert content["parameters"] == sum(weight.numel() for weight in network.parameters())
    assert found["model.weights"] == str(file)
    (entry,) = content["checkpoints"]
    assert (entry["step"], entry["epoch"]) == (0, 0.0)
    tensors, metadata = checkpoint.load(tmp_path / entry["file"])
    assert metadata["ema"] == [0.5, 0.9]
    for name, weight in network.named_parameters():
        assert torch.equal(tensors[f"ema-0.5.{name}"], weight)
        assert torch.equal(tensors[f"ema-0.9.{name}"], weight)
    table = pd.read_parquet(tmp_path / "metrics.parquet")
    assert (tuple(table.columns), len(table)) == (METRICS, 0)


def test_weights_that_change_while_they_are_read_are_not_recorded(
    tmp_path, edm_pickle, edm_state, monkeypatch
):
    """As when a download is not over: the record would tell of a file that was not imported."""
    file = edm_pickle(tmp_path / "a.pkl", edm_state(trained_looking(recipe_of(), digits()).network))

    def changed(network, tensors):
        file.write_bytes(file.read_bytes() + b"more")
        return load_published(network, tensors)

    monkeypatch.setattr(given, "load_published", changed)
    with pytest.raises(UserError, match=r"a.pkl: changed while it was read; run the same command"):
        imported(tmp_path, file, digits())
    assert not (tmp_path / "run").exists()


def test_samples_are_of_the_weights_that_the_record_tells_of(tmp_path, edm_pickle, edm_state):
    """Whatever became of their file; not where an import was cut off before its record."""
    file = edm_pickle(tmp_path / "a.pkl", edm_state(trained_looking(recipe_of(), digits()).network))
    imported(tmp_path, file, digits())
    record, subset_path = tmp_path / "run" / "run.yaml", tmp_path / "subset.npz"
    sample_run(record, subset_path, evaluation(recipe_of()), tmp_path / "before")
    content = record.read_text()
    edm_pickle(file, edm_state(build_denoiser(recipe_of(), digits(), CPU).network))
    sample_run(record, subset_path, evaluation(recipe_of()), tmp_path / "same")
    for path in (tmp_path / "before").iterdir():
        assert path.read_bytes() == (tmp_path / "same" / path.name).read_bytes()

    imported(tmp_path, file, digits())
    sample_run(record, subset_path, evaluation(recipe_of()), tmp_path / "after")
    record.write_text(content)
    with pytest.raises(UserError, match=r"00000000.safetensors: holds other weights than the rec"):
        sample_run(record, subset_path, evaluation(recipe_of()), tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_what_is_left_out_is_said(tmp_path, edm_pickle, edm_state, capfd):
    state = edm_state(trained_looking(recipe_of(), digits()).network)
    file = edm_pickle(tmp_path / "a.pkl", state | {"map_augment.weight": torch.ones(8, 9)})
    imported(tmp_path, file, digits())
    assert f"{file}: left out map_augment.weight: augmentations" in capfd.readouterr().err


def test_a_network_of_improved_diffusion(tmp_path):
    changed = {
        "model.arch": "iddpm",
        "model.precond": "cosine",
        "model.heads": 2,
        "model.groups": 4,
    }
    changed |= {"eval.sampler": "ddim", "eval.steps": 50, "model.diffusion_steps": 100}
    recipe = Recipe.model_validate(nested(SETTINGS | changed))
    subset = digits()
    denoiser = trained_looking(recipe, subset)
    own = denoiser.network.state_dict()
    state = {theirs: own[name] for name, theirs in iddpm_names(denoiser.network).items()}
    torch.save(state, tmp_path / "ema_0.9999_000100.pt")
    content = imported(tmp_path, tmp_path / "ema_0.9999_000100.pt", subset, **changed)
    assert content["settings"]["model"]["precond"] == "cosine"
    sample_run(
        tmp_path / "run" / "run.yaml",
        tmp_path / "subset.npz",
        evaluation(recipe),
        tmp_path / "samples",
    )
    noise, drawn = draw_inputs(recipe, subset)
    expected = sample(denoiser, noise, drawn, recipe, CPU, 256)
    found = read_arrays(tmp_path / "samples" / "step-00000000.npz")["images"]
    np.testing.assert_array_equal(found, expected)


def imported(folder: Path, file: Path, subset: Subset, named=(), to="run", **changed) -> dict:
    """The record of `emm import-weights` with settings like SETTINGS."""
    write_subset(folder / "subset.npz", subset)
    recipe = Recipe.model_validate(nested(SETTINGS | changed))
    return import_run(file, flatten(recipe), set(named), folder / "subset.npz", folder / to)


@pytest.mark.parametrize("labels", ["none", "true", "unique", "random"])
def test_an_import_follows_its_training_set(tmp_path, edm_pickle, edm_state, labels):
    subset = build_subset(
        load_source("digits"), size=12, label_kind=labels, label_classes={"random": 5}.get(labels)
    )
    network = trained_looking(recipe_of(labels__kind=labels), subset).network
    file = edm_pickle(tmp_path / "a.pkl", edm_state(network))
    content = imported(tmp_path, file, subset, **{"data.resolution": 32, "train.lr": 1.0})
    settings = content["settings"]
    assert (settings["data"]["size"], settings["data"]["resolution"]) == (12, 8)
    assert settings["labels"]["kind"] == labels
    assert settings["labels"]["num_classes"] == subset.label_dim
    assert settings["train"]["lr"] == DEFAULTS["train.lr"]


def test_settings_that_are_named_have_to_fit(tmp_path, edm_pickle, edm_state):
    file = edm_pickle(tmp_path / "a.pkl", edm_state(trained_looking(recipe_of(), digits()).network))
    changed = {"labels.kind": "unique"}
    with pytest.raises(UserError, match=r"labels.kind unique: .*subset.npz has other labels"):
        imported(tmp_path, file, digits(), named=changed, **changed)


def test_an_import_takes_the_place_of_an_import_alone(tmp_path, edm_pickle, edm_state):
    networks = [trained_looking(recipe_of(), digits()).network for _ in range(2)]
    networks[1].stem.bias.data += 1
    for number, network in enumerate(networks):
        file = edm_pickle(tmp_path / f"{number}.pkl", edm_state(network))
        imported(tmp_path, file, digits(), to="run/run.yaml")
    tensors, _ = checkpoint.load(tmp_path / "run" / "checkpoints" / "step-00000000.safetensors")
    assert torch.equal(tensors["ema-0.99929.stem.bias"], networks[1].stem.bias)
    training = tmp_path / "trained" / "run.yaml"
    training.parent.mkdir()
    content = yaml.safe_load((tmp_path / "run" / "run.yaml").read_text())
    training.write_text(yaml.safe_dump({k: v for k, v in content.items() if k != "weights"}))
    with pytest.raises(UserError, match=r"run.yaml: is the record of a training; choose another"):
        imported(tmp_path, tmp_path / "0.pkl", digits(), to="trained")


@pytest.mark.parametrize(
    ("kind", "constants", "message"),
    [
        ("VPPrecond", {}, "a network under VPPrecond: set model.precond to vp, not edm"),
        ("EDMPrecond", {"sigma_data": 1.0}, "EDMPrecond with sigma_data 1; only 0.5 is known"),
        ("iDDPMPrecond", {}, "a network under iDDPMPrecond, which is not known; known: VPPrecond"),
    ],
)
def test_another_preconditioning_is_refused(
    tmp_path, edm_pickle, edm_state, kind, constants, message
):
    state = edm_state(trained_looking(recipe_of(), digits()).network)
    file = edm_pickle(tmp_path / "a.pkl", state, kind, **constants)
    with pytest.raises(UserError, match=rf"^{file}: {message}"):
        imported(tmp_path, file, digits())
    assert not (tmp_path / "run").exists()


def test_another_prediction_is_refused(tmp_path, edm_pickle, edm_state):
    state = edm_state(trained_looking(recipe_of(), digits()).network)
    file = edm_pickle(tmp_path / "a.pkl", state)
    changed = {"model.prediction": "image"}
    with pytest.raises(UserError, match=f"^{file}: .* leave out model.prediction image"):
        imported(tmp_path, file, digits(), **changed)


def test_another_network_is_refused_by_its_first_tensor(tmp_path, edm_pickle, edm_state):
    state = edm_state(trained_looking(recipe_of(), digits()).network)
    file = edm_pickle(tmp_path / "a.pkl", state)
    with pytest.raises(UserError, match=rf"{file}: published weights: missing tensor dec.4x4_b"):
        imported(tmp_path, file, digits(), **{"model.num_blocks": 2})
    with pytest.raises(UserError, match=r"tensor .* has shape .* the network needs"):
        imported(tmp_path, file, digits(), **{"model.channels": 16})
    with pytest.raises(UserError, match=r"missing tensor map_label"):
        imported(tmp_path, file, digits("true"))
    assert not (tmp_path / "run").exists()


CODE = """
import torch

def shrink(x, sigma, labels):
    return x / (1 + sigma.view(-1, 1, 1, 1) ** 2)

class Labels:
    def __init__(self, images, labels):
        self.images = images

    def __call__(self, x, sigma, labels):
        return self.images[labels]

network = torch.nn.Conv2d(1, 1, 3, padding=1)
"""


def own_run(folder: Path, name: str, subset: Subset, labels: str = "none") -> dict:
    """The record of a run with a denoiser of CODE, and its samples in folder/samples."""
    (folder / "mine.py").write_text(CODE)
    write_subset(folder / "subset.npz", subset)
    recipe = recipe_of(
        labels__kind=labels, model__arch="denoiser", model__denoiser=f"{folder}/mine.py:{name}"
    )
    record = folder / "run" / "run.yaml"
    content = train_run(flatten(recipe), folder / "subset.npz", [(1.0, 1)], [0.9], record)
    samples = folder / "samples"
    sample_run(record, folder / "subset.npz", evaluation(recipe), samples)
    assert len(list(samples.iterdir())) == 2
    return content


def test_a_denoiser_of_ones_own_is_sampled(tmp_path):
    content = own_run(tmp_path, "shrink", digits())
    assert content["checkpoints"] == [{"step": 0, "epoch": 0.0, "file": None}]
    code = tmp_path / "mine.py"
    assert content["denoiser"] == {"name": f"{code}:shrink", "sha256": {str(code): sha256(code)}}

    def shrink(x, sigma, labels):
        return x / (1 + sigma.view(-1, 1, 1, 1) ** 2)

    noise, _ = draw_inputs(recipe_of(), digits())
    expected = sample(shrink, noise, None, recipe_of(), CPU, 256)
    found = read_arrays(tmp_path / "samples" / "step-00000000.npz")["images"]
    np.testing.assert_array_equal(found, expected)


def test_a_denoiser_is_made_with_the_training_set_and_told_labels(tmp_path):
    subset = digits("unique")
    own_run(tmp_path, "Labels", subset, "unique")
    arrays = read_arrays(tmp_path / "samples" / "step-00000000.npz")
    np.testing.assert_array_equal(arrays["images"], subset.images[arrays["labels"]])
    index = json.loads((tmp_path / "samples" / "samples.json").read_text())
    assert index["settings"]["model.denoiser"].endswith("mine.py:Labels")


def test_a_denoiser_that_does_not_exist_is_found_out_before_sampling(tmp_path):
    with pytest.raises(UserError, match=r"mine.py has no missing"):
        own_run(tmp_path, "missing", digits())
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("change", ["edited", "restored", "unrecorded"])
def test_code_that_is_not_that_of_the_record_is_not_sampled(tmp_path, change):
    """By its content: an older file in its place, as a backup has it, has an older time."""
    own_run(tmp_path, "shrink", digits())
    code, record = tmp_path / "mine.py", tmp_path / "run" / "run.yaml"
    if change == "unrecorded":
        content = yaml.safe_load(record.read_text())
        content["denoiser"]["sha256"] = {}
        record.write_text(yaml.safe_dump(content))
    else:
        code.write_text(CODE.replace("1 + sigma", "2 + sigma"))
    if change == "restored":
        os.utime(code, (0, 0))
    call = record, tmp_path / "subset.npz", evaluation(recipe_of()), tmp_path / "again"
    told = rf"model.denoiser: {code} has changed since {record} was written .*; delete {record} and"
    with pytest.raises(UserError, match=told) as error:
        sample_run(*call)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "again").exists()
    settings = read_run(record)[1]
    train_run(settings, tmp_path / "subset.npz", [(1.0, 1)], [0.9], record)
    sample_run(*call)


def test_code_that_is_gone_is_not_sampled(tmp_path):
    own_run(tmp_path, "shrink", digits())
    (tmp_path / "mine.py").unlink()
    call = tmp_path / "subset.npz", evaluation(recipe_of()), tmp_path / "again"
    with pytest.raises(UserError, match=r"mine.py: no such file"):
        sample_run(tmp_path / "run" / "run.yaml", *call)
