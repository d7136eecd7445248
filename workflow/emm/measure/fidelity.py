"""KID, and how far samples and real images lie in each other's neighbourhoods.

Everything takes features of samples (N, d) and of real images (M, d), and computes in float64.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from emm.analyse.draws import Z95
from emm.measure import NEIGHBOURS, SPLITS
from emm.measure.frechet import Estimate
from emm.score.criteria import wilson_interval
from emm.seeds import derive

SHARES = ("precision", "recall", "coverage_held_out")
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
    """Precision, recall, density and coverage from balls to the 5th neighbour; N, M >= 14.

    precision: share of samples in the ball of some real image; recall: share of real images in
    that of some sample (Kynkaanniemi et al. 2019, Eq. 1, 2). density: real balls that a sample
    lies in, over k; coverage: share of real images with a sample in their ball (Naeem et al. 2020,
    Eq. 4, 5). Intervals are 95 % and normal, from how halves of both sets differ, each with balls
    of its own; of shares at least Wilson's. Recall of few images, each copied about k times, has a
    wider spread than that, by up to 1.6: halves have fewer copies of each.
    """
    samples, real = samples.double(), real.double()
    parts = _halves(samples, "samples"), _halves(real, "real")
    found = {}
    for half, values in zip(parts, _each_image(samples, real, *parts), strict=True):
        found |= {name: _estimated(name, one, half) for name, one in values.items()}
    return found


def _halves(features: Tensor, purpose: str) -> Tensor:
    """Which half each image is in, of no split and of random ones (1 + SPLITS, N)."""
    generator = torch.Generator().manual_seed(derive(0, f"halves of {purpose}"))
    count = len(features)
    drawn = [torch.randperm(count, generator=generator) % 2 for _ in range(SPLITS)]
    return torch.stack([torch.zeros(count, dtype=torch.int64), *drawn]).to(features.device)


def radii(features: Tensor, halves: Tensor) -> Tensor:
    """Distance of each row to its k-th neighbour among the others of its half (V, N)."""
    found = []
    for rows, distances in _distances(features, features):
        apart = (half[rows, None] != half for half in halves)
        near = [distances.masked_fill(others, torch.inf) for others in apart]
        found.append(torch.stack([one.kthvalue(NEIGHBOURS + 1, dim=1).values for one in near]))
    return torch.cat(found, dim=1)  # the first is itself


def _each_image(
    samples: Tensor, real: Tensor, own: Tensor, other: Tensor
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """What the measures are means of: values (V, N) of samples, and (V, M) of real images."""
    sizes, real_sizes = radii(samples, own), radii(real, other)
    inside = torch.zeros(own.shape, dtype=torch.int64, device=samples.device)
    recalled, covered = (
        torch.zeros(other.shape, dtype=torch.bool, device=real.device) for _ in range(2)
    )
    for rows, distances in _distances(real, samples):
        for at in range(len(own)):
            together = other[at, rows, None] == own[at]
            balls_of_real = together & (distances <= real_sizes[at, rows, None])
            inside[at] += balls_of_real.sum(0)
            covered[at, rows] = balls_of_real.any(1)
            recalled[at, rows] = (together & (distances <= sizes[at])).any(1)
    return (
        {"precision": inside > 0, "density": inside.double() / NEIGHBOURS},
        {"recall": recalled, "coverage_held_out": covered},
    )


def _estimated(name: str, values: Tensor, halves: Tensor) -> Estimate:
    """Mean of values (V, N) without a split, with the variance that the splits tell.

    Halves are independent, so that half of the mean square of their difference is the variance of
    one, which has half the images.
    """
    values, count = values.double(), values.shape[1]
    apart = [value[half == 0].mean() - value[half == 1].mean()
             for value, half in zip(values[1:], halves[1:], strict=True)]  # fmt: skip
    mean, variance = float(values[0].mean()), float(torch.stack(apart).square().mean()) / 4
    reach = Z95 * variance**0.5
    low, high = max(mean - reach, 0.0), mean + reach
    if name in SHARES:
        least, most = wilson_interval(round(mean * count), count)
        low, high = min(low, least), max(min(high, 1.0), most)
    return Estimate(mean, low, high)


def _distances(rows: Tensor, columns: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Exact Euclidean distances of some rows to all columns, a block at a time."""
    for start in range(0, len(rows), BLOCK):
        part = slice(start, start + BLOCK)
        mode: Any = "donot_use_mm_for_euclid_dist"  # copies are at distance 0
        yield part, torch.cdist(rows[part], columns, compute_mode=mode)
