"""Copies counted again at any threshold, from the scores of all samples of any number of runs.

A file at a time per thread, and of its columns the two distances alone: what a checkpoint is called
stands in the statistics of its row group.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from emm.errors import UserError
from emm.files import checked
from emm.score.criteria import THRESHOLD, is_memorized, wilson_interval
from emm.score.stage import open_scores

MOST = 1000  # as a denominator: the products of exact distances still fit in 64 bits
DISTANCES = ["d1_squared", "d2_squared"]
COMMON = ("run", "evaluation", "epoch", "step", "ema")  # the first columns of a score file


def threshold_from(text: str) -> Fraction:
    """A threshold of d1/d2 such as 1/3, 0.4 or 1; UserError unless in 0..1 and of few digits."""
    try:
        threshold = Fraction(text)
    except (ValueError, ZeroDivisionError):
        threshold = None
    if threshold is None or not 0 < threshold <= 1 or threshold.denominator > MOST:
        raise UserError(
            f"--threshold {text}: write a fraction above 0, at most 1, with a denominator up to "
            f"{MOST}, such as 1/3 or 0.4"
        )
    return threshold


def score_files(places: Iterable[Path]) -> list[Path]:
    """Score files, and those that lie anywhere in folders, each once; UserError for none."""
    found: dict[Path, None] = {}
    for place in places:
        inside = sorted(place.rglob("scores.parquet")) if place.is_dir() else [place]
        if not inside:
            raise UserError(f"{place}: no scores.parquet in it")
        found |= dict.fromkeys(inside)
    return list(found)


def recount(
    paths: Sequence[Path], thresholds: Sequence[Fraction] = (THRESHOLD,), threads: int = 1
) -> pd.DataFrame:
    """Samples with d1/d2 < threshold, strictly and exactly: a row per file, checkpoint, threshold.

    Columns as in the memorization table, with the 95 % Wilson interval; `threshold` as float.
    Missing and damaged files are UserErrors.
    """
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda path: _of_file(path, thresholds), paths)
        return pd.DataFrame([row for rows in found for row in rows])


def _of_file(path: Path, thresholds: Sequence[Fraction]) -> list[dict[str, Any]]:
    return checked(path, lambda file: list(_rows(file, thresholds)))


def _rows(path: Path, thresholds: Sequence[Fraction]) -> Iterator[dict[str, Any]]:
    with open_scores(path) as file:
        checkpoints = [_checkpoint(file.metadata.row_group(i)) for i in range(file.num_row_groups)]
        distances = _distances(file)
    ends = np.cumsum([0, *(count for _, count in checkpoints)])
    if ends[-1] != len(distances):
        raise ValueError("the number of rows differs from that of its checkpoints")
    for threshold in thresholds:
        memorized = is_memorized(distances, threshold)
        for (about, count), (start, end) in zip(checkpoints, pairwise(ends), strict=True):
            copies = int(np.count_nonzero(memorized[start:end]))
            low, high = wilson_interval(copies, count)
            yield {
                "file": str(path),
                **about,
                "threshold": float(threshold),
                "n_samples": count,
                "n_memorized": copies,
                "memorization_ratio": copies / count,
                "memorization_ratio_low": low,
                "memorization_ratio_high": high,
            }


def _distances(file: pq.ParquetFile) -> np.ndarray:
    """Squared distances (N, 2), a column in one piece."""
    table = file.read(DISTANCES, use_threads=False)
    return np.stack([table[name].to_numpy() for name in DISTANCES]).T


def _checkpoint(group: pq.RowGroupMetaData) -> tuple[dict[str, Any], int]:
    """What the samples of a row group have in common, and how many they are."""
    common = {}
    for index in range(len(COMMON)):
        column = group.column(index)
        statistics = column.statistics
        if statistics is None or not statistics.has_min_max or statistics.min != statistics.max:
            raise ValueError(f"{column.path_in_schema} differs within a checkpoint")
        common[column.path_in_schema] = statistics.max  # the min of zeros is written as -0.0
    return common, group.num_rows
