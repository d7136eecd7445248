"""Preconditioned denoisers D(x; sigma) = c_skip x + c_out F(c_in x, c_noise) and their losses.

VP and VE follow Song et al. 2021, EDM follows Karras et al. 2022 (Table 1). Images y are scaled to
[-1, 1] and noised as x = y + sigma n, for VP too. For all three the published weight makes the
loss of F a plain squared error against `target`, summed over channels and pixels.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from emm.diffusion.objectives import PREDICTIONS, WEIGHTINGS


class Coefficients(NamedTuple):
    """Coefficients of one preconditioning, each shaped like sigma."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


@dataclass(frozen=True)
class VP:
    """Variance preserving (Song et al. 2021, Eq. 11), beta from 0.1 to 20: F predicts +n."""

    sigma_min: float = 0.002
    beta_range: float = 19.9
    beta_min: float = 0.1
    epsilon_t: float = 1e-5

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Coefficients at noise levels `sigma`; c_noise is the time t(sigma) times 999."""
        one = torch.ones_like(sigma)
        return Coefficients(one, -sigma, (1 + sigma**2).rsqrt(), 999 * self.time(sigma))

    def time(self, sigma: Tensor) -> Tensor:
        """Inverse of `sigma_at`: the time in (0, 1] of a noise level."""
        log_term = 2 * self.beta_range * (1 + sigma**2).log()
        return ((self.beta_min**2 + log_term).sqrt() - self.beta_min) / self.beta_range

    def sigma_at(self, time: Tensor) -> Tensor:
        """Noise level at a time in (0, 1]."""
        return (self.beta_range / 2 * time**2 + self.beta_min * time).expm1().sqrt()

    def draw_sigma(self, count: int, generator: torch.Generator) -> Tensor:
        """Training noise levels: time uniform on (1e-5, 1]."""
        time = torch.rand(count, generator=generator, device=generator.device)
        return self.sigma_at(1 + time * (self.epsilon_t - 1))

    def weight(self, sigma: Tensor) -> Tensor:
        """Published loss weight lambda(sigma) of (D - y)^2."""
        return sigma**-2

    def target(self, images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Value of F for which D returns the clean images."""
        return noise


@dataclass(frozen=True)
class VE:
    """Variance exploding (Song et al. 2021, Eq. 9) on [0.02, 100]: F predicts -n."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Coefficients at noise levels `sigma`."""
        one = torch.ones_like(sigma)
        return Coefficients(one, sigma, one, (sigma / 2).log())

    def draw_sigma(self, count: int, generator: torch.Generator) -> Tensor:
        """Training noise levels: log-uniform between the limits."""
        uniform = torch.rand(count, generator=generator, device=generator.device)
        return self.sigma_min * (self.sigma_max / self.sigma_min) ** uniform

    def weight(self, sigma: Tensor) -> Tensor:
        """Published loss weight lambda(sigma) of (D - y)^2."""
        return sigma**-2

    def target(self, images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Value of F for which D returns the clean images."""
        return -noise


@dataclass(frozen=True)
class EDM:
    """Preconditioning of Karras et al. 2022, Table 1, with sigma_data = 0.5."""

    sigma_min: float = 0.002
    sigma_data: float = 0.5
    log_mean: float = -1.2
    log_std: float = 1.2

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Coefficients at noise levels `sigma`."""
        total = sigma**2 + self.sigma_data**2
        c_skip = self.sigma_data**2 / total
        return Coefficients(
            c_skip, sigma * self.sigma_data * total.rsqrt(), total.rsqrt(), sigma.log() / 4
        )

    def draw_sigma(self, count: int, generator: torch.Generator) -> Tensor:
        """Training noise levels: ln sigma ~ N(-1.2, 1.2^2)."""
        normal = torch.randn(count, generator=generator, device=generator.device)
        return (normal * self.log_std + self.log_mean).exp()

    def weight(self, sigma: Tensor) -> Tensor:
        """Published loss weight lambda(sigma) of (D - y)^2."""
        return (sigma**2 + self.sigma_data**2) / (sigma * self.sigma_data) ** 2

    def target(self, images: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Value of F for which D returns the clean images."""
        scale = (sigma**2 + self.sigma_data**2).rsqrt()
        return (sigma * scale / self.sigma_data) * images - (self.sigma_data * scale) * noise


DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}  # of autocast
PRECONDITIONINGS = {"vp": VP(), "ve": VE(), "edm": EDM()}


class Denoiser(nn.Module):
    """A network F under a preconditioning: D(x, sigma, labels), in fp32 outside the network.

    x is (B, C, H, W) in [-1, 1] plus noise, sigma (B,), labels (B,) int64 or None.
    `precision` runs the network alone under autocast ("bf16", "fp16") or not ("fp32").
    `prediction` is what F stands for: that of the preconditioning ("preconditioned"), or a name in
    PREDICTIONS. `weighting` of the loss: a name in WEIGHTINGS, "published" for the weight of the
    preconditioning, or "uniform" for the plain squared error of F.
    """

    def __init__(
        self,
        network: nn.Module,
        precond: str,
        precision: str = "fp32",
        prediction: str = "preconditioned",
        weighting: str = "published",
    ):
        super().__init__()
        self.network = network
        self.precond = PRECONDITIONINGS[precond]
        self.dtype = DTYPES[precision]
        self.prediction = PREDICTIONS.get(prediction)
        own = (prediction, weighting) == ("preconditioned", "published")
        self.weight = WEIGHTINGS.get(weighting, self.precond.weight)
        self.plain = own or weighting == "uniform"

    def coefficients(self, sigma: Tensor) -> Coefficients:
        """Coefficients at noise levels `sigma` (B,): c_skip and c_out follow the prediction."""
        found = self.precond.coefficients(sigma)
        if self.prediction is None:
            return found
        c_skip, c_out = self.prediction.output(sigma)
        return found._replace(c_skip=c_skip, c_out=c_out)

    def raw(self, x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        """Output F of the network, fp32."""
        _, _, c_in, c_noise = self.precond.coefficients(sigma)
        scaled = c_in.view(-1, 1, 1, 1) * x
        if x.device.type == "cpu" or self.dtype is not None:
            scaled = scaled.to(memory_format=torch.channels_last)  # what fast kernels take
        return run_network(self.network, self.dtype, scaled, c_noise, labels)

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor | None = None) -> Tensor:
        """Denoised images, fp32, shaped like x."""
        c_skip, c_out, _, _ = self.coefficients(sigma)
        output = self.raw(x, sigma, labels)
        return c_skip.view(-1, 1, 1, 1) * x + c_out.view(-1, 1, 1, 1) * output

    def draw_level(self, count: int, generator: torch.Generator) -> Tensor:
        """Noise levels (count,) of a training batch."""
        return self.precond.draw_sigma(count, generator)

    def loss(self, images: Tensor, labels: Tensor | None, noise: Tensor, sigma: Tensor) -> Tensor:
        """lambda(sigma) (D - y)^2 summed over channels and pixels, mean over the batch.

        Computed on F, to avoid the division by small sigma^2: where the weight cancels (a `plain`
        loss) as a squared error, else with the factor lambda c_out^2.
        """
        level = sigma.view(-1, 1, 1, 1)
        output = self.raw(images + level * noise, sigma, labels)
        target = (self.prediction or self.precond).target(images, noise, level)
        if self.plain:
            return torch.nn.functional.mse_loss(output, target, reduction="sum") / len(images)
        error = (output - target).square().sum((1, 2, 3))
        return (self.weight(sigma) * self.coefficients(sigma).c_out ** 2 * error).mean()


def run_network(
    network: nn.Module, dtype: torch.dtype | None, x: Tensor, level: Tensor, labels: Tensor | None
) -> Tensor:
    """Output of a network, fp32, under autocast to `dtype` unless that is None."""
    if dtype is None:
        return network(x, level, labels)
    with torch.autocast(x.device.type, dtype=dtype):
        return network(x, level, labels).float()


def to_unit(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1]: x / 127.5 - 1."""
    return images.float() / 127.5 - 1


def to_uint8(x: Tensor) -> Tensor:
    """Images in [-1, 1] as uint8: 127.5 x + 128, clipped to 0..255, truncated (as published)."""
    return (x * 127.5 + 128).clamp(0, 255).to(torch.uint8)


def karras_sigmas(steps: int, sigma_min: float, sigma_max: float, rho: float) -> list[float]:
    """Noise levels of the sampler, falling, without the final 0 (Karras et al. 2022, Eq. 5)."""
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [math.pow(high + index / (steps - 1) * (low - high), rho) for index in range(steps)]
