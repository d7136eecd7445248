"""Comparisons of uncertain numbers, and what they add up to: true, false or undecided per draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from emm.analyse.metrics import metric as column
from emm.analyse.names import rounded
from emm.analyse.places import OF_SERIES, PARAMETERS, SPREAD
from emm.analyse.simulate import DRAWS, Draws, Interval
from emm.documents import Claim

POINTS = 1.0  # margin of ratios, in points: what practically equal runs differ by
SHARES = {"knn_distance": 0.02, PARAMETERS: 0.0}  # relative margins; of equal runs' distances
SHARE = 0.05  # of all else, such as the EMM: about two points of ratio where a curve is steep
ROOM = 5.0  # points from 0 and 100 % from which on a real difference would show

Truth = NDArray[np.int8]  # 1 true, -1 false, 0 undecided; of the estimate, then of the draws


@dataclass(frozen=True)
class Case:
    """One comparison: its truth, and by how much it holds (negative: fails), if it says."""

    truth: Truth
    by: Draws | None = None

    def __neg__(self) -> "Case":
        return Case(-self.truth, None if self.by is None else -self.by)

    def doubt(self, of: int) -> float:
        """Probability that the truth is not `of`; what no draw shows, from a normal tail."""
        share = float((self.truth[1:] != of).mean())
        if share or self.by is None or not np.isfinite(self.by).all():
            return share
        spread = float(self.by[1:].std())
        tail = float(norm.sf(abs(self.by[1:].mean()) / spread)) if spread else 0.0
        return min(tail, 1 / DRAWS)


@dataclass(frozen=True)
class Yardstick:
    """How numbers of one metric are compared: margins, and whether they cannot leave 0..100 %."""

    absolute: float
    relative: float
    bounded: bool

    def exceeds(
        self, left: Interval, right: Interval, factor: float = 1.0, margin: bool = True
    ) -> Case:
        """Whether left > factor * right, by more than the margin."""
        scale, step = factor * (1 + self.relative * margin), self.absolute * margin
        by = left.low - (scale * right.high + step)
        return Case(truth(by > 0, left.high <= scale * right.low + step), by)

    def tied(self, *values: Interval) -> NDArray[np.bool_]:
        """Where all lie within the margin of 100 %, or all of 0 %."""
        if not self.bounded:
            return np.zeros(1 + DRAWS, bool)
        full = np.all([value.low >= 100 - self.absolute for value in values], axis=0)
        return full | np.all([value.high <= self.absolute for value in values], axis=0)

    def room(self, *values: Interval) -> NDArray[np.bool_]:
        """Where all are known, and a real difference between them would show."""
        least, most = (ROOM, 100 - ROOM) if self.bounded else (-np.inf, np.inf)
        inside = [(v.low == v.high) & (v.low >= least) & (v.high <= most) for v in values]
        return np.all(inside, axis=0)


def yardstick(claim: Claim) -> Yardstick:
    """How the numbers of a claim are compared."""
    if column(claim.metric).limits == (0, 100) and claim.over != "sd":
        return Yardstick(POINTS, 0.0, bounded=claim.over != "range")
    return Yardstick(0.0, SHARES.get(claim.metric, SHARE), bounded=False)


def truth(true: NDArray[np.bool_], false: NDArray[np.bool_]) -> Truth:
    """1 where something is surely true, -1 where it is surely false, else 0."""
    return true.astype(np.int8) - false.astype(np.int8)


def everywhere(cases: Sequence[Case]) -> tuple[float, float]:
    """Probabilities that all cases are true, and that some case is false.

    All at once in a draw; but one case by itself must be false with a probability that stands up to
    the number of cases (Bonferroni).
    """
    true = np.all([case.truth[1:] == 1 for case in cases], axis=0).mean()
    return float(true), max(0.0, 1 - len(cases) * min(case.doubt(-1) for case in cases))


def somewhere(cases: Sequence[Case]) -> tuple[float, NDArray[np.bool_]]:
    """Probability that some case is true, by itself (Bonferroni); draws where all are false."""
    true = max(0.0, 1 - len(cases) * min(case.doubt(1) for case in cases))
    return true, np.all([case.truth[1:] == -1 for case in cases], axis=0)


def difference(left: Interval, right: Interval, factor: float = 1.0) -> Draws:
    """left - factor * right; where they are bounds, the least that it surely is."""
    return left.low - factor * right.high


def distance(left: Interval, right: Interval) -> Interval:
    """Bounds of |left - right|."""
    low, high = left.low - right.high, left.high - right.low
    return Interval(np.maximum(np.maximum(low, -high), 0), np.maximum(np.abs(low), np.abs(high)))


def quotient(left: Interval, right: Interval) -> Interval:
    """Bounds of left / right for numbers from 0; what nothing is known of lies in 0..inf."""
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = left.low.clip(min=0) / right.high, left.high / right.low.clip(min=0)
    return Interval(
        np.nan_to_num(low, posinf=np.inf), np.nan_to_num(high, nan=np.inf, posinf=np.inf)
    )


def quantity(value: float, metric: str, differs: bool = True) -> str:
    """A value or a difference of two in words: "0.31 points", "97.3 %", "1,048 images"."""
    if not np.isfinite(value):
        return "unknown"
    if metric in OF_SERIES:
        return f"{'-' if value < 0 else ''}{rounded(abs(value))} images"
    unit = {SPREAD: "points", PARAMETERS: "million"}.get(metric, column(metric).unit)
    unit = "points" if unit == "%" and differs else unit
    return f"{value:.3g} {unit}".rstrip()
