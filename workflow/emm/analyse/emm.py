"""Effective model memorization: where a memorization curve crosses 1 - epsilon.

EMM is the largest training set size N at which the expected memorization ratio is at least
1 - epsilon (Gu et al. 2023, Definition 1). A curve that the sizes do not bracket gives a bound,
never an extrapolation.
"""

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from emm.seeds import derive

Status = Literal["bracketed", "below", "above"]
EPSILON = 0.1  # of the published EMM: 90 %
EPSILONS = (0.01, 0.05, EPSILON, 0.5)


@dataclass(frozen=True)
class Emm:
    """An EMM in images.

    value: the estimate, NaN when censored.
    status: "bracketed" by two sizes, "below" the smallest size, or at least ("above") the largest.
    bound: the smallest or largest size when censored, else NaN.
    lower, upper: bootstrap interval, NaN when not computed; -inf and inf where it leaves the sizes.
    """

    value: float
    status: Status
    bound: float
    lower: float = math.nan
    upper: float = math.nan


def published_emm(sizes: ArrayLike, ratios: ArrayLike, epsilon: float) -> Emm:
    """EMM as Gu et al. 2023 read it off: linear in N between the bracketing sizes.

    On a curve that is not monotone the last fall from >= 1 - epsilon to below it counts.

    sizes (K,) increasing, ratios (K,) in 0..1. Raises ValueError for other input.
    """
    sizes = _increasing(sizes)
    ratios = np.asarray(ratios, float)
    if ratios.shape != sizes.shape or not ((ratios >= 0) & (ratios <= 1)).all():
        raise ValueError("ratios must be numbers in 0..1, one per size")
    return _emm(sizes, crossings(sizes, ratios, epsilon, log=False))


def isotonic_emm(
    sizes: ArrayLike, hits: ArrayLike, samples: ArrayLike, epsilon: float, log: bool = True
) -> Emm:
    """EMM of the non-increasing fit, interpolated in log N (or in N).

    sizes (K,) increasing; hits, samples (K,) or (seeds, K) counts, pooled over seeds; samples 0
    where a seed lacks a size. Raises ValueError for other input.
    """
    sizes = _increasing(sizes)
    hits, samples = _counts(hits, samples, sizes)
    curve = decreasing_fit(hits.sum(axis=0), samples.sum(axis=0))
    return _emm(sizes, crossings(sizes, curve, epsilon, log))


def bootstrap_emm(
    sizes: ArrayLike,
    hits: ArrayLike,
    samples: ArrayLike,
    epsilon: float,
    log: bool = True,
    draws: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Emm:
    """Isotonic EMM with the percentile interval of its bootstrap_draws.

    Arguments and errors as there.
    """
    estimate = isotonic_emm(sizes, hits, samples, epsilon, log)
    values = np.sort(bootstrap_draws(sizes, hits, samples, epsilon, log, draws, seed))
    tail = math.floor(draws * (1 - confidence) / 2)
    lower, upper = float(values[tail]), float(values[draws - 1 - tail])
    return Emm(estimate.value, estimate.status, estimate.bound, lower, upper)


def bootstrap_draws(
    sizes: ArrayLike,
    hits: ArrayLike,
    samples: ArrayLike,
    epsilon: float,
    log: bool = True,
    draws: int = 2000,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Isotonic EMMs (draws,) of resampled counts; -inf and inf where they leave the sizes.

    A draw takes seeds with replacement (whole curves when every seed has every size, since their
    subsets are nested; else within each size), then binomial counts of each curve. Arguments and
    errors as isotonic_emm.
    """
    sizes = _increasing(sizes)
    hits, samples = _counts(hits, samples, sizes)
    rng = np.random.default_rng(derive(seed, "emm_bootstrap"))
    return crossings(sizes, decreasing_fit(*_resample(hits, samples, draws, rng)), epsilon, log)


def decreasing_fit(hits: NDArray[Any], samples: NDArray[Any]) -> NDArray[np.float64]:
    """Non-increasing weighted least-squares fit of hits / samples: pooled adjacent violators.

    Computed for many curves at once by the min-max formula (Barlow et al. 1972): the value at i
    is the minimum over a <= i of the maximum over b >= i of the pooled ratio of a..b. Integer sums
    keep the comparison with 1 - epsilon exact.

    hits, samples (..., K), samples > 0 -> (..., K).
    """
    length = hits.shape[-1]
    start, stop = np.indices((length, length))
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = _window_sums(hits) / _window_sums(samples)
    pooled = np.where(start <= stop, pooled, -np.inf)
    highest = np.maximum.accumulate(pooled[..., ::-1], axis=-1)[..., ::-1]
    return np.where(start <= stop, highest, np.inf).min(axis=-2)


def crossings(
    sizes: NDArray[np.float64], curves: NDArray[np.float64], epsilon: float, log: bool = True
) -> NDArray[np.float64]:
    """Size at which each curve last falls below 1 - epsilon; -inf or inf outside the sizes.

    sizes (K,), curves (..., K) -> (...). Interpolates in log N, or in N when `log` is false.
    """
    if not 0 < epsilon < 1:
        raise ValueError(f"epsilon must lie in 0..1, not {epsilon}")
    reached = curves >= 1 - epsilon
    last = len(sizes) - 1 - np.argmax(reached[..., ::-1], axis=-1)
    following = np.minimum(last + 1, len(sizes) - 1)
    high, low = (np.take_along_axis(curves, i[..., None], -1)[..., 0] for i in (last, following))
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (high - (1 - epsilon)) / (high - low)
        ratio = sizes[following] / sizes[last]
        grown = ratio**share if log else 1 + share * (ratio - 1)
    inside = np.where(last == len(sizes) - 1, np.inf, sizes[last] * grown)
    return np.where(reached.any(axis=-1), inside, -np.inf)


def _window_sums(counts: NDArray[Any]) -> NDArray[Any]:
    """Sums over a..b at [..., a, b]; meaningless where a > b."""
    sums = np.cumsum(counts, axis=-1)
    return sums[..., None, :] - (sums - counts)[..., :, None]


def _resample(
    hits: NDArray[np.int64], samples: NDArray[np.int64], draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Bootstrap hits and samples, (draws, K) each, from counts (seeds, K)."""
    present = samples > 0
    whole = rng.integers(len(hits), size=(draws, len(hits))) if present.all() else None
    drawn = np.empty((2, draws, hits.shape[1]), np.int64)
    for k in range(hits.shape[1]):
        seeds = np.flatnonzero(present[:, k])
        picks = (
            seeds[rng.integers(len(seeds), size=(draws, len(seeds)))] if whole is None else whole
        )
        n = samples[picks, k]
        drawn[0, :, k] = rng.binomial(n, hits[picks, k] / n).sum(axis=1)
        drawn[1, :, k] = n.sum(axis=1)
    return drawn[0], drawn[1]


def _emm(sizes: NDArray[np.float64], value: NDArray[np.float64]) -> Emm:
    if np.isfinite(value):
        return Emm(float(value), "bracketed", math.nan)
    if value > 0:
        return Emm(math.nan, "above", float(sizes[-1]))
    return Emm(math.nan, "below", float(sizes[0]))


def _increasing(sizes: ArrayLike) -> NDArray[np.float64]:
    sizes = np.asarray(sizes, float)
    if sizes.ndim != 1 or not len(sizes) or not (sizes > 0).all() or not (np.diff(sizes) > 0).all():
        raise ValueError("sizes must be positive and increasing")
    return sizes


def _counts(
    hits: ArrayLike, samples: ArrayLike, sizes: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Counts as (seeds, K) integers; ValueError unless 0 <= hits <= samples at every size."""
    hits, samples = np.atleast_2d(np.asarray(hits)), np.atleast_2d(np.asarray(samples))
    if hits.shape != samples.shape or hits.shape[1:] != (len(sizes),):
        raise ValueError("hits and samples must hold one count per size")
    if (hits < 0).any() or (hits > samples).any() or not samples.sum(axis=0).all():
        raise ValueError("hits must lie in 0..samples, and every size needs samples")
    return hits.astype(np.int64), samples.astype(np.int64)
