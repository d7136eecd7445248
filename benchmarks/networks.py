"""Networks and training sets that the benchmarks of training and sampling share."""

from dataclasses import dataclass

import torch
from torch import Tensor

from emm import nets
from emm.diffusion.precondition import Denoiser
from emm.spec import Recipe
from emm.train.state import Plan, State
from emm.train.step import Step, begin

SIZE = 5000
PEAK = 8192  # rows and columns of the matrices whose product measures the peak
QUICK = {  # the demo's network
    "model": {"channels": 16, "channel_mult": [1, 2], "num_blocks": 1, "attention_levels": []},
    "train": {"batch_size": 32},
}
PUBLISHED = {
    "model": {"channels": 128, "channel_mult": [2, 2, 2], "num_blocks": 2},
    "train": {"batch_size": 512},
}


@dataclass
class Training:
    """A network in training, on made-up images."""

    recipe: Recipe
    denoiser: Denoiser
    state: State
    step: Step
    plan: Plan


def make(
    groups: dict,
    resolution: int,
    device: str,
    *,
    precision: str = "fp32",
    dropout: float | None = None,
    size: int = SIZE,
    channels: int = 3,
    batch_size: int | None = None,
    visible: bool = False,
) -> Training:
    """A fresh training; the same weights and batches whatever the precision.

    visible: whether layers that start as almost nothing get weights that matter, and the learning
    rate is high from the first step: what differs is seen.
    """
    model = groups["model"] | ({} if dropout is None else {"dropout": dropout})
    train = groups["train"] | {"precision": precision}
    train |= {} if batch_size is None else {"batch_size": batch_size}
    train |= {"warmup_epochs": 0.0, "lr": 1e-3} if visible else {}
    recipe = Recipe.model_validate({"model": model | {"precond": "edm"}, "train": train})
    torch.manual_seed(0)
    network = nets.build(recipe.model, resolution=resolution, image_channels=channels, label_dim=0)
    if visible:
        for layer in network.modules():
            if isinstance(layer, torch.nn.Conv2d):
                torch.nn.init.xavier_uniform_(layer.weight)
    denoiser = Denoiser(network, "edm", precision).to(device)
    plan = Plan("benchmark", recipe.train, size, (0.99929,), (10**9,))
    state, step = begin(denoiser, made_up(size, channels, resolution, device), None, plan)
    return Training(recipe, denoiser, state, step, plan)


def made_up(size: int, channels: int, resolution: int, device: str) -> Tensor:
    """Images of smooth random grey levels, uint8 (N, C, H, W)."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand((size, channels, 4, 4), generator=generator)
    images = torch.nn.functional.interpolate(coarse, size=resolution, mode="bilinear")
    return (images * 255).to(torch.uint8).to(device)


def flops_of_training(training: Training) -> float:
    """Floating-point operations of a training step per image: three forward passes."""
    from emm.nets.cost import forward_flops

    return 3 * forward_flops(training.denoiser.network)


def measured_peak(repetitions: int = 50) -> float:
    """Operations per second of a dense bf16 matrix product on the GPU."""
    a, b = (torch.randn(PEAK, PEAK, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    for _ in range(5):
        a @ b
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repetitions):
        a @ b
    end.record()
    torch.cuda.synchronize()
    return 2 * PEAK**3 * repetitions / (start.elapsed_time(end) / 1e3)
