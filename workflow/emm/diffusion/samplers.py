"""Deterministic sampling of the probability-flow ODE."""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

DenoiserFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def heun(
    denoiser: DenoiserFunction,
    noise: Tensor,
    sigmas: Sequence[float],
    labels: Tensor | None = None,
) -> Tensor:
    """Heun's second-order method (Karras et al. 2022, Algorithm 1), 2 * len(sigmas) - 1 calls.

    noise: (B, C, H, W) standard normal; sigmas: falling noise levels without the final 0.
    The state is float64, the denoiser sees float32. The last step, to 0, is Euler's: it ends at
    the denoiser's output at the last noise level.
    """
    x = noise.double() * sigmas[0]
    for sigma, following in pairwise(sigmas):
        slope = (x - _call(denoiser, x, sigma, labels)) / sigma
        euler = x + (following - sigma) * slope
        correction = (euler - _call(denoiser, euler, following, labels)) / following
        x = x + (following - sigma) * (slope + correction) / 2
    return _call(denoiser, x, sigmas[-1], labels)


def _call(denoiser: DenoiserFunction, x: Tensor, sigma: float, labels: Tensor | None) -> Tensor:
    level = torch.full((len(x),), sigma, dtype=torch.float32, device=x.device)
    return denoiser(x.float(), level, labels).double()
