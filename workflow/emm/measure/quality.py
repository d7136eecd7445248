"""Quality of samples beside memorization: how near they are to images that nobody trained on.

A network that copies has a Frechet distance of nothing to its own training set; so samples are
compared with held-out images of the same source, and with the training set only to show that.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
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
from emm.measure import LEAST, unmeasurable
from emm.measure.features import Features, load_features
from emm.measure.fidelity import balls, kid
from emm.measure.frechet import Estimate, fid
from emm.measure.heldout import drawn_from, held_out, require_new
from emm.seeds import derive
from emm.train.device import choose_device

UNKNOWN = Estimate(np.nan, np.nan, np.nan)


@dataclass(frozen=True)
class Reference:
    """Features of held-out images (M, d), and of the training images (n, d) where these are known.

    known: what is the same for all samples, FID by name (`fid_floor`, `fid_copier`).
    """

    held_out: Tensor
    training: Tensor | None = None
    known: Mapping[str, Estimate] = field(default_factory=dict)


def reference_of(
    features: Features,
    real: np.ndarray,
    training: np.ndarray | None = None,
    more: np.ndarray | None = None,
    seed: int = 0,
) -> Reference:
    """Reference of held-out and training images, uint8 (N, H, W, C).

    more: other held-out images. As many as are compared have the FID that a perfect network would
    have, `fid_floor`, which is not 0; NaN where there are fewer. `fid_copier` is that of as many
    draws from the training images, by the seed: of a network that only replays them.
    """
    held, count, known = features(real), len(real), {"fid_floor": UNKNOWN}
    if more is not None and len(more) >= count:
        known["fid_floor"] = fid(features(more[:count]), held).estimate(least=0.0)
    if training is None:
        return Reference(held, None, known)
    own = features(training)
    generator = torch.Generator().manual_seed(derive(seed, "copier"))
    drawn = torch.randint(len(own), (count,), generator=generator).to(own.device)
    return Reference(held, own, known | {"fid_copier": fid(own[drawn], held).estimate(least=0.0)})


def compare(samples: Tensor, reference: Reference) -> dict[str, float]:
    """All measures of the features of samples (N, d), each with its 95 % interval.

    FID in squared units of the features: `fid` to held-out images, `fid_training` to the training
    set, `fid_gap` the first without the second; `kid`; `precision`, `recall`, `density` and
    `coverage_held_out` as in emm.measure.fidelity; and what the reference knows.
    """
    away = fid(samples, reference.held_out)
    found = {"fid": away.estimate(least=0.0), "kid": kid(samples, reference.held_out)}
    if reference.training is not None:
        own = fid(samples, reference.training, vary_reference=False)
        found |= {"fid_training": own.estimate(least=0.0), "fid_gap": (away - own).estimate()}
    return _columns(found | balls(samples, reference.held_out) | dict(reference.known))


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
    where fewer than 14 are held out, or samples are of dummies too.
    """
    torch.set_num_threads(threads)
    sampled, subset = read_samples(samples), read_subset(subset_path)
    features = load_features(kind, weights, choose_device(device))
    real, more = _held_out(source_path, subset, sampled.settings)
    training, seed = subset.images[~subset.is_dummy], sampled.settings["eval.seed"]
    reference = reference_of(features, real, training, more, seed)
    rows = []
    for about, images in sampled.checkpoints():
        images = images[: len(real)]
        about |= {"n_quality": len(images), "quality_features": kind}
        rows.append(about | compare(features(images), reference))
    frame = pd.DataFrame(rows)
    write_table(output, frame)
    return frame


def _held_out(
    source_path: Path, subset: Subset, settings: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray]:
    """As many held-out images as there are samples, or all that there are; and more of them."""
    if reason := unmeasurable("quality", settings):
        raise UserError(f"quality: {reason}")
    count, seed = settings["eval.num_samples"], settings["eval.seed"]
    source = read_source(source_path)
    found, _ = held_out(source, subset, 2 * count, seed, drawn_from(source, settings))
    if len(found) < LEAST:
        raise UserError(f"quality: {len(found)} held-out images: it takes {LEAST}")
    return found[:count], found[count:]


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
    if training is not None:
        require_new(real, training)
    count = min(len(samples), len(real))
    if count < LEAST:
        raise UserError(f"{len(samples)} samples, {len(real)} others; it takes {LEAST} of each")
    samples, found = _shuffled(samples, seed)[:count], _shuffled(real, seed)
    features = load_features(kind, weights, choose_device(device))
    reference = reference_of(features, found[:count], training, found[count:], seed)
    found = compare(features(samples), reference)
    return {"n_quality": count} | {key: v for key, v in found.items() if v == v}


def _shuffled(images: np.ndarray, seed: int) -> np.ndarray:
    return images[random_order(np.arange(len(images)), seed, "quality")]
