"""When to stop a training: once its samples are good, and before the first copies come.

Good is measured by one FID for all sizes; the question is that of Bonnaire et al. 2025 (arXiv
2505.17638). Within 10 % of its own minimum a training on few images would be good when it has
hardly begun, and one on more images the later, the longer its FID falls.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from emm.analyse.draws import Z95, central
from emm.analyse.emm import decreasing_fit
from emm.analyse.names import SIZE
from emm.analyse.onset import LEAST_DOUBT, LEVELS, Run, Vector, onset_table
from emm.analyse.series import settings_of
from emm.errors import UserError
from emm.seeds import derive

GOOD = 2.0  # times the lowest FID of all sizes, whose own error is of that order with few samples


class Path(NamedTuple):
    """FIDs of a run's checkpoints (1 + D, K), the estimate first, and at which it is lowest."""

    run: Run
    steps: Vector
    fid: Vector
    lowest: int

    @property
    def least(self) -> float:
        """The lowest."""
        return float(self.fid[0, self.lowest])

    @property
    def falls(self) -> bool:
        """Whether it is that of the last checkpoint, so that more training may find a lower one."""
        return self.lowest == len(self.steps) - 1


def window_table(runs: Sequence[Run], level: float = LEVELS[0]) -> pd.DataFrame:
    """A row per run with a column `fid`: when samples are good, and when copies come, in steps.

    tau_gen: first step with an FID of at most `limit`, the same for all runs: twice the lowest FID
    of any of them, or the upper end of that one's interval. Of the non-increasing fit up to the
    run's own minimum, interpolated in log step; infinite where it is never so good, and where the
    first checkpoint is the best one already; 0 where that one is good, and better ones follow.
    tau_mem: the onset of a ratio above `level`; infinite where it never comes, 0 where it has come
    before the first checkpoint. Both with 95 % intervals (_low, _high) of draws of FIDs and
    ratios; window: share of the draws in which samples are good before copies come. limit_falls:
    the lowest FID is that of the last checkpoint, so that tau_gen is a lower bound. UserError where
    no run has FIDs.
    """
    paths = [path for run in runs if (path := _path(run)) is not None]
    if not paths:
        raise UserError("the memorization table has no column 'fid': measures: [quality] adds it")
    best = min(paths, key=lambda path: path.least)
    limits = _limits(best)
    of_all = {"limit": float(limits[0]), "limit_falls": best.falls, "fid_best": best.least}
    of_all |= {"size_best": best.run.size, "step_best": float(best.steps[best.lowest])}
    return pd.DataFrame([{**_window(path, limits, level), **of_all} for path in paths])


def _path(run: Run) -> Path | None:
    """The FIDs of a run; None without any."""
    if "fid" not in run.rows or not run.rows["fid"].notna().any():
        return None
    rows = run.rows[run.rows["fid"].notna()]
    fid = rows["fid"].to_numpy(float)
    errors = np.random.default_rng(derive(0, f"window/{run.name}"))
    errors = errors.standard_normal((len(run.ratios) - 1, len(fid)))
    drawn = fid + np.where(errors < 0, _reach(rows, -1), _reach(rows, 1)) * errors / Z95
    every = np.concatenate([fid[None], drawn])
    return Path(run, rows["step"].to_numpy(float), every, int(fid.argmin()))


def _reach(rows: pd.DataFrame, side: int) -> Vector:
    """How far the intervals of FIDs (K,) go below (-1) or above them; 0 without intervals."""
    name = "fid_low" if side < 0 else "fid_high"
    if name not in rows:
        return np.zeros(len(rows))
    return side * np.nan_to_num((rows[name] - rows["fid"]).to_numpy(float))


def _limits(best: Path) -> Vector:
    """The FID (1 + D,) up to which samples are good."""
    lowest = best.fid[:, best.lowest]
    reach = _reach(best.run.rows[best.run.rows["fid"].notna()], 1)[best.lowest]
    return np.maximum(GOOD * lowest, lowest + reach)


def _window(path: Path, limits: Vector, level: float) -> dict[str, Any]:
    run, onset = path.run, onset_table([path.run], [level]).iloc[0]
    good, copied = _first_good(path, limits), _copied(run, onset)
    found = {"tau_gen": good[0], "tau_mem": copied[0]}
    for name, drawn in (("tau_gen", good[1:]), ("tau_mem", copied[1:])):
        found[f"{name}_low"], found[f"{name}_high"] = central(drawn)
    return {
        **{name: onset[name] for name in ("run", "evaluation", *settings_of(run.rows))},
        **{SIZE: run.size, **found, "level": level},
        **{"window": float((good[1:] < copied[1:]).mean())},
        **{"first_step": run.steps[0], "last_step": run.steps[-1]},
        **{"fid_lowest": path.least, "fid_falls": path.falls},
    }


def _copied(run: Run, onset: pd.Series) -> Vector:
    """tau_mem (1 + D,)."""
    value = {"above": np.inf, "below": 0.0}.get(onset["status"], onset["onset_step"])
    return np.maximum(np.concatenate([[value], onset["draws"]]), 0)


def _first_good(path: Path, limits: Vector) -> Vector:
    """tau_gen (1 + D,)."""
    if path.lowest == 0:
        return np.full(len(limits), np.inf)
    falling, steps = path.fid[:, : path.lowest + 1], path.steps
    curves = decreasing_fit(falling, np.ones_like(falling))
    good = curves <= limits[:, None]
    at = good.argmax(axis=1)
    before = np.maximum(at - 1, 0)
    high, low = (np.take_along_axis(curves, i[:, None], 1)[:, 0] for i in (before, at))
    share = np.divide(high - limits, high - low, out=np.zeros_like(high), where=high > low)
    share = np.clip(share + LEAST_DOUBT * path.run.shape, 0, 1)
    found = np.where(at == 0, 0.0, steps[before] * (steps[at] / steps[before]) ** share)
    return np.where(good.any(axis=1), found, np.inf)
