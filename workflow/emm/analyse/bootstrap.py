"""The memorization ratio as fewer samples would have given it (Gu et al. 2023, Appendix B)."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from emm.seeds import derive

BOOTSTRAPPED = ("memorization_ratio_sd",)  # columns that only `bootstrapped` makes
DRAWS = 1000


def bootstrapped(
    rows: pd.DataFrame, sizes: Iterable[int], draws: int = DRAWS, seed: int = 0
) -> pd.DataFrame:
    """Each row once per number of samples, with mean and sd of the ratio over bootstraps.

    A bootstrap draws that many of the row's samples with replacement: memorized or not, they are
    Bernoulli, so their count is binomial. `eval.num_samples` and `n_samples` hold the size,
    `memorization_ratio_low` and `_high` the central 95 % of the draws.
    """
    rng = np.random.default_rng(derive(seed, "bootstrap"))
    made = []
    for size in sizes:
        ratios = rng.binomial(size, rows["memorization_ratio"], (draws, len(rows))) / size
        low, high = np.quantile(ratios, (0.025, 0.975), axis=0)
        drawn = {
            "eval.num_samples": size,
            "n_samples": size,
            "memorization_ratio": ratios.mean(axis=0),
            "memorization_ratio_sd": ratios.std(axis=0, ddof=1),
            "memorization_ratio_low": low,
            "memorization_ratio_high": high,
        }
        made.append(rows.assign(**drawn))
    return pd.concat(made, ignore_index=True)
