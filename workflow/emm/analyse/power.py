"""How surely a claim would be borne out, before it is measured: its power, and what that takes.

A claim counts as supported when it holds in 95 % of the draws around the results
(emm.analyse.claims), and a difference has to exceed the margin within which numbers are practically
equal (emm.analyse.compare). Both sides are normal here: samples are counted, p (1 - p) / N, and
other training seeds shift a ratio by `run_sd` points at 50 % and by 2 sqrt(p (1 - p)) of that
elsewhere.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.stats import norm

from emm.analyse.claims import SURE
from emm.analyse.compare import POINTS, SHARE
from emm.analyse.emm import EPSILON
from emm.errors import UserError

LIMIT = norm.ppf(SURE)
MOST_SAMPLES, MOST_SEEDS = 10_000_000, 1000  # beyond which nothing is looked for
BETWEEN = 2 / 3  # mean of w^2 + (1 - w)^2: of a variance, midway between two sizes of a series


@dataclass(frozen=True)
class Effort:
    """What is spent on each side: samples per run, and runs with other training seeds."""

    samples: int = 10_000
    seeds: int = 1


def spread(ratio: float, effort: Effort, run_sd: float) -> float:
    """Standard deviation in points of a ratio (0..1), the mean over seeds."""
    counting = 1e4 * ratio * (1 - ratio) / effort.samples
    runs = 4 * ratio * (1 - ratio) * run_sd**2
    return math.sqrt((counting + runs) / effort.seeds)


def power_of_ratios(first: float, second: float, effort: Effort, run_sd: float) -> float:
    """Probability that "the higher of two ratios is the higher" comes out as supported.

    first, second: true ratios in 0..1. The difference has to exceed one point.
    """
    gap = 100 * abs(first - second) - POINTS
    noise = math.hypot(spread(first, effort, run_sd), spread(second, effort, run_sd))
    return _power(gap, noise)


def power_of_emm(
    factor: float, steepness: float, effort: Effort, run_sd: float, epsilon: float = EPSILON
) -> float:
    """The same for two EMMs of which one is `factor` times the other; it has to exceed 5 %.

    steepness: points that the ratio falls per doubling of the training set where it crosses
    1 - epsilon, between two sizes of the series.
    """
    gap = math.log2(max(factor, 1 / factor)) - math.log2(1 + SHARE)
    of_one = math.sqrt(BETWEEN) * spread(1 - epsilon, effort, run_sd) / steepness
    return _power(gap, math.sqrt(2) * of_one)


def _power(gap: float, noise: float) -> float:
    if noise == 0:
        return float(gap > 0)
    return float(norm.cdf(gap / noise - LIMIT))


def smallest(power: Callable[[int], float], wanted: float, most: int) -> int | None:
    """The smallest number up to `most` with the wanted power, which grows with it; or None."""
    if power(most) < wanted:
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= wanted else (middle, high)
    return high


def needed(
    power: Callable[[Effort], float], effort: Effort, wanted: float
) -> dict[str, int | None]:
    """The fewest samples at these seeds and seeds at these samples; None where none suffices."""
    return {
        "samples": smallest(lambda n: power(Effort(n, effort.seeds)), wanted, MOST_SAMPLES),
        "seeds": smallest(lambda n: power(Effort(effort.samples, n)), wanted, MOST_SEEDS),
    }


def checked_ratios(ratios: tuple[float, float]) -> tuple[float, float]:
    """Two ratios in % as fractions; UserError unless they lie in 0..100 and differ."""
    if not all(0 <= ratio <= 100 for ratio in ratios) or ratios[0] == ratios[1]:
        raise UserError(
            f"--ratios {ratios[0]:g} {ratios[1]:g}: give two that differ, from 0 to 100"
        )
    return ratios[0] / 100, ratios[1] / 100
