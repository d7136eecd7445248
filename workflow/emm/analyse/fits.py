"""Power laws of capacities: log y = a + b log x + scatter, by maximum likelihood.

A capacity is known up to the spread of its bootstrap, or only to lie beyond the sizes that were
run: such a one is censored and enters by the probability of its side, as in Tobit regression (Tobin
1958), instead of being left out. The scatter about the line, which is what other seeds and the
interpolation between sizes add, is estimated with it. Intervals are of the profile likelihood, with
the limit that makes them those of Student's t where nothing is censored.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_ndtr
from scipy.stats import t

CONFIDENCE = 0.95
LEAST_SD = 0.01  # of a logarithm: that of bootstrap draws which all agree
STEEPEST = 50.0  # slope beyond which an end of its interval counts as open
FEWEST = 3  # bracketed points from which on the scatter about the line can be told
SCATTERS = np.concatenate([[0.0], np.geomspace(0.01, 3.0, 30)])  # that are tried, of log y
NEWTON, CLOSE = 30, 1e-8  # steps at most, and which is the last; the loss is convex

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """Logarithms of capacities along x, (K,) each.

    y: the value, or the size beyond which it lies; side: 0 bracketed, 1 above, -1 below; sd: of
    the bootstrap.
    """

    x: Vector
    y: Vector
    side: NDArray[np.int64]
    sd: Vector

    @property
    def bracketed(self) -> int:
        """How many are known up to an error."""
        return int((self.side == 0).sum())

    def shifted(self, centre: float) -> "Points":
        """The same points from log x = centre on."""
        return Points(self.x - centre, self.y, self.side, self.sd)


@dataclass(frozen=True)
class Law:
    """The power law y = exp(intercept) x^slope, with the slope's 95 % interval.

    scatter: standard deviation of log y about the line beyond the bootstrap's; ends are infinite
    where the points leave them open.
    """

    intercept: float
    slope: float
    low: float
    high: float
    scatter: float
    points: Points

    def at(self, x: float) -> tuple[float, float, float]:
        """The law at x > 0 with its 95 % interval (of the mean, without the scatter), in y."""
        value = self.intercept + self.slope * math.log(x)
        low, high = _interval(self.points.shifted(math.log(x)), "intercept", value)
        with np.errstate(over="ignore"):
            return math.exp(value), float(np.exp(low)), float(np.exp(high))


def points_from(table: pd.DataFrame) -> Points:
    """Points of a table with columns x, images, status, bound and bootstrap draws."""
    side = table["status"].map({"bracketed": 0, "above": 1, "below": -1}).to_numpy(int)
    known = np.where(side == 0, table["images"].astype(float), table["bound"].astype(float))
    return points_from_draws(table["x"], known, side, table["draws"])


def points_from_draws(
    x: Iterable[float], y: Iterable[float], side: Iterable[int], draws: Iterable[ArrayLike]
) -> Points:
    """Points of values or bounds y at x and their draws, which are infinite beyond the sizes."""
    sds = np.array([_log_sd(np.asarray(drawn, float)) for drawn in draws])
    x, y = (np.log(np.fromiter(values, float)) for values in (x, y))
    return Points(x, y, np.fromiter(side, int), sds)


def _log_sd(draws: Vector) -> float:
    """Half the central 68 % of the logarithms, by the half of it that lies within the sizes."""
    known = np.log(draws[np.isfinite(draws) & (draws > 0)])
    if not len(known):
        return LEAST_SD
    share = np.array([(draws == -np.inf).mean(), (draws == np.inf).mean()])
    spread = (np.quantile(known, 0.84) - np.quantile(known, 0.16)) / 2
    return float(max(LEAST_SD, spread / max(1 - share.sum(), 0.5)))


def power_law(points: Points) -> Law | None:
    """The law of some points; None for fewer than two bracketed ones or a single x."""
    inside = points.x[points.side == 0]
    if len(inside) < 2 or np.ptp(inside) == 0:
        return None
    centre = float(inside.mean())
    moved = points.shifted(centre)
    design = np.stack([np.ones_like(moved.x), moved.x], axis=-1)
    found, losses = _fitted(moved, design, np.zeros_like(moved.x))
    best = int(losses.argmin())
    intercept, slope = map(float, found[best])
    low, high = _interval(moved, "slope", slope)
    return Law(intercept - slope * centre, slope, low, high, float(_scatters(points)[best]), points)


def _scatters(points: Points) -> Vector:
    return SCATTERS if points.bracketed >= FEWEST else SCATTERS[:1]


def _fitted(points: Points, design: Vector, offset: Vector) -> tuple[Vector, Vector]:
    """Best parameters (T, P) of log y = offset + design @ parameters, and their loss (T,).

    For each of T scatters; the loss is minus twice the log likelihood. design (K, P), offset (K,).
    """
    sd = np.sqrt(points.sd**2 + _scatters(points)[:, None] ** 2)  # (T, K)
    theta = np.zeros((len(sd), design.shape[1]))
    for _ in range(NEWTON):
        pull, weight = _slopes(_residuals(points, design, offset, theta, sd), points.side)
        gradient = (pull / sd) @ design
        curvature = np.einsum("tk,kp,kq->tpq", weight / sd**2, design, design)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        theta = theta + step
        if np.abs(step).max() < CLOSE:
            break
    z, inside = _residuals(points, design, offset, theta, sd), points.side == 0
    known = (z**2 + 2 * np.log(sd))[:, inside].sum(axis=1)
    return theta, known - 2 * log_ndtr(-points.side * z)[:, ~inside].sum(axis=1)


def _residuals(points: Points, design: Vector, offset: Vector, theta: Vector, sd: Vector) -> Vector:
    return (points.y - offset - theta @ design.T) / sd


def _slopes(z: Vector, side: NDArray[np.int64]) -> tuple[Vector, Vector]:
    """First derivative of the log likelihood along the residuals, and minus the second one."""
    u = -side * z
    mills = np.exp(-(u**2) / 2 - log_ndtr(u)) / math.sqrt(2 * math.pi)
    inside = side == 0
    return np.where(inside, z, side * mills), np.where(
        inside, 1, np.clip(mills * (mills + u), 0, 1)
    )


def _limit(points: Points) -> float:
    """How much the loss may rise within the interval.

    n log(1 + t^2 / (n - 2)): with it the profile of a normal regression is Student's t. Infinite
    for two points, whose scatter nobody knows.
    """
    n = points.bracketed
    if n < FEWEST:
        return math.inf
    quantile = t.ppf((1 + CONFIDENCE) / 2, n - 2)
    return float(n * math.log1p(quantile**2 / (n - 2)))


def _interval(points: Points, name: str, best: float) -> tuple[float, float]:
    """Ends of the interval of the slope or the intercept: where the profile has risen."""
    if math.isinf(_limit(points)):
        return -math.inf, math.inf
    parts = {"intercept": np.ones_like(points.x), "slope": points.x}
    own = parts.pop(name)
    (other,) = parts.values()

    def loss(value: float) -> float:
        return float(_fitted(points, other[:, None], value * own)[1].min())

    ceiling = loss(best) + _limit(points)
    low, high = (_crossing(lambda value: loss(value) - ceiling, best, sign) for sign in (-1, 1))
    return low, high


def _crossing(rise: Callable[[float], float], best: float, sign: int) -> float:
    """Where a profile crosses 0 on one side of its minimum; infinite if it stays below."""
    near, step = best, 0.05
    while step < STEEPEST:
        far = best + sign * step
        if rise(far) > 0:
            return float(brentq(rise, near, far, xtol=1e-3))
        near, step = far, 2 * step
    return sign * math.inf
