"""Whether copies are of images with the label that they were drawn for."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from emm.data.stage import Subset
from emm.score.criteria import share_of

RATIO = "label_hit_ratio"
COLUMNS = ("n_label_hits", RATIO, f"{RATIO}_low", f"{RATIO}_high", "label_hit_chance")


@dataclass(frozen=True, eq=False)
class LabelHits:
    """The labels of a training set: of each group of equal images, all that it has."""

    subset: Subset

    @cached_property
    def groups(self) -> np.ndarray:
        """Images that are equal to the byte form a group (N,), named by the first of them."""
        first: dict[bytes, int] = {}
        names = [first.setdefault(im.tobytes(), row) for row, im in enumerate(self.subset.images)]
        return np.array(names)

    def found(self, labels: np.ndarray, nearest: np.ndarray) -> np.ndarray:
        """Whether the training images at rows `nearest` (M,) have the label of each sample.

        labels: (M,), or (M, K) where any of K labels counts. Of equal images each label counts.
        """
        width = max(self.subset.label_dim, labels.max(initial=0) + 1)
        known = self.groups * width + self.subset.labels
        told = labels.reshape(len(labels), -1)
        return np.isin(self.groups[nearest, None] * width + told, known).any(axis=1)

    def chance(self, labels: np.ndarray, nearest: np.ndarray) -> float:
        """The share of hits to expect if the labels were dealt anew among these samples."""
        told = labels.reshape(len(labels), -1)
        counts = np.bincount(self.subset.labels[nearest], minlength=told.max(initial=0) + 1)
        return float(counts[told].sum(axis=1).mean() / len(nearest))

    def summarise(
        self, labels: np.ndarray | None, nearest: np.ndarray, memorized: np.ndarray
    ) -> dict[str, float]:
        """COLUMNS of one set of samples, over its copies; NaN without labels or copies.

        labels: of the samples, (M,) or (M, K); nearest: rows (M,) of the training set; memorized:
        the verdicts (M,). The share has its 95 % Wilson interval.
        """
        if labels is None or not self.subset.label_dim or not memorized.any():
            return dict.fromkeys(COLUMNS, np.nan)
        told, copied = labels[memorized], nearest[memorized]
        hits, count = int(self.found(told, copied).sum()), len(copied)
        chance = {"label_hit_chance": self.chance(told, copied)}
        return {"n_label_hits": float(hits), **share_of(RATIO, hits, count), **chance}
