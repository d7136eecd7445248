"""What makes a GPU fast changes no result: kernels between convolutions, CUDA graphs, parts."""

import copy
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from emm.data.sources import load_source
from emm.data.stage import Subset, build_subset
from emm.diffusion.precondition import Denoiser
from emm.diffusion.sampling import draw_inputs, sample
from emm.graphs import Replayed
from emm.nets import fused
from emm.nets.blocks import Block
from emm.nets.iddpm import ResidualBlock
from emm.spec import Recipe
from emm.train.device import as_tensors, build_denoiser, choose_device
from emm.train.state import Plan, State, initial_state
from emm.train.step import Step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
EMBEDDING, STEPS, SIZE = 32, 5, 50
GROUPS = {
    "data": {"dataset": "digits", "resolution": 8},
    "model": {"channels": 32, "channel_mult": [1, 2], "num_blocks": 1, "precond": "edm"},
    "train": {"batch_size": 16, "lr": 1e-3, "warmup_epochs": 1.0, "precision": "bf16"},
    "eval": {"num_samples": 40},
}


def recipe_of(precision: str = "bf16", **model) -> Recipe:
    groups = copy.deepcopy(GROUPS)
    groups["train"]["precision"] = precision
    groups["model"] |= model
    return Recipe.model_validate(groups)


@pytest.fixture(scope="module")
def subset() -> Subset:
    return build_subset(load_source("digits"), size=SIZE, label_kind="true")


@pytest.fixture(scope="module")
def kernels() -> None:
    """Skip where Triton does not work."""
    x = torch.zeros(1, 32, 2, 2, dtype=torch.bfloat16, device="cuda")
    if not fused.applies(x.contiguous(memory_format=torch.channels_last)):
        pytest.skip("Triton does not work here")


def moved(module: nn.Module, seed: int = 0, size: float = 0.3) -> nn.Module:
    """Random weights everywhere: a fresh network returns almost nothing, dropout or not."""
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        fan_in = weight[0].numel() if weight.ndim > 1 else 1
        drawn = torch.randn(weight.shape, generator=generator) / fan_in**0.5
        weight.data += size * drawn.to(weight.device, weight.dtype)
    return module


def images(*shape: int, seed: int = 1) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.to("cuda", torch.bfloat16).contiguous(memory_format=torch.channels_last)


BLOCKS = {
    "large": lambda: Block(64, 128, embedding=EMBEDDING, dropout=0.0, taps=(1, 1)),
    "attends": lambda: Block(96, 96, embedding=EMBEDDING, dropout=0.0, taps=(1, 1), attention=True),
    "down": lambda: Block(
        128, 128, embedding=EMBEDDING, dropout=0.0, taps=(1, 1), direction="down"
    ),
    "up": lambda: Block(64, 64, embedding=EMBEDDING, dropout=0.0, taps=(1, 1), direction="up"),
    "modulated": lambda: ResidualBlock(64, 96, EMBEDDING, 0.0, 4),
}


def computed(block: nn.Module, x: Tensor, embedding: Tensor) -> list[Tensor]:
    """Output, and gradients of the inputs and all parameters, each in one tensor."""
    x, embedding = (tensor.detach().requires_grad_() for tensor in (x, embedding))
    with torch.autocast("cuda", dtype=torch.bfloat16, enabled=x.dtype == torch.bfloat16):
        y = block(x, embedding)
    slope = images(*y.shape, seed=2).to(y.dtype)
    gradients = torch.autograd.grad(y, [x, embedding, *block.parameters()], slope)
    return [y.detach(), gradients[0], torch.cat([g.double().flatten() for g in gradients[1:]])]


@pytest.mark.parametrize("size", [6, 16])
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_by_kernels(kernels, monkeypatch, name, size):
    """They are about as near to float64 as those of plain autocast."""
    torch.manual_seed(0)
    block = moved(BLOCKS[name]()).cuda()
    x = images(4, block.norm_in.num_channels, size, size)
    embedding = torch.randn(4, EMBEDDING, device="cuda")
    found = computed(block, x, embedding)
    with monkeypatch.context() as patch:
        patch.setattr(fused, "applies", lambda x: False)
        plain = computed(block, x, embedding)
        expected = computed(copy.deepcopy(block).double(), x.double(), embedding.double())
    for ours, theirs, true in zip(found, plain, expected, strict=True):
        error, usual = ((each.double() - true).norm() for each in (ours, theirs))
        assert usual < 0.05 * true.norm()
        assert error < 2 * usual


def training(recipe: Recipe, subset: Subset) -> tuple[Step, State]:
    """The first step of a training whose network is no longer fresh."""
    tensors = as_tensors(subset, choose_device("cuda"))
    denoiser = moved(build_denoiser(recipe, subset, torch.device("cuda")), size=1.0)
    plan = Plan("fast", recipe.train, SIZE, (0.9,), (STEPS,))
    state = initial_state(denoiser.network, plan, channels_last=recipe.train.precision != "fp32")
    denoiser.train()
    return Step(denoiser, *tensors, plan, state), state


def losses(
    recipe: Recipe, subset: Subset, change: Callable[[Step], None] = lambda step: None
) -> np.ndarray:
    """Of each step of a training."""
    step, state = training(recipe, subset)
    change(step)
    found = []
    for _ in range(STEPS):
        before = float(state.loss_sum)
        step(state)
        found.append(float(state.loss_sum) - before)
    return np.array(found)


def without_graphs(step: Step) -> None:
    step.gradients.graphs = False


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_training_with_graphs(subset, precision):
    """Dropout has the same masks, which the losses show."""
    recipe = recipe_of(precision, dropout=0.6)
    found, expected = losses(recipe, subset), losses(recipe, subset, without_graphs)
    np.testing.assert_allclose(found, expected, rtol=5e-3)
    others = losses(recipe_of(precision, dropout=0.0), subset)
    assert np.abs(others / found - 1).max() > 0.03


def test_a_training_with_kernels(kernels, subset, monkeypatch):
    recipe = recipe_of(dropout=0.0)
    found = losses(recipe, subset)
    monkeypatch.setattr(fused, "applies", lambda x: False)
    np.testing.assert_allclose(found, losses(recipe, subset), rtol=0.02)


@pytest.mark.parametrize("graphs", [True, False])
def test_a_batch_in_parts(subset, graphs):
    """Each part has the masks that the whole has, and graphs share their memory."""
    step, _ = training(recipe_of(dropout=0.6), subset)
    gradients = step.gradients
    gradients.graphs = graphs
    batch = step.batch(0)
    loss, gradient = (tensor.clone() for tensor in gradients(batch, 7))
    _, other = (tensor.clone() for tensor in gradients(batch, 8))
    gradients.parts = 3
    gradients._captured.clear()
    for _ in range(2):
        found_loss, found = gradients(batch, 7)
        torch.testing.assert_close(found_loss, loss, rtol=3e-3, atol=0)
        assert (found - gradient).norm() < 0.02 * gradient.norm()
        assert (other - gradient).norm() > 0.04 * gradient.norm()
    pools = {tuple(captured.graph.pool()) for captured in gradients._captured.values()}
    assert len(pools) == graphs


@pytest.fixture
def eager(monkeypatch) -> Callable[[], None]:
    """Switches graphs of networks off."""
    return lambda: monkeypatch.setattr(
        Replayed, "__call__", lambda self, *tensors: self.network(*tensors)
    )


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_samples_with_graphs(subset, eager, precision):
    """Also with other weights, which the graph of the first reads."""
    recipe, device = recipe_of(precision), choose_device("cuda")
    noise, labels = draw_inputs(recipe, subset)
    denoiser: Denoiser = build_denoiser(recipe, subset, device).eval()
    start = copy.deepcopy(denoiser.state_dict())

    def drawn() -> list[np.ndarray]:
        found = []
        for seed in (1, 2):
            denoiser.load_state_dict(start)
            moved(denoiser, seed)
            found.append(sample(denoiser, noise, labels, recipe, device, 16).astype(int))
        return found

    found = drawn()
    assert np.abs(found[0] - found[1]).max() > 1
    eager()
    for ours, expected in zip(found, drawn(), strict=True):
        assert expected.std() > 10
        assert np.abs(ours - expected).max() <= 1
        assert (ours != expected).mean() < 0.01


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_does_not_wait_for_the_gpu(subset, precision):
    step, state = training(recipe_of(precision), subset)
    for _ in range(3):
        step(state)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(state)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.step == 4
    assert np.isfinite(float(state.loss_sum))
