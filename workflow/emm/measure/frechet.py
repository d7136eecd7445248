"""The Fréchet distance of two sets of features, with intervals by leaving out groups of images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from emm.analyse.draws import Z95
from emm.measure import GROUPS


@dataclass(frozen=True)
class Estimate:
    """A number and its 95 % interval, in the unit of the number."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Moments:
    """Sums over features (N, d), float64: how many, of the features, and of their products.

    population: whether they are all that there are, and no draw.
    """

    count: int
    first: Tensor
    second: Tensor
    population: bool = False

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(
            self.count - other.count, self.first - other.first, self.second - other.second
        )

    @property
    def mean(self) -> Tensor:
        """Mean (d,)."""
        return self.first / self.count

    @property
    def covariance(self) -> Tensor:
        """Covariance (d, d), unbiased of a draw; zero for a single image."""
        centred = self.second - torch.outer(self.first, self.first) / self.count
        return centred / max(self.count - (not self.population), 1)


def moments(features: Tensor, population: bool = False) -> Moments:
    """Sums over features (N, d)."""
    return Moments(len(features), features.sum(0), features.T @ features, population)


def root(covariance: Tensor) -> Tensor:
    """The symmetric square root of a covariance (d, d)."""
    values, axes = torch.linalg.eigh(covariance)
    return (axes * values.clamp(min=0).sqrt()) @ axes.T


def frechet_distance(one: Moments, other: Moments, other_root: Tensor | None = None) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), as of Gaussians (Heusel et al. 2017, Eq. 6).

    The trace of the root is the sum of the roots of the eigenvalues of S2^(1/2) S1 S2^(1/2).
    other_root: S2^(1/2), where it is known.
    """
    half = root(other.covariance) if other_root is None else other_root
    shared = torch.linalg.eigvalsh(half @ one.covariance @ half).clamp(min=0).sqrt().sum()
    spread = one.covariance.trace() + other.covariance.trace() - 2 * shared
    return float((one.mean - other.mean).square().sum() + spread)


@dataclass(frozen=True)
class Leaving:
    """A number, and what it is without each group of samples and of reference images (G,)."""

    value: float
    samples: Tensor
    reference: Tensor | None = None

    def __sub__(self, other: "Leaving") -> "Leaving":
        """Difference of two distances of the same samples; references are independent."""
        parts = [part for part in (self.reference, other.reference) if part is not None]
        if len(parts) > 1:
            raise ValueError("two references vary; leave one as it is")
        return Leaving(
            self.value - other.value, self.samples - other.samples, parts[0] if parts else None
        )

    @property
    def variance(self) -> float:
        """Variance by the grouped jackknife, of the draws of both sides."""
        parts = [part for part in (self.samples, self.reference) if part is not None]
        return sum(_jackknife_variance(part) for part in parts)

    def estimate(self, least: float = -float("inf")) -> Estimate:
        """With the normal interval of the grouped jackknife, cut off at the least value."""
        error = self.variance**0.5
        low, high = self.value - Z95 * error, self.value + Z95 * error
        return Estimate(max(self.value, least), max(low, least), max(high, least))


def _jackknife_variance(left_out: Tensor) -> float:
    """Variance of a statistic from its values without each of G groups (Efron 1982)."""
    return (len(left_out) - 1) * float(left_out.var(correction=0))


def fid(samples: Tensor, reference: Tensor, vary_reference: bool = True) -> Leaving:
    """Fréchet distance of samples (N, d) and reference images (M, d), and without each group.

    vary_reference: whether the reference is a draw, whose chance the interval should hold, or all
    that there is, as the training set of a copier. The distance of finite sets is too large, by
    more or less with what is compared (Chong and Forsyth 2020).
    """
    one = moments(samples.double())
    other = moments(reference.double(), population=not vary_reference)
    halves = root(one.covariance), root(other.covariance)
    value = frechet_distance(one, other, halves[1])
    of_samples = _left_out(samples, one, other, halves[1])
    of_reference = _left_out(reference, other, one, halves[0]) if vary_reference else None
    return Leaving(value, of_samples, of_reference)


def _left_out(features: Tensor, whole: Moments, other: Moments, half: Tensor) -> Tensor:
    """The distance without every k-th image, for each k of the groups."""
    groups = min(GROUPS, len(features))
    parts = (moments(features[start::groups].double()) for start in range(groups))
    return torch.tensor(
        [frechet_distance(whole - part, other, half) for part in parts], dtype=torch.float64
    )
