"""Scoring of a run's evaluation: every checkpoint's samples against the run's own training set."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from emm.analyse.parquet import write_table
from emm.data.orbits import moves
from emm.data.stage import Subset, read_subset
from emm.diffusion.samples import Samples, read_samples
from emm.errors import UserError
from emm.files import write_arrays
from emm.score import copies, mondrian, orbits, reconstructed
from emm.score.criteria import best_checkpoint
from emm.score.label_hits import LabelHits
from emm.score.nearest import array_module
from emm.score.stage import ScoreTable, gallery, score_arrays, summary_rows, write_scores

Classifier = Callable[[np.ndarray, np.ndarray], dict[str, Any]]


def score_run(
    samples: Path,
    subset_path: Path,
    output: Path,
    *,
    summary: Path,
    pictures: Path,
    picture_count: int = 64,
    duplicates: str = "distinct",
    device: str = "auto",
) -> pd.DataFrame:
    """Score all checkpoints in a folder of samples; returns the summary, a row per checkpoint.

    Writes the scores of all samples to `output`, the summary with the run's settings to `summary`,
    and the first samples of the best checkpoint with their neighbours to `pictures`.
    """
    sampled, subset = read_samples(samples), read_subset(subset_path)
    tables = list(_score(sampled, subset, duplicates, array_module(device)))
    index = sampled.index
    write_scores(output, tables, run=index["run"], evaluation=index["evaluation"])
    frame = pd.DataFrame(summary_rows(tables))
    best = tables[best_checkpoint(frame["memorization_ratio"])]
    write_arrays(pictures, _pictures(best, sampled, subset.images, picture_count))
    frame = _with_settings(frame, sampled)
    write_table(summary, frame)
    return frame


def reference(subset: Subset, label: str) -> slice:
    """Rows of a subset that samples are compared with: all, or those of the label asked for.

    label: eval.label. UserError where that leaves fewer than two images.
    """
    first, count = len(subset) - subset.n_dummy, len(subset)
    ends = {"data": (0, first), "dummy": (first, count)}.get(label, (0, count))
    if ends[1] - ends[0] < 2:
        raise UserError(
            f"eval.label {label}: the distance ratio needs two such training images; there are "
            f"{ends[1] - ends[0]}"
        )
    return slice(*ends)


def _score(
    samples: Samples, subset: Subset, duplicates: str, xp: ModuleType
) -> Iterator[ScoreTable]:
    """Scores of each checkpoint; neighbours are rows of the whole subset.

    The reference of a training with augmentation are the orbits of its images.
    """
    settings = samples.settings
    orbit = moves(settings["train.augment"], settings["train.shift"])
    rows = reference(subset, settings["eval.label"])
    training, classify = subset.images[rows], _classifier(settings, subset)
    compare, hits = _reconstructed(samples, duplicates, xp), LabelHits(subset)
    count_copies = copies.counter(subset, rows)
    for entry in samples.index["checkpoints"]:
        arrays = samples.arrays(entry["file"])
        images = arrays["images"]
        _check_shape(samples.folder, images, training)
        found = score_arrays(images, training, duplicates, xp, orbit)
        indices = found.neighbours.indices + rows.start
        result = replace(found, neighbours=found.neighbours._replace(indices=indices))
        labels = arrays.get("labels")
        single = labels if labels is None or labels.ndim == 1 else None  # the files have one each
        table = ScoreTable(entry["epoch"], entry["step"], settings["train.ema"], result, single)
        about = classify(images, result.neighbours.squared_distances)
        facts = about["facts"] | compare(images) | count_copies(result)
        facts |= hits.summarise(labels, result.neighbours.indices[:, 0], result.memorized)
        if len(orbit) > 1:
            facts |= orbits.summarise(images, training, duplicates, xp)
        yield replace(table, **about | {"facts": facts})


def _check_shape(samples: Path, images: np.ndarray, training: np.ndarray) -> None:
    if images.shape[1:] != training.shape[1:]:
        raise UserError(
            f"{samples}: samples of shape {images.shape[1:]}, "
            f"training images of {training.shape[1:]}"
        )


def _classifier(settings: Mapping[str, Any], subset: Subset) -> Classifier:
    """Finds the Mondrian images among samples, where the data of a run are of this kind."""
    crosses = mondrian.crosses_of(settings, subset.images.shape[1])
    if crosses is None:
        return lambda images, distances: {"facts": dict.fromkeys(mondrian.COLUMNS, np.nan)}
    known = mondrian.find_layouts(subset.images[~subset.is_dummy], crosses)

    def classify(images: np.ndarray, distances: np.ndarray) -> dict[str, Any]:
        found = mondrian.find_layouts(images, crosses)
        facts = mondrian.summarise(images, found, distances, known, crosses)
        return {"mondrian": mondrian.is_mondrian(found), "facts": facts}

    return classify


def _reconstructed(
    samples: Samples, duplicates: str, xp: ModuleType
) -> Callable[[np.ndarray], dict[str, float]]:
    """Compares samples with the reconstructed training images, where there are any."""
    if "reconstructions" not in samples.index:
        return lambda images: {}
    known = samples.arrays(samples.index["reconstructions"])["images"]
    return lambda images: reconstructed.summarise(images, known, duplicates, xp)


def _pictures(
    table: ScoreTable, samples: Samples, training: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    entry = next(e for e in samples.index["checkpoints"] if e["step"] == table.step)
    images = samples.arrays(entry["file"])["images"]
    return {
        **gallery(images, training, table, count),
        "count": np.int64(count),
        "epoch": np.float64(table.epoch),
        "memorization_ratio": np.float64(table.result.memorized.mean()),
    }


def _with_settings(frame: pd.DataFrame, samples: Samples) -> pd.DataFrame:
    """Summary rows with the ids and all settings of their run in front."""
    settings = samples.settings
    count = len(frame)
    columns = {key: [value] * count for key, value in {**samples.about, **settings}.items()}
    columns["horizon"] = [float(settings["train.epochs"])] * count
    return pd.concat([pd.DataFrame(columns), frame.drop(columns="ema")], axis=1)
