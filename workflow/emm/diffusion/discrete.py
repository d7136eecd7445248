"""Diffusion in discrete time with a learned variance (Nichol and Dhariwal 2021).

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps for t = 0..T-1. The network gives the noise eps and,
in as many further channels, v: where the log variance of a reverse step lies between its two
bounds. Images are in [-1, 1]. The objective and the samplers of Yoon et al. 2023.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from emm.diffusion.precondition import DTYPES, run_network

MAX_BETA = 0.999
TIME_SCALE = 1000.0  # the network is told t * 1000 / T
HALF_BIN = 1 / 255  # of an 8-bit grey level in [-1, 1]
OPEN_TAIL = 0.999  # beyond, the last bins reach to infinity
SMALLEST_PROBABILITY = 1e-12

NetworkFunction = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def cosine_betas(steps: int) -> np.ndarray:
    """Cosine schedule of Nichol and Dhariwal 2021, Eq. 17, float64."""

    def level(part: np.ndarray) -> np.ndarray:
        return np.cos((part + 0.008) / 1.008 * math.pi / 2) ** 2

    parts = np.arange(steps + 1) / steps
    return np.minimum(1 - level(parts[1:]) / level(parts[:-1]), MAX_BETA)


@dataclass(frozen=True)
class Prediction:
    """What a network says of a step: clean images, and mean and log variance of x_{t-1}."""

    clean: Tensor
    mean: Tensor
    log_variance: Tensor


class DiscreteDiffusion:
    """A schedule of betas and all that follows from it; tables are float64.

    `times`: what the network is told at each step. A respaced process keeps those of its original.
    """

    def __init__(self, betas: np.ndarray, times: Sequence[float] | None = None) -> None:
        self.betas = np.asarray(betas, np.float64)
        steps = len(self.betas)
        self.times = np.arange(steps) * TIME_SCALE / steps if times is None else np.asarray(times)
        self.alpha_bar = np.cumprod(1 - self.betas)
        self._on_device: dict[tuple[str, torch.device], Tensor] = {}

    @classmethod
    def cosine(cls, steps: int = 4000) -> "DiscreteDiffusion":
        """The published process."""
        return cls(cosine_betas(steps))

    def keep(self, steps: Sequence[int]) -> "DiscreteDiffusion":
        """The process that jumps over all other steps, with the same marginals at those kept."""
        kept = self.alpha_bar[list(steps)]
        return DiscreteDiffusion(1 - kept / np.append(1.0, kept[:-1]), self.times[list(steps)])

    def __len__(self) -> int:
        return len(self.betas)

    def time(self, step: Tensor) -> Tensor:
        """What the network is told at steps (B,), float32."""
        return self._at("time", step).flatten()

    @cached_property
    def tables(self) -> dict[str, np.ndarray]:
        """What the formulas below need at each step, float64."""
        bar, before = self.alpha_bar, self.alpha_bar_before
        return {
            "time": self.times,
            "signal": np.sqrt(bar),
            "noise": np.sqrt(1 - bar),
            "inverse_signal": np.sqrt(1 / bar),
            "noise_to_signal": np.sqrt(1 / bar - 1),
            "mean_of_clean": self.betas * np.sqrt(before) / (1 - bar),
            "mean_of_x": (1 - before) * np.sqrt(1 - self.betas) / (1 - bar),
            "log_beta": np.log(self.betas),
            "log_posterior_variance": np.log(self.posterior_variance),
        }

    def _at(self, name: str, step: Tensor) -> Tensor:
        """Entries of a table at steps (B,), as float32 that broadcasts over images."""
        key = (name, step.device)
        if key not in self._on_device:
            values = torch.from_numpy(np.asarray(self.tables[name], np.float32))
            self._on_device[key] = values.to(step.device)
        return self._on_device[key][step].view(-1, 1, 1, 1)

    @cached_property
    def alpha_bar_before(self) -> np.ndarray:
        """alpha_bar of the step before; 1 before the first."""
        return np.append(1.0, self.alpha_bar[:-1])

    @cached_property
    def posterior_variance(self) -> np.ndarray:
        """Variance of q(x_{t-1} | x_t, x_0); the first, which is 0, is replaced by the second."""
        variance = self.betas * (1 - self.alpha_bar_before) / (1 - self.alpha_bar)
        return np.append(variance[1], variance[1:]) if len(self) > 1 else self.betas

    def noised(self, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """x_t of clean images and noise (B, C, H, W) at steps (B,)."""
        return self._at("signal", step) * clean + self._at("noise", step) * noise

    def clean(self, x: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """x_0 of x_t and its noise."""
        return self._at("inverse_signal", step) * x - self._at("noise_to_signal", step) * noise

    def posterior_mean(self, clean: Tensor, x: Tensor, step: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0)."""
        return self._at("mean_of_clean", step) * clean + self._at("mean_of_x", step) * x

    def predict(self, output: Tensor, x: Tensor, step: Tensor, clip: bool = True) -> Prediction:
        """What a network's output (B, 2 C, H, W) says of x_t at steps (B,).

        `clip` keeps the clean images in [-1, 1], as sampling does and training does not.
        """
        noise, between = output.chunk(2, dim=1)
        clean = self.clean(x, noise, step)
        clean = clean.clamp(-1, 1) if clip else clean
        part = (between + 1) / 2
        highest = self._at("log_beta", step)
        lowest = self._at("log_posterior_variance", step)
        log_variance = part * highest + (1 - part) * lowest
        return Prediction(clean, self.posterior_mean(clean, x, step), log_variance)

    def loss(self, output: Tensor, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Hybrid loss of each image (B,): squared error of the noise plus the bound for v.

        output: of the network at x_t. The bound counts T / 1000 fold and does not move the noise.
        """
        squared = (output.chunk(2, dim=1)[0] - noise).square().flatten(1).mean(1)
        return squared + len(self) / TIME_SCALE * self.bound(output, clean, noise, step)

    def bound(self, output: Tensor, clean: Tensor, noise: Tensor, step: Tensor) -> Tensor:
        """Term of the variational bound of each image (B,), bits per dimension."""
        x = self.noised(clean, noise, step)
        predicted, between = output.chunk(2, dim=1)
        found = self.predict(torch.cat([predicted.detach(), between], dim=1), x, step, clip=False)
        true_mean = self.posterior_mean(clean, x, step)
        true_log = self._at("log_posterior_variance", step)
        divergence = _normal_divergence(true_mean, true_log, found.mean, found.log_variance)
        likelihood = _grey_level_log_likelihood(clean, found.mean, found.log_variance / 2)
        first = (step == 0).view(-1, 1, 1, 1)
        return torch.where(first, -likelihood, divergence).flatten(1).mean(1) / math.log(2)

    def ancestral(
        self,
        network: NetworkFunction,
        x: Tensor,
        labels: Tensor | None,
        noises: Iterator[Tensor],
    ) -> Tensor:
        """Images from latents x (B, C, H, W) by all reverse steps; noise of each but the last."""
        for index in reversed(range(len(self))):
            found = self._predicted(network, x, labels, index)
            x = found.mean
            if index:
                x = x + (found.log_variance / 2).exp() * next(noises)
        return x

    def ddim(self, network: NetworkFunction, x: Tensor, labels: Tensor | None) -> Tensor:
        """Images from latents by the deterministic sampler (Song et al. 2021, eta = 0)."""
        for index in reversed(range(len(self))):
            x = self.ddim_step(self._predicted(network, x, labels, index).clean, x, index)
        return x

    def ddim_step(self, clean: Tensor, x: Tensor, index: int) -> Tensor:
        """x_{t-1} from x_t and the predicted clean images, without new noise."""
        bar, before = self.alpha_bar[index], self.alpha_bar_before[index]
        noise = (math.sqrt(1 / bar) * x - clean) / math.sqrt(1 / bar - 1)
        return math.sqrt(before) * clean + math.sqrt(1 - before) * noise

    def _predicted(
        self, network: NetworkFunction, x: Tensor, labels: Tensor | None, index: int
    ) -> Prediction:
        step = torch.full((len(x),), index, device=x.device)
        time = torch.full((len(x),), float(self.times[index]), device=x.device)
        return self.predict(network(x, time, labels), x, step)


class DiscreteDenoiser(nn.Module):
    """A network of a discrete process, as it is trained and sampled.

    `precision` runs the network alone under autocast ("bf16", "fp16") or not ("fp32").
    """

    def __init__(self, network: nn.Module, steps: int, precision: str = "fp32") -> None:
        super().__init__()
        self.network = network
        self.process = DiscreteDiffusion.cosine(steps)
        self.dtype = DTYPES[precision]

    def forward(self, x: Tensor, time: Tensor, labels: Tensor | None = None) -> Tensor:
        """The network's output, fp32, for images x (B, C, H, W) at times (B,) in 0..1000."""
        if x.device.type == "cpu" or self.dtype is not None:
            x = x.contiguous(memory_format=torch.channels_last)
        return run_network(self.network, self.dtype, x, time, labels)

    def draw_level(self, count: int, generator: torch.Generator) -> Tensor:
        """Steps (count,) of a training batch, uniform."""
        return torch.randint(
            len(self.process), (count,), generator=generator, device=generator.device
        )

    def loss(self, images: Tensor, labels: Tensor | None, noise: Tensor, level: Tensor) -> Tensor:
        """Hybrid loss at steps `level` (B,), mean over the batch."""
        time = self.process.time(level)
        output = self(self.process.noised(images, noise, level), time, labels)
        return self.process.loss(output, images, noise, level).mean()


def grey_levels(x: Tensor, rounding: str = "floor") -> Tensor:
    """Images in [-1, 1] as uint8: "floor" as published, or "round", exact on all 256 levels."""
    levels = ((x + 1) * 127.5).clamp(0, 255)
    return (levels.round() if rounding == "round" else levels).to(torch.uint8)


def _normal_divergence(mean: Tensor, log: Tensor, other_mean: Tensor, other_log: Tensor) -> Tensor:
    """KL divergence of normal distributions with log variances, nats."""
    return 0.5 * (
        other_log
        - log
        - 1
        + (log - other_log).exp()
        + (mean - other_mean).square() * (-other_log).exp()
    )


def _grey_level_log_likelihood(clean: Tensor, mean: Tensor, log_std: Tensor) -> Tensor:
    """Log probability of the 8-bit bin of each component under a normal distribution, nats."""
    centred, scale = clean - mean, (-log_std).exp()
    below, above = (_normal_cdf(scale * (centred + half)) for half in (-HALF_BIN, HALF_BIN))
    probability = torch.where(
        clean < -OPEN_TAIL, above, torch.where(clean > OPEN_TAIL, 1 - below, above - below)
    )
    return probability.clamp(min=SMALLEST_PROBABILITY).log()


def _normal_cdf(x: Tensor) -> Tensor:
    """Approximation by a hyperbolic tangent, as published."""
    return 0.5 * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())
