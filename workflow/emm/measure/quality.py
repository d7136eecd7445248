"""Quality of samples beside memorization: how near they are to images that nobody trained on.

A network that copies has a Frechet distance of nothing to its own training set; so samples are
compared with held-out images of the same source, and with the training set only to show that.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from emm.analyse.parquet import write_table
from emm.data.stage import Subset, read_source, read_subset
from emm.data.subsets import random_order
from emm.diffusion.samples import read_samples
from emm.errors import UserError
from emm.measure.features import Features, load_features
from emm.measure.fidelity import NEIGHBOURS, balls, kid
from emm.measure.frechet import Estimate, fid, frechet_distance, moments
from emm.measure.heldout import drawn_from, held_out
from emm.train.device import choose_device

LEAST = NEIGHBOURS + 2  # images of each side, for a neighbourhood that is not everything


@dataclass(frozen=True)
class Reference:
    """Features of held-out images (M, d), and of the training images (n, d) where these are known.

    fid_copier: distance of the training images themselves from the held-out ones, which a network
    that only replays them would have; NaN where they are unknown.
    """

    held_out: Tensor
    training: Tensor | None = None
    fid_copier: float = np.nan


def reference_of(features: Features, real: np.ndarray, training: np.ndarray | None) -> Reference:
    """Reference of held-out and training images, uint8 (N, H, W, C)."""
    known = features(real)
    if training is None:
        return Reference(known)
    own = features(training)
    return Reference(known, own, frechet_distance(moments(own), moments(known)))


def compare(samples: Tensor, reference: Reference) -> dict[str, float]:
    """All measures of the features of samples (N, d), each with its 95 % interval.

    FID in squared units of the features: `fid` to held-out images, `fid_training` to the training
    set, `fid_gap` the first without the second; `kid`; `precision`, `recall`, `density` and
    `coverage_held_out` as in emm.measure.fidelity.
    """
    away = fid(samples, reference.held_out)
    found = {"fid": away.estimate(least=0.0), "kid": kid(samples, reference.held_out)}
    if reference.training is not None:
        own = fid(samples, reference.training, vary_reference=False)
        found |= {"fid_training": own.estimate(least=0.0), "fid_gap": (away - own).estimate()}
    found |= balls(samples, reference.held_out)
    return _columns(found) | {"fid_copier": reference.fid_copier}


def _columns(found: Mapping[str, Estimate]) -> dict[str, float]:
    return {
        f"{name}{end}": value
        for name, one in found.items()
        for end, value in (("", one.value), ("_low", one.low), ("_high", one.high))
    }


def measure_quality(
    samples: Path,
    subset_path: Path,
    source_path: Path,
    output: Path,
    *,
    kind: str = "classifier",
    weights: Path | None = None,
    device: str = "auto",
    threads: int = 1,
) -> pd.DataFrame:
    """Compare the samples of all checkpoints of an evaluation, and write a row for each.

    As many samples as held-out images: all samples, or as many as images are held out. Columns as
    in `compare`, with `n_quality`, the number, and `quality_features`, the features. UserError
    where fewer than seven are held out, or samples are of dummies too.
    """
    torch.set_num_threads(threads)
    sampled, subset = read_samples(samples), read_subset(subset_path)
    features = load_features(kind, weights, choose_device(device))
    real = _held_out(source_path, subset, sampled.settings)
    reference = reference_of(features, real, subset.images[~subset.is_dummy])
    rows = []
    for about, images in sampled.checkpoints():
        images = images[: len(real)]
        about |= {"n_quality": len(images), "quality_features": kind}
        rows.append(about | compare(features(images), reference))
    frame = pd.DataFrame(rows)
    write_table(output, frame)
    return frame


def _held_out(source_path: Path, subset: Subset, settings: Mapping[str, Any]) -> np.ndarray:
    """As many held-out images as there are samples, or all that there are."""
    if subset.n_dummy and settings["eval.label"] != "data":
        raise UserError(
            "quality: samples of a training with dummies are of both; take eval.label: data"
        )
    count, seed = settings["eval.num_samples"], settings["eval.seed"]
    source = read_source(source_path)
    real, _ = held_out(source, subset, count, seed, drawn_from(source, settings))
    if min(len(real), count) < LEAST:
        raise UserError(
            f"quality: {len(real)} held-out images and {count} samples; it takes {LEAST} of each"
        )
    return real


def compare_images(
    samples: np.ndarray,
    real: np.ndarray,
    training: np.ndarray | None = None,
    *,
    kind: str = "pixels",
    weights: Path | None = None,
    device: str = "auto",
    seed: int = 0,
) -> dict[str, float]:
    """Compare samples with real images, uint8 (N, H, W, C): as many of each, drawn by the seed.

    Columns as in `compare`, without those of training images where there are none. UserError where
    shapes differ or images are too few.
    """
    for other in filter(lambda images: images is not None, (real, training)):
        if other.shape[1:] != samples.shape[1:]:
            raise UserError(f"samples of shape {samples.shape[1:]}, others of {other.shape[1:]}")
    count = min(len(samples), len(real))
    if count < LEAST:
        raise UserError(f"{len(samples)} samples, {len(real)} others; it takes {LEAST} of each")
    samples, real = (_drawn(images, count, seed) for images in (samples, real))
    features = load_features(kind, weights, choose_device(device))
    found = compare(features(samples), reference_of(features, real, training))
    return {"n_quality": count} | {key: v for key, v in found.items() if v == v}


def _drawn(images: np.ndarray, count: int, seed: int) -> np.ndarray:
    return images[random_order(np.arange(len(images)), seed, "quality")[:count]]
