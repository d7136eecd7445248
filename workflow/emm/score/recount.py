"""Copies counted again at any threshold, from the scores of all samples of any number of runs.

A file at a time per thread, and of it only the columns that tell checkpoints apart and the two
distances: memory stays that of a file, however many there are.
"""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from emm.errors import UserError
from emm.files import checked
from emm.score.criteria import THRESHOLD, is_memorized, share_of
from emm.score.stage import open_scores

MOST = 1000  # as a denominator: the products of exact distances still fit in 64 bits
WORDS = ("run", "evaluation")
KEY = (*WORDS, "step")
DISTANCES = ("d1_squared", "d2_squared")


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

    Columns as in the memorization table, which `run`, `evaluation` and `step` join, with the 95 %
    Wilson interval; `threshold` as float.
    Missing and damaged files are UserErrors.
    """
    with ThreadPoolExecutor(threads) as pool:
        found = pool.map(lambda path: _of_file(path, thresholds), paths)
        return pd.DataFrame([row for rows in found for row in rows])


def _of_file(path: Path, thresholds: Sequence[Fraction]) -> list[dict[str, Any]]:
    found = checked(path, lambda file: _counts(file, thresholds))
    return [
        _row(path, key, threshold, int(count), int(copies))
        for key, (count, *all_copies) in found.items()
        for threshold, copies in zip(thresholds, all_copies, strict=True)
    ]


def _row(
    path: Path, key: tuple[str, str, int], threshold: Fraction, count: int, copies: int
) -> dict[str, Any]:
    return {
        "file": str(path),
        **dict(zip(KEY, key, strict=True)),
        "threshold": float(threshold),
        "n_samples": count,
        "n_memorized": copies,
        **share_of("memorization_ratio", copies, count),
    }


def _counts(
    path: Path, thresholds: Sequence[Fraction]
) -> dict[tuple[str, str, int], NDArray[np.int64]]:
    """Samples, and those below each threshold, by run, evaluation and step."""
    with open_scores(path, dictionaries=WORDS) as file:
        table = file.read([*KEY, *DISTANCES], use_threads=False).unify_dictionaries()
    words = [table[name].combine_chunks() for name in WORDS]
    codes = [column.indices.to_numpy() for column in words] + [table["step"].to_numpy()]
    columns = [table[name].to_numpy() for name in DISTANCES]
    changes = np.logical_or.reduce([code[1:] != code[:-1] for code in codes])
    counts: dict[tuple[str, str, int], NDArray[np.int64]] = {}
    for start, end in pairwise([0, *(np.flatnonzero(changes) + 1), len(table)]):
        distances = np.stack([column[start:end] for column in columns], dtype=np.int64).T
        copies = (np.count_nonzero(is_memorized(distances, t)) for t in thresholds)
        run, evaluation = (column[start].as_py() for column in words)
        key = (run, evaluation, int(codes[-1][start]))
        counts[key] = counts.get(key, 0) + np.array([end - start, *copies])
    return counts
