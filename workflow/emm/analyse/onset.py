"""When memorization sets in during training, and how that depends on the training set size.

The onset tau(q) of a run is the first step at which its memorization ratio exceeds q; Bonnaire et
al. 2025 (arXiv 2505.17638) find it proportional to the number of training images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.special import logit
from scipy.stats import chi2_contingency, t

from emm.analyse.draws import DRAWS, central
from emm.analyse.emm import decreasing_fit
from emm.analyse.fits import Law, points_from_draws, power_law
from emm.analyse.names import SIZE
from emm.analyse.series import effective, settings_of
from emm.errors import UserError
from emm.seeds import derive

LEVELS = (0.01, 0.1, 0.5, 0.9)
FEWER_DRAWS = 100  # of a collapse, which takes long
SHAPE_SD = 0.5  # of what may lie between checkpoints, in units of the doubt of `first_passing`
LEAST_DOUBT = 0.1  # of the distance of checkpoints: steep curves of four families are covered
FLAT = 0.05  # p-value from which on all ratios may be one
EXPONENTS = np.linspace(0, 2, 41)  # that a collapse is tried with

Vector = NDArray[np.float64]


def first_passing(
    steps: Vector, ratios: Vector, samples: Vector, level: float, shape: ArrayLike = 0.0
) -> Vector:
    """First step (D,) at which each curve exceeds a level; -inf and inf outside the checkpoints.

    steps (K,) ascending, ratios (D, K) in 0..1 of as many samples (K,). Of the non-decreasing
    least-squares fit, so that a stray checkpoint is no onset. Between two checkpoints the odds
    grow as a power of the steps, which no count tells; shape (D,) moves the step by as many times
    what it would differ on a straight line in log step, at least a tenth of their distance.
    """
    missed = np.round((1 - ratios) * samples, 6)
    fitted = decreasing_fit(missed, np.broadcast_to(samples, missed.shape))
    over = fitted < 1 - level
    at = over.argmax(axis=-1)
    before = np.maximum(at - 1, 0)
    ends = [1 - np.take_along_axis(fitted, i[:, None], -1)[:, 0] for i in (before, at)]
    least = np.minimum(0.5 / (samples + 1), level / 2)
    most = np.maximum(1 - 0.5 / (samples + 1), (1 + level) / 2)
    places = zip(ends, (before, at), strict=True)
    odds = [logit(np.clip(end, least[i], most[i])) for end, i in places]
    straight, power = _share(ends, level), _share(odds, logit(level))
    doubt = np.maximum(np.abs(straight - power), LEAST_DOUBT)
    share = np.clip(power + shape * doubt, 0, 1)
    found = steps[before] * (steps[at] / steps[before]) ** share
    return np.where(over.any(axis=-1), np.where(at == 0, -np.inf, found), np.inf)


def _share(ends: Sequence[Vector], level: float) -> Vector:
    """Where a level lies between two ends (D,), as a share of their distance."""
    low, high = ends
    return np.divide(level - low, high - low, out=np.zeros_like(low), where=high > low)


def drawn_shapes(name: str, draws: int) -> Vector:
    """Shapes (1 + D,) for `first_passing`: that of the estimate, 0, and normal draws."""
    rng = np.random.default_rng(derive(0, f"onset/shape/{name}"))
    return np.concatenate([[0.0], SHAPE_SD * rng.standard_normal(draws)])


@dataclass(frozen=True, eq=False)
class Run:
    """Counts (K,) of an evaluation's checkpoints by step, and draws of the ratios (1 + D, K).

    The estimate comes first; draws are of the Jeffreys posterior of each count, and of the shape
    (1 + D,) of the curve between checkpoints: the error of one training's measurement. What another
    training seed would give, only another one tells.
    """

    rows: pd.DataFrame
    ratios: Vector
    shape: Vector

    @property
    def name(self) -> str:
        """Its evaluation."""
        return str(self.rows["evaluation"].iloc[0])

    @property
    def steps(self) -> Vector:
        """Steps of the checkpoints, ascending."""
        return self.rows["step"].to_numpy(float)

    @property
    def samples(self) -> Vector:
        """Samples of each."""
        return self.rows["n_samples"].to_numpy(float)

    @property
    def size(self) -> float:
        """Training images."""
        return float(self.rows[SIZE].iloc[0])

    @property
    def per_epoch(self) -> float:
        """Steps of an epoch."""
        last = self.rows.iloc[-1]
        return float(last["step"] / last["epoch"])


def runs_of(memorization: pd.DataFrame, draws: int = DRAWS) -> list[Run]:
    """The trained evaluations of a memorization table that have two checkpoints, by size.

    UserError where none has two.
    """
    rows = effective(memorization)
    rows = rows[(rows["n_samples"] > 0) & (rows["step"] > 0)]
    rows = rows.sort_values([SIZE, "step"], kind="stable")
    found = [
        Run(part, _drawn(part, name, draws), drawn_shapes(name, draws))
        for name, part in rows.groupby("evaluation", sort=False)
        if len(part) > 1
    ]
    if not found:
        raise UserError("no run with two checkpoints: eval.snapshots: log evaluates several")
    return found


def _drawn(rows: pd.DataFrame, name: Any, draws: int) -> Vector:
    rng = np.random.default_rng(derive(0, f"onset/{name}"))
    hits, samples = (rows[key].to_numpy(float) for key in ("n_memorized", "n_samples"))
    counted = rng.beta(hits + 0.5, samples - hits + 0.5, (draws, len(rows)))
    return np.concatenate([[hits / samples], counted])


def onset_table(runs: Sequence[Run], levels: Sequence[float] = LEVELS) -> pd.DataFrame:
    """A row per run and level: onset in steps and epochs, its 95 % interval, and the plateau.

    status: bracketed, above (not within the training; bound: its last step) or below (at the first
    checkpoint already; bound: that). Interval ends are -inf and inf where draws leave the
    checkpoints. ratio: at the end, in 0..1; growth: how much of it the last doubling of the steps
    made. draws: of the onset.
    """
    return pd.DataFrame([_onset(run, level) for run in runs for level in levels])


def _onset(run: Run, level: float) -> dict[str, Any]:
    found = first_passing(run.steps, run.ratios, run.samples, level, run.shape)
    value, (low, high) = float(found[0]), central(found[1:])
    status = {np.inf: "above", -np.inf: "below"}.get(value, "bracketed")
    bound = {"above": run.steps[-1], "below": run.steps[0]}.get(status, np.nan)
    step = value if status == "bracketed" else np.nan
    names = ["run", "evaluation", *settings_of(run.rows)]
    return {
        **run.rows.iloc[-1][names].to_dict(),
        **{SIZE: run.size, "level": level, "status": status, "bound": bound},
        **{"onset_step": step, "onset_step_low": low, "onset_step_high": high},
        "onset_epoch": step / run.per_epoch,
        **_plateau(run),
        "draws": found[1:],
    }


def _plateau(run: Run) -> dict[str, float]:
    """Ratio at the end, and what it has gained since half the steps, with 95 % intervals."""
    half = np.log(run.steps[-1] / 2)
    before = np.array([np.interp(half, np.log(run.steps), curve) for curve in run.ratios])
    found = {}
    for name, values in (("ratio", run.ratios[:, -1]), ("growth", run.ratios[:, -1] - before)):
        low, high = central(values[1:])
        found |= {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}
    return found


def onset_law(table: pd.DataFrame) -> Law | None:
    """The power law of onsets over the size, from the rows of one level; censored ones count.

    None for fewer than two bracketed ones.
    """
    side = table["status"].map({"bracketed": 0, "above": 1, "below": -1}).to_numpy(int)
    known = np.where(side == 0, table["onset_step"].astype(float), table["bound"].astype(float))
    return power_law(points_from_draws(table[SIZE].astype(float), known, side, table["draws"]))


class Collapse(NamedTuple):
    """How well the curves of all sizes n fall on one another as functions of step / n^exponent.

    exponent: that of the best fall, with a 95 % interval by the jackknife over sizes and the error
    of the sampling; infinite ends for two sizes. Spreads are root mean square differences, in
    points, of the ratios of each size from the non-decreasing curve of the other sizes: at that
    exponent, at 0 (steps) and at 1 (epochs); noise: what sampling makes at the best exponent where
    curves fall on one another perfectly. at_end: the exponent is the last of those tried.
    """

    exponent: float
    low: float
    high: float
    spread: float
    of_steps: float
    of_epochs: float
    noise: float
    at_end: bool = False


class Pooled(NamedTuple):
    """Checkpoints of all runs: logarithms of steps and sizes, samples (K,), ratios (D, K)."""

    steps: Vector
    sizes: Vector
    samples: Vector
    ratios: Vector

    def without(self, size: float) -> "Pooled":
        """All but those of a size, and the estimates alone."""
        kept = self.sizes != size
        return Pooled(self.steps[kept], self.sizes[kept], self.samples[kept], self.ratios[:1, kept])

    def exponents(self) -> Vector:
        """Those of the best fall (D,)."""
        return _lowest(self.spreads())

    def spreads(self) -> Vector:
        """Those (A, D) at all exponents that are tried."""
        return np.stack([self.spread(a) for a in EXPONENTS])

    def flat(self) -> bool:
        """Whether all ratios may be one, so that any exponent would do."""
        hits = np.round(self.ratios[0] * self.samples)
        table = np.stack([hits, self.samples - hits])
        return not table.sum(axis=1).all() or chi2_contingency(table).pvalue > FLAT

    def perfect(self, exponent: float) -> "Pooled":
        """The same checkpoints, sampled anew from one curve over step / n^exponent."""
        x = self.steps - exponent * self.sizes
        expected = _interpolated(x, *_curve(x, self.ratios[:1], self.samples))[0]
        rng = np.random.default_rng(derive(0, "collapse/perfect"))
        counts = rng.binomial(
            self.samples.astype(int), np.clip(expected, 0, 1), (FEWER_DRAWS, len(x))
        )
        return self._replace(ratios=counts / self.samples)

    def spread(self, exponent: float) -> Vector:
        """Differences (D,) of ratios from the curve of the other sizes, in points."""
        x, squares = self.steps - exponent * self.sizes, np.zeros(len(self.ratios))
        for size in np.unique(self.sizes):
            own = self.sizes == size
            known, curve = _curve(x[~own], self.ratios[:, ~own], self.samples[~own])
            apart = self.ratios[:, own] - _interpolated(x[own], known, curve)
            squares += (apart**2).sum(axis=-1)
        return 100 * np.sqrt(squares / len(x))


def collapse(runs: Sequence[Run]) -> Collapse | None:
    """The collapse of some runs; None where all have one size, or the same ratio throughout.

    Each size is left out of the curve that it is compared with: a curve that it is part of would
    be the freer, the less its checkpoints coincide with others.
    """
    if len({run.size for run in runs}) < 2:
        return None
    pooled = Pooled(
        np.concatenate([np.log(run.steps) for run in runs]),
        np.concatenate([np.full(len(run.steps), np.log(run.size)) for run in runs]),
        np.concatenate([run.samples for run in runs]),
        np.concatenate([run.ratios[: 1 + FEWER_DRAWS] for run in runs], axis=1),
    )
    if pooled.flat():
        return None
    found = pooled.exponents()
    best, reach = float(found[0]), _reach(pooled, found[1:])
    alone = pooled._replace(ratios=pooled.ratios[:1])
    spreads = [float(alone.spread(at)[0]) for at in (best, 0.0, 1.0)]
    noise = float(np.sqrt((pooled.perfect(best).spreads().min(axis=0) ** 2).mean()))
    at_end = not EXPONENTS[0] < best < EXPONENTS[-1]
    return Collapse(best, best - reach, best + reach, *spreads, noise, at_end)


def _reach(pooled: Pooled, draws: Vector) -> float:
    """Half the 95 % interval of the exponent, Student's with a degree less than there are sizes."""
    sizes = np.unique(pooled.sizes)
    if len(sizes) < 3:
        return np.inf
    left_out = np.array([pooled.without(size).exponents()[0] for size in sizes])
    jackknife = (len(sizes) - 1) * left_out.var()
    return float(t.ppf(0.975, len(sizes) - 1) * np.sqrt(jackknife + draws.var()))


def _lowest(spreads: Vector) -> Vector:
    """Exponents (D,) at which spreads (A, D) are lowest, between those tried by a parabola."""
    at = np.clip(spreads.argmin(axis=0), 1, len(EXPONENTS) - 2)
    before, middle, after = (
        np.take_along_axis(spreads**2, (at + by)[None], 0)[0] for by in (-1, 0, 1)
    )
    bend = before - 2 * middle + after
    share = np.where(bend > 0, (before - after) / (2 * np.where(bend > 0, bend, 1)), 0)
    step = EXPONENTS[1] - EXPONENTS[0]
    inside = EXPONENTS[at] + step * np.clip(share, -1, 1)
    lowest = spreads.argmin(axis=0)
    ends = np.isin(lowest, [0, len(EXPONENTS) - 1])
    return np.where(ends, EXPONENTS[lowest], inside)


def _curve(x: Vector, ratios: Vector, samples: Vector) -> tuple[Vector, Vector]:
    """The best non-decreasing function of x: its places (G,), ascending, and values (D, G)."""
    known, group = np.unique(np.round(x, 6), return_inverse=True)
    members = (group == np.arange(len(known))[:, None]).astype(float)  # (G, K)
    missed = np.round(((1 - ratios) * samples) @ members.T, 6)
    return known, 1 - decreasing_fit(missed, np.broadcast_to(members @ samples, missed.shape))


def _interpolated(x: Vector, known: Vector, curves: Vector) -> Vector:
    """Curves (D, G) at x (K,), linear between their places and constant beyond: (D, K)."""
    place = np.interp(x, known, np.arange(len(known)))
    left = np.minimum(place.astype(int), max(len(known) - 2, 0))
    right = np.minimum(left + 1, len(known) - 1)
    return curves[:, left] + (place - left) * (curves[:, right] - curves[:, left])


def laws(table: pd.DataFrame) -> Iterator[tuple[float, Law | None]]:
    """The law of each level of an onset table."""
    for level, members in table.groupby("level", sort=True):
        yield float(level), onset_law(members)
