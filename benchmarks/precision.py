"""Whether bf16 measures the same memorization as fp32: the same runs in both, on three seeds.

Photographs in crops of 8x8 pixels, a DDPM++ of 64 channels, and a training that ends where some of
the samples are copies. Weights, batches and noise of a seed are the same in both precisions.
"""

from collections.abc import Iterator

import numpy as np
import torch
from common import Goal, Options, Row, Target, without_gpu
from sklearn.datasets import load_sample_images

from emm.data.stage import Subset
from emm.diffusion.precondition import Denoiser, to_unit
from emm.diffusion.sampling import sample
from emm.score.stage import score_arrays
from emm.spec import Recipe
from emm.train.device import as_tensors, build_denoiser
from emm.train.state import Plan
from emm.train.step import begin

NAME = "memorization ratio in bf16 less that in fp32, mean of 3 pairs, at the step of the largest"
AGAINST = "standard deviation between seeds in fp32"
SEEDS, SIZE, SAMPLES = (0, 1, 2), 64, 2000
STEPS = (1000, 1500, 2000, 3000)
GOALS = (Goal("cuda", NAME, AGAINST, Target("at most", 1)),)
GROUPS = {
    "model": {"channels": 64, "channel_mult": [2, 2, 2], "num_blocks": 2, "precond": "edm"},
    "train": {"batch_size": 64, "lr": 1e-3, "warmup_epochs": 100.0, "ema": 0.99},
    "eval": {"num_samples": SAMPLES, "steps": 18},
}
LEVELS = (0.002, 0.01, 0.05, 0.2, 0.5, 1.0, 5.0, 20.0, 80.0)


def rows(options: Options) -> Iterator[Row]:
    """One row on a GPU."""
    if options.device == "cpu":
        return
    if not torch.cuda.is_available():
        yield from without_gpu(GOALS)
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    images = crops()
    curves = {p: np.array([curve(images, p, seed) for seed in SEEDS]) for p in ("fp32", "bf16")}
    difference, spread = differences(curves["fp32"], curves["bf16"])
    details = {
        "steps": STEPS,
        "ratios": {precision: found.tolist() for precision, found in curves.items()},
        "difference_at_steps": difference.tolist(),
        "deviation_at_steps": spread.tolist(),
        "loss_by_level": loss_by_level(images),
    }
    measured = float((np.abs(difference) / spread).max())
    yield Row(NAME, AGAINST, GOALS[0].target, measured, "of it", details=details)


def differences(full: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of ratios (seeds, steps): mean difference at each step, and deviation between seeds."""
    return (low - full).mean(axis=0), np.maximum(full.std(axis=0, ddof=1), 1 / SAMPLES)


def crops(pixels: int = 8) -> np.ndarray:
    """SIZE crops of scikit-learn's two photographs, averaged down by four, uint8 (N, H, W, C)."""
    photographs = np.stack(load_sample_images().images).astype(float)
    side = 4 * pixels
    _, height, width, _ = photographs.shape
    rows, columns = height // side, width // side
    cut = photographs[:, : rows * side, : columns * side]
    tiles = cut.reshape(2, rows, pixels, 4, columns, pixels, 4, 3).mean(axis=(3, 6))
    tiles = tiles.swapaxes(2, 3).reshape(-1, pixels, pixels, 3)
    chosen = np.random.default_rng(0).permutation(len(tiles))[:SIZE]
    return tiles[chosen].round().astype(np.uint8)


def build(images: np.ndarray, precision: str, seed: int, device: str = "cuda"):
    """Recipe, denoiser, state and step of a training."""
    train = GROUPS["train"] | {"precision": precision, "seed": seed}
    recipe = Recipe.model_validate(GROUPS | {"train": train})
    nothing = np.full(len(images), -1)
    subset = Subset(images, nothing, nothing, np.arange(len(images)), 0)
    denoiser = build_denoiser(recipe, subset, torch.device(device))
    plan = Plan("benchmark", recipe.train, len(images), (recipe.train.ema,), (STEPS[-1],))
    return recipe, denoiser, *begin(denoiser, *as_tensors(subset, torch.device(device)), plan)


def curve(images: np.ndarray, precision: str, seed: int) -> list[float]:
    """Memorization ratios at STEPS of a training, of the EMA's samples."""
    recipe, denoiser, state, step = build(images, precision, seed)
    noise = torch.randn((SAMPLES, 3, 8, 8), generator=torch.Generator().manual_seed(0))
    ratios = []
    for last in STEPS:
        denoiser.train()
        while state.step < last:
            step(state)
        kept = state.flat.values.clone()
        state.flat.values.copy_(state.averages[recipe.train.ema])
        denoiser.eval()
        drawn = sample(denoiser, noise, None, recipe, torch.device("cuda"), 1000)
        state.flat.values.copy_(kept)
        ratios.append(float(score_arrays(drawn, images).memorized.mean()))
    print(f"{precision} seed {seed}: {ratios}", flush=True)
    return ratios


@torch.inference_mode()
def loss_by_level(images: np.ndarray) -> dict[str, float]:
    """Loss in bf16 over that in fp32 of the same trained weights, by level of noise."""
    with torch.inference_mode(False):
        _, low, state, step = build(images, "bf16", 0)
        while state.step < 1000:
            step(state)
    full = Denoiser(low.network, "edm", "fp32")
    low.eval()
    clean = to_unit(torch.from_numpy(images).permute(0, 3, 1, 2).cuda()).repeat(16, 1, 1, 1)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).cuda()
    ratios = {}
    for level in LEVELS:
        sigma = torch.full((len(clean),), level, device="cuda")
        losses = [float(side.loss(clean, None, noise, sigma)) for side in (low, full)]
        ratios[f"{level:g}"] = losses[0] / losses[1]
    return ratios
