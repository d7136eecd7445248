"""Tables derived from the memorization table: reported checkpoints and EMM per series."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emm.analyse.emm import EPSILON, EPSILONS, Emm, bootstrap_draws, bootstrap_emm, published_emm
from emm.analyse.names import SIZE
from emm.analyse.series import effective, is_seed, series_of, settings_of, sizeless
from emm.score.criteria import best_checkpoint

METHOD = "isotonic-log"
CHECKPOINTS = {"emm": "best", "memorization_capacity": "last"}
Curve = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]


def best_and_last(memorization: pd.DataFrame) -> pd.DataFrame:
    """The checkpoint with the highest ratio (last on ties: the longer trained) and the last one.

    One row "best" and one row "last" in the added column `checkpoint` per run, evaluation and
    horizon. Gu et al. 2023 report the best; its upward bias grows with the number of checkpoints.
    """
    rows = memorization.reset_index(drop=True)
    chosen = {"best": [], "last": []}
    for _, group in rows.groupby(["run", "evaluation", "horizon"], sort=False, dropna=False):
        group = group.sort_values("step", kind="stable")
        chosen["best"].append(best_checkpoint(group["memorization_ratio"]))
        chosen["last"].append(group.index[-1])
    return pd.concat(
        [rows.loc[index].assign(checkpoint=which) for which, index in chosen.items()],
        ignore_index=True,
    )


def emm_table(
    memorization: pd.DataFrame,
    series_settings: Iterable[str] | None = None,
    epsilons: Sequence[float] = EPSILONS,
) -> pd.DataFrame:
    """EMM of each series and epsilon, of its best and of its last checkpoints.

    A series is the rows that agree in `series_settings` (all settings by default) apart from
    size, seeds, and the number of unique labels. EMM in images with bootstrap 95 % intervals; NaN
    and a `bound` where the sizes do not bracket it, infinite interval ends where draws leave them.
    `ratios` (fractions, pooled over seeds) belong to `sizes`.
    """
    rows = best_and_last(effective(memorization))
    rows = rows[rows["n_samples"] > 0]
    table = []
    for settings, members in series_of(rows, series_settings):
        about = {**settings, "experiments": _union(members["experiments"])}
        table += [{**about, **_estimates(members, epsilon)} for epsilon in epsilons]
    return pd.DataFrame(table)


def capacity_table(memorization: pd.DataFrame, epsilon: float = EPSILON) -> pd.DataFrame:
    """A row per series with its settings, for figures that draw EMM and memorization capacity.

    Columns `emm` (best checkpoints) and `memorization_capacity` (last ones; Yoon et al. 2023, Def.
    3.1) in images, each with `_status` and `_bound` as in the EMM table, the ends `_low` and
    `_high` of its 95 % interval as far as the sizes reach, and bootstrap `_draws`, independent
    between series.
    """
    rows = best_and_last(effective(memorization))
    rows = rows[rows["n_samples"] > 0]
    names = [name for name in settings_of(rows) if name != SIZE and not is_seed(name)]
    table = []
    for rank, (_, members) in enumerate(series_of(rows), 1):
        line = sizeless(members).iloc[0][["run", "evaluation", "horizon", "step", *names]].to_dict()
        for name, which in CHECKPOINTS.items():
            counts = curve(members[members["checkpoint"] == which])
            line |= _capacity(name, counts, epsilon, rank)
        table.append({**line, "epoch": np.nan, "memorization_ratio": np.nan})
    return pd.DataFrame(table)


def _capacity(name: str, counts: Curve, epsilon: float, seed: int) -> dict[str, Any]:
    found, sizes = bootstrap_emm(*counts, epsilon), counts[0]
    low, high = np.clip([found.lower, found.upper], sizes[0], sizes[-1])
    return {
        name: found.value,
        f"{name}_low": float(low),
        f"{name}_high": float(high),
        f"{name}_status": found.status,
        f"{name}_bound": found.bound,
        f"{name}_draws": bootstrap_draws(*counts, epsilon, seed=seed),
    }


def curve(rows: pd.DataFrame) -> Curve:
    """Sizes (K,), memorized samples and samples (seeds, K) of one series at chosen checkpoints."""
    sizes = np.unique(rows[SIZE].astype(float))
    seeds = list(
        rows[[name for name in settings_of(rows) if is_seed(name)]].itertuples(index=False)
    )
    index = {seed: i for i, seed in enumerate(dict.fromkeys(seeds))}
    at = ([index[seed] for seed in seeds], np.searchsorted(sizes, rows[SIZE].astype(float)))
    counts = np.zeros((2, len(index), len(sizes)), np.int64)
    np.add.at(counts[0], at, rows["n_memorized"].to_numpy(np.int64))
    np.add.at(counts[1], at, rows["n_samples"].to_numpy(np.int64))
    return sizes, counts[0], counts[1]


def _estimates(members: pd.DataFrame, epsilon: float) -> dict[str, Any]:
    sizes, hits, samples = curve(members[members["checkpoint"] == "best"])
    ratios = hits.sum(axis=0) / samples.sum(axis=0)
    best = bootstrap_emm(sizes, hits, samples, epsilon)
    last = bootstrap_emm(*curve(members[members["checkpoint"] == "last"]), epsilon)
    linear = published_emm(sizes, ratios, epsilon)
    return {
        "epsilon": epsilon,
        **_columns("emm", best),
        "method": METHOD,
        "status": best.status,
        "bound": best.bound,
        "emm_linear": linear.value,
        "status_linear": linear.status,
        **_columns("emm_last", last),
        "status_last": last.status,
        "bound_last": last.bound,
        "sizes": [int(size) for size in sizes],
        "ratios": [float(ratio) for ratio in ratios],
        "n_seeds": len(hits),
    }


def _columns(name: str, emm: Emm) -> dict[str, float]:
    return {name: emm.value, f"{name}_low": emm.lower, f"{name}_high": emm.upper}


def _union(experiments: pd.Series) -> str:
    return ",".join(sorted({name for names in experiments for name in str(names).split(",")}))
