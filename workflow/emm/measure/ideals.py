"""Where a network stands between the ideal denoiser and the one that memorizes.

A network f is compared, at noisy images, with the ideal denoiser of the distribution and with that
of the training set, its closed-form optimum. With emp - true the direction from the one to the
other, kappa = <f - true, emp - true> / ||emp - true||^2 is 0 for a network that generalizes and 1
for one that memorizes; off_axis is its distance from the line through both, in the same unit. No
sampling, and no threshold, has a part in it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from emm.analyse.draws import Z95
from emm.diffusion.discrete import DiscreteDenoiser
from emm.diffusion.samplers import DenoiserFunction
from emm.measure import LEVELS, PROBE_BATCH
from emm.measure.exact import Ideal

SIGMAS = tuple(np.geomspace(0.03, 30, LEVELS).tolist())  # in image units [-1, 1]


@dataclass(frozen=True)
class Probes:
    """Clean images (M, C, H, W) in [-1, 1], their labels (M,) or None, and noise like them.

    origin: (M,), the image that each one is, where some come several times.
    """

    kind: str
    images: Tensor
    labels: Tensor | None
    noise: Tensor
    origin: np.ndarray

    def noisy(self, sigma: float) -> Iterator[tuple[Tensor, Tensor, Tensor | None, Tensor]]:
        """Noisy and clean images, labels and noise levels, a batch at a time."""
        for start in range(0, len(self.images), PROBE_BATCH):
            rows = slice(start, start + PROBE_BATCH)
            clean = self.images[rows]
            labels = None if self.labels is None else self.labels[rows]
            levels = torch.full((len(clean),), sigma, device=clean.device)
            yield clean + sigma * self.noise[rows], clean, labels, levels


@dataclass(frozen=True)
class Ideals:
    """Denoised images of the ideals at some probes and a noise level; true is None if unknown."""

    probes: Probes
    sigma: float
    empirical: Tensor
    true: Tensor | None
    gaussian: Tensor


def levels_of(denoiser: DenoiserFunction) -> list[float]:
    """Noise levels at which a denoiser is compared; of a discrete process the nearest it has."""
    if not isinstance(denoiser, DiscreteDenoiser):
        return list(SIGMAS)
    known = denoiser.process.tables["noise_to_signal"]
    inside = [sigma for sigma in SIGMAS if known[0] <= sigma <= known[-1]]
    return [float(known[nearest_step(known, sigma)]) for sigma in inside]


def nearest_step(levels: np.ndarray, sigma: float) -> int:
    """Step of a discrete process whose level of noise over signal is nearest."""
    return int(np.abs(np.log(levels) - np.log(sigma)).argmin())


@torch.inference_mode()
def ideals_at(
    probes: Probes, sigma: float, empirical: DenoiserFunction, true: Ideal | None, gaussian: Ideal
) -> Ideals:
    """What the ideals make of the probes at a noise level."""
    found = [
        (
            empirical(noisy, levels, labels),
            None if true is None else true(noisy, levels),
            gaussian(noisy, levels),
        )
        for noisy, _, labels, levels in probes.noisy(sigma)
    ]
    parts = [None if part[0] is None else torch.cat(part) for part in zip(*found, strict=True)]
    return Ideals(probes, sigma, *parts)


@torch.inference_mode()
def denoised(denoiser: DenoiserFunction, probes: Probes, sigma: float) -> Tensor:
    """What a network makes of the probes: its clean images, not clipped."""
    return torch.cat([
        _clean(denoiser, noisy, levels, labels)
        for noisy, _, labels, levels in probes.noisy(sigma)
    ])  # fmt: skip


def _clean(
    denoiser: DenoiserFunction, noisy: Tensor, levels: Tensor, labels: Tensor | None
) -> Tensor:
    if not isinstance(denoiser, DiscreteDenoiser):
        return denoiser(noisy, levels, labels)
    process = denoiser.process
    index = nearest_step(process.tables["noise_to_signal"], float(levels[0]))
    step = torch.full((len(noisy),), index, device=noisy.device)
    x = float(process.tables["signal"][index]) * noisy
    output = denoiser(x, process.time(step), labels)
    return process.predict(output, x, step, clip=False).clean


class Comparison:
    """Sums over probes and noise levels of how a network compares with the ideals.

    Everything is per component of an image. Levels count by the squared distance of the ideals:
    where they agree, nothing can be told.
    """

    NAMES = ("e_true", "e_emp", "e_gauss", "e_clean", "separation", "along")

    def __init__(self, probes: Probes) -> None:
        self.probes, self.levels = probes, 0
        self.sums = {name: np.zeros(len(probes.images)) for name in self.NAMES}

    def add(self, ideals: Ideals, found: Tensor) -> "Comparison":
        """Add the network's clean images at a level."""
        nothing = torch.full_like(found, torch.nan)
        true = nothing if ideals.true is None else ideals.true
        apart, off = ideals.empirical - true, found - true
        parts = {
            "e_true": off * off,
            "e_emp": (found - ideals.empirical).square(),
            "e_gauss": (found - ideals.gaussian).square(),
            "e_clean": (found - self.probes.images).square(),
            "separation": apart * apart,
            "along": off * apart,
        }
        for name, part in parts.items():
            self.sums[name] += part.double().flatten(1).mean(1).cpu().numpy()
        self.levels += 1
        return self

    def row(self) -> dict[str, Any]:
        """Means over images and levels, and kappa with its 95 % interval."""
        means = {name: float(self.sums[name].mean()) / self.levels for name in self.NAMES[:-1]}
        kappa, error = self._kappa()
        beside = means["e_true"] / means["separation"] - kappa**2 if kappa == kappa else np.nan
        return {
            "probes": self.probes.kind,
            "n_probes": len(self.probes.images),
            **means,
            "kappa": kappa,
            "kappa_low": kappa - Z95 * error,
            "kappa_high": kappa + Z95 * error,
            "off_axis": float(np.sqrt(max(beside, 0.0))) if beside == beside else np.nan,
        }

    def _kappa(self) -> tuple[float, float]:
        """Ratio of sums and its standard error; noisy images of one image are not independent."""
        along, apart = self.sums["along"], self.sums["separation"]
        if not apart.sum() > 0:  # the ideals agree, or one is unknown
            return np.nan, np.nan
        kappa = along.sum() / apart.sum()
        groups = np.bincount(self.probes.origin, weights=along - kappa * apart)
        count = len(np.unique(self.probes.origin))
        spread = np.sqrt((groups**2).sum() * count / max(count - 1, 1))
        return float(kappa), float(spread / apart.sum())


def compare(
    denoiser: DenoiserFunction, ideals: Mapping[str, list[Ideals]]
) -> Iterator[dict[str, Any]]:
    """Rows of one network: for each kind of probes each level, and all together (sigma NaN)."""
    for of_kind in ideals.values():
        together = Comparison(of_kind[0].probes)
        for at_level in of_kind:
            found = denoised(denoiser, at_level.probes, at_level.sigma)
            alone = Comparison(at_level.probes).add(at_level, found)
            together.add(at_level, found)
            yield {"sigma": at_level.sigma, **alone.row()}
        yield {"sigma": np.nan, **together.row()}
