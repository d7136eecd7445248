"""What counts as memorized, and the numbers that describe one set of samples."""

import math
from fractions import Fraction
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from emm.score.nearest import Neighbours

if TYPE_CHECKING:
    import pandas as pd

QUANTILES = (5, 25, 50, 75, 95)  # percent
THRESHOLD = Fraction(1, 3)  # of d1/d2


def is_memorized(squared_distances: np.ndarray, threshold: Fraction = THRESHOLD) -> np.ndarray:
    """Whether d1/d2 < 1/3, strictly, as bool (N,) from exact squared distances (N, 2).

    The rule of Gu et al. 2023 and Yoon et al. 2023. Compared as 9 * d1^2 < d2^2 in int64:
    9 * d1^2 passes 2**31 from 3,670 components on. Equal distances are never memorized, also at 0.
    Other thresholds are as exact, with a denominator up to 1000 at any resolution up to 1024.
    """
    first, second = squared_distances.astype(np.int64, copy=False).T
    return threshold.denominator**2 * first < threshold.numerator**2 * second


def nearest_distance(squared_distances: np.ndarray, components: int) -> np.ndarray:
    """Distance to the nearest training image (N,): root mean square over components, grey levels.

    `components` is channels * height * width; a grey level is 1/255 of black to white.
    """
    return np.sqrt(squared_distances[:, 0] / components)


def knn_distance(squared_distances: np.ndarray, components: int) -> float:
    """KNN distance (Gu et al. 2023, Tables 4 and 5): mean distance to the nearest, grey levels."""
    return float(nearest_distance(squared_distances, components).mean())


def distance_ratio(squared_distances: np.ndarray) -> np.ndarray:
    """d1/d2 in 0..1 as float64 (N,). Two distances of zero are equal, so their ratio is 1."""
    first, second = np.sqrt(squared_distances).T
    return np.divide(first, second, out=np.ones_like(first), where=second > 0)


def summarise(neighbours: Neighbours, components: int) -> dict[str, float]:
    """Summary of one set of N >= 1 samples, by column name.

    The memorization ratio is a fraction with its 95 % Wilson interval; d1 quantiles are in grey
    levels; `distinct_copied` counts the training images that memorized samples are copies of.
    """
    squared_distances = neighbours.squared_distances
    memorized = is_memorized(squared_distances)
    n_samples, n_memorized = len(memorized), int(memorized.sum())
    return {
        "n_samples": n_samples,
        "n_memorized": n_memorized,
        **share_of("memorization_ratio", n_memorized, n_samples),
        "knn_distance": knn_distance(squared_distances, components),
        **_quantiles("d1", nearest_distance(squared_distances, components)),
        **_quantiles("ratio", distance_ratio(squared_distances)),
        "distinct_copied": len(np.unique(neighbours.indices[memorized, 0])),
    }


def best_checkpoint(ratios: "pd.Series") -> int:
    """Label of the highest memorization ratio of checkpoints in the order of their training.

    Of equals the longest trained: at 0 and 100 % the first ones are hardly trained at all.
    """
    return ratios.fillna(-1.0).iloc[::-1].idxmax()


def _quantiles(name: str, values: np.ndarray) -> dict[str, float]:
    """Quantiles as `name_q05` and so on."""
    quantiles = np.percentile(values, QUANTILES)
    return {f"{name}_q{q:02d}": float(x) for q, x in zip(QUANTILES, quantiles, strict=True)}


def share_of(name: str, hits: int, trials: int) -> dict[str, float]:
    """A share as column `name`, with the ends of its 95 % Wilson interval."""
    low, high = wilson_interval(hits, trials)
    return {name: hits / trials, f"{name}_low": low, f"{name}_high": high}


def copies_of(kind: str, squared_distances: np.ndarray) -> dict[str, float]:
    """Copies among samples with these distances (N, 2) to other references: columns of a kind."""
    memorized = int(is_memorized(squared_distances).sum())
    share = share_of(f"memorization_ratio_{kind}", memorized, len(squared_distances))
    return {f"n_memorized_{kind}": memorized, **share}


def wilson_interval(successes: int, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a proportion (Wilson 1927), without continuity correction.

    Raises ValueError unless 0 <= successes <= trials, trials >= 1 and 0 < level < 1.
    """
    if not (0 <= successes <= trials and trials >= 1 and 0 < level < 1):
        raise ValueError(f"no interval for {successes} of {trials} at level {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre = successes + z**2 / 2
    spread = z * math.sqrt(successes * (trials - successes) / trials + z**2 / 4)
    low, high = ((centre + sign * spread) / (trials + z**2) for sign in (-1, 1))
    return (low if successes else 0.0), (high if successes < trials else 1.0)
