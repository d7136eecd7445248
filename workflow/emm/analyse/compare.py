"""Comparisons of uncertain numbers, and what they add up to: true, false or undecided per draw."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from emm.analyse.draws import DRAWS, Draws, Interval
from emm.analyse.metrics import metric as column
from emm.analyse.names import rounded
from emm.analyse.places import OF_SERIES, PARAMETERS, SPREAD
from emm.documents import Claim

POINTS = 1.0  # margin of ratios, in points: what practically equal runs differ by
SHARES = {"knn_distance": 0.02, PARAMETERS: 0.0}  # of the larger; what equal runs' distances span
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
        """Whether left > factor * right, by more than the margin; relative ones of the larger."""
        share, step = self.relative * margin, self.absolute * margin
        by = _excess(left.low, factor * right.high, share, step)
        return Case(truth(by > 0, _excess(left.high, factor * right.low, share, step) <= 0), by)

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

    def pinned(self, *values: Interval) -> NDArray[np.bool_]:
        """Where all are too near 0 %, or all too near 100 %, for a real difference to show."""
        if not self.bounded:
            return np.zeros(1 + DRAWS, bool)
        full = np.all([value.low > 100 - ROOM for value in values], axis=0)
        return full | np.all([value.high < ROOM for value in values], axis=0)


def yardstick(claim: Claim) -> Yardstick:
    """How the numbers of a claim are compared."""
    if column(claim.metric).limits == (0, 100) and claim.over != "sd":
        return Yardstick(POINTS, 0.0, bounded=claim.over != "range")
    return Yardstick(0.0, SHARES.get(claim.metric, SHARE), bounded=False)


def truth(true: NDArray[np.bool_], false: NDArray[np.bool_]) -> Truth:
    """1 where something is surely true, -1 where it is surely false, else 0."""
    return true.astype(np.int8) - false.astype(np.int8)


def _excess(left: Draws, right: Draws, share: float, step: float) -> Draws:
    """By how much left > right + step, and by more than a share of the larger of |left|, |right|.

    Infinite ends are compared, not subtracted from each other.
    """
    shrunk, grown = left * (1 - share * np.sign(left)), right * (1 + share * np.sign(right))
    return np.minimum(shrunk - right, left - grown) - step


def everywhere(cases: Sequence[Case]) -> tuple[float, float]:
    """Probabilities that all cases are true, and that some case is false.

    All at once in a draw; but one case by itself must be false with a probability that stands up to
    the number of cases (Bonferroni).
    """
    true = np.all([case.truth[1:] == 1 for case in cases], axis=0).mean()
    return float(true), max(0.0, 1 - len(cases) * min(case.doubt(-1) for case in cases))


def somewhere(
    cases: Sequence[Case], looked_at: int | None = None
) -> tuple[float, NDArray[np.bool_]]:
    """Probability that some case is true, by itself (Bonferroni); draws where all are false.

    looked_at: the number of cases that these were chosen from.
    """
    doubt = (looked_at or len(cases)) * min(case.doubt(1) for case in cases)
    return max(0.0, 1 - doubt), np.all([case.truth[1:] == -1 for case in cases], axis=0)


def difference(left: Interval, right: Interval, factor: float = 1.0) -> Interval:
    """Bounds of left - factor * right."""
    return Interval(left.low - factor * right.high, left.high - factor * right.low)


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


def estimated(number: Interval, metric: str, differs: bool = True) -> str:
    """An estimate in words; where it is only bounded, "at least 2.04" or "between 3 and 8"."""
    low, high = float(number.low[0]), float(number.high[0])
    most, least = (quantity(end, metric, differs) for end in (high, low))
    if low == high or not (np.isfinite(low) or np.isfinite(high)) or (low, high) == (0, np.inf):
        return least if low == high else "unknown"
    if not np.isfinite(low):
        return f"at most {most}"
    return f"between {low:.3g} and {most}" if np.isfinite(high) else f"at least {least}"


def quantity(value: float, metric: str, differs: bool = True) -> str:
    """A value or a difference of two in words: "0.31 points", "97.3 %", "1,048 images"."""
    if not np.isfinite(value):
        return "unknown"
    if metric in OF_SERIES:
        return f"{'-' if value < 0 else ''}{rounded(abs(value))} images"
    unit = {SPREAD: "points", PARAMETERS: "million"}.get(metric, column(metric).unit)
    unit = "points" if unit == "%" and differs else unit
    return f"{value:.3g} {unit}".rstrip()
