"""When memorization sets in during training, and how that depends on the training set size.

The onset tau(q) of a run is the first step at which its memorization ratio exceeds q; Bonnaire et
al. 2025 (arXiv 2505.17638) find it proportional to the number of training images, and the step from
which on samples are good, tau_gen, the same for all.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import t

from emm.analyse.emm import crossings, decreasing_fit
from emm.analyse.fits import Law, points_from_draws, power_law
from emm.analyse.names import SIZE
from emm.analyse.series import effective, settings_of
from emm.errors import UserError
from emm.seeds import derive

LEVELS = (0.01, 0.1, 0.5, 0.9)
NEAR_BEST = 1.1  # times the lowest FID: Bonnaire et al. 2025
DRAWS, FEWER_DRAWS = 2000, 100
EXPONENTS = np.linspace(0, 2, 41)  # that a collapse is tried with

Vector = NDArray[np.float64]


def first_passing(steps: Vector, ratios: Vector, samples: Vector, level: float) -> Vector:
    """First step (...) at which each curve exceeds a level; -inf and inf outside the checkpoints.

    steps (K,) ascending, ratios (..., K) in 0..1 of as many samples (K,). Of the non-decreasing
    least-squares fit, so that a stray checkpoint is no onset; interpolated in log step.
    """
    missed = np.round((1 - ratios) * samples, 6)
    fitted = decreasing_fit(missed, np.broadcast_to(samples, missed.shape))
    return crossings(steps, fitted, level)


@dataclass(frozen=True, eq=False)
class Run:
    """Counts (K,) of an evaluation's checkpoints by step, and draws of the ratios (1 + D, K).

    The estimate comes first; draws are of the Jeffreys posterior of each count: the error of the
    sampling. What another training seed would give, only another one tells.
    """

    rows: pd.DataFrame
    ratios: Vector

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
        Run(part, _drawn(part, name, draws))
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
    found = first_passing(run.steps, run.ratios, run.samples, level)
    value, (low, high) = float(found[0]), _ends(found[1:])
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
        low, high = _ends(values[1:])
        found |= {name: float(values[0]), f"{name}_low": low, f"{name}_high": high}
    return found


def _ends(drawn: Vector) -> tuple[float, float]:
    """The central 95 % of draws, as two of them."""
    drawn, tail = np.sort(drawn), int(len(drawn) * 0.025)
    return float(drawn[tail]), float(drawn[len(drawn) - 1 - tail])


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
    exponent, at 0 (steps) and at 1 (epochs); noise: what sampling alone makes.
    """

    exponent: float
    low: float
    high: float
    spread: float
    of_steps: float
    of_epochs: float
    noise: float


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
        return _lowest(np.stack([self.spread(a) for a in EXPONENTS]))

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
    """The collapse of some runs; None where all have one size.

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
    found = pooled.exponents()
    best, reach = float(found[0]), _reach(pooled, found[1:])
    alone = pooled._replace(ratios=pooled.ratios[:1])
    spreads = [float(alone.spread(at)[0]) for at in (best, 0.0, 1.0)]
    ratios = alone.ratios[0]
    noise = 100 * np.sqrt((ratios * (1 - ratios) / pooled.samples).mean())
    return Collapse(best, best - reach, best + reach, *spreads, float(noise))


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
    return EXPONENTS[at] + step * np.clip(share, -1, 1)


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


def window_table(runs: Sequence[Run], level: float = LEVELS[0]) -> pd.DataFrame:
    """A row per run with a column `fid`: when to stop, after tau_gen and before tau_mem, in steps.

    tau_gen: first step with an FID within 10 % of its minimum over the training, interpolated in
    log step, at the earliest the first checkpoint; tau_mem: the onset of a ratio above `level`,
    infinite where it never comes, 0 where it has come before the first checkpoint. UserError where
    no run has FIDs.
    """
    rows = [_window(run, level) for run in runs if "fid" in run.rows]
    found = pd.DataFrame([row for row in rows if row is not None])
    if found.empty:
        raise UserError("the memorization table has no column 'fid': measures: [quality] adds it")
    return found


def _window(run: Run, level: float) -> dict[str, Any] | None:
    fid = run.rows["fid"].to_numpy(float)
    known = np.isfinite(fid)
    if not known.any():
        return None
    onset = _onset(run, level)
    never = {"bracketed": onset["onset_step"], "above": np.inf, "below": 0.0}
    return {
        **{name: onset[name] for name in onset if "." in name or name in ("run", "evaluation")},
        **{"tau_gen": first_good(run.steps[known], fid[known]), "level": level},
        **{"tau_mem": never[onset["status"]]},
        **{"first_step": run.steps[0], "last_step": run.steps[-1]},
        "fid_lowest": float(fid[known].min()),
    }


def first_good(steps: Vector, fid: Vector) -> float:
    """First step with a value within 10 % of the lowest, interpolated in log step."""
    limit = NEAR_BEST * fid.min()
    at = int(np.argmax(fid <= limit))
    if at == 0:
        return float(steps[0])
    share = (fid[at - 1] - limit) / (fid[at - 1] - fid[at])
    return float(steps[at - 1] * (steps[at] / steps[at - 1]) ** share)


def laws(table: pd.DataFrame) -> Iterator[tuple[float, Law | None]]:
    """The law of each level of an onset table."""
    for level, members in table.groupby("level", sort=True):
        yield float(level), onset_law(members)
