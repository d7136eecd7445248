"""Criteria of copying side by side: samples, their training set and held-out images to numbers.

All distances are Euclidean, of 8-bit images, from exact integers. Repeated training images count
once. Shares are fractions, with 95 % Wilson intervals that take samples as independent.
"""

from fractions import Fraction
from types import ModuleType
from typing import NamedTuple

import numpy as np

from emm.errors import UserError
from emm.measure import NEAREST, PERCENTS
from emm.measure.hits import of_hits
from emm.score.criteria import THRESHOLD, is_memorized, share_of
from emm.score.k_nearest import k_nearest
from emm.score.nearest import Neighbours, occurrences

RATIO = "memorization_ratio"  # by the rule of 1/3
FALSE = 0.05  # share of held-out images that may be as near as samples which count as near
ALPHA = 0.5  # of the relative distance (Carlini et al. 2023, Section 5.1)


class Reference(NamedTuple):
    """Distinct training images uint8 (M, ...), and the squared distance of each to its nearest.

    held_out: the nearest training images of images of the same distribution that are not among
    them, or None where there are none.
    """

    images: np.ndarray
    spacing: np.ndarray
    held_out: Neighbours | None = None


def make_reference(
    training: np.ndarray, held_out: np.ndarray | None = None, xp: ModuleType | None = None
) -> Reference:
    """What samples are compared with; UserError unless two training images differ."""
    images = training[occurrences(training)[0]]
    if len(images) < 2:
        raise UserError(f"all {len(training)} training images are the same: two must differ")
    spacing = k_nearest(images, images, 1, apart=True, xp=xp).squared_distances[:, 0]
    new = None if held_out is None else k_nearest(held_out, images, NEAREST, xp=xp)
    return Reference(images, spacing, new)


def compare(
    samples: np.ndarray, reference: Reference, xp: ModuleType | None = None
) -> dict[str, float]:
    """All criteria of samples uint8 (N, ...), by column name.

    Names that end in `_held_out` are what a criterion says of held-out images, its false positives;
    these, and what is calibrated on them, are NaN where there are none. UserError for one sample.
    """
    if len(samples) < 2:
        raise UserError("one sample: spurious samples are told by others, which takes two")
    found = k_nearest(samples, reference.images, NEAREST, xp=xp)
    components = samples[0].size
    return {
        "n_held_out": 0 if reference.held_out is None else len(reference.held_out.indices),
        **_thresholds(found, reference.held_out),
        **_relative(found, reference.held_out),
        **_near(found, reference.held_out, components),
        **_authentic(found, reference),
        **_hits(found, len(reference.images)),
        **_split(samples, found, xp),
    }


def _share(name: str, verdicts: np.ndarray | None) -> dict[str, float]:
    """A share and its interval; NaN where nothing is judged."""
    if verdicts is None:
        return dict.fromkeys((name, f"{name}_low", f"{name}_high"), np.nan)
    return share_of(name, int(verdicts.sum()), len(verdicts))


def _thresholds(found: Neighbours, held_out: Neighbours | None) -> dict[str, float]:
    """Shares with d1/d2 below each threshold, and those of held-out images, also at 1/3."""
    columns: dict[str, float] = {}
    for percent in PERCENTS:
        threshold = Fraction(percent, 100)
        columns |= _share(f"ratio_share_{percent}", copies(found, threshold))
        new = None if held_out is None else copies(held_out, threshold)
        columns |= _share(f"ratio_share_{percent}_held_out", new)
    new = None if held_out is None else copies(held_out)
    columns |= _share(RATIO, copies(found))
    return columns | _share(f"{RATIO}_held_out", new)


def copies(found: Neighbours, threshold: Fraction = THRESHOLD) -> np.ndarray:
    """Whether d1/d2 is below a threshold, bool (N,), of neighbours (N, K) with K >= 2."""
    return is_memorized(found.squared_distances[:, :2], threshold)


def relative_distance(found: Neighbours) -> np.ndarray:
    """Distance to the nearest over half the mean distance to the 50 nearest, float64 (N,).

    Carlini et al. 2023, Section 5.1, with their alpha of 0.5. The nearest is one of the 50; with
    fewer training images the mean is over all, so that with two of them a value below 1 is the
    same as d1/d2 < 1/3. Where all are at distance 0 it is 2, that of equal distances.
    """
    distances = np.sqrt(found.squared_distances)
    mean = ALPHA * distances.mean(axis=1)
    return np.divide(distances[:, 0], mean, out=np.full(len(mean), 1 / ALPHA), where=mean > 0)


def _relative(found: Neighbours, held_out: Neighbours | None) -> dict[str, float]:
    distances = relative_distance(found)
    return {
        **_share("carlini_share", distances < 1),
        "carlini_q50": float(np.median(distances)),
        "carlini_neighbours": found.indices.shape[1],
        **_share(
            "carlini_share_held_out", None if held_out is None else relative_distance(held_out) < 1
        ),
    }


def near_limit(held_out: np.ndarray, share: float = FALSE) -> int | None:
    """Squared distance below which at most `share` of held-out images come, from M of them (M,).

    The distance of rank floor(share * (M + 1)): where all are drawn at random, one more image is
    nearer than that with at most this probability, whatever the distribution. None where M is too
    small.
    """
    rank = int(share * (len(held_out) + 1))
    return int(np.partition(held_out, rank - 1)[rank - 1]) if rank else None


def _near(found: Neighbours, held_out: Neighbours | None, components: int) -> dict[str, float]:
    """Samples nearer to a training image than 95 % of held-out images, and how near that is."""
    limit = None if held_out is None else near_limit(held_out.squared_distances[:, 0])
    near = None if limit is None else found.squared_distances[:, 0] < limit
    distance = np.nan if limit is None else float(np.sqrt(limit / components))
    return {**_share("near_share", near), "near_distance": distance}


def _authentic(found: Neighbours, reference: Reference) -> dict[str, float]:
    """AuthPct (Alaa et al. 2022; Stein et al. 2023): samples farther from the nearest training
    image than this is from its own nearest other.
    """
    judged = {"authentic_share": found, "authentic_share_held_out": reference.held_out}
    columns: dict[str, float] = {}
    for name, neighbours in judged.items():
        if neighbours is None:
            columns |= _share(name, None)
            continue
        nearest = neighbours.indices[:, 0]
        columns |= _share(name, neighbours.squared_distances[:, 0] > reference.spacing[nearest])
    return columns


def _hits(found: Neighbours, n_training: int) -> dict[str, float]:
    return of_hits(np.bincount(found.indices[copies(found), 0], minlength=n_training))


def _split(samples: np.ndarray, found: Neighbours, xp: ModuleType | None) -> dict[str, float]:
    """Spurious and novel samples, after Pham et al. 2025 (arXiv 2505.21777) by the rule of 1/3.

    Memorized, spurious (not so, but a twin of another sample) and novel make up all samples. Near
    triplets hide each other from the rule; `clustered_share` is that of samples which are not
    memorized and are less than a third as far from another sample as from any training image.
    """
    memorized = copies(found)
    twin, distances = twins(samples, xp)
    pairs = np.stack([distances, found.squared_distances[:, 0]], axis=1)
    return {
        **_share("spurious_share", twin & ~memorized),
        **_share("novel_share", ~twin & ~memorized),
        **_share("clustered_share", is_memorized(pairs) & ~memorized),
    }


def twins(samples: np.ndarray, xp: ModuleType | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Whether each sample is a copy of another one, bool (N,), and its squared distance, int64.

    By the rule of 1/3 among the other samples, of which equal ones count once: samples that are
    equal are twins. Where fewer than three differ, no others are. N >= 2.
    """
    flat = samples.reshape(len(samples), -1)
    _, first, group, count = np.unique(
        flat, axis=0, return_index=True, return_inverse=True, return_counts=True
    )
    group = group.reshape(-1)
    if len(first) < 2:
        return np.ones(len(samples), bool), np.zeros(len(samples), np.int64)
    others = k_nearest(samples[first], samples[first], 2, apart=True, xp=xp)
    similar = copies(others) if len(first) > 2 else np.zeros(2, bool)
    distances = np.where(count > 1, 0, others.squared_distances[:, 0])
    return (similar | (count > 1))[group], distances[group]
