"""Ideal denoisers E[x | x + sigma n] of distributions that are known exactly, or as Gaussians.

The generated images of Yoon et al. 2023 have components on 256 grey levels in [-1, 1]; posteriors
are sums over these levels, in float64. Everything takes images (B, C, H, W) in [-1, 1] plus noise
and sigma (B,), and returns denoised images shaped like them.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from scipy.special import ndtr
from torch import Tensor

from emm.data.synthetic import NOISE, gaussian_mixture_modes
from emm.score.mondrian import Crosses, crosses_of

LEVELS = 256
COMPONENTS = 256  # of a mixture, at a time
KEPT = 16  # parts of so many components, whose odds stay in memory: 840 MB
Ideal = Callable[[Tensor, Tensor], Tensor]


def grey_levels(device: torch.device | None = None) -> Tensor:
    """The values of all grey levels, float64 (256,)."""
    return torch.arange(LEVELS, dtype=torch.float64, device=device) / 127.5 - 1


def true_ideal(settings: Mapping[str, Any], resolution: int) -> Ideal | None:
    """The ideal denoiser of the distribution that a run's images are drawn from; None if unknown.

    settings: dotted. Images with dummies among them are a mixture that is not known here.
    """
    if settings["data.dummy_size"] or settings["data.resolution"] not in (None, resolution):
        return None
    if settings["data.dataset"] == "random_ink":
        return random_ink
    if settings["data.dataset"] == "gaussian_mixture":
        return GaussianMixture(gaussian_mixture_modes(resolution))
    crosses = crosses_of(settings, resolution)
    return Mondrian(crosses) if crosses is not None else None


def random_ink(x: Tensor, sigma: Tensor) -> Tensor:
    """Components that are -1 or 1 by a fair coin."""
    return (x.double() / sigma.double().view(-1, 1, 1, 1) ** 2).tanh().to(x.dtype)


class Mondrian:
    """A cross of independent uniform pixels between four quadrants of one uniform colour each.

    Averages over all places of the cross, each weighted by its evidence; pixels of a quadrant share
    the posterior of its colour, those of the cross have one each.
    """

    def __init__(self, crosses: Crosses) -> None:
        self.width, self.starts = crosses.width, [int(start) for start in crosses.starts]

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoised images."""
        y, variance = x.double(), sigma.double().view(-1, 1, 1, 1) ** 2
        single, evidence = _posterior(torch.ones_like(y), y, y**2, variance)
        tables = [_summed(part) for part in (y, y**2, evidence)]
        places = [(row, column) for row in self.starts for column in self.starts]
        found = [self._explained(tables, place, variance) for place in places]
        weights = torch.stack([evidence for _, evidence in found]).softmax(0)
        mean = torch.zeros_like(y)
        for weight, place, (colours, _) in zip(weights, places, found, strict=True):
            mean += weight.view(-1, 1, 1, 1) * self._painted(single, colours, place)
        return mean.to(x.dtype)

    def _explained(
        self, tables: list[Tensor], place: tuple[int, int], variance: Tensor
    ) -> tuple[list[Tensor], Tensor]:
        """Mean colours (B, C) of the quadrants with a cross at a place, and its log evidence (B,).

        tables: summed y, y^2 and log evidence of single pixels.
        """
        size = tables[0].shape[-1] - 1
        colours, total = [], tables[2][..., -1, -1]
        for box in self._quadrants(place, size):
            y, squares, pixels = (_within(table, box) for table in tables)
            area = torch.full_like(y, (box[1] - box[0]) * (box[3] - box[2]))
            colour, evidence = _posterior(area, y, squares, variance[..., 0, 0])
            colours.append(colour)
            total = total - pixels + evidence
        return colours, total.sum(1)

    def _quadrants(self, place: tuple[int, int], size: int) -> Iterator[tuple[int, int, int, int]]:
        """Rows and columns (first, end, first, end) of the quadrants."""
        (top, bottom), (left, right) = (((0, start), (start + self.width, size)) for start in place)
        for rows in (top, bottom):
            for columns in (left, right):
                yield *rows, *columns

    def _painted(self, single: Tensor, colours: list[Tensor], place: tuple[int, int]) -> Tensor:
        """Means of single pixels where the cross is, of colours elsewhere."""
        image = single.clone()
        for colour, box in zip(colours, self._quadrants(place, single.shape[-1]), strict=True):
            image[..., box[0] : box[1], box[2] : box[3]] = colour[..., None, None]
        return image


def _posterior(
    count: Tensor, y: Tensor, squares: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """Mean of a uniform grey level seen `count` times with noise, and the log evidence of that.

    y, squares: sums of what was seen, and of its squares. The evidence leaves out the factor
    (2 pi variance)^(-count / 2), which no comparison of explanations sees.
    """
    levels = grey_levels(y.device)
    shift = -(count[..., None] * levels**2 - 2 * levels * y[..., None]) / (2 * variance[..., None])
    evidence = shift.logsumexp(-1) - math.log(LEVELS) - squares / (2 * variance)
    return shift.softmax(-1) @ levels, evidence


def _summed(values: Tensor) -> Tensor:
    """Sums over all rows and columns before: (B, C, H, W) to (B, C, H + 1, W + 1)."""
    return torch.nn.functional.pad(values.cumsum(-1).cumsum(-2), (1, 0, 1, 0))


def _within(table: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Sum of the values in a box, from their summed table."""
    top, bottom, left, right = box
    return (
        table[..., bottom, right]
        - table[..., top, right]
        - table[..., bottom, left]
        + table[..., top, left]
    )


class GaussianMixture:
    """One of the modes (M, H, W, C) in [0, 1] plus normal noise, clipped, on 256 grey levels."""

    def __init__(self, modes: np.ndarray) -> None:
        self.modes = modes.transpose(0, 3, 1, 2).reshape(len(modes), -1).astype(np.float64)
        self._kept: dict[int, Tensor] = {}

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoised images."""
        y, variance = x.double().flatten(1), sigma.double().view(-1, 1) ** 2
        log_evidence = torch.zeros(len(x), len(self.modes), dtype=torch.float64, device=x.device)
        means = torch.empty(len(x), len(self.modes), y.shape[1], dtype=torch.float64).to(x.device)
        for start in range(0, y.shape[1], COMPONENTS):
            part = slice(start, start + COMPONENTS)
            evidence, mean = self._components(part, y[:, part], variance)
            log_evidence += evidence.log().sum(2)
            means[..., part] = mean
        weights = log_evidence.softmax(1)
        return (weights[:, None] @ means).view(x.shape).to(x.dtype)

    def _components(self, part: slice, y: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Evidence, up to a factor for all modes, and mean (B, M, c) of some components."""
        levels = grey_levels(y.device)
        exponents = -((y[..., None] - levels) ** 2) / (2 * variance[..., None])
        seen = (exponents - exponents.amax(-1, keepdim=True)).exp()  # (B, c, 256)
        seen, odds = seen.transpose(0, 1), self._odds(part, y.device)  # (c, B, 256), (c, 256, M)
        evidence = seen @ odds
        mean = ((seen * levels) @ odds) / evidence
        return evidence.permute(1, 2, 0), mean.permute(1, 2, 0)

    def _odds(self, part: slice, device: torch.device) -> Tensor:
        """Probability of each grey level of some components, kept while it is not large."""
        if part.start not in self._kept:
            odds = torch.from_numpy(_grey_level_odds(self.modes[:, part]))
            if len(self._kept) >= KEPT:
                self._kept.clear()
            self._kept[part.start] = odds.permute(1, 2, 0).contiguous().to(device)
        return self._kept[part.start]


def _grey_level_odds(modes: np.ndarray) -> np.ndarray:
    """Probability of each grey level for modes of any shape in [0, 1]: (..., 256)."""
    edges = (np.arange(1, LEVELS) - 0.5) / (LEVELS - 1)
    below = ndtr((edges - modes[..., None]) / NOISE)
    ends = np.zeros_like(below[..., :1]), np.ones_like(below[..., :1])
    return np.diff(np.concatenate([ends[0], below, ends[1]], axis=-1), axis=-1)


class Gaussian:
    """The best affine denoiser for images (N, C, H, W): that of a Gaussian with their moments.

    mean + C (C + sigma^2)^-1 (x - mean), C their covariance (Li et al. 2024, arXiv 2410.24060).
    """

    def __init__(self, images: Tensor) -> None:
        flat = images.flatten(1).double()
        self.mean = flat.mean(0)
        _, singular, axes = torch.linalg.svd(flat - self.mean, full_matrices=False)
        self.variances, self.axes = singular**2 / len(flat), axes  # those of all other axes are 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        """Denoised images."""
        along = (x.flatten(1).double() - self.mean) @ self.axes.T
        kept = self.variances / (self.variances + sigma.double().view(-1, 1) ** 2)
        return (self.mean + (along * kept) @ self.axes).view(x.shape).to(x.dtype)
