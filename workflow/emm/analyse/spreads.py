"""What another training seed would have given: the spread of each metric between runs.

A scale says it of one ratio, the standard deviation `run_sd` of a ratio of 50 % in points; those of
other metrics are in proportion to it.
"""

import numpy as np

from emm.analyse.draws import DRAWS, Draws, generator
from emm.analyse.metrics import metric as column

# Relative sd of the KNN distance over training seeds, per point of the ratio's: in Tables 2 and 5
# of Gu et al. 2023 the weight decays 0, 1e-5 and 1e-4 are practically one run; over them, beyond
# the sampling, the ratio has an sd of 0.3 points (at 50 %; 1k and 2k images) and the distance one
# of 1.4 % (1.7 % with the sampling).
KNN_PER_POINT = 0.045
OF_DATA = ("label_hit_chance", "coverage_ceiling", "n_training", "n_duplicates")
# The same of other measures: over three training seeds at the quick scale, whose ratios have an sd
# of 6.3 points, beyond their intervals; those of quality at 12 checkpoints of one size. Shares of
# samples take the ratio's: theirs was 1 to 8 points, most of recall and twins, least of coverage.
PER_POINT = {
    "knn_distance": KNN_PER_POINT,
    "twin_similarity": 0.0035,  # sd of 2.2 % at 0.67 and at 0.89
    "kappa": 0.0055,  # 3.4 % at 0.02 to 0.2, of which none is of the images: all seeds had the same
    "kappa_training": 0.012,  # 7.5 % above 0.03
    "fid": 0.006,  # 3.7 %
    "fid_training": 0.025,  # 16 %
    "kid": 0.01,  # 6.6 %
    "density": 0.008,  # 5.3 %
}


def is_known(metric: str) -> bool:
    """Whether it is known how a metric varies over training seeds, if only not at all."""
    return is_share(metric) or of_data(metric) or metric in PER_POINT


def is_share(metric: str) -> bool:
    """Whether a metric is a share of a run's samples, or of the images that these reach."""
    return column(metric).limits == (0, 100) and not of_data(metric)


def of_data(metric: str) -> bool:
    """Whether a metric is of held-out images and the training set, in which no network has part."""
    held_out = metric.endswith("_held_out") and metric != "coverage_held_out"
    return held_out or metric in OF_DATA


def other_share(shares: Draws, run: str, run_sd: float) -> Draws:
    """Shares (DRAWS,) in 0..1 as another run of these settings would have them.

    Normal on the arcsine scale, where a binomial's standard deviation is the same everywhere: it
    vanishes at 0 and 100 %. One error for all shares of a run.
    """
    errors = generator("run", run).standard_normal(DRAWS) * run_sd / 100
    return np.sin(np.clip(np.arcsin(np.sqrt(shares)) + errors, 0, np.pi / 2)) ** 2


def other_run(metric: str, drawn: Draws, run: str, run_sd: float) -> Draws:
    """A metric's draws (DRAWS,), as stored, as another run would have them."""
    if of_data(metric):
        return drawn
    if is_share(metric):
        return other_share(drawn.clip(0, 1), run, run_sd)
    errors = generator("distance", run).standard_normal(DRAWS)  # one for all measures of a run
    return drawn * np.exp(PER_POINT.get(metric, 0.0) * run_sd * errors)
