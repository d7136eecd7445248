"""Sampling a run: seeds, batches, labels, files, interruptions."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from emm.data.sources import load_source
from emm.data.stage import Subset, build_subset, write_subset
from emm.diffusion import SAMPLE_INDEX, sampling
from emm.diffusion.precondition import Denoiser, karras_sigmas, to_uint8
from emm.diffusion.samplers import heun
from emm.diffusion.sampling import draw_inputs, sample, sample_run
from emm.errors import Interrupted, UserError
from emm.files import read_arrays
from emm.ids import EVALUATION_KEYS
from emm.nets.labels import label_vectors
from emm.score.stage import score_arrays
from emm.spec import Recipe, among, flatten, nested
from emm.train import checkpoint
from emm.train.device import build_denoiser
from emm.train.stage import train_run

CPU = torch.device("cpu")
SETTINGS = {
    "data.dataset": "digits",
    "data.resolution": 8,
    "model.channels": 4,
    "model.channel_mult": [1],
    "model.num_blocks": 1,
    "model.attention_levels": [],
    "model.precond": "edm",
    "train.batch_size": 4,
    "train.epochs": 4.0,
    "train.device": "cpu",
    "eval.num_samples": 5,
    "eval.steps": 3,
    "eval.snapshots": 2,
}


def recipe_of(**changed) -> Recipe:
    settings = {name.replace("__", "."): value for name, value in changed.items()}
    return Recipe.model_validate(nested(SETTINGS | settings))


def digits(size: int, **options) -> Subset:
    return build_subset(load_source("digits"), size=size, **options)


def trained_looking(recipe: Recipe, subset: Subset) -> Denoiser:
    """A denoiser whose output depends on all of its weights."""
    denoiser = build_denoiser(recipe, subset, CPU).eval()
    generator = torch.Generator().manual_seed(1)
    for weight in denoiser.parameters():
        fan_in = weight[0].numel() if weight.ndim > 1 else 1
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator) / fan_in**0.5
    return denoiser


def random_samples(count: int, batch_size: int) -> np.ndarray:
    recipe = recipe_of(
        eval__num_samples=count, eval__steps=18, model__channels=8, model__channel_mult=[1, 2]
    )
    subset = digits(20, label_kind="true")
    noise, labels = draw_inputs(recipe, subset)
    denoiser = trained_looking(recipe, subset)
    return sample(denoiser, noise, labels, recipe, CPU, batch_size)


def test_every_image_has_a_generator_of_its_own():
    """As published: the latent first, then the label, from the seed of the image."""
    recipe, subset = recipe_of(eval__num_samples=6, eval__seed=40), digits(20, label_kind="true")
    noise, labels = draw_inputs(recipe, subset)
    assert (noise.dtype, noise.shape, labels.dtype) == (torch.float32, (6, 1, 8, 8), torch.int64)
    for index in range(6):
        generator = torch.Generator().manual_seed(40 + index)
        assert torch.equal(noise[index], torch.randn(1, 8, 8, generator=generator))
        assert labels[index] == torch.randint(10, (), generator=generator)


def test_inputs_do_not_depend_on_the_number_of_samples():
    subset = digits(20, label_kind="true")
    few = draw_inputs(recipe_of(eval__num_samples=10), subset)
    many = draw_inputs(recipe_of(eval__num_samples=20), subset)
    assert all(torch.equal(a, b[:10]) for a, b in zip(few, many, strict=True))


def test_labels_do_not_move_the_latents():
    noise, labels = draw_inputs(recipe_of(), digits(20))
    assert labels is None
    assert torch.equal(noise, draw_inputs(recipe_of(), digits(20, label_kind="true"))[0])


def test_labels_are_uniform_over_the_label_width_also_where_it_is_empty():
    subset = digits(20, label_kind="random", label_classes=50)
    assert len(np.unique(subset.labels)) < subset.label_dim
    _, labels = draw_inputs(recipe_of(eval__num_samples=5000), subset)
    counts = np.bincount(labels, minlength=subset.label_dim)
    assert len(counts) == subset.label_dim
    assert stats.chisquare(counts).pvalue > 0.01


def told(which: str, subset: Subset, count: int = 2000) -> np.ndarray:
    """Labels that eval.label asks for, beside the latents of all others."""
    recipe = recipe_of(eval__num_samples=count, eval__label=which)
    noise, labels = draw_inputs(recipe, subset)
    assert torch.equal(noise, draw_inputs(recipe_of(eval__num_samples=count), subset)[0])
    assert labels.dtype == torch.int64
    return labels.numpy()


def test_labels_of_training_images_as_often_as_these_have_them():
    subset = digits(20, label_kind="random", label_classes=50)
    labels = told("trained", subset)
    expected = np.bincount(subset.labels, minlength=subset.label_dim) / 20
    assert set(labels) == set(subset.labels)
    counts = np.bincount(labels, minlength=subset.label_dim)
    present = expected > 0
    assert stats.chisquare(counts[present], 2000 * expected[present]).pvalue > 0.01


def test_mixed_labels_are_two_that_images_have():
    subset = digits(6, label_kind="random", label_classes=50)
    pairs = told("mixed", subset)
    assert pairs.shape == (2000, 2)
    assert set(pairs.ravel()) == set(subset.labels)
    assert (pairs[:, 0] != pairs[:, 1]).all()
    _, counts = np.unique(pairs, axis=0, return_counts=True)
    assert len(counts) == 30
    assert stats.chisquare(counts).pvalue > 0.01


def test_each_sample_has_an_unseen_label_of_its_own():
    labels = told("unseen", digits(6, label_kind="true"))
    np.testing.assert_array_equal(labels, 10 + np.arange(2000))


def test_one_label_cannot_be_mixed():
    with pytest.raises(UserError, match=r"eval\.label mixed: needs two labels"):
        draw_inputs(recipe_of(eval__label="mixed"), digits(6, label_kind="constant"))


def test_latents_are_standard_normal():
    noise, _ = draw_inputs(recipe_of(eval__num_samples=1000), digits(20))
    assert stats.kstest(noise.flatten().double().numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_the_number_of_samples_does_not_change_a_sample(batch_size):
    few, many = random_samples(10, batch_size), random_samples(20, batch_size)
    np.testing.assert_array_equal(few, many[:10])
    assert len(np.unique(many.reshape(20, -1), axis=0)) == 20


def test_the_batch_size_changes_rounding_only():
    """Kernels sum in another order; of 640 components none or a few move, by one grey level."""
    reference = random_samples(10, 64).astype(int)
    assert reference.std() > 20
    for batch_size in (1, 7):
        moved = np.abs(random_samples(10, batch_size) - reference)
        assert moved.max() <= 1
        assert moved.mean() < 0.01


def test_batches_are_always_full():
    """Static shapes, and what is repeated to fill the last batch is dropped."""
    shapes = []

    def denoiser(x, sigma, labels):
        shapes.append((len(x), labels.tolist()))
        return x / (1 + sigma.view(-1, 1, 1, 1))

    recipe = recipe_of(eval__num_samples=5)
    noise, labels = torch.randn(5, 1, 8, 8), torch.arange(5)
    images = sample(denoiser, noise, labels, recipe, CPU, 3)
    assert images.shape == (5, 8, 8, 1)
    assert {tuple(passed) for _, passed in shapes} == {(0, 1, 2), (3, 4, 4)}


@pytest.mark.parametrize(
    ("changed", "last"),
    [
        ({"model__precond": "ve"}, 0.02),
        ({"model__precond": "vp"}, 0.002),
        ({"eval__sigma_min": 0.5}, 0.5),
    ],
)
def test_the_sampler_is_that_of_the_recipe(changed, last):
    levels = []

    def denoiser(x, sigma, labels):
        levels.append(sigma[0].item())
        return x / (1 + sigma.view(-1, 1, 1, 1))

    recipe = recipe_of(eval__steps=18, eval__sigma_max=60.0, eval__rho=5.0, **changed)
    noise, _ = draw_inputs(recipe, digits(20))
    images = sample(denoiser, noise, None, recipe, CPU, 5)
    assert len(levels) == 35
    assert (levels[0], levels[-1]) == (60, pytest.approx(last, rel=1e-6))
    expected = to_uint8(heun(denoiser, noise, karras_sigmas(18, last, 60.0, 5.0)))
    np.testing.assert_array_equal(images, expected.permute(0, 2, 3, 1))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path]:
    """The record of a tiny run with two EMA rates and its subset, as files."""
    folder = tmp_path_factory.mktemp("run")
    subset_path, record = folder / "subset.npz", folder / "run.yaml"
    write_subset(subset_path, digits(6, label_kind="true"))
    settings = SETTINGS | {"data.size": 6, "labels.kind": "true"}
    train_run(settings, subset_path, [(4.0, 2)], [0.9, 0.99929], record)
    return record, subset_path


def evaluation(**changed) -> dict:
    settings = {name.replace("__", "."): value for name, value in changed.items()}
    full = flatten(recipe_of()) | settings
    return among(full, EVALUATION_KEYS)


def index_of(folder: Path) -> dict:
    return json.loads((folder / SAMPLE_INDEX).read_text())


def test_samples_of_all_checkpoints(trained, tmp_path):
    output = tmp_path / "evaluation" / "samples"
    sample_run(*trained, evaluation(), output, name="five")
    index = index_of(output)
    content = yaml.safe_load(trained[0].read_text())
    assert (index["run"], index["evaluation"]) == (content["run"], "five")
    assert [(e["step"], e["epoch"]) for e in index["checkpoints"]] == [(3, 2.0), (6, 4.0)]
    assert index["settings"]["eval.num_samples"] == 5
    for entry in index["checkpoints"]:
        arrays = read_arrays(output / entry["file"])
        assert (arrays["images"].dtype, arrays["images"].shape) == (np.uint8, (5, 8, 8, 1))
        assert arrays["labels"].shape == (5,)
    assert {path.name for path in output.parent.iterdir()} == {"samples"}
    assert len(list(output.iterdir())) == 3


def copied_run(trained, tmp_path) -> Path:
    """A copy of the trained run that a test may break."""
    record = tmp_path / "run.yaml"
    record.write_bytes(trained[0].read_bytes())
    (tmp_path / "checkpoints").mkdir()
    for path in (trained[0].parent / "checkpoints").iterdir():
        (tmp_path / "checkpoints" / path.name).write_bytes(path.read_bytes())
    return record


def test_samples_are_those_of_the_ema_weights(trained, tmp_path):
    """Of the rate that is asked for, without dropout."""
    record = copied_run(trained, tmp_path)
    path = tmp_path / "checkpoints" / "step-00000006.safetensors"
    tensors, metadata = checkpoint.load(path)
    generator = torch.Generator().manual_seed(2)
    moved = {k: t + 0.3 * torch.randn(t.shape, generator=generator) for k, t in tensors.items()}
    checkpoint.save(path, moved, metadata)
    chosen = evaluation(eval__steps=18, train__ema=0.9)
    sample_run(record, trained[1], chosen, tmp_path / "samples")
    found = read_arrays(tmp_path / "samples" / "step-00000006.npz")
    recipe, subset = recipe_of(eval__steps=18), digits(6, label_kind="true")
    denoiser = build_denoiser(recipe, subset, CPU).eval()
    with torch.no_grad():
        for name, weight in denoiser.network.named_parameters():
            weight.copy_(moved[f"ema-0.9.{name}"])
    noise, labels = draw_inputs(recipe, subset)
    np.testing.assert_array_equal(found["labels"], labels)
    expected = sample(denoiser, noise, labels, recipe, CPU, 256)
    np.testing.assert_array_equal(found["images"], expected)
    dropping = sample(denoiser.train(), noise, labels, recipe, CPU, 256)
    assert (dropping != expected).any()


def moved_run(trained, tmp_path) -> Path:
    """A copy of the trained run whose weights all act."""
    record = copied_run(trained, tmp_path)
    path = tmp_path / "checkpoints" / "step-00000006.safetensors"
    tensors, metadata = checkpoint.load(path)
    generator = torch.Generator().manual_seed(2)
    moved = {k: t + 0.3 * torch.randn(t.shape, generator=generator) for k, t in tensors.items()}
    checkpoint.save(path, moved, metadata)
    return record


def test_what_a_network_makes_of_other_labels(trained, tmp_path):
    record, found = moved_run(trained, tmp_path), {}
    for label in ("drawn", "unseen", "mixed", "mean"):
        chosen = evaluation(eval__label=label, eval__snapshots=1)
        sample_run(record, trained[1], chosen, tmp_path / label)
        found[label] = read_arrays(tmp_path / label / "step-00000006.npz")
    images = [arrays["images"] for arrays in found.values()]
    assert not any((a == b).all() for a, b in zip(images, images[1:] + images[:1], strict=True))
    assert found["mixed"]["labels"].shape == (5, 2)
    assert list(found["mean"]["labels"]) == [10] * 5
    more = evaluation(eval__label="unseen", eval__snapshots=1, eval__num_samples=3)
    sample_run(record, trained[1], more, tmp_path / "fewer")
    fewer = read_arrays(tmp_path / "fewer" / "step-00000006.npz")["images"]
    np.testing.assert_array_equal(fewer, found["unseen"]["images"][:3])


def test_vectors_are_kept_with_the_weights(tmp_path):
    subset_path, record = tmp_path / "subset.npz", tmp_path / "run.yaml"
    write_subset(subset_path, digits(6, label_kind="vectors"))
    about = {"data.size": 6, "labels.kind": "vectors", "labels.dim": 3}
    train_run(SETTINGS | about, subset_path, [(4.0, 1)], [0.99929], record)
    tensors, _ = checkpoint.load(tmp_path / "checkpoints" / "step-00000006.safetensors")
    assert torch.equal(tensors["buffer.mapping.labels.vectors"], label_vectors(6, 3, 1024))
    assert tensors["ema-0.99929.mapping.labels.weight"].shape == (3, 4)
    sample_run(record, subset_path, evaluation(eval__snapshots=1), tmp_path / "samples")
    assert read_arrays(tmp_path / "samples" / "step-00000006.npz")["labels"].max() < 6


def test_an_interrupted_call_goes_on_where_it_was(trained, tmp_path, monkeypatch):
    sample_run(*trained, evaluation(), tmp_path / "undisturbed")
    calls = []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 2:
            raise Interrupted("stopped by SIGTERM")
        return sample(*args)

    monkeypatch.setattr(sampling, "sample", interrupted)
    with pytest.raises(Interrupted):
        sample_run(*trained, evaluation(), tmp_path / "samples")
    assert not (tmp_path / "samples").exists()
    sample_run(*trained, evaluation(), tmp_path / "samples")
    assert len(calls) == 3
    for path in (tmp_path / "undisturbed").iterdir():
        assert path.read_bytes() == (tmp_path / "samples" / path.name).read_bytes()


def test_what_another_evaluation_left_is_not_used(trained, tmp_path, monkeypatch):
    """Nor kept: the folder holds this evaluation alone."""
    output, partial = tmp_path / "samples", tmp_path / "samples.partial"
    sample_run(*trained, evaluation(eval__seed=100), output)
    output.replace(partial)
    (partial / "step-00000003.npz").rename(partial / "step-00000002.npz")
    (partial / ".step-00000003.npz.1.tmp").write_bytes(b"half")
    sample_run(*trained, evaluation(), tmp_path / "expected")
    sample_run(*trained, evaluation(), output)
    for path in (tmp_path / "expected").iterdir():
        assert path.read_bytes() == (output / path.name).read_bytes()
    assert len(list(output.iterdir())) == 3


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", None])
def test_damaged_partial_files_are_sampled_again(trained, tmp_path, content):
    sample_run(*trained, evaluation(), tmp_path / "expected")
    path = tmp_path / "samples.partial" / "step-00000003.npz"
    path.parent.mkdir()
    if content is None:
        np.savez(path, images=np.zeros(3))
    else:
        path.write_bytes(content)
    sample_run(*trained, evaluation(), tmp_path / "samples")
    expected = (tmp_path / "expected" / path.name).read_bytes()
    assert (tmp_path / "samples" / path.name).read_bytes() == expected


def test_a_retrained_run_is_sampled_anew(trained, tmp_path):
    """Half a folder of samples is of the training that was there when it was made."""
    record = copied_run(trained, tmp_path)
    sample_run(record, trained[1], evaluation(), tmp_path / "samples")
    (tmp_path / "samples").replace(tmp_path / "samples.partial")
    path = tmp_path / "checkpoints" / "step-00000003.safetensors"
    tensors, metadata = checkpoint.load(path)
    before = read_arrays(tmp_path / "samples.partial" / "step-00000003.npz")["images"]
    moved = {k: t + 0.2 if "head" in k else t for k, t in tensors.items()}
    checkpoint.save(path, moved, metadata)
    content = yaml.safe_load(record.read_text())
    content["made"]["date"] = "2000-01-01T00:00:00+00:00"
    record.write_text(yaml.safe_dump(content))
    sample_run(record, trained[1], evaluation(), tmp_path / "samples")
    after = read_arrays(tmp_path / "samples" / "step-00000003.npz")["images"]
    assert (before != after).any()


def test_missing_checkpoint(trained, tmp_path):
    with pytest.raises(UserError, match=r"has no checkpoint at step 2; there are"):
        sample_run(*trained, evaluation(eval__snapshots=3), tmp_path / "samples")


def test_missing_ema_rate(trained, tmp_path):
    with pytest.raises(UserError, match=r"has EMA rates \[0.9, 0.99929\], not 0.5"):
        sample_run(*trained, evaluation(train__ema=0.5), tmp_path / "samples")


@pytest.mark.parametrize("damage", ["missing", "short", "altered"])
def test_damaged_checkpoint(trained, tmp_path, damage):
    record = copied_run(trained, tmp_path)
    path = tmp_path / "checkpoints" / "step-00000003.safetensors"
    content = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(content[:-9] if damage == "short" else content[:-1] + b"\x11")
    with pytest.raises(UserError, match=r"step-00000003.*(no such file|damaged)"):
        sample_run(record, trained[1], evaluation(), tmp_path / "samples")
    assert not (tmp_path / "samples").exists()


@pytest.mark.parametrize(
    ("size", "options", "message"),
    [
        (7, {"label_kind": "true"}, r"data.size 6: .* has 7"),
        (6, {"label_kind": "true", "resolution": 4}, r"data.resolution 8: .* has 4"),
        (6, {}, r"labels.kind true: .* has other labels"),
    ],
)
def test_another_subset_than_that_of_the_run(trained, tmp_path, size, options, message):
    write_subset(tmp_path / "other.npz", digits(size, **options))
    with pytest.raises(UserError, match=message):
        sample_run(trained[0], tmp_path / "other.npz", evaluation(), tmp_path / "samples")


@pytest.mark.parametrize("content", [None, "", "[1, 2]", "run: x", "a: [", "run: {}\nmade: x"])
def test_what_is_not_the_record_of_a_run(trained, tmp_path, content):
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=r"run.yaml: (no such file|damaged)"):
        sample_run(path, trained[1], evaluation(), tmp_path / "samples")


def optimum_samples(folder: Path, count: int, subset: Subset, kind: str) -> dict:
    """Samples of the optimum of a subset, through the files of both stages."""
    settings = {
        "data.dataset": "digits",
        "data.resolution": 8,
        "data.size": len(subset),
        "labels.kind": kind,
        "model.arch": "optimum",
        "train.device": "cpu",
    }
    write_subset(folder / "subset.npz", subset)
    train_run(settings, folder / "subset.npz", [(1.0, 1)], [0.99929], folder / "run.yaml")
    chosen = evaluation(eval__num_samples=count, eval__steps=18)
    sample_run(folder / "run.yaml", folder / "subset.npz", chosen, folder / "samples")
    (entry,) = index_of(folder / "samples")["checkpoints"]
    assert (entry["step"], entry["epoch"]) == (0, 0.0)
    return read_arrays(folder / "samples" / entry["file"])


@pytest.mark.parametrize("size", [20, 200])
def test_the_optimum_replays_its_training_set(tmp_path, size):
    subset = digits(size)
    images = optimum_samples(tmp_path, 500, subset, "none")["images"]
    result = score_arrays(images, subset.images, xp=np)
    assert result.memorized.mean() >= 0.99
    assert len(np.unique(result.neighbours.indices[:, 0])) > size // 2


def test_the_optimum_with_unique_labels_returns_the_image_of_the_label(tmp_path):
    subset = digits(50, label_kind="unique")
    arrays = optimum_samples(tmp_path, 100, subset, "unique")
    np.testing.assert_array_equal(arrays["images"], subset.images[arrays["labels"]])


def test_the_optimum_with_class_labels_stays_in_the_class(tmp_path):
    subset = digits(50, label_kind="true")
    arrays = optimum_samples(tmp_path, 100, subset, "true")
    nearest = score_arrays(arrays["images"], subset.images, xp=np).neighbours.indices[:, 0]
    np.testing.assert_array_equal(subset.labels[nearest], arrays["labels"])


def test_the_optimum_of_a_label_without_images_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"label \d has no training image"):
        optimum_samples(tmp_path, 100, digits(5, label_kind="true"), "true")


DISCRETE = {
    "model__arch": "iddpm",
    "model__precond": "cosine",
    "model__channels": 8,
    "model__channel_mult": (1, 2),
    "model__num_blocks": 1,
    "model__attention_levels": (2,),
    "model__heads": 2,
    "model__groups": 4,
    "model__diffusion_steps": 100,
    "eval__sampler": "ancestral",
    "eval__steps": 5,
}


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_a_discrete_image_depends_on_its_seed_alone(sampler):
    recipe = recipe_of(**DISCRETE | {"eval__sampler": sampler}, eval__num_samples=70)
    subset = digits(10)
    denoiser = trained_looking(recipe, subset)
    noise, labels = draw_inputs(recipe, subset)
    whole = sample(denoiser, noise, labels, recipe, CPU, 70)
    parts = sample(denoiser, noise, labels, recipe, CPU, 30)
    differing = np.abs(whole.astype(int) - parts)
    assert differing.max() <= 1
    assert (differing > 0).mean() < 0.01
    few = recipe_of(**DISCRETE | {"eval__sampler": sampler}, eval__num_samples=3)
    assert np.array_equal(sample(denoiser, noise[:3], labels, few, CPU, 70), whole[:3])


def test_ancestral_noise_is_new_at_each_step_and_image():
    part, like = torch.tensor([0, 1, 64, 65, 65]), torch.empty(5, 1, 8, 8)
    steps = [noise for _, noise in zip(range(3), sampling._noises(0, part, like), strict=False)]
    drawn = torch.stack(steps)[:, :4].flatten(0, 1).flatten(1)
    assert len(torch.unique(drawn, dim=0)) == 12
    assert torch.equal(steps[0][3], steps[0][4])  # the same image, filled in
    assert stats.kstest(drawn.flatten(), "norm").pvalue > 1e-3


def test_labels_of_the_data_or_the_dummies_are_all_the_same():
    dummies = load_source("random_ink", size=4, resolution=8)
    subset = digits(6, only_class="3", dummies=dummies, dummy_size=4, label_kind="true")
    latents = {}
    for which, label in (("data", 0), ("dummy", 1)):
        noise, labels = draw_inputs(recipe_of(eval__label=which), subset)
        assert labels.tolist() == [label] * 5
        latents[which] = noise
    drawn, _ = draw_inputs(recipe_of(), subset)
    assert torch.equal(latents["data"], drawn)
    assert torch.equal(latents["dummy"], drawn)
    several = digits(20, dummies=dummies, dummy_size=4, label_kind="true")
    with pytest.raises(UserError, match=r"eval\.label data: .* have 10 labels"):
        draw_inputs(recipe_of(eval__label="data"), several)
