"""Criteria of copying as a stage: samples of an evaluation, or any, in; rows of numbers out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from emm.analyse.parquet import write_table
from emm.data.stage import Subset, read_source, read_subset
from emm.diffusion.samples import read_samples
from emm.errors import UserError
from emm.measure import HELD_OUT, unmeasurable
from emm.measure.criteria import RATIO, compare, make_reference
from emm.measure.heldout import NothingHeldOutError, drawn_from, held_out, require_new
from emm.score.nearest import array_module
from emm.score.runs import reference as rows_compared
from emm.score.stage import load_images, same_channels


def measure_criteria(
    samples: Path, subset_path: Path, source_path: Path, output: Path, *, device: str = "auto"
) -> pd.DataFrame:
    """Apply all criteria to a run's samples, and write the table: a row per checkpoint.

    Columns as in emm.measure.criteria, but for the memorization ratio, which the run's scores
    have, after those that tell the checkpoint. Held-out images come from what the training set was
    drawn from. UserError for a run with augmentation, whose orbits only the rule of 1/3 heeds.
    """
    sampled, xp = read_samples(samples), array_module(device)
    settings = sampled.settings
    if reason := unmeasurable("criteria", settings):
        raise UserError(f"{samples}: {reason}")
    subset = read_subset(subset_path)
    images = subset.images[rows_compared(subset, settings["eval.label"])]
    known = make_reference(images, _others(settings, source_path, subset), xp)
    rows = [about | compare(found, known, xp) for about, found in sampled.checkpoints()]
    frame = pd.DataFrame(rows).drop(columns=[RATIO, f"{RATIO}_low", f"{RATIO}_high"])
    write_table(output, frame)
    return frame


def _others(settings: Mapping[str, Any], source_path: Path, subset: Subset) -> np.ndarray | None:
    """Held-out images of the data; None where the subset is all of it, or copies are of dummies."""
    if settings["eval.label"] == "dummy":
        return None
    source = read_source(source_path)
    pool, seed = drawn_from(source, settings), settings["eval.seed"]
    try:
        return held_out(source, subset, HELD_OUT, seed, pool)[0]
    except NothingHeldOutError:
        return None


def compare_images(
    samples: Path, training: Path, others: Path | None = None, device: str = "auto"
) -> dict[str, float]:
    """All criteria of samples in a folder or array, as of a run's; others: held-out images.

    UserError where their sizes differ, or for what is no image.
    """
    known, xp = load_images(training), array_module(device)
    images, known = same_channels(load_images(samples), known)
    new = None if others is None else _alike(others, known)
    return compare(images, make_reference(known, new, xp), xp)


def _alike(path: Path, known: np.ndarray) -> np.ndarray:
    """Held-out images; UserError where training images have another size."""
    images = same_channels(load_images(path), known)[0]
    if images.shape[1:] != known.shape[1:]:
        shapes = ("x".join(map(str, part.shape[1:])) for part in (images, known))
        raise UserError("{}: held-out images are {}, training images {}".format(path, *shapes))
    require_new(images, known)
    return images
