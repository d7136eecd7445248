"""KID, and how far samples and real images lie in each other's neighbourhoods.

Everything takes features of samples (N, d) and of real images (M, d), and computes in float64.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from emm.measure.frechet import Z95, Estimate
from emm.score.criteria import wilson_interval

NEIGHBOURS = 5  # k of the balls, as Naeem et al. 2020 choose it
BLOCK = 1024  # rows of a matrix of pairs at a time


def kid(samples: Tensor, real: Tensor) -> Estimate:
    """Unbiased squared MMD with the kernel (x.y / d + 1)^3 (Binkowski et al. 2018, Eq. 4).

    The 95 % interval is normal, from leaving out each sample and each real image once.
    """
    samples, real = samples.double(), real.double()
    count, others = len(samples), len(real)
    within, within_real = _kernel_sums(samples, samples, True), _kernel_sums(real, real, True)
    across = _kernel_sums(samples, real)
    across_real = _kernel_sums(real, samples)
    parts = (
        _discrepancy(within.sum() - 2 * within, within_real.sum(), across.sum() - across,
                     count - 1, others),
        _discrepancy(within.sum(), within_real.sum() - 2 * within_real,
                     across.sum() - across_real, count, others - 1),
    )  # fmt: skip
    value = float(_discrepancy(within.sum(), within_real.sum(), across.sum(), count, others))
    error = sum((len(part) - 1) * float(part.var(correction=0)) for part in parts) ** 0.5
    return Estimate(value, value - Z95 * error, value + Z95 * error)


def _kernel_sums(rows: Tensor, columns: Tensor, without_itself: bool = False) -> Tensor:
    """Sums of the kernel of each row with all columns, or with all others."""
    sums = [((part @ columns.T) / rows.shape[1] + 1).pow(3).sum(1) for part in rows.split(BLOCK)]
    own = (rows.square().sum(1) / rows.shape[1] + 1).pow(3) if without_itself else 0
    return torch.cat(sums) - own


def _discrepancy(within: Tensor, within_real: Tensor, across: Tensor, n: int, m: int) -> Tensor:
    return within / (n * (n - 1)) + within_real / (m * (m - 1)) - 2 * across / (n * m)


def balls(samples: Tensor, real: Tensor) -> dict[str, Estimate]:
    """Precision, recall, density and coverage from balls to the 5th neighbour.

    precision: share of samples in the ball of some real image; recall: share of real images in
    that of some sample (Kynkaanniemi et al. 2019, Eq. 1, 2). density: real balls that a sample
    lies in, over k; coverage: share of real images with a sample in their ball (Naeem et al. 2020,
    Eq. 4, 5). Intervals are 95 %, with the balls taken as they are: Wilson's for shares, normal for
    density.
    """
    samples, real = samples.double(), real.double()
    in_real = torch.zeros(len(samples), dtype=torch.int64, device=samples.device)
    recalled, covered = [], []
    sizes, real_sizes = radii(samples), radii(real)
    for rows, distances in _distances(real, samples):
        inside = distances <= real_sizes[rows, None]
        in_real += inside.sum(0)
        covered.append(inside.any(1))
        recalled.append((distances <= sizes).any(1))
    density = in_real.double() / NEIGHBOURS
    return {
        "precision": _share(in_real > 0),
        "recall": _share(torch.cat(recalled)),
        "density": _mean(density),
        "coverage_held_out": _share(torch.cat(covered)),
    }


def radii(features: Tensor) -> Tensor:
    """Distance of each row to its k-th neighbour among the others (N,)."""
    nearest = [
        distances.kthvalue(NEIGHBOURS + 1, dim=1).values  # the first is itself
        for _, distances in _distances(features, features)
    ]
    return torch.cat(nearest)


def _distances(rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Exact Euclidean distances of some rows to all columns, a block at a time."""
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        mode: Any = "donot_use_mm_for_euclid_dist"  # copies are at distance 0
        yield part, torch.cdist(rows[part], columns, compute_mode=mode)


def _share(hits: Tensor) -> Estimate:
    successes, trials = int(hits.sum()), len(hits)
    return Estimate(successes / trials, *wilson_interval(successes, trials))


def _mean(values: Tensor) -> Estimate:
    error = float(values.std()) / len(values) ** 0.5
    mean = float(values.mean())
    return Estimate(mean, max(mean - Z95 * error, 0.0), mean + Z95 * error)
