"""Uncertain numbers: an estimate and 2,000 draws around it, and the central 95 % of them."""

from statistics import NormalDist
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from emm.seeds import derive

DRAWS = 2000
Z95 = NormalDist().inv_cdf(0.975)  # half the width of a 95 % interval, in standard deviations

Draws = NDArray[np.float64]


class Interval(NamedTuple):
    """Bounds of a number, (1 + DRAWS,) each: the estimate first, then the draws.

    Equal where the number is known, -inf and inf where nothing is.
    """

    low: Draws
    high: Draws


UNKNOWN = Interval(np.full(1 + DRAWS, -np.inf), np.full(1 + DRAWS, np.inf))


def exact(drawn: Draws, estimate: float) -> Interval:
    """A number that is known in every draw (DRAWS,)."""
    values = np.concatenate([[estimate], drawn])
    return Interval(values, values)


def constant(value: float) -> Interval:
    """A number without any error."""
    return exact(np.full(DRAWS, value), value)


def quantiles(values: Draws) -> tuple[float, float]:
    """The central 95 % of the draws, without the estimate before them."""
    return central(values[1:])


def central(drawn: Draws) -> tuple[float, float]:
    """The central 95 % of draws alone, as two of them: infinite where these are."""
    drawn, tail = np.sort(drawn), int(len(drawn) * 0.025)
    return float(drawn[tail]), float(drawn[len(drawn) - 1 - tail])


def generator(purpose: str, *names: str) -> np.random.Generator:
    """Draws that belong to what is measured, whichever claim asks and in whatever order."""
    return np.random.default_rng(derive(0, f"claims/{purpose}/{'/'.join(names)}"))
