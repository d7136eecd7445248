"""Samples against what an autoencoder makes of the training images.

A model that works on latents cannot draw a training image, only its reconstruction: the blur of
the autoencoder is in the distance to the nearest image, and hides copies.
"""

from types import ModuleType

import numpy as np

from emm.score.criteria import copies_of
from emm.score.stage import score_arrays

RATIO = "memorization_ratio_reconstructed"
COLUMNS = ("n_memorized_reconstructed", RATIO, f"{RATIO}_low", f"{RATIO}_high")


def summarise(
    images: np.ndarray, reconstructed: np.ndarray, duplicates: str, xp: ModuleType
) -> dict[str, float]:
    """COLUMNS of samples uint8 (N, H, W, C) against reconstructed training images (M, H, W, C).

    The fraction has its 95 % Wilson interval, as `criteria.summarise` gives it.
    """
    neighbours = score_arrays(images, reconstructed, duplicates, xp).neighbours
    return copies_of("reconstructed", neighbours.squared_distances)
