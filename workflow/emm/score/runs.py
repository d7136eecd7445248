"""Scoring of a run's evaluation: every checkpoint's samples against the run's own training set."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from emm.analyse.parquet import write_table
from emm.data.stage import read_subset
from emm.diffusion import SAMPLE_INDEX
from emm.errors import UserError
from emm.files import checked, read_arrays, write_arrays
from emm.score.criteria import best_checkpoint, is_memorized
from emm.score.nearest import array_module
from emm.score.stage import ScoreTable, gallery, score_arrays, summary_rows, write_scores


def is_run(samples: Path) -> bool:
    """Whether a folder holds the samples of a run, as `emm sample` writes them."""
    return (samples / SAMPLE_INDEX).is_file()


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
    index = checked(samples / SAMPLE_INDEX, lambda path: json.loads(path.read_text()))
    training = read_subset(subset_path).images
    tables = list(_score(index, samples, training, duplicates, array_module(device)))
    write_scores(output, tables, run=index["run"], evaluation=index["evaluation"])
    frame = pd.DataFrame(summary_rows(tables))
    best = tables[best_checkpoint(frame["memorization_ratio"])]
    write_arrays(pictures, _pictures(best, index, samples, training, picture_count))
    frame = _with_settings(frame, index)
    write_table(summary, frame)
    return frame


def _score(
    index: Mapping[str, Any],
    samples: Path,
    training: np.ndarray,
    duplicates: str,
    xp: ModuleType,
) -> Iterator[ScoreTable]:
    for entry in index["checkpoints"]:
        arrays = read_arrays(samples / entry["file"])
        if arrays["images"].shape[1:] != training.shape[1:]:
            raise UserError(
                f"{samples}: samples of shape {arrays['images'].shape[1:]}, "
                f"training images of {training.shape[1:]}"
            )
        result = score_arrays(arrays["images"], training, duplicates, xp)
        ema = index["settings"]["train.ema"]
        yield ScoreTable(entry["epoch"], entry["step"], ema, result, arrays.get("labels"))


def _pictures(
    table: ScoreTable, index: Mapping[str, Any], samples: Path, training: np.ndarray, count: int
) -> dict[str, np.ndarray]:
    entry = next(e for e in index["checkpoints"] if e["step"] == table.step)
    images = read_arrays(samples / entry["file"])["images"]
    arrays = gallery(images, training, table.result.neighbours, table.labels, count)
    ratio = is_memorized(table.result.neighbours.squared_distances).mean()
    return arrays | {"epoch": np.float64(table.epoch), "memorization_ratio": np.float64(ratio)}


def _with_settings(frame: pd.DataFrame, index: Mapping[str, Any]) -> pd.DataFrame:
    """Summary rows with the ids and all settings of their run in front."""
    settings = index["settings"]
    count = len(frame)
    front = {"run": index["run"], "evaluation": f"{index['run']}/{index['evaluation']}"}
    columns = {key: [value] * count for key, value in (front | settings).items()}
    columns["horizon"] = [float(settings["train.epochs"])] * count
    return pd.concat([pd.DataFrame(columns), frame.drop(columns="ema")], axis=1)
