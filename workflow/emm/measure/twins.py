"""Twins: samples that two networks make of the same noise, trained on disjoint images.

Kadkhodaie et al. 2024 (ICLR, arXiv 2310.02557): networks that memorize make different images of the
same noise, networks that generalize nearly the same ones, which no training image is as near to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emm.analyse.parquet import write_table
from emm.data.stage import Subset, read_subset
from emm.diffusion.samples import Samples, read_samples
from emm.errors import UserError
from emm.measure import unmeasurable
from emm.measure.heldout import among
from emm.score.criteria import nearest_distance, share_of
from emm.score.nearest import array_module, two_nearest
from emm.seeds import derive

REPRODUCED = 0.6  # similarity above which samples are the same image: Zhang et al. 2024
RESAMPLES = 1000
BLOCK = 1024  # samples whose similarities to all training images are held at a time

Images = NDArray[np.uint8]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Side:
    """One network of two: a folder with its samples, and its training set."""

    samples: Path
    subset: Path


def measure_twins(own: Side, other: Side, output: Path, *, device: str = "auto") -> pd.DataFrame:
    """Compare the samples of all checkpoints of two runs, pair by pair, and write the table.

    A row per checkpoint; columns as `compare` has them. UserError where the runs differ in more
    than their images, or share some.
    """
    first, second = (read_samples(side.samples) for side in (own, other))
    subsets = [read_subset(side.subset) for side in (own, other)]
    _check_twins(first, second)
    _check_disjoint(*subsets, own.subset)
    training, rows = [subset.images[~subset.is_dummy] for subset in subsets], []
    for (about, images), (_, others) in zip(first.checkpoints(), second.checkpoints(), strict=True):
        seed = derive(first.settings["eval.seed"], "twins", about["step"])
        about |= {"twin": second.index["run"]}
        rows.append(about | compare([images, others], training, seed, device))
    frame = pd.DataFrame(rows)
    write_table(output, frame)
    return frame


def _check_twins(own: Samples, other: Samples) -> None:
    """Refuse runs that differ in more than the part of the data."""
    for key in sorted({*own.settings, *other.settings}):
        values = [found.settings.get(key) for found in (own, other)]
        if key != "data.part" and values[0] != values[1]:
            raise UserError(
                f"{own.folder}: no twin: runs differ in {key} ({values[0]}, {values[1]})"
            )
    if reason := unmeasurable("twins", own.settings):
        raise UserError(f"{own.folder}: {reason}")
    if own.steps != other.steps:
        raise UserError(f"{other.folder}: has other checkpoints than {own.folder}")


def _check_disjoint(own: Subset, other: Subset, where: Path) -> None:
    shared = np.intersect1d(own.index[~own.is_dummy], other.index[~other.is_dummy])
    if len(shared):
        raise UserError(f"{where}: {len(shared)} training images are in both halves; none may be")


def compare(
    images: list[Images], training: list[Images], seed: int = 0, device: str = "cpu"
) -> dict[str, float]:
    """How alike paired samples (N, H, W, C) of two networks are, by column; N >= 2.

    twin_similarity: cosine of images less the mean of all training images. _unpaired: the same for
    samples of different noise, the chance level; _nearest: of each sample and the training image
    of its own network that is most like it. twin_distance: root mean square over components, grey
    levels; likewise _unpaired. twin_closer: share of pairs that are nearer to each other than
    either is to its nearest training image; twin_reproduced: with a similarity above 0.6.
    n_shared: training images of the first network that equal one of the second's. Means
    with 95 % bootstrap intervals over pairs, shares with those of Wilson: _low, _high.
    """
    mean = np.concatenate(training).mean(axis=0, dtype=np.float64).astype(np.float32)
    first, second = (_directions(part, mean) for part in images)
    half = len(first) // 2 or 1
    distances = _distances(images[0], images[1])
    near = [_nearest(*pair, mean, device) for pair in zip(images, training, strict=True)]
    similarity = (first * second).sum(axis=1)
    means = {
        "twin_similarity": similarity,
        "twin_similarity_unpaired": (first * np.roll(second, half, axis=0)).sum(axis=1),
        "twin_similarity_nearest": np.mean([likeness for likeness, _ in near], axis=0),
        "twin_distance": distances,
        "twin_distance_unpaired": _distances(images[0], np.roll(images[1], half, axis=0)),
    }
    closer = (distances < np.minimum(*(distance for _, distance in near))).sum()
    return {
        "n_pairs": len(first),
        "n_shared": int(among(*training).sum()),
        **_means(means, seed),
        **share_of("twin_closer", int(closer), len(first)),
        **share_of("twin_reproduced", int((similarity > REPRODUCED).sum()), len(first)),
    }


def _directions(images: Images, mean: NDArray[np.float32]) -> Vectors:
    """Unit vectors (N, D) of images less a mean; of one that equals it, zero."""
    flat = (images - mean).reshape(len(images), -1)
    norms = np.linalg.norm(flat, axis=1, keepdims=True)
    return np.divide(flat, norms, out=np.zeros_like(flat), where=norms > 0)


def _distances(images: Images, others: Images) -> NDArray[np.float64]:
    """Root mean square differences (N,) of pairs, in grey levels."""
    apart = (images.astype(np.float32) - others).reshape(len(images), -1)
    return np.sqrt(np.square(apart).mean(axis=1, dtype=np.float64))


def _nearest(
    images: Images, training: Images, mean: NDArray[np.float32], device: str
) -> tuple[Vectors, NDArray[np.float64]]:
    """Of each sample: similarity to the most similar training image, distance to the nearest."""
    known = _directions(training, mean).T
    blocks = (images[at : at + BLOCK] for at in range(0, len(images), BLOCK))
    likeness = np.concatenate([(_directions(part, mean) @ known).max(axis=1) for part in blocks])
    found = two_nearest(images, training, xp=array_module(device)).squared_distances
    return likeness, nearest_distance(found, training[0].size)


def _means(values: Mapping[str, NDArray[Any]], seed: int) -> dict[str, float]:
    """Means with the 95 % percentile intervals of a bootstrap over pairs."""
    table = np.stack(list(values.values()), axis=-1).astype(np.float64)  # (N, K)
    rng = np.random.default_rng(seed)
    drawn = np.stack([
        table[rng.integers(len(table), size=len(table))].mean(axis=0) for _ in range(RESAMPLES)
    ])  # fmt: skip
    ends = np.quantile(drawn, [0.025, 0.975], axis=0)
    found = {}
    for column, name in enumerate(values):
        low, high = map(float, ends[:, column])
        found |= {name: float(table[:, column].mean()), f"{name}_low": low, f"{name}_high": high}
    return found
