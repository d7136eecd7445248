"""Training and sampling on CUDA are close to those on the CPU. Skipped where there is no device."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch

from emm.data.sources import load_source
from emm.data.stage import Subset, build_subset
from emm.diffusion.optimum import Optimum
from emm.diffusion.precondition import Denoiser, to_unit
from emm.diffusion.sampling import draw_inputs, sample
from emm.spec import Recipe
from emm.train.device import as_tensors, build_denoiser, choose_device
from emm.train.flat import Adam
from emm.train.loop import Plan, State, train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
CPU, STEPS = torch.device("cpu"), 6
GROUPS = {
    "data": {"dataset": "digits", "resolution": 8},
    "model": {"channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "precond": "edm"},
    "train": {"batch_size": 16, "lr": 1e-3, "warmup_epochs": 1.0},
    "eval": {"num_samples": 40},
}


def recipe_of(**changed) -> Recipe:
    groups = copy.deepcopy(GROUPS)
    for name, value in changed.items():
        group, key = name.split("__")
        groups[group][key] = value
    return Recipe.model_validate(groups)


@pytest.fixture
def subset() -> Subset:
    return build_subset(load_source("digits"), size=50, label_kind="true")


@pytest.fixture
def same_noise(monkeypatch) -> None:
    """Noise drawn on the CPU for every device: the devices' generators differ."""
    twins: dict[int, torch.Generator] = {}

    def on_cpu(original):
        def draw(*shape, generator=None, device=None, **options):
            if generator is None or generator.device.type == "cpu":
                return original(*shape, generator=generator, device=device, **options)
            seed = generator.initial_seed()
            twin = twins.setdefault(seed, torch.Generator().manual_seed(seed))
            return original(*shape, generator=twin, **options).to(generator.device)

        return draw

    monkeypatch.setattr(torch, "randn", on_cpu(torch.randn))
    monkeypatch.setattr(torch, "rand", on_cpu(torch.rand))


def run(recipe: Recipe, subset: Subset, device: torch.device, folder: Path, **changed) -> State:
    images, labels = as_tensors(subset, device)
    snapshots = changed.pop("snapshots", (STEPS,))
    plan = Plan("gpu", recipe.train, len(subset), (0.9,), snapshots, **changed)
    return train(build_denoiser(recipe, subset, device), images, labels, plan, folder)


def losses(state: State) -> np.ndarray:
    return np.array(state.metrics)[:, 2]


def test_the_gpu_is_the_default_and_tf32_is_off():
    assert choose_device("auto").type == choose_device("cuda").type == "cuda"
    assert not torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cudnn.allow_tf32


@pytest.mark.parametrize("precond", ["edm", "vp"])
def test_losses_of_the_first_steps(tmp_path, subset, same_noise, precond):
    recipe = recipe_of(model__precond=precond, model__dropout=0.0)
    expected = losses(run(recipe, subset, CPU, tmp_path / "cpu"))
    found = losses(run(recipe, subset, choose_device("cuda"), tmp_path / "cuda"))
    np.testing.assert_allclose(found, expected, rtol=1e-3)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_low_precision(tmp_path, subset, precision):
    device = choose_device("cuda")
    recipes = (recipe_of(train__precision=p, model__dropout=0.0) for p in ("fp32", precision))
    full, low = (losses(run(r, subset, device, tmp_path / r.train.precision)) for r in recipes)
    assert np.isfinite(low).all()
    np.testing.assert_allclose(low, full, rtol=0.03)


def test_stopped_and_resumed(tmp_path, subset):
    """Every draw has its seed: a resumed training follows the undisturbed one up to rounding."""
    device, recipe = choose_device("cuda"), recipe_of()
    expected = run(recipe, subset, device, tmp_path / "undisturbed")
    run(recipe, subset, device, tmp_path / "resumed", snapshots=(3,))
    found = run(recipe, subset, device, tmp_path / "resumed", snapshots=(3, STEPS))
    np.testing.assert_allclose(losses(found), losses(expected), rtol=1e-3)
    assert found.flat.values.device.type == "cuda"


def test_a_state_moves_between_devices(tmp_path, subset):
    expected = run(recipe_of(), subset, choose_device("cuda"), tmp_path)
    found = run(recipe_of(), subset, CPU, tmp_path)
    assert torch.equal(found.flat.values, expected.flat.values.cpu())
    assert torch.equal(found.averages[0.9], expected.averages[0.9].cpu())


def test_adam():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(1000, generator=generator)
    pair = [Adam(values.clone().to(device), 0.1) for device in ("cpu", "cuda")]
    for step in range(20):
        gradient = torch.randn(1000, generator=generator)
        for adam in pair:
            adam.step(gradient.to(adam.values.device), 1e-3 * step)
    torch.testing.assert_close(pair[1].values.cpu(), pair[0].values, rtol=1e-5, atol=1e-6)


def moved_weights(denoiser: Denoiser) -> Denoiser:
    """Random weights: a fresh network's output is nearly zero."""
    generator = torch.Generator().manual_seed(1)
    for weight in denoiser.parameters():
        fan_in = weight[0].numel() if weight.ndim > 1 else 1
        weight.data += (0.1 * torch.randn(weight.shape, generator=generator) / fan_in**0.5).to(
            weight.device
        )
    return denoiser.eval()


def test_samples(subset):
    """Of all components few differ from the CPU's, by one grey level."""
    recipe = recipe_of()
    noise, labels = draw_inputs(recipe, subset)
    found, expected = (
        sample(
            moved_weights(build_denoiser(recipe, subset, device)), noise, labels, recipe, device, 16
        ).astype(int)
        for device in (choose_device("cuda"), CPU)
    )
    assert expected.std() > 20
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01


def test_samples_of_the_optimum(subset):
    recipe = recipe_of(eval__num_samples=200)
    noise, labels = draw_inputs(recipe, subset)
    found, expected = (
        sample(Optimum(to_unit(images), known), noise, labels, recipe, device, 64).astype(int)
        for device in (choose_device("cuda"), CPU)
        for images, known in [as_tensors(subset, device)]
    )
    assert np.abs(found - expected).max() <= 1
    assert (found != expected).mean() < 0.01
