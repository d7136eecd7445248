"""What a network predicts, and how its loss weighs the noise levels, apart from each other.

A prediction says what F is in D(x; sigma) = c_skip x + c_out F(c_in x, c_noise); the input scaling,
c_noise and the distribution of sigma stay those of the preconditioning. A weighting is a factor
lambda(sigma) of the squared error of D, so a factor lambda c_out^2 of that of F: the same lambda
asks for the same function D, whatever is predicted. With x = y + sigma n the signal-to-noise ratio
is SNR = 1 / sigma^2.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

MIN_SNR_GAMMA = 5.0  # the value that Hang et al. 2023 recommend
SIGMOID_BIAS = 2.0  # of Kingma and Gao 2023
SIGMA_DATA = 0.5  # of Karras et al. 2022


class Prediction(Protocol):
    """What F stands for."""

    def output(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip and c_out at noise levels, shaped like them."""

    def target(self, images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Value of F for which D returns the clean images."""


class Noise:
    """F predicts the noise n (Ho et al. 2020): D = x - sigma F."""

    def output(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip and c_out at noise levels, shaped like them."""
        return torch.ones_like(sigma), -sigma

    def target(self, images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Value of F for which D returns the clean images."""
        return noise


class Image:
    """F predicts the clean image y: D = F."""

    def output(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip and c_out at noise levels, shaped like them."""
        return torch.zeros_like(sigma), torch.ones_like(sigma)

    def target(self, images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Value of F for which D returns the clean images."""
        return images


class Velocity:
    """F predicts v = (n - sigma y) / sqrt(1 + sigma^2) (Salimans and Ho 2022, Section 4)."""

    def output(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """c_skip and c_out at noise levels, shaped like them."""
        total = 1 + sigma**2
        return total.reciprocal(), -sigma * total.rsqrt()

    def target(self, images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Value of F for which D returns the clean images."""
        return (noise - sigma * images) * (1 + sigma**2).rsqrt()


PREDICTIONS: dict[str, Prediction] = {"noise": Noise(), "image": Image(), "velocity": Velocity()}


def truncated_snr(sigma: Tensor) -> Tensor:
    """max(SNR, 1): the larger of two errors, of image and noise (Salimans and Ho 2022)."""
    return sigma.pow(-2).clamp(min=1)


def min_snr(sigma: Tensor) -> Tensor:
    """min(SNR, 5) (Hang et al. 2023)."""
    return sigma.pow(-2).clamp(max=MIN_SNR_GAMMA)


def edm(sigma: Tensor) -> Tensor:
    """SNR + 1 / sigma_data^2, with sigma_data = 0.5 (Karras et al. 2022, Table 1)."""
    return sigma.pow(-2) + SIGMA_DATA**-2


def sigmoid(sigma: Tensor) -> Tensor:
    """SNR sigmoid(2 - log SNR), which is 1 / (sigma^2 + exp(-2)) (Kingma and Gao 2023)."""
    return sigma.pow(-2) * torch.sigmoid(SIGMOID_BIAS + 2 * sigma.log())


WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "truncated_snr": truncated_snr,
    "min_snr": min_snr,
    "edm": edm,
    "sigmoid": sigmoid,
}
